//! Carries out marks beside the lanes: what they changed reaches the rows that follow from it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Outage, Running};
use crate::error_kind::ErrorKind;
use crate::store::partitions::Halt;
use crate::store::propagate::propagate;
use crate::store::{Generation, StoreError};

/// Propagates until it is to stop. A halt stops the lanes too.
pub async fn keep_propagating(running: Arc<Running>, stop: CancellationToken) -> Option<Halt> {
    // Other processes' lanes leave marks as well.
    const EVERY: Duration = Duration::from_millis(200);
    if running.plan.edges.is_empty() {
        return None;
    }
    let Running { plan, generation, pool, .. } = &*running;
    let what = format!("{generation}: propagating");
    let mut outage = Outage::default();
    while !stop.is_cancelled() {
        let wait = match propagate(pool, plan, generation).await {
            Ok(Some(done)) => {
                outage.over(&what);
                tracing::trace!("{what}: {} keys, {} rows", done.keys, done.rows);
                continue;
            }
            Ok(None) => {
                outage.over(&what);
                EVERY
            }
            // Lanes lock rows too; whoever was in the way is through by now.
            Err(error) if error.is_collision() => Duration::from_millis(5),
            Err(error) if error.kind() == ErrorKind::Transient => outage.failed(&what, &error),
            Err(error) => {
                stop.cancel();
                return Some(halted(generation, &error));
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = running.marked.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    None
}

fn halted(generation: &Generation, error: &StoreError) -> Halt {
    let message = format!("what follows from its events cannot be written: {error}");
    let code = match error {
        StoreError::Data(_) => "refused-by-postgres",
        StoreError::Unapplied(reason) => reason.code,
        _ => "postgres",
    };
    tracing::debug!("{generation}: {error:?}");
    Halt { code: code.into(), message, place: None }
}
