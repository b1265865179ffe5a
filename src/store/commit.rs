//! A batch's rows and its checkpoint, in one transaction.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, PgPool, Row};

use super::bind::Instant;
use super::error::StoreError;
use super::marks::Marks;
use super::parked;
use super::propagate::enter_gate;
use super::seen;
use super::write::{Way, Writer};
use crate::batch::Sealed;
use crate::checkpoint::Partition;
use crate::plan::Plan;
use crate::proof::{self, Sabotage};

/// One physical build of a projection.
#[derive(Debug, Clone)]
pub struct Generation {
    pub id: i64,
    pub projection: String,
    pub number: i32,
    pub schema: String,
}

/// As the log names it: the projection and the number, such as `orders.2`.
impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.projection, self.number)
    }
}

/// Commits patches and progress together. The first statement moves the checkpoint by compare-and-set, so that a batch
/// that overlaps what is already applied writes nothing.
///
/// # Errors
/// [`StoreError::Superseded`] when the checkpoint was not where the batch began; else what Postgres says.
pub async fn commit(
    pool: &PgPool,
    plan: &Plan,
    generation: &Generation,
    batch: &Sealed,
    rate: f64,
    way: Way,
) -> Result<Written, StoreError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    move_checkpoint(&mut transaction, generation, batch, rate).await?;
    if proof::sabotaged(Sabotage::CheckpointApart) {
        transaction.commit().await?;
        transaction = connection.begin().await?;
    }
    proof::failpoint(proof::AFTER_CHECKPOINT);
    let written = write_batch(&mut transaction, plan, generation, batch, way).await?;
    proof::failpoint(proof::BEFORE_COMMIT);
    proof::step("marked").await;
    match transaction.commit().await {
        Ok(()) => {}
        Err(error) => {
            return Err(match StoreError::from(error) {
                StoreError::Transient(error) => StoreError::Unknown(error),
                other => other,
            });
        }
    }
    proof::failpoint(proof::AFTER_COMMIT);
    if proof::sabotaged(Sabotage::ParkedApart) {
        parked::park(&mut connection, plan, generation, &batch.parked).await?;
    }
    Ok(written)
}

/// What came of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub rows: u64,
    /// Rows of other tables follow from it.
    pub marked: bool,
}

/// Writes all of a batch but its progress.
pub(super) async fn write_batch(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
    batch: &Sealed,
    way: Way,
) -> Result<Written, StoreError> {
    seen::require_unlogged(connection, plan, generation).await?;
    seen::count(connection, generation, &batch.counted).await?;
    count_unhandled(connection, plan, generation, batch).await?;
    parked::count_skipped(connection, generation, &batch.skipped).await?;
    if !proof::sabotaged(Sabotage::ParkedApart) {
        parked::park(connection, plan, generation, &batch.parked).await?;
    }
    enter_gate(connection, plan, generation).await?;
    proof::step("begun").await;
    let schema = generation.schema.as_str();
    let mut writer = Writer {
        plan,
        schema,
        way,
        building: batch.building.as_deref(),
        misapplied: Vec::new(),
        marks: Marks::default(),
    };
    let mut rows = 0;
    for at in &plan.write_order {
        rows += writer.table(connection, *at, &batch.tables[*at]).await?;
    }
    if !writer.misapplied.is_empty() {
        return Err(StoreError::Misapplied(writer.misapplied));
    }
    proof::step("written").await;
    let marked = !writer.marks.is_empty();
    writer.marks.write(connection, schema, None).await?;
    Ok(Written { rows, marked })
}

async fn move_checkpoint(
    connection: &mut PgConnection,
    generation: &Generation,
    batch: &Sealed,
    rate: f64,
) -> Result<(), StoreError> {
    const COMPARE: &str = "WHERE c.generation_id = $1 AND c.next_offset = step.from_offset
        AND (c.stop_at IS NULL OR c.stop_until < clock_timestamp() OR step.to_offset <= c.stop_at)";
    const BLINDLY: &str = "WHERE c.generation_id = $1";
    let blindly = proof::sabotaged(Sabotage::CheckpointCompare) || proof::sabotaged(Sabotage::LostCommit);
    let condition = if blindly { BLINDLY } else { COMPARE };
    let sql = format!(
        "WITH step AS (
            SELECT * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::timestamptz[],
                $9::bigint[]) AS s(topic, partition, from_offset, to_offset, events, last_time, clock)
        ), held AS (
            SELECT c.topic, c.partition FROM projector.checkpoints c JOIN step USING (topic, partition)
            {condition}
            ORDER BY c.topic, c.partition FOR UPDATE OF c
        )
        UPDATE projector.checkpoints c
        SET next_offset = step.to_offset, events = c.events + step.events, rate = $8,
            starts = CASE WHEN $10 THEN c.starts ELSE 0 END, suspect = NULL, tries = 0, last_time = COALESCE(step.last_time, c.last_time), clock = GREATEST(c.clock, step.clock), committed_at = clock_timestamp()
        FROM step JOIN held USING (topic, partition)
        WHERE c.generation_id = $1 AND c.topic = step.topic AND c.partition = step.partition"
    );
    let progress = &batch.progress;
    let steps = || progress.0.values();
    let moved = sqlx::query(super::sql::vouched(sql))
        .bind(generation.id)
        .bind(progress.0.keys().map(|p| p.topic.as_str()).collect::<Vec<_>>())
        .bind(progress.0.keys().map(|p| p.partition).collect::<Vec<_>>())
        .bind(steps().map(|s| s.from).collect::<Vec<_>>())
        .bind(steps().map(|s| s.to).collect::<Vec<_>>())
        .bind(steps().map(|s| s.events as i64).collect::<Vec<_>>())
        .bind(steps().map(|s| s.last_time.map(Instant)).collect::<Vec<_>>())
        .bind(rate)
        .bind(steps().map(|s| s.clock).collect::<Vec<_>>())
        .bind(batch.careful)
        .execute(connection)
        .await?;
    if moved.rows_affected() != progress.0.len() as u64 {
        return Err(StoreError::superseded(progress));
    }
    Ok(())
}

async fn count_unhandled(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
    batch: &Sealed,
) -> Result<(), StoreError> {
    if batch.unhandled.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO projector.unhandled AS u (generation_id, source, type, events)
         SELECT $1, n.source, n.type, n.events FROM unnest($2::text[], $3::text[], $4::bigint[]) AS n(source, type, events)
         ON CONFLICT (generation_id, source, type) DO UPDATE SET events = u.events + excluded.events",
    )
    .bind(generation.id)
    .bind(batch.unhandled.keys().map(|(source, _)| plan.sources[*source].name.as_str()).collect::<Vec<_>>())
    .bind(batch.unhandled.keys().map(|(_, type_)| type_.as_str()).collect::<Vec<_>>())
    .bind(batch.unhandled.values().map(|events| *events as i64).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// How far a partition is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    pub next_offset: i64,
    /// The greatest event time so far, in microseconds.
    pub clock: Option<i64>,
    /// Nothing from here on may be committed for now.
    pub stop_at: Option<i64>,
}

/// The checkpoints of a generation, by partition.
///
/// # Errors
/// What Postgres says.
pub async fn checkpoints(pool: &PgPool, generation: &Generation) -> Result<BTreeMap<Partition, Reached>, StoreError> {
    let rows = sqlx::query(
        "SELECT topic, partition, next_offset, clock, CASE WHEN stop_until >= clock_timestamp() THEN stop_at END
         FROM projector.checkpoints WHERE generation_id = $1",
    )
    .bind(generation.id)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let partition = Partition { topic: row.try_get(0)?, partition: row.try_get(1)? };
            let reached = Reached { next_offset: row.try_get(2)?, clock: row.try_get(3)?, stop_at: row.try_get(4)? };
            Ok((partition, reached))
        })
        .collect()
}
