//! Reads for the endpoint: a query tree to one statement, its rows made to JSON by Postgres.

use std::collections::HashMap;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, PgPool, Row};

use super::relations::parked_function;
use super::sql::{ident, literal, vouched};
use super::tables::schema_name;
use crate::event::Place;
use crate::query::{Comparison, Filter, Is, Query, Test};

/// A relation of the served schema: its columns and their types.
#[derive(Debug, Clone, Default)]
pub struct Relation {
    pub columns: Vec<(String, String)>,
    /// For a table of a projection; other relations are people's own.
    pub projected: Option<Projected>,
}

/// Where the rows of a view come from.
#[derive(Debug, Clone)]
pub struct Projected {
    pub projection: String,
    pub generation: i64,
    /// The schema of the generation, if its rows follow from other rows.
    pub follows: Option<String>,
    pub key: Vec<String>,
    /// The function that says of a row whether something is parked that it follows from.
    pub parked: Option<String>,
}

/// A column that says whether something is parked that would touch the row; it is there when it is asked for.
const PARKED: &str = "parked";

/// Rows as a JSON array, how many they are, and how many sequences of the view's projection were parked when they were
/// read.
#[derive(Debug)]
pub struct Answer {
    pub json: String,
    pub rows: i64,
    pub parked: i64,
}

/// The relations of a schema, from Postgres' own catalog.
///
/// # Errors
/// What Postgres says.
pub async fn relations(pool: &PgPool, schema: &str) -> Result<HashMap<String, Relation>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = to_regnamespace(quote_ident($1)) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
           AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY c.relname, a.attnum",
    )
    .bind(schema)
    .fetch_all(pool)
    .await?;
    let mut relations: HashMap<String, Relation> = HashMap::new();
    for row in rows {
        relations.entry(row.try_get(0)?).or_default().columns.push((row.try_get(1)?, row.try_get(2)?));
    }
    for row in sqlx::query(PROJECTED).bind(None::<&str>).fetch_all(pool).await? {
        if let Some(relation) = relations.get_mut(row.try_get::<&str, _>(0)?) {
            relation.projected = Some(projected(&row)?);
        }
    }
    Ok(relations)
}

const PROJECTED: &str = "SELECT s.view, g.projection, g.id, s.key, g.number,
        EXISTS (SELECT 1 FROM projector.relations r WHERE r.generation_id = g.id),
        EXISTS (SELECT 1 FROM projector.relations r WHERE r.generation_id = g.id AND r.to_table = s.\"table\")
    FROM projector.served s JOIN projector.generations g ON g.id = s.generation_id WHERE $1::text IS NULL OR s.view = $1";

fn projected(row: &PgRow) -> Result<Projected, sqlx::Error> {
    let (view, projection): (&str, String) = (row.try_get(0)?, row.try_get(1)?);
    let schema = schema_name(&projection, row.try_get(4)?);
    Ok(Projected {
        projection,
        generation: row.try_get(2)?,
        key: row.try_get(3)?,
        parked: row.try_get::<bool, _>(6)?.then(|| parked_function(&schema, view)),
        follows: row.try_get::<bool, _>(5)?.then_some(schema),
    })
}

/// Where the rows of a view come from right now; `None` if it is not the view of a projection.
///
/// # Errors
/// What Postgres says.
pub async fn source_of(pool: &PgPool, view: &str) -> Result<Option<Projected>, sqlx::Error> {
    sqlx::query(PROJECTED).bind(view).fetch_optional(pool).await?.as_ref().map(projected).transpose()
}

/// A column that the relation does not have.
#[derive(Debug)]
pub struct UnknownColumn(pub String);

/// The statement of a query and its arguments.
///
/// # Errors
/// The first column that the relation does not have.
pub fn statement(
    schema: &str,
    name: &str,
    relation: &Relation,
    query: &Query,
    max_rows: u32,
) -> Result<(String, Vec<String>), UnknownColumn> {
    let type_of = |column: &str| {
        let found = relation.columns.iter().find(|(name, _)| name == column);
        found.map(|(_, type_)| type_.as_str()).ok_or_else(|| UnknownColumn(column.to_string()))
    };
    let mut selected = Vec::new();
    for column in &query.select {
        match (column.as_str(), type_of(column), &relation.projected) {
            ("*", ..) => selected.push("*".into()),
            (_, Ok(_), _) => selected.push(ident(column)),
            (PARKED, _, Some(projected)) => {
                let key: Vec<String> = projected.key.iter().map(|column| ident(column)).collect();
                let key = format!("jsonb_build_array({})", key.join(", "));
                selected.push(match &projected.parked {
                    Some(function) => format!("{function}({key}) AS {PARKED}"),
                    None => format!("projector.is_parked({}, {key}) AS {PARKED}", literal(name)),
                });
            }
            (_, Err(unknown), _) => return Err(unknown),
        }
    }
    let selected = if selected.is_empty() { "*".to_string() } else { selected.join(", ") };
    let mut arguments = Vec::new();
    let conditions: Result<Vec<String>, UnknownColumn> =
        query.filters.iter().map(|filter| Ok(condition(filter, type_of(&filter.column)?, &mut arguments))).collect();
    let mut sql = format!("SELECT {selected} FROM {}.{}", ident(schema), ident(name));
    let conditions = conditions?;
    if !conditions.is_empty() {
        sql += &format!(" WHERE {}", conditions.join(" AND "));
    }
    let mut orders = Vec::new();
    for order in &query.order {
        type_of(&order.column)?;
        let direction = if order.descending { " DESC" } else { "" };
        let nulls = match order.nulls_first {
            Some(true) => " NULLS FIRST",
            Some(false) => " NULLS LAST",
            None => "",
        };
        orders.push(format!("{}{direction}{nulls}", ident(&order.column)));
    }
    if !orders.is_empty() {
        sql += &format!(" ORDER BY {}", orders.join(", "));
    }
    let limit = query.limit.unwrap_or(u64::MAX).min(max_rows.into());
    sql += &format!(" LIMIT {limit} OFFSET {}", query.offset.min(i64::MAX as u64));
    // In the same snapshot as the rows.
    let parked = match &relation.projected {
        Some(_) => format!("projector.parked_sequences({})", literal(name)),
        None => "0::bigint".into(),
    };
    let whole = format!("SELECT coalesce(json_agg(q), '[]')::text, count(*), {parked} FROM ({sql}) AS q");
    Ok((whole, arguments))
}

fn condition(filter: &Filter, type_: &str, arguments: &mut Vec<String>) -> String {
    let column = ident(&filter.column);
    let mut argument = |value: &str| {
        arguments.push(value.to_string());
        format!("${}::text", arguments.len())
    };
    let positive = match &filter.test {
        Test::Compare(comparison, value) => {
            let operator = match comparison {
                Comparison::Equal => "=",
                Comparison::NotEqual => "<>",
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
            };
            format!("{column} {operator} {}::{type_}", argument(value))
        }
        Test::In(values) if values.is_empty() => "false".into(),
        Test::In(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("{}::{type_}", argument(value))).collect();
            format!("{column} IN ({})", values.join(", "))
        }
        Test::Is(is) => {
            let what = match is {
                Is::Null => "NULL",
                Is::NotNull => "NOT NULL",
                Is::True => "TRUE",
                Is::False => "FALSE",
                Is::Unknown => "UNKNOWN",
            };
            format!("{column} IS {what}")
        }
        Test::Like { pattern, ignore_case } => {
            let operator = if *ignore_case { "ILIKE" } else { "LIKE" };
            format!("{column}::text {operator} {}", argument(&pattern.replace('*', "%")))
        }
    };
    if filter.negated { format!("NOT ({positive})") } else { positive }
}

/// Runs a statement.
///
/// # Errors
/// What Postgres says, for example of a value that its column's type cannot be.
pub async fn run(pool: &PgPool, sql: String, arguments: Vec<String>) -> Result<Answer, sqlx::Error> {
    let mut bound = PgArguments::default();
    for argument in arguments {
        bound.add(argument).map_err(sqlx::Error::Encode)?;
    }
    let row = sqlx::query_with(vouched(sql), bound).fetch_one(pool).await?;
    Ok(Answer { json: row.try_get(0)?, rows: row.try_get(1)?, parked: row.try_get(2)? })
}

/// How many rows a view has.
///
/// # Errors
/// What Postgres says.
pub async fn count(pool: &PgPool, schema: &str, view: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(vouched(format!("SELECT count(*) FROM {}.{}", ident(schema), ident(view)))).fetch_one(pool).await
}

/// How far a projection is with one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    Applied,
    /// The next offset of its partition that will be applied.
    NotYet(i64),
    /// It is parked: its code and message.
    Parked(String, String),
    /// The projection does not read that partition.
    Elsewhere,
}

/// Looks how far a generation is with an event.
///
/// # Errors
/// What Postgres says.
pub async fn reached(pool: &PgPool, generation: i64, place: &Place) -> Result<Reached, sqlx::Error> {
    let row = sqlx::query(
        "SELECT c.next_offset, d.code, d.message FROM projector.checkpoints c LEFT JOIN projector.dead_letters d
             ON d.generation_id = c.generation_id AND d.topic = c.topic AND d.partition = c.partition AND d.\"offset\" = $4
         WHERE c.generation_id = $1 AND c.topic = $2 AND c.partition = $3",
    )
    .bind(generation)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(place.offset)
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(Reached::Elsewhere) };
    let (next, code): (i64, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    Ok(match code {
        Some(code) => Reached::Parked(code, row.try_get(2)?),
        None if next > place.offset => Reached::Applied,
        None => Reached::NotYet(next),
    })
}
