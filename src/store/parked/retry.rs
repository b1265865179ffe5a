//! What the owner of a partition needs to take its dead letters in again, and to store what came of it.

use std::collections::BTreeMap;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Arguments, Connection, PgPool, Row};

use super::{mark_rows, sequences, stored_reason};
use crate::batch::{Key, Sealed};
use crate::checkpoint::Partition;
use crate::error_kind::Reason;
use crate::event::Place;
use crate::parking::{Message, Sequence};
use crate::plan::Plan;
use crate::proof::{self, Sabotage};
use crate::store::commit::{Generation, write_batch};
use crate::store::error::StoreError;
use crate::store::shown::{ShownRow, shown};
use crate::store::sql::{ident, vouched};
use crate::store::tables::table_name;
use crate::store::write::{Target, Way};

/// A dead letter without its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    pub offset: i64,
    pub sequences: Vec<Sequence>,
    pub clock: Option<i64>,
    /// It has no error of its own.
    pub waits: bool,
    pub requested: bool,
    /// Retries that were begun and have not ended.
    pub begun: i32,
    /// Under the same record key, an event of another partition is parked that came before.
    pub behind_elsewhere: bool,
}

/// How many events of a partition are parked, and of how many a person wants a retry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub parked: i64,
    pub requested: i64,
    /// Those that were parked when it was counted before: if they are fewer than then, some were un-parked.
    pub still: i64,
    /// The number of the newest letter.
    pub newest: i64,
}

/// The partitions in which something is parked. `newest` is the greatest of the numbers that were counted before.
///
/// # Errors
/// What Postgres says.
pub async fn counts(
    pool: &PgPool,
    generation: &Generation,
    newest: i64,
) -> Result<BTreeMap<Partition, Counts>, StoreError> {
    let rows = sqlx::query(
        "SELECT topic, partition, count(*), count(requested_at), count(*) FILTER (WHERE id <= $2), max(id)
         FROM projector.dead_letters WHERE generation_id = $1 GROUP BY topic, partition",
    )
    .bind(generation.id)
    .bind(newest)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let partition = Partition { topic: row.try_get(0)?, partition: row.try_get(1)? };
            let counts = Counts {
                parked: row.try_get(2)?,
                requested: row.try_get(3)?,
                still: row.try_get(4)?,
                newest: row.try_get(5)?,
            };
            Ok((partition, counts))
        })
        .collect()
}

/// The dead letters of a partition, in order.
///
/// # Errors
/// What Postgres says.
pub async fn of_partition(
    pool: &PgPool,
    generation: &Generation,
    partition: &Partition,
) -> Result<Vec<Parked>, StoreError> {
    let rows = sqlx::query(
        "SELECT d.\"offset\", d.sequences, d.clock, d.waits, d.requested_at IS NOT NULL, d.begun,
             EXISTS (SELECT 1 FROM projector.dead_letters o
                     WHERE o.generation_id = $1 AND o.topic = $2 AND o.partition <> $3 AND o.id < d.id AND o.key = d.key)
         FROM projector.dead_letters d WHERE d.generation_id = $1 AND d.topic = $2 AND d.partition = $3
         ORDER BY d.\"offset\"",
    )
    .bind(generation.id)
    .bind(&partition.topic)
    .bind(partition.partition)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Parked {
                offset: row.try_get(0)?,
                sequences: sequences(row.try_get(1)?),
                clock: row.try_get(2)?,
                waits: row.try_get(3)?,
                requested: row.try_get(4)?,
                begun: row.try_get(5)?,
                behind_elsewhere: row.try_get(6)?,
            })
        })
        .collect()
}

/// The messages of dead letters, by offset.
///
/// # Errors
/// What Postgres says.
pub async fn messages(
    pool: &PgPool,
    generation_id: i64,
    partition: &Partition,
    offsets: &[i64],
) -> Result<BTreeMap<i64, Message>, StoreError> {
    let rows = sqlx::query(
        "SELECT \"offset\", (extract(epoch FROM record_time) * 1000000)::bigint, key, payload, header_names, header_values
         FROM projector.dead_letters WHERE generation_id = $1 AND topic = $2 AND partition = $3 AND \"offset\" = ANY($4)",
    )
    .bind(generation_id)
    .bind(&partition.topic)
    .bind(partition.partition)
    .bind(offsets)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| message_of(partition, row).map(|message| (message.place.offset, message))).collect()
}

/// A message from the columns offset, time, key, payload, names and values of headers.
pub(super) fn message_of(partition: &Partition, row: &PgRow) -> Result<Message, StoreError> {
    let names: Vec<String> = row.try_get(4)?;
    let values: Vec<Option<Vec<u8>>> = row.try_get(5)?;
    Ok(Message {
        place: partition.at(row.try_get(0)?),
        time: row.try_get(1)?,
        key: row.try_get(2)?,
        payload: row.try_get(3)?,
        headers: names.into_iter().zip(values).collect(),
    })
}

/// Notes that letters are about to be touched.
///
/// # Errors
/// What Postgres says.
pub async fn begin(
    pool: &PgPool,
    generation: &Generation,
    partition: &Partition,
    offsets: &[i64],
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projector.dead_letters SET begun = begun + 1
         WHERE generation_id = $1 AND topic = $2 AND partition = $3 AND \"offset\" = ANY($4)",
    )
    .bind(generation.id)
    .bind(&partition.topic)
    .bind(partition.partition)
    .bind(offsets)
    .execute(pool)
    .await?;
    Ok(())
}

/// Notes that whatever was touched brought nobody down.
///
/// # Errors
/// What Postgres says.
pub async fn end(pool: &PgPool, generation: &Generation, partition: &Partition) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projector.dead_letters SET begun = 0
         WHERE generation_id = $1 AND topic = $2 AND partition = $3 AND begun > 0",
    )
    .bind(generation.id)
    .bind(&partition.topic)
    .bind(partition.partition)
    .execute(pool)
    .await?;
    Ok(())
}

/// A dead letter that was tried again in vain.
#[derive(Debug, Clone)]
pub struct FailedAgain {
    pub place: Place,
    pub reason: Reason,
    pub sequences: Vec<Sequence>,
    pub rows: Vec<(usize, Key)>,
}

/// What came of trying dead letters again.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// Applied, or discarded, with the word for it in the audit trail.
    pub released: Vec<(Place, &'static str)>,
    pub failed: Vec<FailedAgain>,
    /// A retry was asked for, and these still wait behind something.
    pub waiting: Vec<Place>,
}

impl Settled {
    pub fn is_empty(&self) -> bool {
        self.released.is_empty() && self.failed.is_empty() && self.waiting.is_empty()
    }
}

/// What a retry does to a row that readers see; `None`: there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    pub table: String,
    pub before: Option<ShownRow>,
    pub after: Option<ShownRow>,
}

/// Whether a retry is carried out, or only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earnest {
    Really,
    /// All is written and undone again.
    DryRun,
}

/// Stores what came of a retry together with the rows, in one transaction.
///
/// # Errors
/// [`StoreError::Superseded`] when another owner was faster, else those of a batch.
pub async fn commit_retry(
    pool: &PgPool,
    plan: &Plan,
    generation: &Generation,
    batch: &Sealed,
    settled: &Settled,
    earnest: Earnest,
    served_schema: &str,
) -> Result<Vec<RowChange>, StoreError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    release(&mut transaction, generation, settled).await?;
    if proof::sabotaged(Sabotage::RetryApart) {
        transaction.commit().await?;
        proof::failpoint(proof::BETWEEN_RELEASE_AND_ROWS);
        transaction = connection.begin().await?;
    }
    proof::failpoint(proof::BETWEEN_RELEASE_AND_ROWS);
    let dry = earnest == Earnest::DryRun;
    let before =
        if dry { visible(&mut transaction, plan, generation, batch, served_schema).await? } else { Vec::new() };
    write_batch(&mut transaction, plan, generation, batch, Way::Best).await?;
    if dry {
        let after = visible(&mut transaction, plan, generation, batch, served_schema).await?;
        transaction.rollback().await?;
        let changes = before.into_iter().zip(after);
        return Ok(changes
            .map(|((table, before), (_, after))| RowChange { table, before, after })
            .filter(|change| change.before != change.after)
            .collect());
    }
    refuse(&mut transaction, plan, generation, settled).await?;
    transaction.commit().await?;
    Ok(Vec::new())
}

/// Takes letters away that are done with. The first statement: whoever comes second finds them gone.
async fn release(connection: &mut PgConnection, generation: &Generation, settled: &Settled) -> Result<(), StoreError> {
    let places = || settled.released.iter().map(|(place, _)| place);
    let gone = sqlx::query(
        "WITH done AS (
             DELETE FROM projector.dead_letters d
             USING unnest($2::text[], $3::int[], $4::bigint[], $5::text[]) AS n(topic, partition, at, word)
             WHERE d.generation_id = $1 AND d.topic = n.topic AND d.partition = n.partition AND d.\"offset\" = n.at
             RETURNING d.topic, d.partition, d.\"offset\", d.requested_by, n.word
         ), marks AS (
             DELETE FROM projector.parked_rows r USING done
             WHERE r.generation_id = $1 AND r.topic = done.topic AND r.partition = done.partition
                 AND r.\"offset\" = done.\"offset\"
         )
         INSERT INTO projector.audit (who, action, projection, topic, partition, \"offset\")
         SELECT COALESCE(requested_by, 'projector'), word, $6, topic, partition, \"offset\" FROM done",
    )
    .bind(generation.id)
    .bind(places().map(|p| p.topic.as_str()).collect::<Vec<_>>())
    .bind(places().map(|p| p.partition).collect::<Vec<_>>())
    .bind(places().map(|p| p.offset).collect::<Vec<_>>())
    .bind(settled.released.iter().map(|(_, word)| *word).collect::<Vec<_>>())
    .bind(&generation.projection)
    .execute(connection)
    .await?;
    if gone.rows_affected() != settled.released.len() as u64 {
        return Err(StoreError::Superseded { partitions: "dead letters".into() });
    }
    Ok(())
}

/// Notes of the others why they are still there.
async fn refuse(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
    settled: &Settled,
) -> Result<(), StoreError> {
    for failed in &settled.failed {
        let (code, message) = stored_reason(&failed.reason);
        let sequences: Vec<&[u8]> = failed.sequences.iter().map(|sequence| &sequence.0[..]).collect();
        sqlx::query(
            "WITH failed AS (
                 UPDATE projector.dead_letters d
                 SET code = $5, message = $6, waits = false, attempts = d.attempts + 1, tried_at = now(), sequences = $7,
                     requested_at = NULL, requested_by = NULL
                 FROM projector.dead_letters o
                 WHERE d.generation_id = $1 AND d.topic = $2 AND d.partition = $3 AND d.\"offset\" = $4
                     AND (o.generation_id, o.topic, o.partition, o.\"offset\")
                         = (d.generation_id, d.topic, d.partition, d.\"offset\")
                 RETURNING o.requested_by
             )
             INSERT INTO projector.audit (who, action, projection, topic, partition, \"offset\", detail)
             SELECT COALESCE(requested_by, 'projector'), 'failed again', $8, $2, $3, $4, $6 FROM failed",
        )
        .bind(generation.id)
        .bind(&failed.place.topic)
        .bind(failed.place.partition)
        .bind(failed.place.offset)
        .bind(code)
        .bind(message)
        .bind(sequences)
        .bind(&generation.projection)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "DELETE FROM projector.parked_rows
             WHERE generation_id = $1 AND topic = $2 AND partition = $3 AND \"offset\" = $4",
        )
        .bind(generation.id)
        .bind(&failed.place.topic)
        .bind(failed.place.partition)
        .bind(failed.place.offset)
        .execute(&mut *connection)
        .await?;
    }
    let marks = settled.failed.iter().map(|failed| (&failed.place, &failed.rows));
    mark_rows(connection, plan, generation, marks).await?;
    for place in &settled.waiting {
        sqlx::query(
            "UPDATE projector.dead_letters SET requested_at = NULL, requested_by = NULL
             WHERE generation_id = $1 AND topic = $2 AND partition = $3 AND \"offset\" = $4",
        )
        .bind(generation.id)
        .bind(&place.topic)
        .bind(place.partition)
        .bind(place.offset)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The batch's rows as readers see them, in its order.
async fn visible(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
    batch: &Sealed,
    served_schema: &str,
) -> Result<Vec<(String, Option<ShownRow>)>, StoreError> {
    let mut found = Vec::new();
    for (at, rows) in batch.tables.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        let table = &plan.tables[at];
        let target = Target::new(plan, &generation.schema, at);
        let from = match table.served {
            true => format!("{}.{}", ident(served_schema), ident(&table.name)),
            false => table_name(&generation.schema, table),
        };
        let sql = format!(
            "SELECT to_jsonb(t)::text FROM {} LEFT JOIN {from} AS t ON {} ORDER BY s.ordinal",
            target.unnest(&[], &[("ordinal", "bigint[]")]),
            target.same_key(),
        );
        let mut arguments = PgArguments::default();
        target.bind_key(&mut arguments, rows.iter().map(|(key, _)| key))?;
        arguments.add((0..rows.len() as i64).collect::<Vec<_>>()).map_err(sqlx::Error::Encode)?;
        for row in sqlx::query_with(vouched(sql), arguments).fetch_all(&mut *connection).await? {
            let text: Option<&str> = row.try_get(0)?;
            found.push((table.name.clone(), shown(text)));
        }
    }
    Ok(found)
}
