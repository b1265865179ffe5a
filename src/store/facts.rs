//! What a rebuild would cost, and whom it concerns.

use sqlx::{PgPool, Row};

use super::commit::Generation;
use super::error::StoreError;

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
    let row = sqlx::query(
        "SELECT (SELECT COALESCE(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
                 WHERE c.relnamespace = to_regnamespace(quote_ident($2)) AND c.relkind = 'r'),
             (SELECT extract(epoch FROM ready_at - created_at)::float8 FROM projector.generations WHERE id = $1)",
    )
    .bind(generation.id)
    .bind(&generation.schema)
    .fetch_one(pool)
    .await?;
    let dependants = sqlx::query_scalar(
        "WITH RECURSIVE standing (oid) AS (
             SELECT c.oid FROM pg_class c JOIN projector.served s ON s.view = c.relname
             WHERE s.generation_id = $1 AND c.relnamespace = to_regnamespace(quote_ident($2))
             UNION
             SELECT r.ev_class FROM standing s JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid
                 AND d.classid = 'pg_rewrite'::regclass JOIN pg_rewrite r ON r.oid = d.objid
         )
         SELECT DISTINCT format('%s.%s', n.nspname, c.relname) FROM standing s JOIN pg_class c ON c.oid = s.oid
         JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE NOT (n.nspname = $2 AND (c.relname IN (SELECT view FROM projector.served)
             OR c.relname IN (SELECT view FROM projector.companions))) ORDER BY 1",
    )
    .bind(generation.id)
    .bind(served_schema)
    .fetch_all(pool)
    .await?;
    Ok(Facts { bytes: row.try_get(0)?, built_in_s: row.try_get(1)?, dependants })
}
