//! Reads for the endpoint: what there is, how it hangs together, and a query tree as one statement whose answer Postgres
//! makes to text.

mod conditions;
mod level;
pub mod links;
mod origins;
mod run;
pub mod schema;
mod session;
pub mod statement;

use sqlx::{PgPool, Row};

pub use run::{Answer, Asked, Count, Form, Reader, Token, Unanswered, answer};
pub use schema::{Column, Projected, Relation, Schema, source_of};
pub use statement::{Limits, Refusal, check, unknown_relation};

use super::sql::{ident, vouched};
use crate::event::Place;

/// Whether a role may read a relation.
///
/// # Errors
/// What Postgres says, of a role that there is not, too.
pub async fn may_read(pool: &PgPool, role: &str, schema: &str, relation: &str) -> Result<bool, sqlx::Error> {
    let may = "SELECT has_schema_privilege($1, $2, 'USAGE') AND has_table_privilege($1, quote_ident($2) || '.' || quote_ident($3), 'SELECT')";
    sqlx::query_scalar(may).bind(role).bind(schema).bind(relation).fetch_one(pool).await
}

/// How many rows a view has.
///
/// # Errors
/// What Postgres says.
pub async fn count(pool: &PgPool, schema: &str, view: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(vouched(format!("SELECT count(*) FROM {}.{}", ident(schema), ident(view)))).fetch_one(pool).await
}

/// How far a projection is with one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    Applied,
    /// The next offset of its partition that will be applied.
    NotYet(i64),
    /// It is parked: its code, and its message for those who may read it.
    Parked(String, Option<String>),
    /// The projection does not read that partition.
    Elsewhere,
}

/// Looks how far a generation is with an event. A parked event's message has values of it: it is for roles that may read
/// the dead letters.
///
/// # Errors
/// What Postgres says, of a role that there is not, too.
pub async fn reached(pool: &PgPool, role: &str, generation: i64, place: &Place) -> Result<Reached, sqlx::Error> {
    let row = sqlx::query(
        "SELECT c.next_offset, d.code,
             CASE WHEN has_column_privilege($5::name, 'projector.dead_letters', 'message', 'SELECT') THEN d.message END
         FROM projector.checkpoints c LEFT JOIN projector.dead_letters d
             ON d.generation_id = c.generation_id AND d.topic = c.topic AND d.partition = c.partition AND d.\"offset\" = $4
         WHERE c.generation_id = $1 AND c.topic = $2 AND c.partition = $3",
    )
    .bind(generation)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(place.offset)
    .bind(role)
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(Reached::Elsewhere) };
    let (next, code): (i64, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    Ok(match code {
        Some(code) => Reached::Parked(code, row.try_get(2)?),
        None if next > place.offset => Reached::Applied,
        None => Reached::NotYet(next),
    })
}
