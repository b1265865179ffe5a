//! A lane and its consumer group: topics, partitions taken and given back, partitions that wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::end::{End, Owned};
use super::super::pace::Pace;
use super::super::{Running, assignment};
use super::Lane;
use crate::checkpoint::Partition;
use crate::plan::Topics;
use crate::source::GroupEvent;
use crate::store::commit::checkpoints;
use crate::store::partitions;

impl Lane {
    /// Subscribes to the topics there are. Patterns are matched here, because librdkafka's own know no captures.
    pub(super) fn subscribe(&mut self) -> Result<(), End> {
        self.topics_checked = Instant::now();
        let mut wanted: Vec<String> = Vec::new();
        let sources = &self.running.plan.sources;
        let patterns = sources.iter().any(|s| matches!(s.topics, Topics::Matching(_)));
        let existing = if patterns { self.consumer.topics(None)? } else { Vec::new() };
        for source in sources {
            match &source.topics {
                Topics::Named(name) => wanted.push(name.clone()),
                topics => {
                    wanted.extend(existing.iter().map(|(name, _)| name.clone()).filter(|name| topics.matches(name)))
                }
            }
        }
        wanted.sort();
        wanted.dedup();
        if wanted != self.topics && !wanted.is_empty() {
            self.consumer.subscribe(&wanted)?;
            self.topics = wanted;
        }
        Ok(())
    }

    pub(super) fn rebalance(&mut self, event: GroupEvent) -> Result<(), End> {
        // Of the partitions that stay, librdkafka drops and fetches again what stands in its queue.
        self.ends.moved(self.owned.keys());
        if self.forget_held() || !self.replay.is_empty() {
            // What is kept was to be folded before what Kafka gives next: it is fetched again instead.
            self.replay.forget();
            self.reload("partitions are given and taken")?;
        }
        match event {
            GroupEvent::Assigned(partitions) => {
                self.note_joined();
                let mut taken = assignment::take_over(&self.running, &self.runtime, &self.consumer, &partitions)?;
                self.line_up(&mut taken);
                self.consumer.assign(taken.iter().map(|(partition, owned)| (partition, owned.next)))?;
                let resting = taken.iter().filter(|(_, owned)| !owned.is_fetched()).map(|(partition, _)| partition);
                self.consumer.pause(resting)?;
                self.note_taken(&taken)?;
                // Whoever owned them before may have come to the middle of it.
                self.retry_again |= taken.values().any(|owned| owned.parked > 0);
                self.owned.extend(taken);
                let names: Vec<String> = self.owned.keys().map(ToString::to_string).collect();
                if !names.is_empty() {
                    tracing::info!("{}: a lane owns {}", self.running.generation, names.join(", "));
                }
            }
            GroupEvent::Revoked { partitions, lost } => {
                if !lost {
                    self.flush(Duration::from_secs(10))?;
                }
                self.consumer.unassign(&partitions)?;
                if !lost && self.in_flight.is_none() {
                    self.give_back(&partitions);
                }
                self.owned.retain(|partition, _| !partitions.contains(partition));
                if lost || self.in_flight.is_some() || !self.batch.progress.is_empty() {
                    self.reload("partitions were given to another member")?;
                }
            }
        }
        self.ends.moved(self.owned.keys());
        Ok(())
    }

    pub(super) fn end_waits(&mut self) -> Result<(), End> {
        self.waits_checked = Instant::now();
        self.end_stops()?;
        if self.owned.values().all(|owned| owned.waits_for.is_empty()) {
            return Ok(());
        }
        let over = assignment::waits_over(&self.running, &self.runtime, &self.owned)?;
        let takes_turns = self.running.polite().is_some() && self.turns.is_on();
        for partition in &over {
            if let Some(owned) = self.owned.get_mut(partition) {
                owned.waits_for.clear();
                owned.in_line = takes_turns && owned.next < owned.high;
            }
        }
        if !over.is_empty() {
            self.flush(Duration::from_secs(10))?;
            // What the older partitions parked meanwhile blocks keys that have moved here.
            self.know_parked()?;
        }
        let fetched = |partition: &&Partition| self.owned.get(*partition).is_some_and(Owned::is_fetched);
        let on: Vec<&Partition> = over.iter().filter(fetched).collect();
        self.ends.moved(on.iter().copied());
        self.consumer.resume(on)?;
        Ok(())
    }

    /// Goes on where it was told to stop, once that is over.
    fn end_stops(&mut self) -> Result<(), End> {
        if self.owned.values().all(|owned| owned.stop_at.is_none()) {
            return Ok(());
        }
        if self.replay.is_keeping() || !self.replay.is_empty() {
            return self.reload("what was stopped is looked at again");
        }
        let known = self.runtime.block_on(checkpoints(&self.running.pool, &self.running.generation))?;
        let mut on = Vec::new();
        for (partition, owned) in self.owned.iter_mut().filter(|(_, owned)| owned.stop_at.is_some()) {
            // It may be another place by now. What came from the old one on was not folded, and is fetched again.
            let stop_at = known.get(partition).and_then(|reached| reached.stop_at);
            if stop_at != owned.stop_at {
                owned.stop_at = stop_at;
                on.push((partition, owned.next));
            }
        }
        if on.is_empty() {
            return Ok(());
        }
        self.ends.moved(on.iter().map(|(partition, _)| *partition));
        Ok(self.consumer.seek(on)?)
    }

    /// Counts the take-over, and goes carefully where others did not get on.
    fn note_taken(&mut self, taken: &BTreeMap<Partition, Owned>) -> Result<(), End> {
        let partitions: Vec<&Partition> = taken.keys().collect();
        let Running { pool, generation, .. } = &*self.running;
        let starts = self.runtime.block_on(partitions::take(pool, generation, &partitions))?;
        let pace = Pace::after_starts(starts);
        if pace.is_careful() {
            tracing::info!(
                "{}: nothing was committed since a lane took these partitions over last; going carefully, {} at once",
                self.running.generation,
                pace.limit().unwrap_or(0)
            );
            self.pace = pace;
        }
        Ok(())
    }

    /// Says that partitions were left in good order. If it cannot be said, the next owner is careful for nothing.
    pub(super) fn give_back(&self, partitions: &[Partition]) {
        let Running { pool, generation, .. } = &*self.running;
        const PATIENCE: Duration = Duration::from_secs(2);
        let partitions: Vec<&Partition> = partitions.iter().collect();
        let cleared = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, partitions::clear(pool, generation, &partitions)).await });
        if let Ok(Err(error)) = cleared {
            tracing::debug!("{}: {error}", self.running.generation);
        }
    }
}
