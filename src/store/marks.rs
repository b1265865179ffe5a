//! Marks: what has changed that other rows follow from, durable until they have followed.
//!
//! A mark commits with the change it tells of and names an edge of the plan and a key: of the row that was joined from, or
//! of the row that is aggregated into. They are appended and never changed, so that nobody waits for anybody to leave
//! one; who has carried some out removes exactly those that were seen.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Executor, PgExecutor, Row};

use super::error::StoreError;
use super::sql::{ident, vouched};
use crate::batch::Key;
use crate::plan::derived::Edge;
use crate::plan::{Column, Plan, Table};
use crate::proof::{self, Sabotage};
use crate::value::Value;
use crate::value::json::json_items;

const MARKS: &str = "projector_marks";

/// The marks table of a generation.
pub fn marks_name(schema: &str) -> String {
    format!("{}.{}", ident(schema), ident(MARKS))
}

/// The statement that makes the table.
pub fn create_marks(schema: &str) -> String {
    format!(
        "CREATE TABLE {} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, edge integer NOT NULL, key text NOT NULL, \
         deltas numeric[], search boolean NOT NULL, \
         origin bigint, marked_at timestamptz NOT NULL DEFAULT now()) \
         WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 10000)",
        marks_name(schema)
    )
}

/// The mark that a change goes back to: who waits for that one waits for what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub id: i64,
    /// Microseconds since the Unix epoch.
    pub marked_at: i64,
}

impl Origin {
    /// The older of the two.
    pub fn older(self, other: Origin) -> Origin {
        if other.id < self.id { other } else { self }
    }
}

/// What changes by one transaction, each edge and key once.
#[derive(Debug, Default)]
pub struct Marks {
    found: BTreeMap<(usize, String), Change>,
}

#[derive(Debug, Default)]
struct Change {
    /// What each sum changes by; empty for joins.
    deltas: Vec<Decimal>,
    /// Something changed that no sum tells.
    search: bool,
}

/// The numbers of a sum have more digits than can be counted with.
#[derive(Debug)]
pub struct TooManyDigits;

impl Marks {
    /// Another table's rows may refer to this one.
    pub fn touch(&mut self, edge: usize, key: &[Value]) {
        self.found.entry((edge, key_text(key))).or_default();
    }

    /// A row that is aggregated into another has changed.
    ///
    /// # Errors
    /// When a sum of changes leaves what a decimal holds.
    pub fn add(&mut self, edge: usize, key: &[Value], deltas: &[Decimal], search: bool) -> Result<(), TooManyDigits> {
        let change = self.found.entry((edge, key_text(key))).or_default();
        change.deltas.resize(deltas.len(), Decimal::ZERO);
        for (total, delta) in change.deltas.iter_mut().zip(deltas) {
            *total = total.checked_add(*delta).ok_or(TooManyDigits)?;
        }
        change.search |= search;
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Writes them down. `origin` is for those that follow from others.
    ///
    /// # Errors
    /// What Postgres says.
    pub async fn write(
        mut self,
        connection: &mut PgConnection,
        schema: &str,
        origin: Option<Origin>,
    ) -> Result<(), StoreError> {
        const AT_ONCE: usize = 20_000;
        // What comes to nothing changes nothing.
        self.found.retain(|_, change| {
            change.deltas.is_empty() || change.search || change.deltas.iter().any(|d| !d.is_zero())
        });
        let all: Vec<(&(usize, String), &Change)> = self.found.iter().collect();
        let sql = format!(
            "INSERT INTO {} (edge, key, deltas, search, origin, marked_at)
             SELECT m.edge, m.key, m.deltas::numeric[], m.search, $5, COALESCE(to_timestamp($6::numeric / 1000000), now())
             FROM unnest($1::integer[], $2::text[], $3::text[], $4::boolean[]) AS m(edge, key, deltas, search)",
            marks_name(schema)
        );
        for some in all.chunks(AT_ONCE) {
            let deltas = |change: &Change| {
                let deltas: Vec<String> = change.deltas.iter().map(Decimal::to_string).collect();
                (!deltas.is_empty()).then(|| format!("{{{}}}", deltas.join(",")))
            };
            sqlx::query(vouched(sql.clone()))
                .bind(some.iter().map(|((edge, _), _)| *edge as i32).collect::<Vec<_>>())
                .bind(some.iter().map(|((_, key), _)| key.as_str()).collect::<Vec<_>>())
                .bind(some.iter().map(|(_, change)| deltas(change)).collect::<Vec<_>>())
                .bind(some.iter().map(|(_, change)| change.search).collect::<Vec<_>>())
                .bind(origin.map(|origin| origin.id))
                .bind(origin.map(|origin| origin.marked_at))
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}

fn key_text(key: &[Value]) -> String {
    let parts: Vec<String> = key.iter().map(Value::to_json_text).collect();
    format!("[{}]", parts.join(","))
}

/// The columns that the key of an edge's marks has.
fn key_columns<'p>(plan: &'p Plan, edge: &Edge) -> &'p [Column] {
    let table: &Table = match plan.join(edge) {
        Some(_) => &plan.tables[edge.from],
        None => &plan.tables[edge.to],
    };
    &table.key
}

/// Marks of one edge, those of one key together.
#[derive(Debug)]
pub struct Taken {
    pub edge: usize,
    pub keys: Vec<Marked>,
}

#[derive(Debug)]
pub struct Marked {
    pub key: Key,
    /// The marks that were seen.
    pub ids: Vec<i64>,
    /// The sums of the deltas, as texts.
    pub deltas: Vec<String>,
    pub search: bool,
    pub origin: Origin,
}

/// The oldest marks of the edge that has the oldest one.
///
/// # Errors
/// What Postgres says.
pub async fn oldest(
    connection: &mut PgConnection,
    plan: &Plan,
    schema: &str,
    most: i64,
) -> Result<Option<Taken>, StoreError> {
    let name = marks_name(schema);
    let sums =
        plan.edges.iter().filter_map(|edge| plan.rollup(edge)).map(|rollup| rollup.sums.len()).max().unwrap_or(0);
    let sums: Vec<String> = (1..=sums).map(|at| format!("coalesce(sum(deltas[{at}]), 0)")).collect();
    let sql = format!(
        "SELECT edge, key, array_agg(id), ARRAY[{}]::text[], bool_or(search), min(COALESCE(origin, id)),
             (extract(epoch FROM min(marked_at)) * 1000000)::bigint
         FROM (SELECT * FROM {name} WHERE edge = (SELECT edge FROM {name} ORDER BY id LIMIT 1) ORDER BY id LIMIT {most}) AS m
         GROUP BY edge, key",
        sums.join(", ")
    );
    let rows = connection.fetch_all(vouched(sql)).await?;
    let mut taken: Option<Taken> = None;
    for row in rows {
        let (edge, key): (i32, &str) = (row.try_get(0)?, row.try_get(1)?);
        let lost =
            || StoreError::Catalog(format!("a mark names the edge {edge} and the key {key}: the plan has none such"));
        let columns = plan.edges.get(edge as usize).map(|edge| key_columns(plan, edge)).ok_or_else(lost)?;
        let values = json_items(key).map_err(|_| lost())?;
        let parts = columns.iter().zip(values).map(|(column, value)| column.shape.type_.coerce(value));
        let marked = Marked {
            key: parts.collect::<Result<_, _>>().map_err(|_| lost())?,
            ids: row.try_get(2)?,
            deltas: row.try_get(3)?,
            search: row.try_get(4)?,
            origin: Origin { id: row.try_get(5)?, marked_at: row.try_get(6)? },
        };
        taken.get_or_insert_with(|| Taken { edge: edge as usize, keys: Vec::new() }).keys.push(marked);
    }
    Ok(taken)
}

/// Removes marks that are carried out.
///
/// # Errors
/// What Postgres says.
pub async fn remove(connection: &mut PgConnection, schema: &str, taken: &[&Marked]) -> Result<(), StoreError> {
    let name = marks_name(schema);
    let ids: Vec<i64> = taken.iter().flat_map(|marked| marked.ids.iter().copied()).collect();
    if proof::sabotaged(Sabotage::MarkUnseen) {
        let sql = format!("DELETE FROM {name} WHERE (edge, key) IN (SELECT edge, key FROM {name} WHERE id = ANY($1))");
        sqlx::query(vouched(sql)).bind(ids).execute(connection).await?;
        return Ok(());
    }
    sqlx::query(vouched(format!("DELETE FROM {name} WHERE id = ANY($1)"))).bind(ids).execute(connection).await?;
    Ok(())
}

/// Whether nothing is left to be propagated.
///
/// # Errors
/// What Postgres says.
pub async fn is_followed(connection: impl PgExecutor<'_>, plan: &Plan, schema: &str) -> Result<bool, StoreError> {
    if plan.edges.is_empty() {
        return Ok(true);
    }
    let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM {})", marks_name(schema));
    Ok(sqlx::query_scalar(vouched(sql)).fetch_one(connection).await?)
}

/// The marks that are there, and how many keys of which table wait since when.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    pub from: String,
    pub to: String,
    pub keys: i64,
    pub oldest_s: f64,
}

/// What has still to be propagated in a generation, by edge.
///
/// # Errors
/// What Postgres says.
pub async fn pending(pool: &PgPool, generation: i64, schema: &str) -> Result<Vec<Pending>, StoreError> {
    let known = "SELECT EXISTS (SELECT 1 FROM projector.relations WHERE generation_id = $1)";
    if !sqlx::query_scalar::<_, bool>(known).bind(generation).fetch_one(pool).await? {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT r.from_table, r.to_table, count(DISTINCT m.key),
             extract(epoch FROM clock_timestamp() - min(m.marked_at))::double precision
         FROM {} m JOIN projector.relations r ON r.generation_id = $1 AND r.edge = m.edge
         GROUP BY r.edge, r.from_table, r.to_table ORDER BY r.edge",
        marks_name(schema)
    );
    let rows = sqlx::query(vouched(sql)).bind(generation).fetch_all(pool).await?;
    let pending = rows.iter().map(|row| {
        Ok(Pending { from: row.try_get(0)?, to: row.try_get(1)?, keys: row.try_get(2)?, oldest_s: row.try_get(3)? })
    });
    pending.collect()
}
