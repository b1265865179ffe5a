//! A query tree to one statement: the rows that are asked for, with what is embedded in them.
//!
//! A relation that is embedded is a lateral join, which has one row for each row around it: `row` is what is embedded, as
//! JSON, and NULL where there is nothing. One that is spread has a column `c1`, `c2`, … for each of its own instead.

use serde_json::{Value as Json, json};

use super::conditions::{Conditions, Named};
use super::level::{Depth, Level, Out, cast};
use super::links::{self, Link};
use super::schema::{Relation, Schema};
use crate::query::{Aggregate, AggregateFunction, Embed, Field, Item, Key, Order, Query, Selected};
use crate::spec::diagnostic::nearest;
use crate::store::sql::{ident, literal};

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    Text(String),
    Texts(Vec<Option<String>>),
}

/// Why a query cannot be answered: PostgREST's code, or Postgres' own.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
    pub details: Option<Box<Json>>,
    pub hint: Option<String>,
}

/// What a statement may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows of each relation.
    pub rows: u64,
    pub aggregates: bool,
}

/// The rows of a query, and what there is of it beside them.
#[derive(Debug)]
pub struct Statement {
    /// `SELECT …`: the page of rows.
    pub page: String,
    /// `SELECT 1 …`: all rows that the filters let through.
    pub all: String,
    pub arguments: Vec<Argument>,
    /// The names of the page's columns.
    pub columns: Vec<String>,
    /// The views of projections that rows come from, the relation itself first if it is one.
    pub views: Vec<String>,
}

/// Makes the statement of a query of a relation.
///
/// # Errors
/// What of it cannot be answered.
pub fn statement<'s>(
    schema: &'s Schema,
    relation: &'s Relation,
    query: &Query,
    limits: Limits,
) -> Result<Statement, Refusal> {
    let mut builder =
        Builder { schema, limits, arguments: Vec::new(), views: Vec::new(), root: &relation.name, aliases: 0 };
    let level = builder.level(relation, &relation.name, query, Depth::Row)?;
    let columns = level.outs.iter().map(|out| out.name.clone()).collect();
    let (page, all) = (level.select(None), level.all());
    let Builder { arguments, mut views, .. } = builder;
    let mut seen = std::collections::HashSet::new();
    views.retain(|view| seen.insert(view.clone()));
    Ok(Statement { page, all, arguments, columns, views })
}

/// Whether a query can be answered.
///
/// # Errors
/// What of it cannot.
pub fn check(schema: &Schema, relation: &Relation, query: &Query, limits: Limits) -> Result<(), Refusal> {
    statement(schema, relation, query, limits).map(drop)
}

struct Builder<'s> {
    schema: &'s Schema,
    limits: Limits,
    arguments: Vec<Argument>,
    views: Vec<String>,
    /// The relation that is read: its name is taken.
    root: &'s str,
    /// How many relations were named.
    aliases: usize,
}

/// A relation that is embedded.
struct Embedded<'q> {
    embed: &'q Embed,
    link: Link,
    /// If it is spread: its columns by name, as they are around it.
    spread: Vec<(String, String)>,
    /// Holds when there is no row of it.
    absent: String,
}

impl<'s> Builder<'s> {
    /// The relation between two has the same name and a letter more.
    fn alias(&mut self, prefix: &str) -> String {
        self.aliases += 1;
        let alias = format!("{prefix}{}", self.aliases);
        if self.root.starts_with(&alias) { self.alias(prefix) } else { alias }
    }

    fn table(&self, relation: &str, alias: &str) -> String {
        format!("{}.{} AS {}", ident(&self.schema.name), ident(relation), ident(alias))
    }

    fn level(&mut self, relation: &'s Relation, alias: &str, query: &Query, depth: Depth) -> Result<Level, Refusal> {
        let named = Named { relation, alias };
        self.views.extend_from_slice(&relation.reflects);
        let (mut outs, mut after, mut joins) = (Vec::new(), Vec::new(), String::new());
        let mut embedded = Vec::new();
        for item in &query.select {
            match item {
                Item::All => outs.extend(relation.columns.iter().map(|column| {
                    let sql = format!("{}.{}", ident(alias), ident(&column.name));
                    Out::plain(column.name.clone(), sql, column.type_ == "json")
                })),
                Item::Field(selected) => outs.push(self.selected(named, selected, depth)?),
                Item::Embed(embed) => {
                    let (one, shown) = self.embed(named, embed, depth, &mut joins)?;
                    after.extend(shown);
                    embedded.push(one);
                }
            }
        }
        outs.append(&mut after);
        let absent = |name: &str| {
            let found = embedded.iter().find(|one: &&Embedded<'_>| one.embed.name() == name);
            found.map(|one| one.absent.clone())
        };
        let mut asks_absent = false;
        let mut conditions = Vec::new();
        for filter in &query.filters {
            asks_absent |= mentions(filter, &|name| absent(name).is_some());
            let mut writer = Conditions { named, absent: &absent, arguments: &mut self.arguments };
            conditions.push(writer.condition(filter)?);
        }
        let mut orders = Vec::new();
        for order in &query.order {
            let sql = self.ordered(named, order, &embedded)?;
            let direction = if order.descending { " DESC" } else { "" };
            let nulls = match order.nulls_first {
                Some(true) => " NULLS FIRST",
                Some(false) => " NULLS LAST",
                None => "",
            };
            orders.push(format!("{sql}{direction}{nulls}"));
        }
        Ok(Level {
            from: self.table(&relation.name, alias),
            joins_count: asks_absent || embedded.iter().any(|one| one.embed.inner),
            joins,
            outs,
            conditions,
            orders,
            limit: query.limit.unwrap_or(u64::MAX).min(self.limits.rows),
            offset: query.offset.min(i64::MAX as u64),
            groups: depth != Depth::SpreadOne,
        })
    }

    fn selected(&mut self, named: Named<'_>, selected: &Selected, depth: Depth) -> Result<Out, Refusal> {
        if selected.aggregate.is_some() {
            self.may_aggregate(depth)?;
        }
        if let Some(out) = counted(named, selected) {
            return Ok(out);
        }
        let (sql, own) = match &selected.field {
            None => (None, "count".to_string()),
            Some(field) => match parked(named, field) {
                Some(sql) => (Some(sql), field.column.clone()),
                None => (Some(named.field(field)?.sql), field_name(field)),
            },
        };
        let function = selected.aggregate.as_ref().map(|aggregate| aggregate.function.name());
        let name = selected.alias.clone().unwrap_or_else(|| function.map_or(own, Into::into));
        let sql = sql.map(|sql| cast(sql, selected.cast.as_deref()));
        Ok(Out { name, sql, aggregate: selected.aggregate.clone(), is_json: false })
    }

    fn may_aggregate(&self, depth: Depth) -> Result<(), Refusal> {
        if !self.limits.aggregates {
            return Err(Refusal {
                code: "PGRST123",
                message: "Use of aggregate functions is not allowed".into(),
                details: None,
                hint: None,
            });
        }
        if depth == Depth::SpreadMany {
            let details = "Aggregates are not implemented for one-to-many or many-to-many spreads.";
            return Err(Refusal {
                code: "PGRST127",
                message: "Feature not implemented".into(),
                details: Some(Box::new(details.into())),
                hint: None,
            });
        }
        Ok(())
    }

    /// Joins what is embedded. With it, the columns that the row around gets.
    fn embed<'q>(
        &mut self,
        around: Named<'_>,
        embed: &'q Embed,
        depth: Depth,
        joins: &mut String,
    ) -> Result<(Embedded<'q>, Vec<Out>), Refusal> {
        let link = self.link(&around.relation.name, embed)?.clone();
        let (row, alias) = (self.alias("e"), self.alias("r"));
        let to_one = link.cardinality.is_to_one();
        let inside = match (embed.spread, to_one) {
            (false, _) => Depth::Row,
            // Whatever is around it is an array of its own.
            (true, true) if depth == Depth::SpreadMany => Depth::SpreadMany,
            (true, true) => Depth::SpreadOne,
            (true, false) => Depth::SpreadMany,
        };
        let relation = self.relation(&link.to)?;
        let mut level = self.level(relation, &alias, &embed.query, inside)?;
        self.connect(&mut level, &link, around.alias, &alias);
        if to_one {
            level.limit = level.limit.min(1);
        }
        let quoted = ident(&row);
        let (select, absent, there, shown) = match (embed.spread, to_one) {
            (false, true) => {
                let select = format!("SELECT row_to_json(q.*) AS row FROM ({}) AS q", level.select(None));
                let shown = Out::plain(embed.name().into(), format!("{quoted}.row"), true);
                (select, format!("{quoted}.row IS NULL"), format!("{quoted}.row IS NOT NULL"), vec![shown])
            }
            (false, false) => {
                let select = format!("SELECT json_agg(q.*) AS row FROM ({}) AS q", level.select(None));
                let shown = Out::plain(embed.name().into(), format!("coalesce({quoted}.row, '[]')"), true);
                (select, format!("{quoted}.row IS NULL"), format!("{quoted}.row IS NOT NULL"), vec![shown])
            }
            (true, true) => {
                let select = format!("SELECT true AS row, q.* FROM ({}) AS q", level.select(Some("c")));
                let shown = level.outs.iter().enumerate().map(|(at, out)| Out {
                    name: out.name.clone(),
                    sql: Some(out.sql.as_ref().map_or(format!("{quoted}.row"), |_| format!("{quoted}.c{}", at + 1))),
                    aggregate: out.aggregate.clone(),
                    is_json: out.is_json,
                });
                (select, format!("{quoted}.row IS NULL"), format!("{quoted}.row IS NOT NULL"), shown.collect())
            }
            (true, false) => {
                let arrays: String = (1..=level.outs.len()).map(|at| format!(", json_agg(q.c{at}) AS c{at}")).collect();
                let select = format!("SELECT count(*) AS row{arrays} FROM ({}) AS q", level.select(Some("c")));
                let shown = level.outs.iter().enumerate().map(|(at, out)| {
                    Out::plain(out.name.clone(), format!("coalesce({quoted}.c{}, '[]')", at + 1), true)
                });
                (select, format!("{quoted}.row = 0"), format!("{quoted}.row > 0"), shown.collect())
            }
        };
        let (kind, on) = if embed.inner { ("INNER", there.as_str()) } else { ("LEFT", "true") };
        *joins += &format!(" {kind} JOIN LATERAL ({select}) AS {quoted} ON {on}");
        let shown = if level.outs.is_empty() { Vec::new() } else { shown };
        let plain = |out: &Out| out.aggregate.is_none().then(|| Some((out.name.clone(), out.sql.clone()?)))?;
        let spread = if embed.spread && to_one { shown.iter().filter_map(plain).collect() } else { Vec::new() };
        Ok((Embedded { embed, link, spread, absent }, shown))
    }

    /// Lets a level have the rows alone that a row around it is linked with.
    fn connect(&self, level: &mut Level, link: &Link, around: &str, own: &str) {
        let column = |relation: &str, column: &str| format!("{}.{}", ident(relation), ident(column));
        match &link.between {
            None => {
                let equal =
                    link.pairs.iter().map(|(from, to)| format!("{} = {}", column(own, to), column(around, from)));
                level.conditions.splice(0..0, equal);
            }
            Some(between) => {
                let name = format!("{own}b");
                let on: Vec<String> =
                    between.to.iter().map(|(b, to)| format!("{} = {}", column(&name, b), column(own, to))).collect();
                level.from += &format!(" JOIN {} ON {}", self.table(&between.relation, &name), on.join(" AND "));
                let equal =
                    between.from.iter().map(|(from, b)| format!("{} = {}", column(&name, b), column(around, from)));
                level.conditions.splice(0..0, equal);
            }
        }
    }

    fn ordered(&mut self, named: Named<'_>, order: &Order, embedded: &[Embedded<'_>]) -> Result<String, Refusal> {
        let Some(of) = &order.of else { return Ok(named.field(&order.field)?.sql) };
        let one = embedded.iter().find(|one| one.embed.name() == of).ok_or_else(|| not_embedded(of))?;
        if !one.link.cardinality.is_to_one() {
            let (own, other) = (&named.relation.name, &one.link.to);
            return Err(Refusal {
                code: "PGRST118",
                message: format!("A related order on '{of}' is not possible"),
                details: Some(Box::new(
                    format!("'{own}' and '{other}' do not form a many-to-one or one-to-one relationship").into(),
                )),
                hint: None,
            });
        }
        let spread = one.spread.iter().find(|(name, _)| *name == order.field.column);
        if let (Some((_, sql)), true) = (spread, order.field.path.is_empty()) {
            return Ok(sql.clone());
        }
        // The same row that is embedded, whatever is shown of it. What is embedded in that may decide which it is.
        let alias = self.alias("o");
        let relation = self.relation(&one.link.to)?;
        let mut of_row = Query { order: Vec::new(), ..one.embed.query.clone() };
        of_row.select.retain(|item| matches!(item, Item::Embed(_)));
        let mut level = self.level(relation, &alias, &of_row, Depth::Row)?;
        self.connect(&mut level, &one.link, named.alias, &alias);
        level.limit = level.limit.min(1);
        level.outs = vec![Out::plain("o".into(), Named { relation, alias: &alias }.field(&order.field)?.sql, false)];
        Ok(format!("({})", level.select(None)))
    }

    fn relation(&self, name: &str) -> Result<&'s Relation, Refusal> {
        self.schema.relations.get(name).ok_or_else(|| unknown_relation(self.schema, name))
    }

    fn link(&self, from: &str, embed: &Embed) -> Result<&'s Link, Refusal> {
        let (target, hint) = (embed.target.as_str(), embed.hint.as_deref());
        let found = links::meant(self.schema, from, target, hint);
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(self.no_link(from, target, hint)),
            many => Err(ambiguous(from, target, many)),
        }
    }

    fn no_link(&self, from: &str, target: &str, hint: Option<&str>) -> Refusal {
        let using = hint.map(|hint| format!(" using the hint '{hint}'")).unwrap_or_default();
        let linked = self.schema.links.get(from).into_iter().flatten().map(|link| link.to.as_str());
        let near = nearest(target, linked);
        Refusal {
            code: "PGRST200",
            message: format!("Could not find a relationship between '{from}' and '{target}' in the schema cache"),
            details: Some(Box::new(format!(
                    "Searched for a foreign key relationship between '{from}' and '{target}'{using} in the schema '{}', but no matches were found.",
                    self.schema.name
                ).into())),
            hint: near.map(|near| format!("Perhaps you meant '{near}' instead of '{target}'.")),
        }
    }
}

fn ambiguous(from: &str, target: &str, many: &[&Link]) -> Refusal {
    let details: Vec<Json> = many
        .iter()
        .map(|link| {
            json!({
                "cardinality": link.cardinality.name(),
                "embedding": format!("{} with {}", link.from, link.to),
                "relationship": link.told(),
            })
        })
        .collect();
    let hints: Vec<String> = many.iter().map(|link| format!("'{}!{}'", link.to, link.name)).collect();
    Refusal {
        code: "PGRST201",
        message: format!("Could not embed because more than one relationship was found for '{from}' and '{target}'"),
        details: Some(Box::new(details.into())),
        hint: Some(format!(
            "Try changing '{target}' to one of the following: {}. Find the desired relationship in the 'details' key.",
            hints.join(", ")
        )),
    }
}

fn not_embedded(name: &str) -> Refusal {
    Refusal {
        code: "PGRST108",
        message: format!("'{name}' is not an embedded resource in this request"),
        details: None,
        hint: Some(format!("Verify that '{name}' is included in the 'select' query parameter.")),
    }
}

/// A relation that is not there.
pub fn unknown_relation(schema: &Schema, name: &str) -> Refusal {
    let near = nearest(name, schema.relations.keys().map(String::as_str));
    let near = near.map(|near| format!("Perhaps you meant the table '{}.{near}'", schema.name));
    Refusal {
        code: "PGRST205",
        message: format!("Could not find the table '{}.{name}' in the schema cache", schema.name),
        details: None,
        hint: near.or_else(|| Some("GET / lists what there is".into())),
    }
}

/// Whether a filter asks if there is a row of something embedded.
fn mentions(condition: &crate::query::Condition, is_embedded: &dyn Fn(&str) -> bool) -> bool {
    use crate::query::{Condition, Is, Test};
    match condition {
        Condition::All(conditions) | Condition::Any(conditions) => conditions.iter().any(|c| mentions(c, is_embedded)),
        Condition::Not(condition) => mentions(condition, is_embedded),
        Condition::Test(field, Test::Is(Is::Null)) => field.path.is_empty() && is_embedded(&field.column),
        Condition::Test(..) => false,
    }
}

/// `count` without parentheses, which is no column: the rows.
fn counted(named: Named<'_>, selected: &Selected) -> Option<Out> {
    let field = selected.field.as_ref()?;
    let is_count = field.column == "count" && field.path.is_empty() && named.relation.column("count").is_none();
    let aggregate = Aggregate { function: AggregateFunction::Count, cast: selected.cast.clone() };
    let name = selected.alias.clone().unwrap_or_else(|| "count".into());
    let out = Out { name, sql: None, aggregate: Some(aggregate), is_json: false };
    (is_count && selected.aggregate.is_none()).then_some(out)
}

/// What a field is called in the answer: by the last name in its path.
fn field_name(field: &Field) -> String {
    let named = field.path.iter().rev().find_map(|step| match &step.key {
        Key::Name(name) => Some(name.clone()),
        Key::Index(_) => None,
    });
    named.unwrap_or_else(|| field.column.clone())
}

/// A column that says whether something is parked that would touch the row; it is there when it is asked for.
fn parked(named: Named<'_>, field: &Field) -> Option<String> {
    const PARKED: &str = "parked";
    let projected = named.relation.projected.as_ref()?;
    if field.column != PARKED || !field.path.is_empty() || named.relation.column(PARKED).is_some() {
        return None;
    }
    let key: Vec<String> =
        projected.key.iter().map(|column| format!("{}.{}", ident(named.alias), ident(column))).collect();
    let key = format!("jsonb_build_array({})", key.join(", "));
    Some(match &projected.parked {
        Some(function) => format!("{function}({key})"),
        None => format!("projector.is_parked({}, {key})", literal(&named.relation.name)),
    })
}
