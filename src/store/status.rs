//! What the catalog says of every projection.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgExecutor, PgPool, Row};

use super::error::StoreError;
use super::generations::{Listed, State};
use super::marks::{Pending, pending};
use super::partitions::Halt;
use super::promotion;
use super::tables::schema_name;
use crate::checkpoint::Partition;
use crate::event::Place;

/// A projection as the catalog knows it.
#[derive(Debug, Clone)]
pub struct ProjectionStatus {
    pub projection: String,
    pub generation: i32,
    pub halt: Option<Halt>,
    pub partitions: Vec<PartitionStatus>,
    /// Topics that are read although their early history is gone, with the reason given.
    pub truncated: Vec<(String, String)>,
    /// Source, type and number of the events that no table handles.
    pub unhandled: Vec<(String, String, i64)>,
    /// Events that are parked, and how many of them have an error of their own: the sequences that wait.
    pub parked_events: i64,
    pub parked_sequences: i64,
    /// Error code and number of the events that were passed over because the projection says so.
    pub skipped: Vec<(String, i64)>,
    /// What changes have still to reach the rows that follow from them.
    pub propagating: Vec<Pending>,
    /// Its generations that readers do not see.
    pub others: Vec<Other>,
}

/// A generation that readers do not see.
#[derive(Debug, Clone)]
pub struct Other {
    pub listed: Listed,
    /// Events that the live one has applied and this one has not; `None` if this program cannot fold it.
    pub behind: Option<i64>,
    pub parked_sequences: i64,
    pub halt: Option<String>,
}

#[derive(Debug, Clone)]
pub struct PartitionStatus {
    pub topic: String,
    pub partition: i32,
    pub next_offset: i64,
    pub events: i64,
    /// Events a second; nothing when the last commit is long ago.
    pub rate: f64,
    /// Seconds since the record applied last was written to Kafka.
    pub last_record_s: Option<f64>,
    pub waiting: bool,
}

/// The live generations, by name.
///
/// # Errors
/// What Postgres says.
pub async fn projections(pool: &PgPool) -> Result<Vec<ProjectionStatus>, StoreError> {
    super::catalog::require(pool).await?;
    let generations = sqlx::query(
        "SELECT g.id, g.projection, g.number, h.code, h.message, h.topic, h.partition, h.\"offset\"
         FROM projector.generations g LEFT JOIN projector.halts h ON h.generation_id = g.id
         WHERE g.state = 'live' ORDER BY g.projection",
    )
    .fetch_all(pool)
    .await?;
    let listed = super::generations::list(pool).await?;
    let mut projections = Vec::new();
    for row in generations {
        let id: i64 = row.try_get(0)?;
        let code: Option<String> = row.try_get(3)?;
        let halt = match code {
            None => None,
            Some(code) => {
                let place = match (row.try_get(5)?, row.try_get(6)?, row.try_get(7)?) {
                    (Some(topic), Some(partition), Some(offset)) => Some(Place { topic, partition, offset }),
                    _ => None,
                };
                Some(Halt { code, message: row.try_get(4)?, place })
            }
        };
        let (parked_events, parked_sequences) = super::parked::desk::count(pool, id).await?;
        projections.push(ProjectionStatus {
            projection: row.try_get(1)?,
            generation: row.try_get(2)?,
            halt,
            partitions: partitions(pool, id).await?,
            truncated: truncated(pool, id).await?,
            unhandled: unhandled(pool, id).await?,
            parked_events,
            parked_sequences,
            skipped: skipped(pool, id).await?,
            propagating: pending(pool, id, &schema_name(row.try_get(1)?, row.try_get(2)?)).await?,
            others: others(pool, row.try_get(1)?, &listed).await?,
        });
    }
    Ok(projections)
}

async fn others(pool: &PgPool, projection: &str, listed: &[Listed]) -> Result<Vec<Other>, StoreError> {
    let mut others = Vec::new();
    for listed in listed.iter().filter(|l| l.generation.projection == projection && l.state != State::Live) {
        let id = listed.generation.id;
        let behind = match listed.plan(&[]) {
            Ok(plan) => promotion::behind(pool, &plan, &listed.generation).await?,
            Err(_) => None,
        };
        let (parked_sequences, halt) = (super::parked::desk::count(pool, id).await?.1, halt(pool, id).await?);
        let behind = behind.map(|behind| behind.missing);
        others.push(Other { listed: listed.clone(), behind, parked_sequences, halt });
    }
    Ok(others)
}

async fn partitions(pool: &PgPool, generation: i64) -> Result<Vec<PartitionStatus>, StoreError> {
    let rows = sqlx::query(
        "SELECT topic, partition, next_offset, events,
                CASE WHEN committed_at > now() - interval '15 s' THEN rate ELSE 0 END,
                extract(epoch FROM now() - last_time)::float8, waits_for IS NOT NULL
         FROM projector.checkpoints WHERE generation_id = $1 ORDER BY topic, partition",
    )
    .bind(generation)
    .fetch_all(pool)
    .await?;
    let status = |row: &PgRow| {
        Ok(PartitionStatus {
            topic: row.try_get(0)?,
            partition: row.try_get(1)?,
            next_offset: row.try_get(2)?,
            events: row.try_get(3)?,
            rate: row.try_get(4)?,
            last_record_s: row.try_get(5)?,
            waiting: row.try_get(6)?,
        })
    };
    rows.iter().map(status).collect()
}

/// Topics that a generation reads although their early history is gone, with the reason given.
///
/// # Errors
/// What Postgres says.
pub async fn truncated(pool: &PgPool, generation: i64) -> Result<Vec<(String, String)>, StoreError> {
    let rows =
        sqlx::query("SELECT topic, truncated FROM projector.topics WHERE generation_id = $1 AND truncated IS NOT NULL")
            .bind(generation)
            .fetch_all(pool)
            .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

async fn unhandled(pool: &PgPool, generation: i64) -> Result<Vec<(String, String, i64)>, StoreError> {
    let rows = sqlx::query(
        "SELECT source, type, events FROM projector.unhandled WHERE generation_id = $1 ORDER BY source, events DESC, type",
    )
    .bind(generation)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

async fn skipped(pool: &PgPool, generation: i64) -> Result<Vec<(String, i64)>, StoreError> {
    let rows = sqlx::query("SELECT code, events FROM projector.skipped WHERE generation_id = $1 ORDER BY code")
        .bind(generation)
        .fetch_all(pool)
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Why a generation stands still, if it does.
///
/// # Errors
/// What Postgres says.
pub async fn halt(pool: &PgPool, generation: i64) -> Result<Option<String>, StoreError> {
    let halt = "SELECT message FROM projector.halts WHERE generation_id = $1";
    Ok(sqlx::query_scalar(halt).bind(generation).fetch_optional(pool).await?)
}

/// How many sequences are parked in a generation, and how many in the live one beside it: of events that the live one has
/// passed, for of others nobody knows yet what it does with them.
///
/// # Errors
/// What Postgres says.
pub async fn parked_beside(pool: &PgPool, generation: i64, live: i64) -> Result<(i64, i64), StoreError> {
    let row = sqlx::query(
        "SELECT count(*) FILTER (WHERE d.generation_id = $1), count(*) FILTER (WHERE d.generation_id = $2)
         FROM projector.dead_letters d LEFT JOIN projector.checkpoints c
             ON c.generation_id = $2 AND c.topic = d.topic AND c.partition = d.partition
         WHERE d.generation_id IN ($1, $2) AND NOT d.waits AND (c.next_offset IS NULL OR d.\"offset\" < c.next_offset)",
    )
    .bind(generation)
    .bind(live)
    .fetch_one(pool)
    .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// The next offset of each partition of a generation, in the order of the partitions.
///
/// # Errors
/// What Postgres says.
pub async fn offsets(connection: impl PgExecutor<'_>, generation: i64) -> Result<BTreeMap<Partition, i64>, StoreError> {
    let rows = sqlx::query("SELECT topic, partition, next_offset FROM projector.checkpoints WHERE generation_id = $1")
        .bind(generation)
        .fetch_all(connection)
        .await?;
    rows.iter().map(offset).collect()
}

/// The same, as far as others can get there: without topics that are not there any more.
///
/// # Errors
/// What Postgres says.
pub async fn offsets_of_what_is_there(
    connection: impl PgExecutor<'_>,
    generation: i64,
) -> Result<BTreeMap<Partition, i64>, StoreError> {
    let rows = sqlx::query(
        "SELECT c.topic, c.partition, c.next_offset FROM projector.checkpoints c
         LEFT JOIN projector.topics t ON t.generation_id = c.generation_id AND t.topic = c.topic
         WHERE c.generation_id = $1 AND t.gone_at IS NULL",
    )
    .bind(generation)
    .fetch_all(connection)
    .await?;
    rows.iter().map(offset).collect()
}

fn offset(row: &PgRow) -> Result<(Partition, i64), StoreError> {
    Ok((Partition::new(row.try_get::<String, _>(0)?, row.try_get(1)?), row.try_get(2)?))
}

/// Topics that a generation has read and that are not there any more.
///
/// # Errors
/// What Postgres says.
pub async fn gone(pool: &PgPool, generation: i64) -> Result<Vec<String>, StoreError> {
    let gone = "SELECT topic FROM projector.topics WHERE generation_id = $1 AND gone_at IS NOT NULL ORDER BY topic";
    Ok(sqlx::query_scalar(gone).bind(generation).fetch_all(pool).await?)
}

/// The partitions that a projection's live generation reads.
///
/// # Errors
/// What Postgres says.
pub async fn partitions_of_live(pool: &PgPool, projection: &str) -> Result<Vec<Partition>, StoreError> {
    let rows = sqlx::query(
        "SELECT c.topic, c.partition FROM projector.checkpoints c JOIN projector.generations g
             ON g.id = c.generation_id AND g.state = 'live' WHERE g.projection = $1",
    )
    .bind(projection)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| Ok(Partition::new(row.try_get::<String, _>(0)?, row.try_get(1)?))).collect()
}
