//! Which upcasters a generation was built with.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;

use super::error::StoreError;
use crate::plan::Plan;

/// Upcasters, and their steps by the version that they start from, with their digests.
type Steps = BTreeMap<String, String>;

/// How the upcasters of a plan stand to those that its generation was built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    Same,
    /// There are more steps now, these: events that needed them are parked, or have not come yet.
    More(Vec<String>),
    /// An upcaster or a step was changed, or is gone or new, which may have made other rows.
    Changed(String),
}

fn steps(plan: &Plan) -> Steps {
    let mut steps = Steps::new();
    for upcaster in plan.sources.iter().flat_map(|source| &source.upcasters) {
        steps.insert(format!("`{}`", upcaster.name), upcaster.digest.clone());
        let of_upcaster = upcaster.steps.iter();
        steps.extend(of_upcaster.map(|(from, step)| (format!("`{}` from {from}", upcaster.name), step.digest.clone())));
    }
    steps
}

/// What tells the upcasters of one definition from those of another.
pub(super) fn fingerprint(plan: &Plan) -> String {
    let text = serde_json::to_string(&steps(plan)).unwrap_or_default();
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Notes the upcasters of a generation.
///
/// # Errors
/// What Postgres says.
pub(super) async fn record(connection: &mut PgConnection, plan: &Plan, generation: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE projector.generations SET upcasters = $2::jsonb WHERE id = $1")
        .bind(generation)
        .bind(serde_json::to_string(&steps(plan)).unwrap_or_default())
        .execute(connection)
        .await?;
    Ok(())
}

/// Compares a plan's upcasters with those that a generation has recorded.
pub(super) fn compare(recorded: &str, plan: &Plan) -> Compared {
    let known: Steps = serde_json::from_str(recorded).unwrap_or_default();
    let now = steps(plan);
    let changed = known.iter().find(|(name, digest)| now.get(*name) != Some(digest));
    // Without the upcaster its events were applied as they came; of a step that was missing they were parked.
    let is_step = |name: &String| name.contains(" from ");
    let new = now.iter().find(|(name, _)| !known.contains_key(*name) && !is_step(name));
    if let Some((name, _)) = changed.or(new) {
        return Compared::Changed(name.clone());
    }
    let more: Vec<String> = now.into_keys().filter(|name| !known.contains_key(name)).collect();
    if more.is_empty() { Compared::Same } else { Compared::More(more) }
}
