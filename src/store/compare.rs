//! What readers would see differently in another generation.

use sqlx::postgres::PgConnection;
use sqlx::{Column as _, Executor, Row, Statement};

use super::commit::Generation;
use super::error::StoreError;
use super::shown::{ShownRow, shown};
use super::sql::{ident, literal, vouched};
use super::tables::{sql_type, table_name, view_query};
use crate::batch::Key;
use crate::plan::{Column, Plan, Table};
use crate::value::Value;

/// How two generations differ in one view.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub view: String,
    /// Rows in the old one and in the new one.
    pub rows: (i64, i64),
    /// Rows that are in the old one alone.
    pub removed: i64,
    /// Rows that are in the new one alone.
    pub added: i64,
    /// Rows that are in both, with other values.
    pub changed: i64,
    /// Columns with other values in so many rows.
    pub columns: Vec<(String, i64)>,
    /// Columns of the old one alone, and of the new one alone.
    pub only: (Vec<String>, Vec<String>),
    /// The columns of the key.
    pub key: Vec<String>,
    /// Some rows that differ: as they were, and as they are.
    pub samples: Vec<(Option<ShownRow>, Option<ShownRow>)>,
}

/// A view of both generations.
pub struct Pair<'p> {
    pub name: &'p str,
    pub old: Option<(&'p Plan, &'p Table)>,
    pub new: Option<(&'p Plan, &'p Table)>,
}

/// Some rows of a table.
#[derive(Debug, Clone)]
pub struct Rows {
    pub table: String,
    /// Not empty.
    pub keys: Vec<Key>,
}

impl Rows {
    /// The condition under which a row `alias` of the table is one of them, in a generation.
    fn condition(&self, table: &Table, schema: &str, alias: &str) -> String {
        let is_part = |(column, value): (&Column, &Value)| {
            let text = literal(&value.to_sql_text().unwrap_or_default());
            format!("{alias}.{} = {text}::{}", ident(&column.name), sql_type(schema, &table.name, column))
        };
        let is_one = |key: &Key| table.key.iter().zip(key).map(is_part).collect::<Vec<_>>().join(" AND ");
        let any: Vec<String> = self.keys.iter().map(|key| format!("({})", is_one(key))).collect();
        format!("({})", any.join(" OR "))
    }
}

/// The served tables of two plans, by name.
pub fn pairs<'p>(old: &'p Plan, new: &'p Plan) -> Vec<Pair<'p>> {
    fn served(plan: &Plan) -> impl Iterator<Item = &Table> {
        plan.tables.iter().filter(|table| table.served)
    }
    let mut names: Vec<&str> = served(old).chain(served(new)).map(|table| table.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let find = |plan: &'p Plan, name: &str| served(plan).find(|table| table.name == name).map(|table| (plan, table));
    names.into_iter().map(|name| Pair { name, old: find(old, name), new: find(new, name) }).collect()
}

/// The columns that readers see, with their types.
async fn columns(connection: &mut PgConnection, query: &str) -> Result<Vec<(String, String)>, StoreError> {
    let statement = connection.prepare(vouched(query.to_string())).await?;
    Ok(statement.columns().iter().map(|column| (column.name().into(), column.type_info().to_string())).collect())
}

/// Compares a view, in the snapshot of the connection's transaction; or some of its rows.
///
/// # Errors
/// What Postgres says. Inside, why the two cannot be compared.
pub async fn compare(
    connection: &mut PgConnection,
    pair: &Pair<'_>,
    (old, new): (&Generation, &Generation),
    only: Option<&Rows>,
    samples: i64,
) -> Result<Result<Difference, String>, StoreError> {
    let name = pair.name;
    let (Some((_, before)), Some((_, after))) = (pair.old, pair.new) else {
        let which = if pair.old.is_some() { "old" } else { "new" };
        return Ok(Err(format!("only the {which} generation has the view {name}")));
    };
    let seen = |table: &Table, schema: &str| {
        let query = view_query(table, schema);
        match only {
            Some(rows) => format!("SELECT * FROM ({query}) AS q WHERE {}", rows.condition(table, schema, "q")),
            None => query,
        }
    };
    let (old_query, new_query) = (seen(before, &old.schema), seen(after, &new.schema));
    let (old_columns, new_columns) = (columns(connection, &old_query).await?, columns(connection, &new_query).await?);
    let type_in = |columns: &[(String, String)], name: &str| {
        columns.iter().find(|(known, _)| known == name).map(|(_, type_)| type_.clone())
    };
    let key: Vec<&str> = before.key.iter().map(|column| column.name.as_str()).collect();
    let same_key = before.key.len() == after.key.len()
        && before.key.iter().zip(&after.key).all(|(a, b)| a.name == b.name && a.shape.type_ == b.shape.type_);
    if !same_key {
        return Ok(Err(format!("the key of {name} is another one: its rows cannot be told to be the same")));
    }
    let mut only = (Vec::new(), Vec::new());
    let mut compared: Vec<(String, String)> = Vec::new();
    for (column, type_) in &old_columns {
        match type_in(&new_columns, column) {
            None => only.0.push(column.clone()),
            Some(_) if key.contains(&column.as_str()) => {}
            Some(other) => {
                let column = ident(column);
                // Enums are of their own generation; json has no equality.
                let plain = other == *type_ && !type_.contains('@') && type_ != "json" && type_ != "JSON";
                let cast = if plain { "" } else { "::text" };
                compared.push((column.clone(), format!("o.{column}{cast} IS DISTINCT FROM n.{column}{cast}")));
            }
        }
    }
    let added_columns = new_columns.iter().filter(|(column, _)| type_in(&old_columns, column).is_none());
    only.1 = added_columns.map(|(column, _)| column.clone()).collect();

    let first = ident(key[0]);
    let join: Vec<String> = key.iter().map(|column| format!("o.{0}::text = n.{0}::text", ident(column))).collect();
    let from = format!("({old_query}) AS o FULL JOIN ({new_query}) AS n ON {}", join.join(" AND "));
    let (removed, added) = (format!("n.{first} IS NULL"), format!("o.{first} IS NULL"));
    let both = format!("o.{first} IS NOT NULL AND n.{first} IS NOT NULL");
    let any: Vec<&str> = compared.iter().map(|(_, differs)| differs.as_str()).collect();
    let any = if any.is_empty() { "false".to_string() } else { any.join(" OR ") };
    let counts: Vec<String> =
        compared.iter().map(|(_, differs)| format!(", count(*) FILTER (WHERE {both} AND {differs})")).collect();
    let sql = format!(
        "SELECT count(o.{first}), count(n.{first}), count(*) FILTER (WHERE {removed}), count(*) FILTER (WHERE {added}),
             count(*) FILTER (WHERE {both} AND ({any})){} FROM {from}",
        counts.concat()
    );
    let row = connection.fetch_one(vouched(sql)).await?;
    let mut difference = Difference {
        view: name.into(),
        rows: (row.try_get(0)?, row.try_get(1)?),
        removed: row.try_get(2)?,
        added: row.try_get(3)?,
        changed: row.try_get(4)?,
        columns: Vec::new(),
        only,
        key: key.iter().map(ToString::to_string).collect(),
        samples: Vec::new(),
    };
    for (at, (column, _)) in compared.iter().enumerate() {
        let count: i64 = row.try_get(5 + at)?;
        if count > 0 {
            difference.columns.push((column.trim_matches('"').to_string(), count));
        }
    }
    if difference.removed + difference.added + difference.changed > 0 {
        let sql = format!(
            "SELECT CASE WHEN o.{first} IS NOT NULL THEN row_to_json(o)::text END,
                 CASE WHEN n.{first} IS NOT NULL THEN row_to_json(n)::text END
             FROM {from} WHERE {removed} OR {added} OR {any} ORDER BY COALESCE(o.{first}::text, n.{first}::text) LIMIT {samples}"
        );
        for row in connection.fetch_all(vouched(sql)).await? {
            difference.samples.push((shown(row.try_get(0)?), shown(row.try_get(1)?)));
        }
    }
    Ok(Ok(difference))
}

/// Makes the tables of a generation like those of another one of the same definition, or some rows of one of them. Both
/// stand still. Returns how many rows were put right, by table.
///
/// # Errors
/// What Postgres says.
pub async fn mend(
    connection: &mut PgConnection,
    plan: &Plan,
    (wrong, right): (&Generation, &Generation),
    only: Option<&Rows>,
) -> Result<Vec<(String, u64)>, StoreError> {
    let mut mended = Vec::new();
    for table in plan.tables.iter().filter(|table| only.is_none_or(|rows| rows.table == table.name)) {
        let meant = |schema: &str, alias: &str| {
            only.map_or_else(|| "true".to_string(), |rows| rows.condition(table, schema, alias))
        };
        let (into, from) = (table_name(&wrong.schema, table), table_name(&right.schema, table));
        let rows = sqlx::query(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
             WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        )
        .bind(&into)
        .fetch_all(&mut *connection)
        .await?;
        let mut names = Vec::new();
        let mut values = Vec::new();
        for row in &rows {
            let (name, type_): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            // Enums are of their own generation.
            let own = type_.contains(&format!("{}.", ident(&wrong.schema)));
            values.push(if own { format!("s.{}::text::{type_}", ident(&name)) } else { format!("s.{}", ident(&name)) });
            names.push(ident(&name));
        }
        let key: Vec<String> = table.key.iter().map(|column| ident(&column.name)).collect();
        let same: Vec<String> = key.iter().map(|column| format!("s.{column}::text = t.{column}::text")).collect();
        let delete = format!(
            "DELETE FROM {into} AS t WHERE {} AND NOT EXISTS (SELECT 1 FROM {from} AS s WHERE {})",
            meant(&wrong.schema, "t"),
            same.join(" AND ")
        );
        let gone = connection.execute(vouched(delete)).await?.rows_affected();
        let others: Vec<&String> = names.iter().filter(|name| !key.contains(name)).collect();
        let set: Vec<String> = others.iter().map(|name| format!("{name} = excluded.{name}")).collect();
        let differs: Vec<String> =
            others.iter().map(|name| format!("t.{name}::text IS DISTINCT FROM excluded.{name}::text")).collect();
        let action = match others.is_empty() {
            true => "NOTHING".to_string(),
            false => format!("UPDATE SET {} WHERE {}", set.join(", "), differs.join(" OR ")),
        };
        let insert = format!(
            "INSERT INTO {into} AS t ({}) SELECT {} FROM {from} AS s WHERE {} ON CONFLICT ({}) DO {action}",
            names.join(", "),
            values.join(", "),
            meant(&right.schema, "s"),
            key.join(", ")
        );
        let put = connection.execute(vouched(insert)).await?.rows_affected();
        if gone + put > 0 {
            mended.push((table.name.clone(), gone + put));
        }
    }
    Ok(mended)
}
