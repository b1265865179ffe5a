//! What a rebuild would cost, and whom it concerns.

use std::collections::BTreeSet;

use sqlx::{PgPool, Row};

use super::commit::Generation;
use super::error::StoreError;
use super::views::standing_on;

/// What is known of a generation that would be replaced.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Bytes of its tables and indexes.
    pub bytes: i64,
    /// Seconds that it took from its beginning until it had caught up, if it was built beside another.
    pub built_in_s: Option<f64>,
    /// Views and others that people made on top of its views.
    pub dependants: Vec<String>,
}

/// Looks a generation over.
///
/// # Errors
/// What Postgres says.
pub async fn facts(pool: &PgPool, generation: &Generation, served_schema: &str) -> Result<Facts, StoreError> {
    let mut connection = pool.acquire().await?;
    let row = sqlx::query(
        "SELECT (SELECT COALESCE(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
                 WHERE c.relnamespace = to_regnamespace(quote_ident($2)) AND c.relkind = 'r'),
             (SELECT extract(epoch FROM ready_at - created_at)::float8 FROM projector.generations WHERE id = $1)",
    )
    .bind(generation.id)
    .bind(&generation.schema)
    .fetch_one(&mut *connection)
    .await?;
    // Views of the SQL files are made anew with ours.
    let companions: Vec<String> =
        sqlx::query_scalar("SELECT view FROM projector.companions").fetch_all(&mut *connection).await?;
    let served = "SELECT view FROM projector.served WHERE generation_id = $1";
    let served: Vec<String> = sqlx::query_scalar(served).bind(generation.id).fetch_all(&mut *connection).await?;
    let mut dependants = BTreeSet::new();
    for view in &served {
        let standing = standing_on(&mut connection, served_schema, view).await?;
        let of_people = standing.iter().filter(|one| one.schema != served_schema || !companions.contains(&one.name));
        dependants.extend(of_people.map(|one| format!("{}.{}", one.schema, one.name)));
    }
    let dependants = dependants.into_iter().collect();
    Ok(Facts { bytes: row.try_get(0)?, built_in_s: row.try_get(1)?, dependants })
}
