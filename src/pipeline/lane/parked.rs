//! A lane and its dead letters: what it has to know of them, and retrying them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::Running;
use super::super::end::End;
use super::super::retry::Retry;
use super::Lane;
use crate::checkpoint::Partition;
use crate::store::StoreError;
use crate::store::parked::retry::{Earnest, counts};
use crate::store::parked::{self};

impl Lane {
    /// Reads anew what is parked of the partitions.
    pub(super) fn know_parked(&mut self) -> Result<(), End> {
        let Running { pool, generation, .. } = &*self.running;
        let topics: BTreeSet<String> = self.owned.keys().map(|partition| partition.topic.clone()).collect();
        for topic in topics {
            let numbers: Vec<i32> = self.owned.keys().filter(|p| p.topic == topic).map(|p| p.partition).collect();
            let found = self.runtime.block_on(parked::of_topic(pool, generation, &topic, &numbers))?;
            for (number, here) in found {
                if let Some(owned) = self.owned.get_mut(&Partition::new(topic.clone(), number)) {
                    owned.blocked = here.blocked;
                    owned.parked = here.events;
                }
            }
        }
        Ok(())
    }

    /// Learns of decisions that were made about events still to come: another generation may have met them already.
    pub(super) fn follow_decisions(&mut self) -> Result<(), End> {
        let Running { pool, generation, .. } = &*self.running;
        let decided = self.runtime.block_on(parked::decided(pool, generation))?;
        if decided == self.decided {
            return Ok(());
        }
        for (partition, owned) in &mut self.owned {
            owned.decisions = self.runtime.block_on(parked::decisions(pool, generation, partition, owned.next))?;
        }
        self.decided = decided;
        Ok(())
    }

    /// Looks whether letters of the lane's partitions are to be tried again, and tries them. While nothing is parked this
    /// asks nobody.
    pub(super) fn retry_parked(&mut self) -> Result<(), End> {
        self.retried = Instant::now();
        if self.owned.values().all(|owned| owned.parked == 0 && owned.blocked.is_empty()) {
            return Ok(());
        }
        let Running { pool, generation, .. } = &*self.running;
        let newest = self.known_counts.values().map(|counts| counts.newest).max().unwrap_or(0);
        let known = self.runtime.block_on(counts(pool, generation, newest))?;
        let count = |partition: &Partition| known.get(partition).copied().unwrap_or_default();
        let wanted = self.owned.iter().any(|(partition, _)| count(partition).requested > 0);
        // Parked here and not yet committed, or un-parked by another owner that was slow to go.
        let is_settled = self.in_flight.is_none() && self.batch.parked.is_empty();
        let differs = is_settled && self.owned.iter().any(|(partition, owned)| count(partition).parked != owned.parked);
        // A key that has moved waits for its letters in another partition.
        let before = std::mem::replace(&mut self.known_counts, known.clone());
        let elsewhere = before.iter().any(|(partition, before)| before.parked > count(partition).still);
        if !(wanted || differs || elsewhere || self.retry_again) {
            return Ok(());
        }
        // It is not done before it is done.
        self.retry_again = true;
        // Nothing may be on its way that waits for what is about to be un-parked.
        self.flush(Duration::from_secs(self.running.settings.shutdown_s))?;
        if self.in_flight.is_some() || self.opened.is_some() {
            return Ok(());
        }
        self.retry_again = false;
        let partitions: Vec<(Partition, usize)> =
            self.owned.iter().map(|(partition, owned)| (partition.clone(), owned.source)).collect();
        for (partition, source) in partitions {
            if count(&partition).parked > 0 {
                self.retry_partition(&partition, source)?;
            }
        }
        self.know_parked()
    }

    fn retry_partition(&mut self, partition: &Partition, source: usize) -> Result<(), End> {
        let running = self.running.clone();
        let retry = Retry {
            pool: &running.pool,
            plan: &running.plan,
            generation: &running.generation,
            source,
            partition,
            served_schema: &running.settings.serve.schema,
            poison_attempts: running.settings.fold.poison_attempts,
        };
        match self.runtime.block_on(retry.run(&BTreeSet::new(), &BTreeMap::new(), Earnest::Really)) {
            Ok(report) => {
                report.tell(&running.generation, partition);
                self.retry_again |= report.more;
                self.seen.committed(report.counted.into_iter().map(|c| (c.partition, c.identity, c.time)));
                Ok(())
            }
            // Another owner was faster; what is left is looked at anew.
            Err(StoreError::Superseded { .. }) => {
                self.retry_again = true;
                Ok(())
            }
            Err(error) => Err(End::from(error)),
        }
    }
}
