//! Reads for the endpoint: a query tree to one statement, its rows made to JSON by Postgres.

use std::collections::HashMap;

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, PgPool, Row};

use super::sql::{ident, vouched};
use crate::query::{Comparison, Filter, Is, Query, Test};

/// A relation of the served schema: its columns and their types.
#[derive(Debug, Clone, Default)]
pub struct Relation {
    pub columns: Vec<(String, String)>,
}

/// Rows as a JSON array, and how many they are.
#[derive(Debug)]
pub struct Answer {
    pub json: String,
    pub rows: i64,
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
    Ok(relations)
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
    for column in &query.select {
        type_of(column)?;
    }
    let selected = match query.select.is_empty() {
        true => "*".to_string(),
        false => query.select.iter().map(|column| ident(column)).collect::<Vec<_>>().join(", "),
    };
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
    let whole = format!("SELECT coalesce(json_agg(q), '[]')::text, count(*) FROM ({sql}) AS q");
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
    Ok(Answer { json: row.try_get(0)?, rows: row.try_get(1)? })
}

/// How many rows a view has.
///
/// # Errors
/// What Postgres says.
pub async fn count(pool: &PgPool, schema: &str, view: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(vouched(format!("SELECT count(*) FROM {}.{}", ident(schema), ident(view)))).fetch_one(pool).await
}
