//! How fresh the rows are: when it was last known of each partition that all it had was applied.
//!
//! librdkafka's statistics say where a partition ended when they were made. Once everything before that end is committed,
//! the rows are complete as of then, however long the partition has been silent. Statistics go on while no broker is heard
//! of, and say the same end for ever: those count for nothing.
//!
//! Rows of a projection with joins or rollups are complete when what follows from these events has followed, too: the time
//! is told when no mark is left that was there once they were committed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Lane, Running};
use crate::checkpoint::Partition;
use crate::proof::{Sabotage, sabotaged};
use crate::source::{Watched, clock};
use crate::store::StoreError;
use crate::store::partitions::caught_up;
use crate::store::propagate::{horizon, is_followed};

/// The ends that partitions had, and when.
#[derive(Debug)]
pub(super) struct Freshness {
    ends: HashMap<Partition, End>,
    told: Instant,
    /// What was reached last, while it has not been told yet.
    telling: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    offset: i64,
    /// By the clock of the statistics.
    seen: i64,
}

impl Default for Freshness {
    fn default() -> Freshness {
        Freshness { ends: HashMap::new(), told: Instant::now(), telling: None }
    }
}

impl Freshness {
    /// Takes a report. An end that is not reached yet stands until it is, or a busy partition would never be fresh.
    pub fn report(&mut self, made: i64, watched: &HashMap<Partition, Watched>) {
        const HEARD_WITHIN_US: i64 = 2_000_000;
        for (partition, seen) in watched.iter().filter(|(_, seen)| seen.silent_us < HEARD_WITHIN_US && seen.high >= 0) {
            self.ends.entry(partition.clone()).or_insert(End { offset: seen.high, seen: made });
        }
    }

    /// Partitions that have reached an end, and how long ago it was one, in microseconds.
    fn reached(&mut self, committed: impl Fn(&Partition) -> Option<i64>) -> Vec<(Partition, i64)> {
        let now = clock();
        let mut reached = Vec::new();
        self.ends.retain(|partition, end| match committed(partition) {
            Some(next) if next >= end.offset => {
                reached.push((partition.clone(), (now - end.seen).max(0)));
                false
            }
            Some(_) => true,
            // It is another's by now, or waits.
            None => false,
        });
        reached
    }
}

impl Lane {
    /// Notes in the catalog how fresh the rows are, beside the folding.
    pub(super) fn tell_freshness(&mut self) {
        const EVERY: Duration = Duration::from_secs(1);
        // Ends stand until the ones before are told: what follows may take long.
        if self.freshness.told.elapsed() < EVERY || self.freshness.telling.as_ref().is_some_and(|t| !t.is_finished()) {
            return;
        }
        self.freshness.told = Instant::now();
        // One that waits for others has no end yet that counts, however little of it is known.
        let fetched = |partition: &Partition| self.owned.get(partition).filter(|owned| owned.is_fetched());
        let reached = self.freshness.reached(|partition| fetched(partition).map(|owned| owned.committed));
        if reached.is_empty() {
            return;
        }
        let (running, stop) = (self.running.clone(), self.stop.clone());
        self.freshness.telling = Some(self.runtime.spawn(async move {
            // The next one says it as well; when Postgres is away the lane tells so.
            if let Err(error) = tell(&running, &stop, reached).await {
                tracing::debug!("{}: {error}", running.generation);
            }
        }));
    }
}

/// Notes what was reached, each with how long ago that was in microseconds, once all that follows from it has followed.
async fn tell(running: &Running, stop: &CancellationToken, reached: Vec<(Partition, i64)>) -> Result<(), StoreError> {
    let begun = Instant::now();
    let follows = !running.plan.edges.is_empty() && !sabotaged(Sabotage::WaitFollowed);
    if follows && !has_followed(running, stop).await? {
        return Ok(());
    }
    let waited = begun.elapsed().as_micros() as i64;
    let reached: Vec<(Partition, i64)> =
        reached.into_iter().map(|(partition, ago)| (partition, ago + waited)).collect();
    caught_up(&running.pool, &running.generation, &reached).await
}

/// Waits until what is committed by now has been followed everywhere. False when it is told to stop before.
async fn has_followed(running: &Running, stop: &CancellationToken) -> Result<bool, StoreError> {
    const LONGEST: Duration = Duration::from_secs(1);
    let schema = &running.generation.schema;
    let Some(horizon) = horizon(&running.pool, schema).await? else { return Ok(true) };
    let mut pause = Duration::from_millis(10);
    while !is_followed(&running.pool, schema, horizon).await? {
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_counts_from_when_it_was_seen_once_it_is_committed() {
        let partition = Partition::new("t", 0);
        let watched =
            |high, silent_us| HashMap::from([(partition.clone(), Watched { high, end_reached: high, silent_us })]);
        let mut freshness = Freshness::default();
        freshness.report(clock() - 5_000_000, &watched(10, 0));
        freshness.report(clock(), &watched(20, 0));
        assert!(freshness.reached(|_| Some(9)).is_empty());
        let reached = freshness.reached(|_| Some(10));
        assert!(reached[0].1 >= 5_000_000, "{reached:?}");
        freshness.report(clock(), &watched(20, 3_000_000));
        assert!(freshness.reached(|_| Some(20)).is_empty(), "no broker was heard of");
    }
}
