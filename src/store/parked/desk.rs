//! What an operator sees and asks for: dead letters, decisions, the audit trail.

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgPool, Row};

use super::WAITS;
use crate::event::Place;
use crate::parking::{Decision, Message};
use crate::store::error::StoreError;

/// Which dead letters are meant; what is `None` is not asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub projection: Option<String>,
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub code: Option<String>,
    pub type_: Option<String>,
    /// The record key, as text.
    pub key: Option<String>,
    /// Only those with an error of their own.
    pub failed: bool,
    pub limit: i64,
}

/// A dead letter without its payload.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub projection: String,
    #[serde(skip)]
    pub generation: i64,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// The record key as text, where it is text.
    pub key: Option<String>,
    pub code: String,
    pub message: String,
    pub waits: bool,
    pub attempts: i32,
    /// RFC 3339.
    pub parked_at: String,
    pub tried_at: String,
    pub retry_requested_by: Option<String>,
    /// Events that wait behind it, or before which it stands, in its sequences.
    pub waiting_behind: i64,
}

impl Summary {
    pub fn place(&self) -> Place {
        Place { topic: self.topic.clone(), partition: self.partition, offset: self.offset }
    }
}

const MATCHING: &str = "($1::text IS NULL OR g.projection = $1) AND ($2::text IS NULL OR d.topic = $2)
    AND ($3::int IS NULL OR d.partition = $3) AND ($4::bigint IS NULL OR d.\"offset\" = $4)
    AND ($5::text IS NULL OR d.code = $5) AND ($6::text IS NULL OR d.type = $6)
    AND ($7::bytea IS NULL OR d.key = $7) AND (NOT $8 OR NOT d.waits)";

/// Dead letters of generations that are live or being built, in the order in which they were parked.
///
/// # Errors
/// What Postgres says.
pub async fn list(pool: &PgPool, filter: &Filter) -> Result<Vec<Summary>, StoreError> {
    let sql = format!(
        "SELECT g.projection, g.id, d.topic, d.partition, d.\"offset\", d.type, d.key, d.code, d.message, d.waits,
             d.attempts, to_json(d.parked_at)#>>'{{}}', to_json(d.tried_at)#>>'{{}}', d.requested_by,
             CASE WHEN d.waits THEN 0 ELSE (
                 SELECT count(*) FROM projector.dead_letters w
                 WHERE w.generation_id = d.generation_id AND w.waits AND w.id > d.id AND w.topic = d.topic
                     AND w.sequences && d.sequences) END
         FROM projector.dead_letters d JOIN projector.generations g ON g.id = d.generation_id AND g.state IN ('live', 'building')
         WHERE {MATCHING} ORDER BY d.id LIMIT $9"
    );
    let rows = sqlx::query(crate::store::sql::vouched(sql))
        .bind(&filter.projection)
        .bind(&filter.topic)
        .bind(filter.partition)
        .bind(filter.offset)
        .bind(&filter.code)
        .bind(&filter.type_)
        .bind(filter.key.as_ref().map(|key| key.as_bytes()))
        .bind(filter.failed)
        .bind(filter.limit)
        .fetch_all(pool)
        .await?;
    rows.iter().map(summary).collect()
}

fn summary(row: &PgRow) -> Result<Summary, StoreError> {
    let key: Option<Vec<u8>> = row.try_get(6)?;
    let code: String = row.try_get(7)?;
    Ok(Summary {
        projection: row.try_get(0)?,
        generation: row.try_get(1)?,
        topic: row.try_get(2)?,
        partition: row.try_get(3)?,
        offset: row.try_get(4)?,
        type_: row.try_get(5)?,
        key: key.map(|key| match String::from_utf8(key) {
            Ok(text) => text,
            Err(error) => format!("0x{}", hex::encode(error.as_bytes())),
        }),
        waits: code == WAITS,
        code,
        message: row.try_get(8)?,
        attempts: row.try_get(10)?,
        parked_at: row.try_get(11)?,
        tried_at: row.try_get(12)?,
        retry_requested_by: row.try_get(13)?,
        waiting_behind: row.try_get(14)?,
    })
}

/// How many events are parked in all, and how many of them have an error of their own.
///
/// # Errors
/// What Postgres says.
pub async fn count(pool: &PgPool, generation: i64) -> Result<(i64, i64), StoreError> {
    let row = sqlx::query(
        "SELECT count(*), count(*) FILTER (WHERE NOT waits) FROM projector.dead_letters WHERE generation_id = $1",
    )
    .bind(generation)
    .fetch_one(pool)
    .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// The rows that a dead letter would touch: table and key.
///
/// # Errors
/// What Postgres says.
pub async fn rows_of(pool: &PgPool, generation: i64, place: &Place) -> Result<Vec<(String, String)>, StoreError> {
    let rows = sqlx::query(
        "SELECT \"table\", key::text FROM projector.parked_rows
         WHERE generation_id = $1 AND topic = $2 AND partition = $3 AND \"offset\" = $4 ORDER BY 1, 2",
    )
    .bind(generation)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(place.offset)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The offsets of the letters that share a sequence with one, itself included.
///
/// # Errors
/// What Postgres says.
pub async fn sequence_of(pool: &PgPool, generation: i64, place: &Place) -> Result<Vec<i64>, StoreError> {
    let rows = sqlx::query(
        "WITH RECURSIVE linked AS (
             SELECT d.id, d.\"offset\", d.sequences FROM projector.dead_letters d
             WHERE d.generation_id = $1 AND d.topic = $2 AND d.partition = $3 AND d.\"offset\" = $4
             UNION
             SELECT o.id, o.\"offset\", o.sequences FROM linked l JOIN projector.dead_letters o
                 ON o.generation_id = $1 AND o.topic = $2 AND o.partition = $3 AND o.sequences && l.sequences
         ) SELECT \"offset\" FROM linked ORDER BY 1",
    )
    .bind(generation)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(place.offset)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Asks the owner of its partition to try a letter again.
///
/// # Errors
/// What Postgres says.
pub async fn request(pool: &PgPool, letter: &Summary, who: &str) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "UPDATE projector.dead_letters SET requested_at = now(), requested_by = $5
         WHERE generation_id = $1 AND topic = $2 AND partition = $3 AND \"offset\" = $4",
    )
    .bind(letter.generation)
    .bind(&letter.topic)
    .bind(letter.partition)
    .bind(letter.offset)
    .bind(who)
    .execute(&mut *transaction)
    .await?;
    note(&mut transaction, who, "retry requested", &letter.projection, &letter.place(), None).await?;
    Ok(transaction.commit().await?)
}

async fn note(
    connection: &mut sqlx::PgConnection,
    who: &str,
    action: &str,
    projection: &str,
    place: &Place,
    detail: Option<&str>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO projector.audit (who, action, projection, topic, partition, \"offset\", detail)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(who)
    .bind(action)
    .bind(projection)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(place.offset)
    .bind(detail)
    .execute(connection)
    .await?;
    Ok(())
}

/// What a person decides about an event of a projection, and why.
#[derive(Debug, Clone)]
pub struct Decided<'d> {
    pub projection: &'d str,
    pub place: &'d Place,
    pub decision: &'d Decision,
    pub original: Option<&'d [u8]>,
    pub reason: &'d str,
    pub who: &'d str,
}

/// Records a decision. If the event is parked, its owner is asked to carry it out; if the projection stands still before
/// it, it may go on.
///
/// # Errors
/// What Postgres says.
pub async fn decide(pool: &PgPool, decided: &Decided<'_>) -> Result<(), StoreError> {
    let Decided { projection, place, decision, original, reason, who } = decided;
    let (word, payload) = match decision {
        Decision::Discard => ("discard", None),
        Decision::Correct { payload } => ("correct", payload.as_deref()),
    };
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "INSERT INTO projector.decisions
             (projection, topic, partition, \"offset\", topic_id, decision, payload, original, reason, decided_by)
         VALUES ($1, $2, $3, $4, (SELECT t.topic_id FROM projector.topics t JOIN projector.generations g
             ON g.id = t.generation_id AND g.state = 'live' WHERE g.projection = $1 AND t.topic = $2), $5, $6, $7, $8, $9)
         ON CONFLICT (projection, topic, partition, \"offset\") DO UPDATE SET topic_id = excluded.topic_id,
             decision = excluded.decision, payload = excluded.payload, reason = excluded.reason,
             original = COALESCE(decisions.original, excluded.original), decided_by = excluded.decided_by,
             decided_at = now()",
    )
    .bind(projection)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(place.offset)
    .bind(word)
    .bind(payload)
    .bind(original)
    .bind(reason)
    .bind(who)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "UPDATE projector.dead_letters d SET requested_at = now(), requested_by = $5 FROM projector.generations g
         WHERE g.id = d.generation_id AND g.state <> 'dropped' AND g.projection = $1 AND d.topic = $2 AND d.partition = $3
             AND d.\"offset\" = $4",
    )
    .bind(projection)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(place.offset)
    .bind(who)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "DELETE FROM projector.halts h USING projector.generations g
         WHERE g.id = h.generation_id AND g.state <> 'dropped' AND g.projection = $1 AND h.topic = $2 AND h.partition = $3
             AND h.\"offset\" = $4",
    )
    .bind(projection)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(place.offset)
    .execute(&mut *transaction)
    .await?;
    note(&mut transaction, who, word, projection, place, Some(reason)).await?;
    Ok(transaction.commit().await?)
}

/// A recorded decision.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub projection: String,
    pub place: Place,
    pub decision: Decision,
    pub original: Option<Vec<u8>>,
    pub reason: String,
    pub who: String,
    /// RFC 3339.
    pub at: String,
}

/// All decisions, of one projection or of all.
///
/// # Errors
/// What Postgres says.
pub async fn decisions(pool: &PgPool, projection: Option<&str>) -> Result<Vec<Recorded>, StoreError> {
    let rows = sqlx::query(
        "SELECT projection, topic, partition, \"offset\", decision, payload, original, reason, decided_by,
             to_json(decided_at)#>>'{}'
         FROM projector.decisions WHERE $1::text IS NULL OR projection = $1 ORDER BY decided_at, projection, 2, 3, 4",
    )
    .bind(projection)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Recorded {
                projection: row.try_get(0)?,
                place: Place { topic: row.try_get(1)?, partition: row.try_get(2)?, offset: row.try_get(3)? },
                decision: super::decision(row.try_get(4)?, row.try_get(5)?),
                original: row.try_get(6)?,
                reason: row.try_get(7)?,
                who: row.try_get(8)?,
                at: row.try_get(9)?,
            })
        })
        .collect()
}

/// One line of the audit trail.
#[derive(Debug, Clone, Serialize)]
pub struct Noted {
    pub at: String,
    pub who: String,
    pub action: String,
    pub projection: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub detail: Option<String>,
}

/// The audit trail, oldest first: the last `limit` lines of it.
///
/// # Errors
/// What Postgres says.
pub async fn trail(pool: &PgPool, filter: &Filter) -> Result<Vec<Noted>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM (
             SELECT to_json(at)#>>'{}', who, action, projection, topic, partition, \"offset\", detail, id
             FROM projector.audit
             WHERE ($1::text IS NULL OR projection = $1) AND ($2::text IS NULL OR topic = $2)
                 AND ($3::int IS NULL OR partition = $3) AND ($4::bigint IS NULL OR \"offset\" = $4)
             ORDER BY id DESC LIMIT $5
         ) AS last ORDER BY id",
    )
    .bind(&filter.projection)
    .bind(&filter.topic)
    .bind(filter.partition)
    .bind(filter.offset)
    .bind(filter.limit)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Noted {
                at: row.try_get(0)?,
                who: row.try_get(1)?,
                action: row.try_get(2)?,
                projection: row.try_get(3)?,
                topic: row.try_get(4)?,
                partition: row.try_get(5)?,
                offset: row.try_get(6)?,
                detail: row.try_get(7)?,
            })
        })
        .collect()
}

/// The message of a letter.
///
/// # Errors
/// What Postgres says.
pub async fn message(pool: &PgPool, letter: &Summary) -> Result<Option<Message>, StoreError> {
    let partition = crate::checkpoint::Partition::new(letter.topic.clone(), letter.partition);
    let mut found = super::retry::messages(pool, letter.generation, &partition, &[letter.offset]).await?;
    Ok(found.remove(&letter.offset))
}

/// Lets a projection that stands still go on. False if it does not stand still.
///
/// # Errors
/// What Postgres says.
pub async fn resume(pool: &PgPool, projection: &str) -> Result<bool, StoreError> {
    let gone = sqlx::query(
        "DELETE FROM projector.halts h USING projector.generations g
         WHERE g.id = h.generation_id AND g.state <> 'dropped' AND g.projection = $1",
    )
    .bind(projection)
    .execute(pool)
    .await?;
    Ok(gone.rows_affected() > 0)
}
