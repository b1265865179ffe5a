//! Identities of events that were counted, and whether unlogged tables are still what was written to them.

use std::collections::HashMap;

use sqlx::postgres::PgConnection;
use sqlx::{PgPool, Row};

use super::commit::Generation;
use super::error::StoreError;
use super::sql::{ident, vouched};
use super::tables::{SEEN, WITNESS};
use crate::checkpoint::Partition;
use crate::plan::Plan;
use crate::proof::{self, Sabotage};
use crate::seen::Counted;

/// Counts events, in the transaction of their batch.
///
/// # Errors
/// [`StoreError::Repeated`] with those that were counted before; the batch is to be folded again without them.
pub(super) async fn count(
    connection: &mut PgConnection,
    generation: &Generation,
    counted: &[Counted],
) -> Result<(), StoreError> {
    if counted.is_empty() {
        return Ok(());
    }
    let table = format!("{}.{}", ident(&generation.schema), ident(SEEN));
    // What is older than its partition's horizon counts as not known, whether it was cleaned away yet or not.
    let sql = format!(
        "INSERT INTO {table} AS k (topic, partition, identity, time, horizon)
         SELECT * FROM unnest($1::text[], $2::int[], $3::bytea[], $4::bigint[], $5::bigint[])
         ON CONFLICT (topic, partition, identity) DO UPDATE SET time = excluded.time, horizon = excluded.horizon
             WHERE k.time < excluded.horizon
         RETURNING topic, partition, identity"
    );
    let rows = sqlx::query(vouched(sql))
        .bind(counted.iter().map(|c| c.partition.topic.as_str()).collect::<Vec<_>>())
        .bind(counted.iter().map(|c| c.partition.partition).collect::<Vec<_>>())
        .bind(counted.iter().map(|c| &c.identity.0[..]).collect::<Vec<_>>())
        .bind(counted.iter().map(|c| c.time).collect::<Vec<_>>())
        .bind(counted.iter().map(|c| c.horizon).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
    let mut new: HashMap<(Partition, Vec<u8>), ()> = HashMap::new();
    for row in &rows {
        let partition = Partition { topic: row.try_get(0)?, partition: row.try_get(1)? };
        new.insert((partition, row.try_get(2)?), ());
    }
    let is_new = |c: &&Counted| new.contains_key(&(c.partition.clone(), c.identity.0.to_vec()));
    let repeats: Vec<Counted> = counted.iter().filter(|c| !is_new(c)).cloned().collect();
    if !repeats.is_empty() && !proof::sabotaged(Sabotage::Dedupe) {
        return Err(StoreError::Repeated(repeats));
    }
    forget(connection, &table, counted).await
}

/// Cleans away identities that nobody can know any more.
async fn forget(connection: &mut PgConnection, table: &str, counted: &[Counted]) -> Result<(), StoreError> {
    let mut horizons: HashMap<&Partition, i64> = HashMap::new();
    for c in counted {
        let horizon = horizons.entry(&c.partition).or_insert(c.horizon);
        *horizon = c.horizon.max(*horizon);
    }
    let sql = format!(
        "DELETE FROM {table} k USING unnest($1::text[], $2::int[], $3::bigint[]) AS h(topic, partition, horizon)
         WHERE k.topic = h.topic AND k.partition = h.partition AND k.time < h.horizon"
    );
    sqlx::query(vouched(sql))
        .bind(horizons.keys().map(|p| p.topic.as_str()).collect::<Vec<_>>())
        .bind(horizons.keys().map(|p| p.partition).collect::<Vec<_>>())
        .bind(horizons.values().copied().collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Refuses to write when Postgres has emptied the unlogged tables, as it does after a crash.
///
/// # Errors
/// What to do about it.
pub(super) async fn require_unlogged(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
) -> Result<(), StoreError> {
    if !plan.tables.iter().any(|table| table.unlogged) {
        return Ok(());
    }
    let sql = format!("SELECT EXISTS (SELECT 1 FROM {}.{})", ident(&generation.schema), ident(WITNESS));
    if sqlx::query_scalar(vouched(sql)).fetch_one(connection).await? {
        return Ok(());
    }
    Err(StoreError::Catalog(format!(
        "Postgres has emptied the unlogged tables of `{}`, as it does after a crash. Build the view anew: projector apply \
         --recreate {}",
        plan.name, plan.name
    )))
}

/// The same, before anything is written.
///
/// # Errors
/// What to do about it, or what Postgres says.
pub async fn require_intact(pool: &PgPool, plan: &Plan, generation: &Generation) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await?;
    require_unlogged(&mut connection, plan, generation).await
}
