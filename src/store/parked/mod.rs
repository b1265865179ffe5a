//! Dead letters and decisions in the catalog.

pub mod desk;
pub mod outbox;
pub mod retry;

use std::collections::{BTreeMap, HashMap};

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{Arguments, PgPool, Row};

use super::bind::Instant;
use super::commit::Generation;
use super::copy::CopiedRows;
use super::error::StoreError;
use super::sql::vouched;
use super::write::Target;
use crate::batch::Key;
use crate::checkpoint::Partition;
use crate::error_kind::Reason;
use crate::event::Place;
use crate::parking::{Blocked, Cause, Decision, Letter, Sequence};
use crate::plan::Plan;

/// The code of an event that has no error of its own.
pub const WAITS: &str = "waits";

/// Stores dead letters, in the transaction of their batch.
///
/// # Errors
/// [`StoreError::TooManyParked`] past the limits of the projection, or what Postgres says.
pub(super) async fn park(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
    letters: &[Letter],
) -> Result<(), StoreError> {
    if letters.is_empty() {
        return Ok(());
    }
    const CHUNK: usize = 2_000;
    for chunk in letters.chunks(CHUNK) {
        insert(connection, generation, chunk).await?;
        mark_rows(connection, plan, generation, chunk.iter().map(|letter| (&letter.message.place, &letter.rows)))
            .await?;
    }
    let counts = sqlx::query(
        "SELECT count(*), count(*) FILTER (WHERE NOT waits) FROM projector.dead_letters WHERE generation_id = $1",
    )
    .bind(generation.id)
    .fetch_one(connection)
    .await?;
    let (events, sequences): (i64, i64) = (counts.try_get(0)?, counts.try_get(1)?);
    let limits = &plan.errors;
    let (what, limit) = match () {
        () if events > i64::from(limits.max_parked_events) => ("events are parked", limits.max_parked_events),
        () if sequences > i64::from(limits.max_parked_sequences) => {
            ("sequences are parked", limits.max_parked_sequences)
        }
        () => return Ok(()),
    };
    let (first, reason) = first_failure(letters);
    Err(StoreError::TooManyParked { what, limit, first, reason })
}

/// What to show of a batch that parks too much.
fn first_failure(letters: &[Letter]) -> (Place, String) {
    let failed = letters.iter().find_map(|letter| match &letter.cause {
        Cause::Failed(reason) => Some((letter.message.place.clone(), reason.to_string())),
        Cause::Behind(_) => None,
    });
    failed.unwrap_or_else(|| (letters[0].message.place.clone(), "it waits behind another".into()))
}

async fn insert(connection: &mut PgConnection, generation: &Generation, letters: &[Letter]) -> Result<(), StoreError> {
    let mut rows = CopiedRows::new(15);
    for Letter { message, type_, clock, sequences, cause, .. } in letters {
        let (code, told, waits) = match cause {
            Cause::Failed(reason) => (reason.code, storable(&reason.message), false),
            Cause::Behind(place) => (WAITS, format!("it waits behind {place}"), true),
        };
        let header_names: Vec<String> = message.headers.iter().map(|(name, _)| storable(name)).collect();
        let header_values: Vec<Option<&[u8]>> = message.headers.iter().map(|(_, value)| value.as_deref()).collect();
        rows.row();
        rows.field(generation.id)?;
        rows.field(message.place.topic.as_str())?;
        rows.field(message.place.partition)?;
        rows.field(message.place.offset)?;
        rows.field(message.time.map(Instant))?;
        rows.field(message.key.as_deref())?;
        rows.field(message.payload.as_deref())?;
        rows.field(header_names)?;
        rows.field(header_values)?;
        rows.field(type_.as_deref().map(storable))?;
        rows.field(*clock)?;
        rows.field(sequences.iter().map(|sequence| &sequence.0[..]).collect::<Vec<_>>())?;
        rows.field(code)?;
        rows.field(told)?;
        rows.field(waits)?;
    }
    let statement =
        "COPY projector.dead_letters (generation_id, topic, partition, \"offset\", record_time, key, payload,
         header_names, header_values, type, clock, sequences, code, message, waits) FROM STDIN (FORMAT binary)";
    rows.send(connection, statement).await?;
    Ok(())
}

/// Text of an event as Postgres can store it: without NUL.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Notes which rows the events would touch.
async fn mark_rows<'l>(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
    letters: impl Iterator<Item = (&'l Place, &'l Vec<(usize, Key)>)>,
) -> Result<(), StoreError> {
    let mut marks: BTreeMap<usize, Vec<(&Place, &Key)>> = BTreeMap::new();
    for (place, rows) in letters {
        for (at, (table, key)) in rows.iter().enumerate() {
            if !rows[..at].contains(&(*table, key.clone())) {
                marks.entry(*table).or_default().push((place, key));
            }
        }
    }
    for (at, marks) in marks {
        let table = &plan.tables[at];
        let target = Target::new(plan, &generation.schema, at);
        let more = [("topic", "text[]"), ("partition", "int[]"), ("at", "bigint[]")];
        let key: Vec<String> = table.key.iter().map(|column| target.selected(column)).collect();
        let parameters = table.key.len() + more.len();
        let sql = format!(
            "INSERT INTO projector.parked_rows (generation_id, topic, partition, \"offset\", \"table\", key)
             SELECT ${}::bigint, s.topic, s.partition, s.at, ${}::text, jsonb_build_array({}) FROM {}",
            parameters + 1,
            parameters + 2,
            key.join(", "),
            target.unnest(&[], &more),
        );
        let mut arguments = PgArguments::default();
        target.bind_key(&mut arguments, marks.iter().map(|(_, key)| *key))?;
        let places = || marks.iter().map(|(place, _)| *place);
        arguments.add(places().map(|p| p.topic.as_str()).collect::<Vec<_>>()).map_err(sqlx::Error::Encode)?;
        arguments.add(places().map(|p| p.partition).collect::<Vec<_>>()).map_err(sqlx::Error::Encode)?;
        arguments.add(places().map(|p| p.offset).collect::<Vec<_>>()).map_err(sqlx::Error::Encode)?;
        arguments.add(generation.id).map_err(sqlx::Error::Encode)?;
        arguments.add(table.name.as_str()).map_err(sqlx::Error::Encode)?;
        sqlx::query_with(vouched(sql), arguments).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Counts events that were passed over.
pub(super) async fn count_skipped(
    connection: &mut PgConnection,
    generation: &Generation,
    skipped: &BTreeMap<&'static str, u64>,
) -> Result<(), StoreError> {
    if skipped.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO projector.skipped AS s (generation_id, code, events)
         SELECT $1, n.code, n.events FROM unnest($2::text[], $3::bigint[]) AS n(code, events)
         ON CONFLICT (generation_id, code) DO UPDATE SET events = s.events + excluded.events",
    )
    .bind(generation.id)
    .bind(skipped.keys().copied().collect::<Vec<_>>())
    .bind(skipped.values().map(|events| *events as i64).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// What is parked of one partition, as the lane that owns it has to know it.
#[derive(Debug, Clone, Default)]
pub struct ParkedHere {
    pub blocked: Blocked,
    /// Events parked of this very partition.
    pub events: i64,
}

/// What is parked, by partition of a topic. A partition is blocked by the record keys of the others too: when partitions
/// are added, a key moves.
///
/// To be read after the checkpoints: what is parked belongs to a checkpoint that is at least as far then, or the next
/// commit finds out.
///
/// # Errors
/// What Postgres says.
pub async fn of_topic(
    pool: &PgPool,
    generation: &Generation,
    topic: &str,
    partitions: &[i32],
) -> Result<HashMap<i32, ParkedHere>, StoreError> {
    let rows = sqlx::query(
        "SELECT partition, \"offset\", key, sequences FROM projector.dead_letters
         WHERE generation_id = $1 AND topic = $2 ORDER BY id",
    )
    .bind(generation.id)
    .bind(topic)
    .fetch_all(pool)
    .await?;
    let mut found: HashMap<i32, ParkedHere> = partitions.iter().map(|p| (*p, ParkedHere::default())).collect();
    for row in rows {
        let place = Place { topic: topic.into(), partition: row.try_get(0)?, offset: row.try_get(1)? };
        let key: Option<Vec<u8>> = row.try_get(2)?;
        let of_key = key.map(|key| Sequence::of_key(topic, &key));
        let all = sequences(row.try_get(3)?);
        for (partition, here) in &mut found {
            if *partition == place.partition {
                here.events += 1;
                here.blocked.add(&all, &place);
            } else {
                here.blocked.add(of_key.as_slice(), &place);
            }
        }
    }
    Ok(found)
}

fn sequences(stored: Vec<Vec<u8>>) -> Vec<Sequence> {
    stored.into_iter().filter_map(|bytes| bytes.try_into().ok().map(Sequence)).collect()
}

/// What people decided about events of a partition from an offset on.
///
/// # Errors
/// What Postgres says.
pub async fn decisions(
    pool: &PgPool,
    generation: &Generation,
    partition: &Partition,
    from: i64,
) -> Result<BTreeMap<i64, Decision>, StoreError> {
    let rows = sqlx::query(
        "SELECT d.\"offset\", d.decision, d.payload FROM projector.decisions d
         LEFT JOIN projector.topics t ON t.generation_id = $1 AND t.topic = d.topic
         WHERE d.projection = $2 AND d.topic = $3 AND d.partition = $4 AND d.\"offset\" >= $5
             AND (d.topic_id IS NULL OR t.topic_id IS NULL OR d.topic_id = t.topic_id)",
    )
    .bind(generation.id)
    .bind(&generation.projection)
    .bind(&partition.topic)
    .bind(partition.partition)
    .bind(from)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, decision(row.try_get(1)?, row.try_get(2)?)))).collect()
}

/// How many decisions there are of a projection, and when the last one was made: whether there are others than before.
///
/// # Errors
/// What Postgres says.
pub async fn decided(pool: &PgPool, generation: &Generation) -> Result<(i64, Option<String>), StoreError> {
    let sql = "SELECT count(*), max(decided_at)::text FROM projector.decisions WHERE projection = $1";
    Ok(sqlx::query_as(sql).bind(&generation.projection).fetch_one(pool).await?)
}

pub(super) fn decision(word: &str, payload: Option<Vec<u8>>) -> Decision {
    if word == "discard" { Decision::Discard } else { Decision::Correct { payload } }
}

/// Why a letter was refused anew, as it is stored.
pub(super) fn stored_reason(reason: &Reason) -> (&'static str, String) {
    (reason.code, storable(&reason.message))
}

/// Locks what is parked in two generations, and refuses unless it is the same: rows can be moved from the one to the other
/// then, and a retry does afterwards what it would have done.
///
/// # Errors
/// That different events are parked, or what Postgres says.
pub async fn same_letters(
    connection: &mut PgConnection,
    one: &Generation,
    other: &Generation,
) -> Result<(), StoreError> {
    let locked = "SELECT 1 FROM projector.dead_letters WHERE generation_id IN ($1, $2)
        ORDER BY generation_id, topic, partition, \"offset\" FOR UPDATE";
    sqlx::query(locked).bind(one.id).bind(other.id).execute(&mut *connection).await?;
    let differ: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (
             SELECT topic, partition, \"offset\" FROM projector.dead_letters WHERE generation_id IN ($1, $2)
             GROUP BY topic, partition, \"offset\" HAVING count(*) = 1) AS d",
    )
    .bind(one.id)
    .bind(other.id)
    .fetch_one(connection)
    .await?;
    match differ {
        0 => Ok(()),
        differ => Err(StoreError::Catalog(format!(
            "{differ} events are parked in the one and not in the other, so that rows cannot be put right one by one. Settle them \
             with `projector dead-letters`, or build all of it anew: projector replay {}",
            one.projection
        ))),
    }
}
