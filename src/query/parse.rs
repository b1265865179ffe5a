//! Parameters of a query string, and which relation each is for.

use std::collections::{BTreeMap, HashSet};

use percent_encoding::percent_decode_str;

use super::reader::{Reader, excerpt};
use super::{Condition, Embed, Field, Item, Order, Query, Unreadable, field, filter, order, select};

/// Relations in one another, and conditions in one another.
pub(super) const DEPTH: usize = 32;

const PATH: &str = "for example total=gte.10 or, of an embedded relation, clients.name=eq.Ann, \
    with \"quotes\" around names that have signs";

impl Query {
    /// Reads the raw query string of `GET /relation?…`.
    ///
    /// # Errors
    /// The first parameter that cannot be read; a parameter for a relation that `select` does not embed; a limit or an
    /// offset that is out of range.
    pub fn parse(raw: &str) -> Result<Query, Unreadable> {
        let pairs = pairs(raw)?;
        // A second `select`, and any parameter without `=`, says nothing.
        let first = |name| pairs.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref());
        let mut query = Query { select: select::select(first("select").unwrap_or("*"))?, ..Query::default() };
        for name in ["columns", "on_conflict"] {
            first(name).map_or(Ok(()), |text| names(name, text))?;
        }
        let mut root = Parts::default();
        for (key, value) in &pairs {
            if let Some(value) = value {
                root.add(key, value)?;
            }
        }
        (query.limit, query.offset) = root.window()?;
        (root.limit, root.offset) = (None, 0);
        root.place(&mut query)?;
        Ok(query)
    }
}

/// Keys and values; no value if there is no `=`.
fn pairs(raw: &str) -> Result<Vec<(String, Option<String>)>, Unreadable> {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((key, value)) => Ok((decoded(key)?, Some(decoded(value)?))),
        None => Ok((decoded(pair)?, None)),
    };
    raw.split(['&', ';']).filter(|pair| !pair.is_empty()).map(pair).collect()
}

fn decoded(raw: &str) -> Result<String, Unreadable> {
    let raw = raw.replace('+', " ");
    let text = percent_decode_str(&raw).decode_utf8().map_err(|_| {
        let message = format!("`{}` is not UTF-8", excerpt(&raw));
        Unreadable { code: "PGRST100", message, hint: "percent-encode the query string as UTF-8".into() }
    })?;
    if text.contains('\0') {
        let message = format!("`{}` has a NUL character", excerpt(&raw));
        return Err(Unreadable { code: "22021", message, hint: "Postgres stores none in text".into() });
    }
    Ok(text.into_owned())
}

/// A list of names, of which reads have no use.
fn names(parameter: &str, text: &str) -> Result<(), Unreadable> {
    let example = format!("for example {parameter}=id,name");
    let mut reader = Reader::new(parameter, text);
    loop {
        reader.spaces();
        reader.name(&example)?;
        reader.spaces();
        if !reader.take(",") {
            return reader.end(&example);
        }
    }
}

/// What the parameters say of one relation.
#[derive(Default)]
struct Parts {
    filters: Vec<Condition>,
    order: Option<Vec<Order>>,
    limit: Option<i64>,
    offset: i64,
    /// Of those embedded in it, by the name in the parameter.
    below: BTreeMap<String, Parts>,
}

impl Parts {
    fn add(&mut self, key: &str, text: &str) -> Result<(), Unreadable> {
        match key.rsplit('.').next().unwrap_or(key) {
            _ if ["select", "columns", "on_conflict"].contains(&key) => {}
            "order" => {
                let terms = order::order(key, text)?;
                self.at(relation(key)?).order.get_or_insert(terms);
            }
            "limit" => self.at(relation(key)?).limit = integer(key, text)?,
            "offset" => self.at(relation(key)?).offset = integer(key, text)?.unwrap_or(0),
            last @ ("and" | "or") => {
                let (negations, path): (Vec<_>, Vec<_>) = relation(key)?.into_iter().partition(|name| name == "not");
                let joint = if last == "and" { filter::Joint::And } else { filter::Joint::Or };
                let tree = filter::tree(key, joint, !negations.is_empty(), text)?;
                self.at(path).filters.push(tree);
            }
            _ => {
                let (path, field) = target(key)?;
                let condition = filter::filter(key, field, text)?;
                self.at(path).filters.push(condition);
            }
        }
        Ok(())
    }

    fn at(&mut self, path: Vec<String>) -> &mut Parts {
        path.into_iter().fold(self, |parts, name| parts.below.entry(name).or_default())
    }

    /// Limit and offset of the outermost relation. A negative offset begins before the first row, as it does in
    /// PostgREST, so that fewer rows are left of the limit.
    fn window(&self) -> Result<(Option<u64>, u64), Unreadable> {
        let left = self.limit.map(|limit| limit.saturating_add(self.offset.min(0)));
        if left.is_some_and(|left| left < 0) {
            return Err(Unreadable {
                code: "PGRST103",
                message: "Requested range not satisfiable".into(),
                hint: "limit has to be zero or more, as in limit=10&offset=20; a negative offset takes from it".into(),
            });
        }
        Ok((left.map(i64::unsigned_abs), self.offset.max(0).unsigned_abs()))
    }

    /// Puts filters, orders, limits and offsets into `query` and those that it embeds.
    fn place(mut self, query: &mut Query) -> Result<(), Unreadable> {
        query.filters = self.filters;
        query.order = self.order.unwrap_or_default();
        if query.order.iter().any(|order| order.of.is_some()) {
            let embedded: HashSet<&str> = query.select.iter().filter_map(embed).map(Embed::name).collect();
            let mut named = query.order.iter().filter_map(|order| order.of.as_deref());
            named.try_for_each(|name| embedded.contains(name).then_some(()).ok_or_else(|| not_embedded(name)))?;
        }
        for item in &mut query.select {
            let Item::Embed(embed) = item else { continue };
            let by_alias = embed.alias.as_ref().and_then(|alias| self.below.remove(alias));
            let by_target = self.below.remove(&embed.target);
            let Some(parts) = [by_alias, by_target].into_iter().flatten().reduce(Parts::merge) else { continue };
            (embed.query.limit, embed.query.offset) = parts.embedded_window(embed.name())?;
            parts.place(&mut embed.query)?;
        }
        match self.below.into_keys().next() {
            Some(name) => Err(not_embedded(&name)),
            None => Ok(()),
        }
    }

    /// As Postgres takes them.
    fn embedded_window(&self, name: &str) -> Result<(Option<u64>, u64), Unreadable> {
        let refuse = |code, what: &str, number| Unreadable {
            code,
            message: format!("{} must not be negative", what.to_uppercase()),
            hint: format!("{}.{what}={number} is below zero", excerpt(name)),
        };
        let limit = self.limit.map(|limit| u64::try_from(limit).map_err(|_| refuse("2201W", "limit", limit)));
        let offset = u64::try_from(self.offset).map_err(|_| refuse("2201X", "offset", self.offset))?;
        Ok((limit.transpose()?, offset))
    }

    /// Of one relation that parameters call by its alias and by its own name.
    fn merge(mut self, other: Parts) -> Parts {
        self.filters.extend(other.filters);
        self.order = self.order.or(other.order);
        self.limit = self.limit.or(other.limit);
        self.offset = if self.offset == 0 { other.offset } else { self.offset };
        for (name, parts) in other.below {
            let own = self.below.remove(&name).unwrap_or_default();
            self.below.insert(name, own.merge(parts));
        }
        self
    }
}

fn embed(item: &Item) -> Option<&Embed> {
    match item {
        Item::Embed(embed) => Some(embed),
        Item::All | Item::Field(_) => None,
    }
}

fn not_embedded(name: &str) -> Unreadable {
    let name = excerpt(name);
    Unreadable {
        code: "PGRST108",
        message: format!("'{name}' is not an embedded resource in this request"),
        hint: format!("Verify that '{name}' is included in the 'select' query parameter."),
    }
}

/// The relations that a key such as `a.b.order` leads through, without its last word.
fn relation(key: &str) -> Result<Vec<String>, Unreadable> {
    let mut reader = Reader::new(key, key);
    let mut path = path(&mut reader)?;
    reader.end(PATH)?;
    path.pop();
    Ok(path)
}

/// The relations, and the field, that a key such as `a.b.column->key` names.
fn target(key: &str) -> Result<(Vec<String>, Field), Unreadable> {
    let mut reader = Reader::new(key, key);
    let mut path = path(&mut reader)?;
    let column = path.pop().unwrap_or_default();
    let steps = field::path(&mut reader, PATH)?;
    reader.end(PATH)?;
    Ok((path, Field { column, path: steps }))
}

fn path(reader: &mut Reader) -> Result<Vec<String>, Unreadable> {
    let mut path = vec![reader.name(PATH)?];
    while reader.take(".") {
        path.push(reader.name(PATH)?);
        if path.len() > DEPTH + 2 {
            return Err(reader.refuse(&format!("no more than {DEPTH} relations in one another"), PATH));
        }
    }
    Ok(path)
}

/// A limit or an offset. What is no whole number says nothing.
fn integer(parameter: &str, text: &str) -> Result<Option<i64>, Unreadable> {
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Unreadable {
        code: "22003",
        message: format!("{}={} is out of range for 64 bits", excerpt(parameter), excerpt(text)),
        hint: "for example limit=10&offset=20".into(),
    })
}
