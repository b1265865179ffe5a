//! The same requests as SQL of another shape than the endpoint's: no joins, no parameters, and windows instead of limits.
//! What is embedded is a subquery for each column of the row around it.

use std::cell::Cell;

use super::asked::{Embed, Field, Item, Level, Order, Test, Tree};
use super::kinds::KINDS;
use super::relations::{Link, Relations, Way, ident, literal};

/// What the grammar refuses, by its code.
pub type Refused = &'static str;

pub struct Oracle<'r> {
    pub relations: &'r Relations,
    used: Cell<usize>,
}

/// A column of a level's rows, or of their groups.
struct Out {
    name: String,
    sql: String,
    /// The function, and the type that its value is cast to.
    aggregate: Option<(&'static str, Option<&'static str>)>,
    /// Equal by what it says, not by how it is written.
    is_json: bool,
}

/// A level's rows, and the parts that they are made from.
struct Parts {
    from: String,
    /// One for each term of the order: the expression, and the direction.
    terms: Vec<(String, String)>,
}

impl<'r> Oracle<'r> {
    pub fn new(relations: &'r Relations) -> Oracle<'r> {
        Oracle { relations, used: Cell::new(0) }
    }

    /// `SELECT rank, j`: the rows in their order, those with the same rank in any; and `SELECT count`: all there are.
    pub fn answer(&self, level: &Level) -> Result<(String, String), Refused> {
        let rows = self.rows(level, None)?;
        let alias = self.alias();
        let parts = self.parts(level, &alias, None)?;
        Ok((
            format!("SELECT s.r, s.j::text FROM ({rows}) AS s ORDER BY s.n"),
            format!("SELECT count(*) {}", parts.from),
        ))
    }

    fn alias(&self) -> String {
        self.used.set(self.used.get() + 1);
        format!("x{}", self.used.get())
    }

    fn table(&self, table: usize) -> String {
        format!("{}.{}", self.relations.schema, ident(&self.relations.tables[table].name))
    }

    /// The rows of a level: `j`, the row as JSON, `n`, its place, and `r`, its rank. Only those within the limits.
    fn rows(&self, level: &Level, link: Option<(&Link, &str)>) -> Result<String, Refused> {
        let alias = self.alias();
        let outs = self.outs(level, &alias, false)?;
        let parts = self.parts(level, &alias, link)?;
        let object = |values: Vec<String>| {
            let pairs = outs.iter().zip(values).map(|(out, value)| format!("{}, {value}", literal(&out.name)));
            format!("json_build_object({})", pairs.collect::<Vec<_>>().join(", "))
        };
        if !outs.iter().any(|out| out.aggregate.is_some()) {
            let row = object(outs.iter().map(|out| out.sql.clone()).collect());
            let over = over(parts.terms.iter().map(|(sql, way)| format!("{sql}{way}")).collect());
            let rank = if parts.terms.is_empty() { "1::bigint".into() } else { format!("dense_rank() {over}") };
            let all = format!("SELECT {row} AS j, row_number() {over} AS n, {rank} AS r {}", parts.from);
            return Ok(windowed(level, link, "w.j, w.n, w.r", &all));
        }
        let plain = outs.iter().enumerate().map(|(at, out)| match (&out.aggregate, out.is_json) {
            (None, true) => format!("({})::jsonb AS v{at}", out.sql),
            _ => format!("({}) AS v{at}", out.sql),
        });
        let orders = parts.terms.iter().enumerate().map(|(at, (sql, _))| format!("{sql} AS o{at}"));
        let each = format!("SELECT {} {}", plain.chain(orders).collect::<Vec<_>>().join(", "), parts.from);
        let row = object(
            outs.iter()
                .enumerate()
                .map(|(at, out)| match out.aggregate {
                    Some((function, type_)) => cast(format!("{function}(g.v{at})"), type_),
                    None => format!("g.v{at}"),
                })
                .collect(),
        );
        let keys = outs.iter().enumerate().filter(|(_, out)| out.aggregate.is_none()).map(|(at, _)| format!("g.v{at}"));
        let keys: Vec<String> = keys.chain((0..parts.terms.len()).map(|at| format!("g.o{at}"))).collect();
        let by = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", keys.join(", ")) };
        let over = over(parts.terms.iter().enumerate().map(|(at, (_, way))| format!("g.o{at}{way}")).collect());
        let rank = if parts.terms.is_empty() { "1::bigint".into() } else { format!("dense_rank() {over}") };
        let all = format!("SELECT {row} AS j, row_number() {over} AS n, {rank} AS r FROM ({each}) AS g{by}");
        Ok(windowed(level, link, "w.j, w.n, w.r", &all))
    }

    /// One value of each row within the limits: `v`, and its place `n`.
    fn values(
        &self,
        embed: &Embed,
        around: &str,
        value: impl Fn(&str) -> Result<String, Refused>,
    ) -> Result<String, Refused> {
        let (alias, level, link) = (self.alias(), &embed.level, Some((&embed.link, around)));
        let parts = self.parts(level, &alias, link)?;
        let over = over(parts.terms.iter().map(|(sql, way)| format!("{sql}{way}")).collect());
        let all = format!("SELECT {} AS v, row_number() {over} AS n {}", value(&alias)?, parts.from);
        Ok(windowed(level, link, "w.v, w.n", &all))
    }

    /// `FROM … WHERE …`, and the order.
    fn parts(&self, level: &Level, alias: &str, link: Option<(&Link, &str)>) -> Result<Parts, Refused> {
        let mut conditions = Vec::new();
        let equal = |(one, one_of): (&str, &str), (other, other_of): (&str, &str)| {
            format!("{one}.{} = {other}.{}", ident(one_of), ident(other_of))
        };
        if let Some((link, around)) = link {
            match &link.way {
                Way::Direct(pairs) => {
                    conditions.extend(pairs.iter().map(|(near, far)| equal((around, near), (alias, far))));
                }
                Way::Through { between, near, far } => {
                    let own = self.alias();
                    let near = near.iter().map(|(a, b)| equal((around, a), (&own, b)));
                    let far = far.iter().map(|(a, b)| equal((&own, a), (alias, b)));
                    let on: Vec<String> = near.chain(far).collect();
                    let table = self.table(*between);
                    conditions.push(format!("EXISTS (SELECT 1 FROM {table} AS {own} WHERE {})", on.join(" AND ")));
                }
            }
        }
        for filter in &level.filters {
            conditions.push(self.condition(level, alias, filter)?);
        }
        for embed in level.embeds().filter(|embed| embed.is_inner) {
            conditions.push(self.exists(embed, alias)?);
        }
        // What is not shown decides nothing, and has to make sense all the same.
        for embed in level.embeds().filter(|embed| !embed.is_inner) {
            if embed.level.shows_nothing() {
                conditions.push(format!("(true OR {})", self.exists(embed, alias)?));
            }
        }
        let terms = level.order.iter().map(|order| self.term(level, alias, order)).collect::<Result<_, _>>()?;
        let conditions = if conditions.is_empty() { "true".into() } else { conditions.join(" AND ") };
        Ok(Parts { from: format!("FROM {} AS {alias} WHERE {conditions}", self.table(level.table)), terms })
    }

    fn exists(&self, embed: &Embed, around: &str) -> Result<String, Refused> {
        let rows = match embed.is_spread {
            true => self.values(embed, around, |_| Ok("1".into()))?,
            false => self.rows(&embed.level, Some((&embed.link, around)))?,
        };
        Ok(format!("EXISTS ({rows})"))
    }

    fn outs(&self, level: &Level, alias: &str, within_arrays: bool) -> Result<Vec<Out>, Refused> {
        let table = &self.relations.tables[level.table];
        let (mut outs, mut after) = (Vec::new(), Vec::new());
        for item in &level.items {
            let aggregates = match item {
                Item::Count { .. } => true,
                Item::Field { aggregate, .. } => aggregate.is_some(),
                Item::All | Item::Embed(_) => false,
            };
            if aggregates && within_arrays {
                return Err("PGRST127");
            }
            match item {
                Item::All => outs.extend(table.columns.iter().map(|column| Out {
                    name: column.name.clone(),
                    sql: format!("{alias}.{}", ident(&column.name)),
                    aggregate: None,
                    is_json: KINDS[column.kind].type_ == "json",
                })),
                Item::Count { alias: name, cast } => outs.push(Out {
                    name: name.clone().unwrap_or_else(|| "count".into()),
                    sql: "true".into(),
                    aggregate: Some(("count", *cast)),
                    is_json: false,
                }),
                Item::Field { field, alias: name, cast: type_, aggregate } => {
                    let own = || aggregate.map_or_else(|| field.name(table), |(function, _)| function.into());
                    outs.push(Out {
                        name: name.clone().unwrap_or_else(own),
                        sql: cast(self.field(level, alias, field), *type_),
                        aggregate: *aggregate,
                        is_json: false,
                    });
                }
                Item::Embed(embed) => after.extend(self.embedded(embed, alias, within_arrays)?),
            }
        }
        outs.append(&mut after);
        Ok(outs)
    }

    /// What a row has of what is embedded in it.
    fn embedded(&self, embed: &Embed, around: &str, within_arrays: bool) -> Result<Vec<Out>, Refused> {
        let is_to_one = embed.link.is_to_one;
        let json = |name: &str, sql: String| Out { name: name.into(), sql, aggregate: None, is_json: true };
        if !embed.is_spread {
            let rows = self.rows(&embed.level, Some((&embed.link, around)))?;
            if self.outs(&embed.level, "x", false)?.is_empty() {
                return Ok(Vec::new());
            }
            let sql = match is_to_one {
                true => format!("(SELECT s.j FROM ({rows}) AS s)"),
                false => format!("(SELECT coalesce(json_agg(s.j ORDER BY s.n), '[]') FROM ({rows}) AS s)"),
            };
            return Ok(vec![json(embed.name(), sql)]);
        }
        let arrays = !is_to_one || within_arrays;
        let shown = self.outs(&embed.level, "x", arrays)?;
        let each = shown.into_iter().enumerate().map(|(at, out)| {
            let value = |alias: &str| Ok(self.outs(&embed.level, alias, arrays)?.swap_remove(at).sql);
            let values = self.values(embed, around, value)?;
            Ok(match is_to_one {
                true => Out { sql: format!("(SELECT s.v FROM ({values}) AS s)"), ..out },
                false => {
                    json(&out.name, format!("(SELECT coalesce(json_agg(s.v ORDER BY s.n), '[]') FROM ({values}) AS s)"))
                }
            })
        });
        each.collect()
    }

    fn field(&self, level: &Level, alias: &str, field: &Field) -> String {
        let column = &self.relations.tables[level.table].columns[field.column];
        let sql = format!("{alias}.{}", ident(&column.name));
        let inside = if column.is_json() { sql.clone() } else { format!("to_jsonb({sql})") };
        let steps = field.path.iter().map(|step| {
            let arrow = if step.as_text { "->>" } else { "->" };
            format!(" {arrow} {}{}", literal(&step.key), if step.is_index { "::int" } else { "" })
        });
        let steps: String = steps.collect();
        if steps.is_empty() { sql } else { format!("({inside}{steps})") }
    }

    fn condition(&self, level: &Level, alias: &str, tree: &Tree) -> Result<String, Refused> {
        let signed = |negated: bool, sql: String| if negated { format!("(NOT ({sql}))") } else { format!("({sql})") };
        Ok(match tree {
            Tree::Joint { is_any, negated, parts } => {
                let parts =
                    parts.iter().map(|part| self.condition(level, alias, part)).collect::<Result<Vec<_>, _>>()?;
                signed(*negated, parts.join(if *is_any { " OR " } else { " AND " }))
            }
            Tree::Test { field, negated, test } => signed(*negated, self.test(level, alias, field, test)),
            Tree::Absent { item, negated } => match level.embed(*item) {
                Some(embed) => signed(!negated, self.exists(embed, alias)?),
                None => unreachable!("only what is embedded can be absent"),
            },
        })
    }

    /// Values are literals without a type: Postgres takes them for what they are compared with.
    fn test(&self, level: &Level, alias: &str, field: &Field, test: &Test) -> String {
        let sql = self.field(level, alias, field);
        let table = &self.relations.tables[level.table];
        // Of composite types alone they have to say the type.
        let type_ = if field.type_(table) == "spot" { "::spot" } else { "" };
        let against = |operator: &str, value: &str| {
            let type_ = if matches!(operator, "like" | "ilike" | "match" | "imatch") { "" } else { type_ };
            let value = if operator.ends_with("like") { value.replace('*', "%") } else { value.into() };
            format!("{sql} {} {}{type_}", symbol(operator), literal(&value))
        };
        match test {
            Test::Compare(operator, value) => against(operator, value),
            Test::Quantified(operator, is_any, values) => {
                let each = values.iter().map(|value| match value {
                    Some(value) => format!("({})", against(operator, value)),
                    None => format!("({sql} {} NULL)", symbol(operator)),
                });
                let each: Vec<String> = each.collect();
                match (each.is_empty(), is_any) {
                    // Of none, the operator has to be there all the same.
                    (true, is_any) => {
                        format!("CASE WHEN true THEN {} ELSE {sql} {} NULL END", !is_any, symbol(operator))
                    }
                    (false, true) => each.join(" OR "),
                    (false, false) => each.join(" AND "),
                }
            }
            // The grammar cannot tell nothing from one that is empty.
            Test::In(values) if values.iter().all(String::is_empty) && values.len() < 2 => "false".into(),
            Test::In(values) => {
                let values: Vec<String> = values.iter().map(|value| literal(value) + type_).collect();
                format!("{sql} IN ({})", values.join(", "))
            }
            Test::Is(what) => format!("{sql} IS {}", what.replace('_', " ")),
            Test::Search(operator, language, words) => {
                let function = match *operator {
                    "fts" => "to_tsquery",
                    "plfts" => "plainto_tsquery",
                    "phfts" => "phraseto_tsquery",
                    _ => "websearch_to_tsquery",
                };
                let language = language.map(|name| format!("'{name}', ")).unwrap_or_default();
                let is_vector = field.type_(table) == "tsvector";
                let vector = if is_vector { sql.clone() } else { format!("to_tsvector({language}{sql})") };
                format!("{vector} @@ {function}({language}{})", literal(words))
            }
        }
    }

    /// A term of the order, and its direction.
    fn term(&self, level: &Level, alias: &str, order: &Order) -> Result<(String, String), Refused> {
        let sql = match order.of.and_then(|item| level.embed(item)) {
            None => self.field(level, alias, &order.field),
            Some(embed) if !embed.link.is_to_one => return Err("PGRST118"),
            Some(embed) => {
                let values = self.values(embed, alias, |inner| Ok(self.field(&embed.level, inner, &order.field)))?;
                format!("(SELECT s.v FROM ({values}) AS s)")
            }
        };
        let is_descending = order.is_descending.unwrap_or(false);
        // Postgres' own: NULL is larger than everything.
        let first = order.nulls_first.unwrap_or(is_descending);
        let direction = if is_descending { " DESC" } else { " ASC" };
        Ok((sql, format!("{direction} NULLS {}", if first { "FIRST" } else { "LAST" })))
    }
}

fn over(terms: Vec<String>) -> String {
    if terms.is_empty() { "OVER ()".into() } else { format!("OVER (ORDER BY {})", terms.join(", ")) }
}

/// Those of all rows whose place is within the limits. Of what is linked to one, there is no second.
fn windowed(level: &Level, link: Option<(&Link, &str)>, columns: &str, all: &str) -> String {
    let limit = match link {
        Some((link, _)) if link.is_to_one => Some(level.limit.unwrap_or(1).min(1)),
        _ => level.limit,
    };
    let from = format!("w.n > {}", level.offset);
    let to = limit.map(|limit| format!(" AND w.n <= {}", level.offset + limit)).unwrap_or_default();
    format!("SELECT {columns} FROM ({all}) AS w WHERE {from}{to}")
}

fn cast(sql: String, type_: Option<&str>) -> String {
    type_.map_or_else(|| sql.clone(), |type_| format!("({sql})::{type_}"))
}

fn symbol(operator: &str) -> &'static str {
    match operator {
        "eq" => "=",
        "neq" => "!=",
        "gt" => ">",
        "gte" => ">=",
        "lt" => "<",
        "lte" => "<=",
        "like" => "LIKE",
        "ilike" => "ILIKE",
        "match" => "~",
        "imatch" => "~*",
        "isdistinct" => "IS DISTINCT FROM",
        "cs" => "@>",
        "cd" => "<@",
        "ov" => "&&",
        "sl" => "<<",
        "sr" => ">>",
        "nxr" => "&<",
        "nxl" => "&>",
        "adj" => "-|-",
        other => unreachable!("{other} is no operator"),
    }
}
