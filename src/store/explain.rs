//! What is known of a row besides the log: all of one moment, so that it fits together.

use std::collections::BTreeMap;

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{Connection, PgPool, Row};

use super::commit::Generation;
use super::error::StoreError;
use super::marks::is_followed;
use super::parked::decision;
use super::shown::{ShownRow, shown};
use super::sql::{ident, vouched};
use super::status::offsets;
use super::write::Target;
use crate::batch::Key;
use crate::checkpoint::Partition;
use crate::event::Place;
use crate::parking::Decision;
use crate::plan::Plan;

/// A generation as it was at one moment.
#[derive(Debug, Default)]
pub struct Moment {
    /// Microseconds since the Unix epoch.
    pub now: i64,
    /// The next offset of each partition.
    pub checkpoints: Vec<(Partition, i64)>,
    pub verdicts: BTreeMap<Place, Verdict>,
    pub parked: Vec<Parked>,
    /// Changes had still to reach rows that follow from them.
    pub propagating: bool,
}

/// What a person decided about an event, and why.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub decision: Decision,
    pub reason: String,
    pub who: String,
    /// RFC 3339.
    pub at: String,
}

/// A parked event, and a row that it would touch: table and key. It comes once for each of them.
#[derive(Debug)]
pub struct Parked {
    pub place: Place,
    pub type_: Option<String>,
    pub code: String,
    pub message: String,
    pub row: Option<(String, String)>,
}

/// What is known of the row of a table, by its index and the row's key, and the row that readers see.
///
/// # Errors
/// What Postgres says.
pub async fn row_and_moment(
    pool: &PgPool,
    plan: &Plan,
    generation: &Generation,
    served_schema: &str,
    (table, key): (usize, &Key),
) -> Result<(Moment, Option<ShownRow>), StoreError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let known = moment(&mut transaction, plan, generation).await?;
    let served = served(&mut transaction, &Target::new(plan, &generation.schema, table), served_schema, key).await?;
    transaction.rollback().await?;
    Ok((known, served))
}

/// What is known of a generation, in the snapshot of the connection's transaction.
///
/// # Errors
/// What Postgres says.
pub async fn moment(connection: &mut PgConnection, plan: &Plan, generation: &Generation) -> Result<Moment, StoreError> {
    let now = sqlx::query_scalar("SELECT (extract(epoch FROM now()) * 1000000)::bigint");
    Ok(Moment {
        now: now.fetch_one(&mut *connection).await?,
        checkpoints: offsets(&mut *connection, generation.id).await?.into_iter().collect(),
        verdicts: verdicts(connection, generation).await?,
        parked: parked(connection, generation).await?,
        propagating: !is_followed(&mut *connection, plan, &generation.schema).await?,
    })
}

/// The decisions that a lane of the generation would meet.
async fn verdicts(
    connection: &mut PgConnection,
    generation: &Generation,
) -> Result<BTreeMap<Place, Verdict>, StoreError> {
    let rows = sqlx::query(
        "SELECT d.topic, d.partition, d.\"offset\", d.decision, d.payload, d.reason, d.decided_by,
             to_json(d.decided_at)#>>'{}'
         FROM projector.decisions d LEFT JOIN projector.topics t ON t.generation_id = $1 AND t.topic = d.topic
         WHERE d.projection = $2 AND (d.topic_id IS NULL OR t.topic_id IS NULL OR d.topic_id = t.topic_id)",
    )
    .bind(generation.id)
    .bind(&generation.projection)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let place = Place { topic: row.try_get(0)?, partition: row.try_get(1)?, offset: row.try_get(2)? };
            let decision = decision(row.try_get(3)?, row.try_get(4)?);
            Ok((place, Verdict { decision, reason: row.try_get(5)?, who: row.try_get(6)?, at: row.try_get(7)? }))
        })
        .collect()
}

async fn parked(connection: &mut PgConnection, generation: &Generation) -> Result<Vec<Parked>, StoreError> {
    let rows = sqlx::query(
        "SELECT d.topic, d.partition, d.\"offset\", d.type, d.code, d.message, p.\"table\", p.key::text
         FROM projector.dead_letters d LEFT JOIN projector.parked_rows p
             ON p.generation_id = d.generation_id AND p.topic = d.topic AND p.partition = d.partition
             AND p.\"offset\" = d.\"offset\"
         WHERE d.generation_id = $1 ORDER BY d.id, p.\"table\", p.key",
    )
    .bind(generation.id)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let (table, key): (Option<String>, Option<String>) = (row.try_get(6)?, row.try_get(7)?);
            Ok(Parked {
                place: Place { topic: row.try_get(0)?, partition: row.try_get(1)?, offset: row.try_get(2)? },
                type_: row.try_get(3)?,
                code: row.try_get(4)?,
                message: row.try_get(5)?,
                row: table.zip(key),
            })
        })
        .collect()
}

/// The row as its view has it.
async fn served(
    connection: &mut PgConnection,
    target: &Target<'_>,
    served_schema: &str,
    key: &Key,
) -> Result<Option<ShownRow>, StoreError> {
    let view = format!("{}.{}", ident(served_schema), ident(&target.table.name));
    let sql =
        format!("SELECT to_jsonb(t)::text FROM {} JOIN {view} AS t ON {}", target.unnest(&[], &[]), target.same_key());
    let mut arguments = PgArguments::default();
    target.bind_key(&mut arguments, std::iter::once(key))?;
    let text: Option<String> = sqlx::query_scalar_with(vouched(sql), arguments).fetch_optional(connection).await?;
    Ok(shown(text.as_deref()))
}
