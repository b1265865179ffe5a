//! Which events were counted already, as far as a lane remembers. The store knows the rest.
//!
//! Identities are kept for each partition by itself: a producer sends a repeat to the partition of the original. An
//! identity counts as known as long as its event's time is not before the horizon, which follows the partition's own
//! time; so what is a repeat depends on the log alone, and not on when somebody cleaned up.

use std::collections::{HashMap, VecDeque};

use crate::checkpoint::Partition;
use crate::fold::Identity;

/// An event that is counted in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    pub partition: Partition,
    pub identity: Identity,
    /// The event's time, and from when on identities are kept; microseconds.
    pub time: i64,
    pub horizon: i64,
}

/// A committed identity, and where and when it was.
type Known = (Partition, Identity, i64);

#[derive(Debug, Default)]
pub struct Seen {
    /// Of batches that are not committed yet: these must not be forgotten.
    open: HashMap<Partition, HashMap<Identity, i64>>,
    recent: HashMap<Partition, HashMap<Identity, i64>>,
    order: VecDeque<Known>,
}

impl Seen {
    /// Committed identities that are remembered; beyond them the store is asked when a batch commits.
    const REMEMBERED: usize = 100_000;

    pub fn knows(&self, partition: &Partition, identity: &Identity, horizon: i64) -> bool {
        let in_map = |map: &HashMap<Partition, HashMap<Identity, i64>>| {
            map.get(partition).and_then(|known| known.get(identity)).is_some_and(|time| *time >= horizon)
        };
        in_map(&self.open) || in_map(&self.recent)
    }

    pub fn count(&mut self, counted: &Counted) {
        self.open.entry(counted.partition.clone()).or_default().insert(counted.identity, counted.time);
    }

    /// A batch was committed: what it counted may be forgotten in time.
    pub fn committed(&mut self, counted: impl IntoIterator<Item = Known>) {
        for (partition, identity, time) in counted {
            if let Some(open) = self.open.get_mut(&partition) {
                open.remove(&identity);
            }
            self.recent.entry(partition.clone()).or_default().insert(identity, time);
            self.order.push_back((partition, identity, time));
        }
        while self.order.len() > Seen::REMEMBERED {
            let Some((partition, identity, time)) = self.order.pop_front() else { break };
            if let Some(known) = self.recent.get_mut(&partition)
                && known.get(&identity) == Some(&time)
            {
                known.remove(&identity);
            }
        }
    }

    /// What was folded and not committed is folded again.
    pub fn forget_open(&mut self) {
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_ones_are_kept_and_committed_ones_for_a_while() {
        let partition = Partition::new("t", 0);
        let counted =
            |n: u8, time| Counted { partition: partition.clone(), identity: Identity([n; 16]), time, horizon: 0 };
        let mut seen = Seen::default();
        seen.count(&counted(1, 50));
        assert!(seen.knows(&partition, &Identity([1; 16]), 50));
        assert!(!seen.knows(&partition, &Identity([1; 16]), 51), "too old to count");
        assert!(!seen.knows(&Partition::new("t", 1), &Identity([1; 16]), 0));
        seen.committed([(partition.clone(), Identity([1; 16]), 50)]);
        seen.forget_open();
        assert!(seen.knows(&partition, &Identity([1; 16]), 50));
        seen.count(&counted(2, 60));
        seen.forget_open();
        assert!(!seen.knows(&partition, &Identity([2; 16]), 0));
    }
}
