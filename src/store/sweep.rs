//! Sweeping rows that have expired, or have ended so long ago that they are forgotten.
//!
//! Either happens when the partition's own time has passed it; every later event of the row finds an empty one anyway. So
//! rows that the slowest partition has passed can go, whenever, and nothing that is ever read depends on it.

use sqlx::{PgPool, Row};

use super::commit::Generation;
use super::error::StoreError;
use super::sql::{ident, vouched};
use super::tables::{PRESENCE, table_name};
use crate::patch::{EVER, FINAL};
use crate::plan::{Plan, Table};

/// Deletes expired rows, in small transactions. Returns how many.
///
/// # Errors
/// What Postgres says.
pub async fn sweep(pool: &PgPool, plan: &Plan, generation: &Generation) -> Result<u64, StoreError> {
    let mut swept = 0;
    for table in plan.tables.iter().filter(|table| table.expire.is_some() || table.forget.is_some()) {
        if let Some(passed) = passed_by_all(pool, plan, generation, table).await? {
            swept += sweep_table(pool, generation, table, passed).await?;
        }
    }
    Ok(swept)
}

/// The time that every partition which feeds the table has passed. Partitions without events have no rows.
async fn passed_by_all(
    pool: &PgPool,
    plan: &Plan,
    generation: &Generation,
    table: &Table,
) -> Result<Option<i64>, StoreError> {
    let rows = sqlx::query(
        "SELECT topic, min(clock) FROM projector.checkpoints
         WHERE generation_id = $1 AND clock IS NOT NULL GROUP BY topic",
    )
    .bind(generation.id)
    .fetch_all(pool)
    .await?;
    let feeds = |topic: &str| table.handlers.iter().any(|handler| plan.sources[handler.source].topics.matches(topic));
    let mut least = None;
    for row in &rows {
        let (topic, clock): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        if feeds(&topic) {
            least = Some(least.map_or(clock, |least: i64| least.min(clock)));
        }
    }
    Ok(least)
}

async fn sweep_table(pool: &PgPool, generation: &Generation, table: &Table, passed: i64) -> Result<u64, StoreError> {
    const AT_ONCE: u64 = 1_000;
    let name = table_name(&generation.schema, table);
    let column = |at: u16| ident(&table.columns[usize::from(at)].name);
    let passed_column = |at: u16| format!("{} <= to_timestamp($1::numeric / 1000000)", column(at));
    let mut due: Vec<String> = table.expire.map(passed_column).into_iter().collect();
    if let Some(forget) = table.forget {
        let absent = table.alive.iter().map(|at| format!(" AND {} IS NOT TRUE", column(*at)));
        let absent: String = absent.collect();
        let sources = EVER - 1;
        due.push(format!("({} AND {PRESENCE} & {sources} = 0{absent})", passed_column(forget.column)));
    }
    let due = due.join(" OR ");
    let open = if table.has_finals() { format!(" AND {PRESENCE} & {FINAL} = 0") } else { String::new() };
    let sql = format!(
        "DELETE FROM {name} WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM {name} WHERE ({due}){open}
             LIMIT {AT_ONCE} FOR UPDATE SKIP LOCKED))"
    );
    let mut swept = 0;
    loop {
        let gone = sqlx::query(vouched(sql.clone())).bind(passed).execute(pool).await?.rows_affected();
        swept += gone;
        if gone < AT_ONCE {
            return Ok(swept);
        }
    }
}
