//! Committing a batch, and trying again while Postgres is away.

use std::sync::Arc;
use std::time::Duration;

use super::{Outage, Running};
use crate::batch::Sealed;
use crate::checkpoint::Progress;
use crate::error_kind::Reason;
use crate::event::Place;
use crate::parking::{Cause, Letter};
use crate::proof::{self, Sabotage};
use crate::seen::Counted;
use crate::store::StoreError;
use crate::store::commit::{Written, commit};
use crate::store::write::Way;

/// How a commit ended.
#[derive(Debug)]
pub enum Outcome {
    Committed {
        progress: Progress,
        rows: u64,
        counted: Vec<Counted>,
        /// How many events were parked for an error of their own, and the first of them.
        parked: Option<(usize, String)>,
    },
    /// These events were counted by an earlier batch: fold again without them.
    Repeated(Vec<Counted>),
    /// Events that read their rows cannot be applied to them.
    Misapplied(Vec<(Place, Reason)>),
    /// The catalog knows better than we do how far the partitions are: read it again.
    Stale { why: String },
    /// Some event of the batch is at fault, and only Postgres could tell which.
    Refused { reason: Reason, progress: Progress },
    /// A person has to do something.
    Fatal(StoreError),
}

/// Commits a batch. Transient failures are tried again without end, the waits growing to about six seconds.
pub async fn settle(running: Arc<Running>, batch: Sealed, rate: f64) -> Outcome {
    let mut outage = Outage::default();
    let what = format!("{}: writing to Postgres", running.generation);
    loop {
        let result = commit(&running.pool, &running.plan, &running.generation, &batch, rate, Way::Best).await;
        match result {
            Ok(Written { rows, marked }) => {
                outage.over(&what);
                if marked {
                    running.marked.notify_one();
                }
                let parked = parked(&batch.parked);
                return Outcome::Committed { progress: batch.progress, rows, counted: batch.counted, parked };
            }
            Err(StoreError::Unknown(error)) if !proof::sabotaged(Sabotage::LostCommit) => {
                return Outcome::Stale { why: format!("the answer to a COMMIT was lost ({error})") };
            }
            Err(StoreError::Repeated(repeats)) => return Outcome::Repeated(repeats),
            Err(StoreError::Misapplied(places)) => return Outcome::Misapplied(places),
            Err(StoreError::Unapplied(reason)) => return Outcome::Refused { reason, progress: batch.progress },
            Err(error @ StoreError::Superseded { .. }) => return Outcome::Stale { why: error.to_string() },
            Err(error @ StoreError::Data(_)) => {
                let reason = Reason::new("refused-by-postgres", error.to_string());
                return Outcome::Refused { reason, progress: batch.progress };
            }
            Err(error @ StoreError::TimedOut(_)) => {
                let reason = Reason::new("poison", error.to_string());
                return Outcome::Refused { reason, progress: batch.progress };
            }
            Err(error) if error.is_transient() => {
                let wait = if error.is_collision() { Duration::from_millis(5) } else { outage.failed(&what, &error) };
                tokio::time::sleep(wait).await;
            }
            Err(error) => return Outcome::Fatal(error),
        }
    }
}

/// What to say of the events that were parked.
fn parked(letters: &[Letter]) -> Option<(usize, String)> {
    let mut failed = letters.iter().filter_map(|letter| match &letter.cause {
        Cause::Failed(reason) => Some((&letter.message.place, reason)),
        Cause::Behind(_) => None,
    });
    let (place, reason) = failed.next()?;
    Some((1 + failed.count(), format!("{place}: {reason}")))
}
