//! What the catalog keeps of topics and partitions besides checkpoints: identities, waits, halts.

use std::collections::BTreeMap;

use sqlx::{PgPool, Row};

use super::commit::Generation;
use super::error::StoreError;
use crate::checkpoint::Partition;
use crate::event::Place;

/// What a partition waits for: offsets of others that have to be passed before it is read, by topic and number.
pub type Waits = BTreeMap<String, BTreeMap<i32, i64>>;

/// A partition's checkpoint with what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub next_offset: i64,
    /// The greatest event time so far, in microseconds.
    pub clock: Option<i64>,
    pub waits_for: Waits,
}

/// All checkpoints of a topic.
///
/// # Errors
/// What Postgres says.
pub async fn of_topic(
    pool: &PgPool,
    generation: &Generation,
    topic: &str,
) -> Result<BTreeMap<i32, Checkpoint>, StoreError> {
    let rows = sqlx::query(
        "SELECT partition, next_offset, waits_for::text, clock FROM projector.checkpoints WHERE generation_id = $1 AND topic = $2",
    )
    .bind(generation.id)
    .bind(topic)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let waits: Option<&str> = row.try_get(2)?;
            let waits_for = waits.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            Ok((row.try_get(0)?, Checkpoint { next_offset: row.try_get(1)?, clock: row.try_get(3)?, waits_for }))
        })
        .collect()
}

/// Records where a partition begins, unless someone else just did.
///
/// # Errors
/// What Postgres says; [`StoreError::Superseded`] when the generation is gone.
pub async fn begin(
    pool: &PgPool,
    generation: &Generation,
    partition: &Partition,
    offset: i64,
    waits_for: &Waits,
) -> Result<(), StoreError> {
    let waits = (!waits_for.is_empty()).then(|| serde_json::to_string(waits_for).unwrap_or_default());
    sqlx::query(
        "INSERT INTO projector.checkpoints (generation_id, topic, partition, next_offset, waits_for)
         SELECT id, $2, $3, $4, $5::jsonb FROM projector.generations WHERE id = $1 AND state <> 'dropped' ON CONFLICT DO NOTHING",
    )
    .bind(generation.id)
    .bind(&partition.topic)
    .bind(partition.partition)
    .bind(offset)
    .bind(waits)
    .execute(pool)
    .await?;
    Ok(())
}

/// Notes that partitions are taken over. Returns the greatest number of times that one of them was, since something of it
/// was committed or it was given back in good order.
///
/// # Errors
/// What Postgres says.
pub async fn take(pool: &PgPool, generation: &Generation, taken: &[&Partition]) -> Result<i32, StoreError> {
    let starts: Vec<i32> = sqlx::query_scalar(
        "UPDATE projector.checkpoints c SET starts = starts + 1
         FROM unnest($2::text[], $3::int[]) AS n(topic, partition)
         WHERE c.generation_id = $1 AND c.topic = n.topic AND c.partition = n.partition RETURNING c.starts",
    )
    .bind(generation.id)
    .bind(taken.iter().map(|p| p.topic.as_str()).collect::<Vec<_>>())
    .bind(taken.iter().map(|p| p.partition).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?;
    Ok(starts.into_iter().max().unwrap_or(0))
}

/// Notes that partitions had nothing more to apply so many microseconds ago. Those that are just being committed are left
/// out: the next time is soon.
///
/// # Errors
/// What Postgres says.
pub async fn caught_up(pool: &PgPool, generation: &Generation, reached: &[(Partition, i64)]) -> Result<(), StoreError> {
    sqlx::query(
        "WITH held AS (
            SELECT c.topic, c.partition, n.ago FROM projector.checkpoints c
                JOIN unnest($2::text[], $3::int[], $4::bigint[]) AS n(topic, partition, ago) USING (topic, partition)
            WHERE c.generation_id = $1 ORDER BY c.topic, c.partition FOR UPDATE OF c SKIP LOCKED
        )
        UPDATE projector.checkpoints c SET caught_up_at = clock_timestamp() - held.ago * interval '1 microsecond'
        FROM held WHERE c.generation_id = $1 AND c.topic = held.topic AND c.partition = held.partition",
    )
    .bind(generation.id)
    .bind(reached.iter().map(|(p, _)| p.topic.as_str()).collect::<Vec<_>>())
    .bind(reached.iter().map(|(p, _)| p.partition).collect::<Vec<_>>())
    .bind(reached.iter().map(|(_, ago)| *ago).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}

/// Notes that all is well with partitions: nothing died of what they hold.
///
/// # Errors
/// What Postgres says.
pub async fn clear(pool: &PgPool, generation: &Generation, partitions: &[&Partition]) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projector.checkpoints c SET starts = 0, suspect = NULL, tries = 0
         FROM unnest($2::text[], $3::int[]) AS n(topic, partition)
         WHERE c.generation_id = $1 AND c.topic = n.topic AND c.partition = n.partition AND c.starts > 0",
    )
    .bind(generation.id)
    .bind(partitions.iter().map(|p| p.topic.as_str()).collect::<Vec<_>>())
    .bind(partitions.iter().map(|p| p.partition).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}

/// Notes which event is about to be touched; returns how often that was noted of it, this time included.
///
/// # Errors
/// What Postgres says.
pub async fn suspect(pool: &PgPool, generation: &Generation, place: &Place) -> Result<i32, StoreError> {
    let tries = sqlx::query_scalar(
        "UPDATE projector.checkpoints SET tries = CASE WHEN suspect = $4 THEN tries + 1 ELSE 1 END, suspect = $4
         WHERE generation_id = $1 AND topic = $2 AND partition = $3 RETURNING tries",
    )
    .bind(generation.id)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(place.offset)
    .fetch_optional(pool)
    .await?;
    Ok(tries.unwrap_or(1))
}

/// Whether the generation is to stand still: a halt is recorded, or it is dropped.
///
/// # Errors
/// What Postgres says.
pub async fn is_halted(pool: &PgPool, generation: &Generation) -> Result<bool, StoreError> {
    let halted = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM projector.halts WHERE generation_id = $1)
             OR NOT EXISTS (SELECT 1 FROM projector.generations WHERE id = $1 AND state <> 'dropped')",
    );
    Ok(halted.bind(generation.id).fetch_one(pool).await?)
}

/// Whether the generation was dropped.
///
/// # Errors
/// What Postgres says.
pub async fn is_gone(pool: &PgPool, generation: &Generation) -> Result<bool, StoreError> {
    let there = "SELECT EXISTS (SELECT 1 FROM projector.generations WHERE id = $1 AND state <> 'dropped')";
    Ok(!sqlx::query_scalar::<_, bool>(there).bind(generation.id).fetch_one(pool).await?)
}

/// Forgets what a partition waited for.
///
/// # Errors
/// What Postgres says.
pub async fn stop_waiting(pool: &PgPool, generation: &Generation, partition: &Partition) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projector.checkpoints SET waits_for = NULL WHERE generation_id = $1 AND topic = $2 AND partition = $3",
    )
    .bind(generation.id)
    .bind(&partition.topic)
    .bind(partition.partition)
    .execute(pool)
    .await?;
    Ok(())
}

/// The identity a topic had when it was first read; records it if there is none yet.
///
/// # Errors
/// What Postgres says.
pub async fn topic_identity(
    pool: &PgPool,
    generation: &Generation,
    topic: &str,
    topic_id: Option<&str>,
    truncated: Option<&str>,
) -> Result<Option<String>, StoreError> {
    let recorded = sqlx::query_scalar(
        "INSERT INTO projector.topics AS t (generation_id, topic, topic_id, truncated) VALUES ($1, $2, $3, $4)
         ON CONFLICT (generation_id, topic) DO UPDATE
             SET topic_id = COALESCE(t.topic_id, excluded.topic_id), truncated = COALESCE(t.truncated, excluded.truncated)
         RETURNING topic_id",
    )
    .bind(generation.id)
    .bind(topic)
    .bind(topic_id)
    .bind(truncated)
    .fetch_one(pool)
    .await?;
    Ok(recorded)
}

/// Notes which topics of a generation are not there any more, and which are.
///
/// # Errors
/// What Postgres says.
pub async fn note_gone(pool: &PgPool, generation: i64, gone: &[String], there: &[String]) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    sqlx::query(
        "INSERT INTO projector.topics AS t (generation_id, topic, gone_at) SELECT $1, topic, now() FROM unnest($2) AS topic
         ON CONFLICT (generation_id, topic) DO UPDATE SET gone_at = COALESCE(t.gone_at, now())",
    )
    .bind(generation)
    .bind(gone)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "UPDATE projector.topics SET gone_at = NULL
         WHERE generation_id = $1 AND topic = ANY($2) AND gone_at IS NOT NULL",
    )
    .bind(generation)
    .bind(there)
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

/// Why a generation stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    pub code: String,
    pub message: String,
    /// The event it stands before, if it is one.
    pub place: Option<Place>,
}

/// Records a halt.
///
/// # Errors
/// What Postgres says.
pub async fn halt(pool: &PgPool, generation: &Generation, halt: &Halt) -> Result<(), StoreError> {
    let place = halt.place.as_ref();
    sqlx::query(
        "INSERT INTO projector.halts (generation_id, topic, partition, \"offset\", code, message)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (generation_id) DO UPDATE SET topic = excluded.topic, partition = excluded.partition,
             \"offset\" = excluded.\"offset\", code = excluded.code, message = excluded.message, halted_at = now()",
    )
    .bind(generation.id)
    .bind(place.map(|p| p.topic.as_str()))
    .bind(place.map(|p| p.partition))
    .bind(place.map(|p| p.offset))
    .bind(&halt.code)
    .bind(&halt.message)
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets a halt, because the generation is about to go on.
///
/// # Errors
/// What Postgres says.
pub async fn unhalt(pool: &PgPool, generation: &Generation) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM projector.halts WHERE generation_id = $1").bind(generation.id).execute(pool).await?;
    Ok(())
}

/// Records where all partitions of a topic begin, all at once; what is recorded already stays.
///
/// # Errors
/// What Postgres says.
pub async fn begin_topic(
    pool: &PgPool,
    generation: &Generation,
    topic: &str,
    begins: &[(i32, i64)],
    waits_for: &Waits,
) -> Result<(), StoreError> {
    let waits = (!waits_for.is_empty()).then(|| serde_json::to_string(waits_for).unwrap_or_default());
    sqlx::query(
        "INSERT INTO projector.checkpoints (generation_id, topic, partition, next_offset, waits_for)
         SELECT g.id, $2, b.partition, b.next_offset, $5::jsonb
         FROM projector.generations g, unnest($3::int[], $4::bigint[]) AS b(partition, next_offset)
         WHERE g.id = $1 AND g.state <> 'dropped'
         ON CONFLICT DO NOTHING",
    )
    .bind(generation.id)
    .bind(topic)
    .bind(begins.iter().map(|(partition, _)| *partition).collect::<Vec<_>>())
    .bind(begins.iter().map(|(_, offset)| *offset).collect::<Vec<_>>())
    .bind(waits)
    .execute(pool)
    .await?;
    Ok(())
}
