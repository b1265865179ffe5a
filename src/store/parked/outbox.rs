//! Parked events that are still to be written to the dead-letter topic.

use sqlx::{PgPool, Row};

use super::retry::message_of;
use crate::event::Place;
use crate::parking::Message;
use crate::store::Generation;
use crate::store::error::StoreError;

#[derive(Debug, Clone)]
pub struct Unpublished {
    pub event: Message,
    pub code: String,
    pub message: String,
}

/// Events with an error of their own that the topic does not have yet, the oldest first.
///
/// # Errors
/// What Postgres says.
pub async fn unpublished(pool: &PgPool, generation: &Generation, limit: i64) -> Result<Vec<Unpublished>, StoreError> {
    let rows = sqlx::query(
        "SELECT \"offset\", (extract(epoch FROM record_time) * 1000000)::bigint, key, payload, header_names,
             header_values, topic, partition, code, message
         FROM projector.dead_letters WHERE generation_id = $1 AND NOT waits AND NOT published ORDER BY id LIMIT $2",
    )
    .bind(generation.id)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let partition = crate::checkpoint::Partition { topic: row.try_get(6)?, partition: row.try_get(7)? };
            Ok(Unpublished { event: message_of(&partition, row)?, code: row.try_get(8)?, message: row.try_get(9)? })
        })
        .collect()
}

/// Notes that the topic has an event.
///
/// # Errors
/// What Postgres says.
pub async fn published(pool: &PgPool, generation: &Generation, place: &Place) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projector.dead_letters SET published = true
         WHERE generation_id = $1 AND topic = $2 AND partition = $3 AND \"offset\" = $4",
    )
    .bind(generation.id)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(place.offset)
    .execute(pool)
    .await?;
    Ok(())
}
