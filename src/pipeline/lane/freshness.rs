//! How fresh the rows are: when it was last known of each partition that all it had was applied.
//!
//! librdkafka's statistics say where a partition ended when they were made. Once everything before that end is committed,
//! the rows are complete as of then, however long the partition has been silent. Statistics go on while no broker is heard
//! of, and say the same end for ever: those count for nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Lane;
use crate::checkpoint::Partition;
use crate::source::{Watched, clock};
use crate::store::partitions::caught_up;

/// The ends that partitions had, and when.
#[derive(Debug)]
pub(super) struct Freshness {
    ends: HashMap<Partition, End>,
    told: Instant,
}

#[derive(Debug, Clone, Copy)]
struct End {
    offset: i64,
    /// By the clock of the statistics.
    seen: i64,
}

impl Default for Freshness {
    fn default() -> Freshness {
        Freshness { ends: HashMap::new(), told: Instant::now() }
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
            // It is another's by now.
            None => false,
        });
        reached
    }
}

impl Lane {
    /// Notes in the catalog how fresh the rows are, beside the folding.
    pub(super) fn tell_freshness(&mut self) {
        const EVERY: Duration = Duration::from_secs(1);
        if self.freshness.told.elapsed() < EVERY {
            return;
        }
        self.freshness.told = Instant::now();
        let reached = self.freshness.reached(|partition| self.owned.get(partition).map(|owned| owned.committed));
        if reached.is_empty() {
            return;
        }
        let running = self.running.clone();
        self.runtime.spawn(async move {
            // The next one says it as well; when Postgres is away the lane tells so.
            if let Err(error) = caught_up(&running.pool, &running.generation, &reached).await {
                tracing::debug!("{}: {error}", running.generation);
            }
        });
    }
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
