//! Which upcasters a generation was built with.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::error::StoreError;
use crate::plan::Plan;

/// Steps by their upcaster and the version that they start from, with their digests.
type Steps = BTreeMap<String, String>;

/// How the upcasters of a plan stand to those that its generation was built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    Same,
    /// There are more now: events that needed them are parked, or have not come yet.
    More,
    /// A step was changed or is gone, which may have made other rows.
    Changed(String),
}

fn steps(plan: &Plan) -> Steps {
    let upcasters = plan.sources.iter().flat_map(|source| &source.upcasters);
    let step = |upcaster: &crate::plan::Upcaster| -> Vec<(String, String)> {
        let step = |(from, step): (&i64, &crate::plan::upcaster::Step)| {
            (format!("{} from {from}", upcaster.name), step.digest.clone())
        };
        upcaster.steps.iter().map(step).collect()
    };
    upcasters.flat_map(|upcaster| step(upcaster)).collect()
}

/// Compares a plan's upcasters with those of its live generation; `record` notes what has been added.
///
/// # Errors
/// What Postgres says.
pub(super) async fn compare(connection: &mut PgConnection, plan: &Plan, record: bool) -> Result<Compared, StoreError> {
    let row = sqlx::query("SELECT upcasters::text FROM projector.generations WHERE projection = $1 AND state = 'live'")
        .bind(&plan.name)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(Compared::Same) };
    let known: Steps = serde_json::from_str(row.try_get(0)?).unwrap_or_default();
    let now = steps(plan);
    let changed = known.iter().find(|(name, digest)| now.get(*name) != Some(digest));
    if let Some((name, _)) = changed {
        return Ok(Compared::Changed(name.clone()));
    }
    if known == now {
        return Ok(Compared::Same);
    }
    if record {
        let text = serde_json::to_string(&now).unwrap_or_default();
        sqlx::query("UPDATE projector.generations SET upcasters = $2::jsonb WHERE projection = $1 AND state = 'live'")
            .bind(&plan.name)
            .bind(text)
            .execute(connection)
            .await?;
    }
    Ok(Compared::More)
}
