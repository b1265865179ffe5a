//! A lane's batches on their way to Postgres, and what comes of them.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use super::super::commit::{Outcome, settle};
use super::super::end::End;
use super::super::pace::Pace;
use super::Lane;
use crate::batch::{Batch, Sealed};
use crate::checkpoint::{Partition, Progress};
use crate::error_kind::{ErrorKind, Reason};
use crate::event::Place;
use crate::proof;
use crate::store::commit::checkpoints;
use crate::store::partitions::Halt;

/// Sorts a batch's rows. A large one takes its time, in which the others of this runtime would wait.
async fn sealed(batch: Batch) -> Option<Sealed> {
    const LARGE: usize = 1 << 20;
    if batch.bytes < LARGE {
        return Some(batch.seal());
    }
    tokio::task::spawn_blocking(|| batch.seal()).await.ok()
}

impl Lane {
    /// Hands the batch to be committed. Waits for the one before it, if that is still under way.
    pub(super) fn seal(&mut self) -> Result<(), End> {
        self.hear_commit_for_long()?;
        if self.batch.progress.is_empty() {
            self.opened = None;
            return Ok(());
        }
        proof::failpoint(proof::AFTER_FOLD);
        let mut batch = std::mem::replace(&mut self.batch, Batch::new(&self.running.plan));
        batch.careful = self.pace.is_careful();
        batch.building = self.running.polite().map(|polite| polite.building.clone());
        self.opened = None;
        let rate = self.rate.now();
        let (answer, receiver) = sync_channel(1);
        let running = self.running.clone();
        self.runtime.spawn(async move {
            let outcome = match sealed(batch).await {
                Some(batch) => settle(running, batch, rate).await,
                None => return,
            };
            // The lane may be gone; the catalog knows what was committed.
            let _ = answer.send(outcome);
        });
        self.in_flight = Some(receiver);
        if self.pace.limit().is_some() {
            self.hear_commit_for_long()?;
        }
        Ok(())
    }

    /// Waits for the commit under way. The group is kept informed meanwhile, with all partitions paused.
    pub(super) fn hear_commit_for_long(&mut self) -> Result<(), End> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let begun = Instant::now();
        let mut paused = false;
        while self.in_flight.is_some() {
            self.pulse.fetch_add(1, Ordering::Relaxed);
            self.hear_commit(Duration::from_millis(100))?;
            if self.stop.is_cancelled() && begun.elapsed() > Duration::from_secs(self.running.settings.shutdown_s) {
                return Err(End::Finished);
            }
            if self.in_flight.is_some() && begun.elapsed() > PATIENCE {
                if !paused {
                    self.consumer.pause(self.owned.keys())?;
                    paused = true;
                }
                // Nothing but the group's heartbeat and rebalances can come now.
                let _ = self.consumer.poll(Duration::ZERO);
            }
        }
        if paused {
            self.ends.moved(self.owned.keys());
            self.consumer.seek(self.owned.iter().map(|(partition, owned)| (partition, owned.next)))?;
            self.consumer.resume(self.owned.iter().filter(|(_, owned)| owned.is_fetched()).map(|(p, _)| p))?;
        }
        Ok(())
    }

    pub(super) fn hear_commit(&mut self, patience: Duration) -> Result<(), End> {
        let Some(receiver) = &self.in_flight else { return Ok(()) };
        let outcome = match receiver.recv_timeout(patience) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return Err(End::Retry("a commit was abandoned".into())),
        };
        self.in_flight = None;
        match outcome {
            Outcome::Committed { progress, rows, counted, parked } => {
                if self.running.polite().is_none() {
                    self.running.demand.note();
                }
                if let Some((events, first)) = parked {
                    tracing::warn!("{}: {events} parked; the first is {first}", self.running.generation);
                }
                self.seen.committed(counted.into_iter().map(|c| (c.partition, c.identity, c.time)));
                tracing::trace!("{}: {} events, {rows} rows", self.running.generation, progress.events());
                self.rate.add(progress.events());
                for (partition, step) in &progress.0 {
                    if let Some(owned) = self.owned.get_mut(partition) {
                        owned.committed = step.to;
                    }
                }
                self.report(&progress);
                self.relax(&progress);
                Ok(())
            }
            Outcome::Stale { why } => self.reload(&why),
            Outcome::Repeated(repeats) => {
                self.reload("some events were counted before")?;
                self.seen.committed(repeats.into_iter().map(|c| (c.partition, c.identity, c.time)));
                Ok(())
            }
            Outcome::Misapplied(places) => {
                let why =
                    format!("a batch is folded again without {} of its events, which cannot be applied", places.len());
                self.set_aside.extend(places);
                self.reload(&why)
            }
            Outcome::Refused { reason, progress } => self.search(reason, &progress),
            Outcome::Fatal(error) => Err(End::from(error)),
        }
    }

    /// Postgres refused a batch: commit ever smaller ones until the event stands alone.
    fn search(&mut self, reason: Reason, refused: &Progress) -> Result<(), End> {
        let events = refused.events();
        if events > 1 {
            self.pace = Pace::Search(events / 2);
            return self.reload("Postgres refuses a batch; looking for the event");
        }
        let alone = refused.0.iter().find(|(_, step)| step.events > 0);
        let place = alone.map(|(partition, step)| partition.at(step.to - 1));
        let halt = |place| End::Halted(Halt { code: reason.code.into(), message: reason.message.clone(), place });
        // Not even to put it aside is possible.
        let Some(place) = place.clone().filter(|place| !self.set_aside.contains_key(place)) else {
            return Err(halt(place));
        };
        if reason.kind() == ErrorKind::Poison {
            let tries = self.timeouts.entry(place.clone()).or_default();
            *tries += 1;
            if *tries < self.running.settings.fold.poison_attempts {
                return self.reload("an event runs out of time; trying it again");
            }
        }
        self.set_aside.insert(place, reason);
        self.reload("a batch is folded again without an event that cannot be applied")
    }

    /// After a commit: what was looked for may have been found, or is behind.
    fn relax(&mut self, progress: &Progress) {
        let is_behind = |place: &Place| {
            let partition = Partition::new(place.topic.clone(), place.partition);
            progress.0.get(&partition).is_some_and(|step| place.offset < step.to)
        };
        self.set_aside.retain(|place, _| !is_behind(place));
        self.timeouts.retain(|place, _| !is_behind(place));
        self.replay.committed();
        let was_careful = self.pace.is_careful();
        self.pace = self.pace.committed(progress.events(), self.behind() == 0);
        self.replay.keep(matches!(self.pace, Pace::Search(_)));
        if was_careful && !self.pace.is_careful() {
            let owned: Vec<Partition> = self.owned.keys().cloned().collect();
            self.give_back(&owned);
        }
    }

    /// Kafka's own group offsets, for ordinary lag tools.
    fn report(&mut self, progress: &Progress) {
        const EVERY: Duration = Duration::from_secs(1);
        if self.reported.elapsed() > EVERY {
            self.reported = Instant::now();
            let committed = progress.0.iter().filter(|(partition, _)| self.owned.contains_key(*partition));
            self.consumer.report(committed.map(|(partition, step)| (partition, step.to)));
        }
    }

    /// Drops what was folded and goes on from the catalog's checkpoints.
    pub(super) fn reload(&mut self, why: &str) -> Result<(), End> {
        self.in_flight = None;
        let known = self.runtime.block_on(checkpoints(&self.running.pool, &self.running.generation))?;
        let stops = |partition| known.get(partition).is_some_and(|reached| reached.stop_at.is_some());
        if self.owned.iter().any(|(partition, owned)| owned.stop_at.is_some() || stops(partition)) {
            // What came from a stop on was neither folded nor kept.
            self.replay.forget();
        }
        let at_hand = self.replay.rewind();
        self.replay.keep(matches!(self.pace, Pace::Search(_)));
        // Fetching goes on where it is, if what comes before that is kept.
        let moved = if at_hand { None } else { Some(self.owned.keys()) };
        self.ends.moved(moved.into_iter().flatten());
        self.batch = Batch::new(&self.running.plan);
        self.seen.forget_open();
        self.opened = None;
        for (partition, owned) in &mut self.owned {
            match known.get(partition) {
                Some(reached) => {
                    owned.next = reached.next_offset;
                    owned.committed = reached.next_offset;
                    owned.clock = reached.clock;
                    owned.stop_at = reached.stop_at;
                }
                None => return Err(End::halted("generation-gone", "the generation was dropped or built anew".into())),
            }
        }
        match self.owned.values().any(|owned| owned.stop_at.is_some()) {
            true => tracing::debug!("{}: standing still, to be compared with another", self.running.generation),
            false => tracing::info!("{}: going on from the checkpoints: {why}", self.running.generation),
        }
        self.know_parked()?;
        if !at_hand {
            self.consumer.seek(self.owned.iter().map(|(partition, owned)| (partition, owned.next)))?;
        }
        Ok(())
    }

    /// Commits what is folded, within a time.
    pub(super) fn flush(&mut self, patience: Duration) -> Result<(), End> {
        let deadline = Instant::now() + patience;
        while (self.in_flight.is_some() || self.opened.is_some()) && Instant::now() < deadline {
            self.hear_commit(Duration::from_millis(20))?;
            if self.in_flight.is_none() && self.opened.is_some() {
                self.seal()?;
            }
        }
        Ok(())
    }

    pub(super) fn drain(&mut self) -> End {
        let name = self.running.generation.to_string();
        let events = self.batch.progress.events();
        if events > 0 || self.in_flight.is_some() {
            tracing::debug!("{name}: committing {events} events before stopping");
        }
        match self.flush(Duration::from_secs(self.running.settings.shutdown_s)) {
            Ok(()) => {
                if self.in_flight.is_some() {
                    tracing::warn!("{name}: stopping before the last commit was answered; it counts if it arrived");
                }
                End::Finished
            }
            Err(end) => end,
        }
    }
}
