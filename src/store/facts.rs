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
    /// Views and others that people made on top of its views.
    pub dependants: Vec<String>,
}

/// Looks a generation over.
///
/// # Errors
/// What Postgres says.
pub async fn facts(pool: &PgPool, generation: &Generation, served_schema: &str) -> Result<Facts, StoreError> {
    let mut connection = pool.acquire().await?;
    let bytes: i64 = sqlx::query_scalar(
        "SELECT COALESCE(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
         WHERE c.relnamespace = to_regnamespace(quote_ident($1)) AND c.relkind = 'r'",
    )
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
    Ok(Facts { bytes, dependants: dependants.into_iter().collect() })
}

/// A build as it was measured, from its beginning until it had caught up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Build {
    pub events: i64,
    pub seconds: f64,
}

impl Build {
    /// Seconds that it takes to fold so many events at the same rate. `None` where a short build says nothing about a long
    /// one: it has waited for a daemon most of the time.
    pub fn estimate_s(self, events: i64) -> Option<f64> {
        const LONG_S: f64 = 10.0;
        const MANY_TIMES: f64 = 10.0;
        let times = events as f64 / self.events as f64;
        (self.seconds >= LONG_S || times <= MANY_TIMES).then_some(times * self.seconds)
    }
}

/// The newest build of a projection that was measured, whatever has become of it. One that was slowed down on purpose does
/// not count.
///
/// # Errors
/// What Postgres says.
pub async fn last_build(pool: &PgPool, projection: &str) -> Result<Option<Build>, StoreError> {
    let row = sqlx::query(
        "SELECT built_events, extract(epoch FROM ready_at - created_at)::float8 FROM projector.generations
         WHERE projection = $1 AND built_events > 0 AND max_rate IS NULL ORDER BY number DESC LIMIT 1",
    )
    .bind(projection)
    .fetch_optional(pool)
    .await?;
    row.map(|row| Ok(Build { events: row.try_get(0)?, seconds: row.try_get(1)? })).transpose()
}

#[cfg(test)]
mod tests {
    use super::Build;

    #[test]
    fn a_short_build_says_nothing_about_a_long_one() {
        let short = Build { events: 100, seconds: 2.0 };
        assert_eq!(short.estimate_s(500), Some(10.0));
        assert_eq!(short.estimate_s(1_000_000), None);
        assert_eq!(Build { events: 1_000, seconds: 20.0 }.estimate_s(1_000_000), Some(20_000.0));
    }
}
