//! A lane: one ordered worker over some partitions of one projection.

mod committing;
mod freshness;
mod group;
mod parked;
mod replay;
mod turns;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::commit::Outcome;
use super::end::{End, Owned};
use super::message::{Folded, SetAside, fold_message};
use super::pace::Pace;
use freshness::Freshness;
use replay::Replay;
use turns::Turns;

use super::partition_ends::{Ends, Fetched};
use super::politeness::Stretch;
use super::rate::Rate;
use super::{Outage, Politeness, Running};
use crate::batch::Batch;
use crate::checkpoint::Partition;
use crate::error_kind::Reason;
use crate::event::{Place, Record};
use crate::parking::Message;
use crate::seen::Seen;
use crate::source::{Consumer, Polled, clock, record_of};
use crate::store::parked::retry::Counts;
use crate::store::partitions::suspect;
use crate::store::seen::require_intact;
use crate::store::sweep::sweep;

pub struct Lane {
    running: Arc<Running>,
    runtime: Handle,
    consumer: Rc<Consumer>,
    replay: Replay,
    stop: CancellationToken,
    owned: BTreeMap<Partition, Owned>,
    turns: Turns,
    stretch: Stretch,
    freshness: Freshness,
    batch: Batch,
    seen: Seen,
    /// When the first event of the batch came.
    opened: Option<Instant>,
    in_flight: Option<Receiver<Outcome>>,
    pace: Pace,
    /// Events that were found out to be not applicable after they had been folded.
    set_aside: SetAside,
    /// How often events ran out of time.
    timeouts: BTreeMap<Place, u32>,
    ends: Ends,
    topics: Vec<String>,
    topics_checked: Instant,
    waits_checked: Instant,
    swept: Instant,
    retried: Instant,
    /// What was parked when it was looked at last.
    known_counts: BTreeMap<Partition, Counts>,
    /// What was decided when that was looked at last.
    decided: (i64, Option<String>),
    /// Something may be retried without anybody asking for it again.
    retry_again: bool,
    reported: Instant,
    rate: Rate,
    outage: Outage,
    missing_topic_told: bool,
    /// Counts the lane's steps, so that others see that it moves.
    pulse: Arc<AtomicU64>,
}

impl Lane {
    /// Makes a lane; it joins its group when it runs.
    ///
    /// # Errors
    /// When the settings do not make a consumer.
    pub fn new(
        running: Arc<Running>,
        runtime: Handle,
        stop: CancellationToken,
        pulse: Arc<AtomicU64>,
    ) -> Result<Lane, End> {
        let generation = &running.generation;
        let group = format!("{}.{}.{}", running.settings.kafka.group_prefix, generation.projection, generation.number);
        // A build may be over before others would have noticed that it has begun.
        let heartbeat = Duration::from_millis(if running.polite().is_some() { 100 } else { 500 });
        let consumer = Consumer::member(&running.settings.kafka, &running.settings.fold, &group, heartbeat)?;
        let now = Instant::now();
        Ok(Lane {
            batch: Batch::new(&running.plan),
            seen: Seen::default(),
            running,
            runtime,
            consumer: Rc::new(consumer),
            replay: Replay::default(),
            stop,
            owned: BTreeMap::new(),
            turns: Turns::default(),
            stretch: Stretch::default(),
            freshness: Freshness::default(),
            opened: None,
            in_flight: None,
            pace: Pace::Free,
            set_aside: SetAside::new(),
            timeouts: BTreeMap::new(),
            ends: Ends::default(),
            topics: Vec::new(),
            topics_checked: now,
            waits_checked: now,
            swept: now,
            retried: now,
            known_counts: BTreeMap::new(),
            decided: (0, None),
            retry_again: false,
            reported: now,
            rate: Rate::default(),
            outage: Outage::default(),
            missing_topic_told: false,
            pulse,
        })
    }

    /// Runs until it is told to stop or cannot go on.
    pub fn run(mut self) -> End {
        let end = match self.work() {
            Ok(never) => match never {},
            Err(end) => end,
        };
        // Whatever it was, the process did not die of it.
        let owned: Vec<Partition> = self.owned.keys().cloned().collect();
        self.give_back(&owned);
        end
    }

    fn work(&mut self) -> Result<std::convert::Infallible, End> {
        const TOPICS_EVERY: Duration = Duration::from_secs(10);
        const RETRIES_EVERY: Duration = Duration::from_millis(500);
        const WAITS_EVERY: Duration = Duration::from_millis(300);
        // First of all: lanes that join together are given their partitions at once, and who comes late has all of them stop.
        self.subscribe()?;
        let Running { pool, plan, generation, .. } = &*self.running;
        self.runtime.block_on(require_intact(pool, plan, generation))?;
        loop {
            self.pulse.fetch_add(1, Ordering::Relaxed);
            if self.stop.is_cancelled() {
                return Err(self.drain());
            }
            self.hear_commit(Duration::ZERO)?;
            while let Some(event) = self.consumer.group_event() {
                self.rebalance(event)?;
            }
            if self.topics_checked.elapsed() > TOPICS_EVERY {
                self.subscribe()?;
            }
            if self.waits_checked.elapsed() > WAITS_EVERY {
                self.end_waits()?;
            }
            if self.retry_again || self.retried.elapsed() > RETRIES_EVERY {
                self.follow_decisions()?;
                self.retry_parked()?;
            }
            if self.swept.elapsed() > Duration::from_secs(self.running.settings.fold.sweep_s) {
                self.sweep();
            }
            self.take_turns()?;
            self.tell_freshness();
            let wait = self.patience();
            let fetched = self.fetch_some(wait)?;
            self.follow_ends(fetched);
            // Word of an end may come after every other message: it says nothing of what stands behind it.
            if self.is_due(matches!(fetched, Fetched::Nothing | Fetched::Glance)) {
                self.seal()?;
            }
        }
    }

    /// Lets expired rows go, beside the folding.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        let keeps_all = self.running.plan.tables.iter().all(|table| table.expire.is_none() && table.forget.is_none());
        // Partitions that are still in line have no clock yet, and events from long ago.
        if keeps_all || self.running.polite().is_some() {
            return;
        }
        let running = self.running.clone();
        self.runtime.spawn(async move {
            match sweep(&running.pool, &running.plan, &running.generation).await {
                Ok(0) => {}
                Ok(rows) => tracing::debug!("{}: {rows} expired rows swept", running.generation),
                // The next sweep takes them; when Postgres is away the lane says so.
                Err(error) => tracing::debug!("{}: not swept: {error}", running.generation),
            }
        });
    }

    /// How long to wait for a message: a batch that could be committed now is not kept waiting.
    fn patience(&self) -> Duration {
        match (&self.in_flight, self.opened) {
            (None, Some(_)) => Duration::ZERO,
            (Some(_), _) => Duration::from_millis(1),
            (None, None) => Duration::from_millis(50),
        }
    }

    /// Polls, and goes on while messages come. What else there is to do is looked after between such stretches: to ask for
    /// it after every message costs more than some messages do. What the last poll brought.
    fn fetch_some(&mut self, wait: Duration) -> Result<Fetched, End> {
        /// Messages, which are folded before anybody has noticed a wait.
        const AT_ONCE: u32 = 64;
        let rest = match self.running.polite() {
            Some(polite) if self.replay.is_empty() => polite.wait().max(self.stretch.rest(&polite.building.share)),
            _ => Duration::ZERO,
        };
        if !rest.is_zero() {
            // Nothing is polled, so nothing is known of the queue.
            std::thread::sleep(rest.min(Duration::from_millis(20)));
            return Ok(Fetched::Word);
        }
        let mut fetched = self.fetch(wait)?;
        let begun = Instant::now();
        for _ in 1..AT_ONCE {
            let is_full = self.pace.limit().is_some_and(|most| self.batch.progress.events() >= most)
                || self.batch.bytes >= self.running.settings.fold.memory_mb << 20;
            let is_held_back = self.running.polite().is_some_and(|polite| !polite.wait().is_zero());
            if fetched != Fetched::Message || is_full || is_held_back {
                break;
            }
            fetched = self.fetch(Duration::ZERO)?;
        }
        self.stretch.add(begun.elapsed());
        Ok(fetched)
    }

    /// Polls once and folds what came.
    fn fetch(&mut self, wait: Duration) -> Result<Fetched, End> {
        if let Some(message) = self.replay.next() {
            self.take_in(&message.record())?;
            return Ok(Fetched::Message);
        }
        let consumer = self.consumer.clone();
        match consumer.poll(wait) {
            Polled::Message(message) => {
                self.running.politeness.iter().for_each(Politeness::passed);
                let record = record_of(&message);
                if !self.turns.hold(&record) {
                    self.take_in(&record)?;
                }
                Ok(Fetched::Message)
            }
            Polled::Nothing if wait.is_zero() => Ok(Fetched::Glance),
            // It ended early, for the news; and what stood in the queue may be fetched again.
            Polled::Nothing if consumer.has_group_event() => Ok(Fetched::Word),
            Polled::Nothing => Ok(Fetched::Nothing),
            Polled::EndOfPartition(number) => {
                self.turns.end_at(number);
                let fetched = self.owned.iter().filter(|(_, owned)| owned.is_fetched());
                self.ends.reached(number, fetched.map(|(partition, _)| partition), clock);
                Ok(Fetched::Word)
            }
            Polled::NoTopic => {
                if !self.missing_topic_told {
                    self.missing_topic_told = true;
                    tracing::info!("{}: a topic does not exist yet; waiting for it", self.running.generation);
                }
                Ok(Fetched::Word)
            }
            Polled::OutOfRange => Err(self.out_of_range()),
            Polled::Problem(error) => {
                // librdkafka tries on at its own pace; a pause here would only let its messages queue up.
                let _ = self.outage.failed(&self.running.generation, &error);
                Ok(Fetched::Word)
            }
        }
    }

    /// Folds a message into the batch.
    fn take_in(&mut self, record: &Record<'_>) -> Result<(), End> {
        let partition = Partition::new(record.topic, record.partition);
        // What a seek or a rebalance left in the queue is not ours to fold.
        let Some(owned) = self.owned.get_mut(&partition).filter(|owned| record.offset >= owned.next) else {
            return Ok(());
        };
        if let Some(stop) = owned.stop_at.filter(|stop| record.offset >= *stop) {
            // There may be no event at the very place.
            if owned.next < stop {
                self.batch.progress.skip(&partition, owned.next, stop);
                owned.next = stop;
                self.opened.get_or_insert_with(Instant::now);
            }
            return Ok(());
        }
        let gate = self.pace.is_single().then(|| self.running.clone());
        let alone = gate.as_ref().map(|gate| gate.stepping.lock().unwrap_or_else(|e| e.into_inner()));
        if alone.is_some() {
            let Running { pool, generation, settings, .. } = &*self.running;
            let tries = self.runtime.block_on(suspect(pool, generation, &record.place()))?;
            if tries > settings.fold.poison_attempts as i32 {
                let message = format!("the process died {} times when this event was taken in alone", tries - 1);
                self.set_aside.insert(record.place(), Reason::new("poison", message));
            }
        }
        let (seen, batch) = (&mut self.seen, &mut self.batch);
        match fold_message(&self.running, owned, record, &partition, &self.set_aside, seen, batch) {
            Folded::Taken => {
                self.batch.progress.read(&partition, owned.next, record.offset, record.time, owned.clock);
                owned.next = record.offset + 1;
                self.ends.delivered(&partition, clock);
                self.opened.get_or_insert_with(Instant::now);
                self.outage.over(&self.running.generation);
                if self.replay.is_keeping() {
                    self.replay.folded(Message::of(record));
                }
                if alone.is_some() { self.seal() } else { Ok(()) }
            }
            Folded::Halt(halt) => {
                self.flush(Duration::from_secs(self.running.settings.shutdown_s))?;
                Err(End::Halted(halt))
            }
            Folded::Halfway(place, reason) => {
                self.set_aside.insert(place, reason);
                if self.replay.is_keeping() {
                    self.replay.folded(Message::of(record));
                }
                self.reload("a batch is folded again without an event that cannot be applied")
            }
        }
    }

    fn out_of_range(&mut self) -> End {
        for (partition, owned) in &self.owned {
            let Ok(offsets) = self.consumer.offsets(partition) else { continue };
            if let Err(gap) = crate::source::resume(partition, owned.next, offsets) {
                return End::gap(gap);
            }
        }
        End::Retry("Kafka says that an offset is out of range".into())
    }

    /// Learns of ends from the statistics. Offsets before an end that is proven belong to transaction markers: they are
    /// passed.
    fn follow_ends(&mut self, fetched: Fetched) {
        let report = self.consumer.watched();
        if self.consumer.has_group_event() {
            // A rebalance is about to take back what was proven before it.
            self.ends.moved(self.owned.keys());
            return;
        }
        if let Some((made, watched)) = report {
            for (partition, owned) in &mut self.owned {
                owned.high = watched.get(partition).map_or(owned.high, |seen| owned.high.max(seen.high));
            }
            self.freshness.report(made, &watched);
            self.ends.report(made, watched);
        }
        if !self.replay.is_empty() || self.turns.is_holding() {
            return;
        }
        for (partition, seen) in self.ends.polled(fetched, clock) {
            let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.is_fetched()) else {
                continue;
            };
            let end = owned.stop_at.map_or(seen.end_reached, |stop| seen.end_reached.min(stop));
            if end > owned.next {
                self.batch.progress.skip(&partition, owned.next, end);
                owned.next = end;
                self.opened.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Events that are still to be folded, as far as is known. Of partitions that wait nothing is to be had.
    fn behind(&self) -> i64 {
        let read = self.owned.values().filter(|owned| owned.waits_for.is_empty());
        read.map(|owned| (owned.high - owned.next).max(0)).sum()
    }

    fn is_due(&self, idle: bool) -> bool {
        let fold = &self.running.settings.fold;
        let Some(opened) = self.opened else { return false };
        if self.batch.bytes >= fold.memory_mb << 20 {
            return true;
        }
        let is_old = opened.elapsed() >= Duration::from_secs(fold.catch_up_s);
        if let Some(most) = self.pace.limit() {
            return idle || is_old || self.batch.progress.events() >= most;
        }
        if self.in_flight.is_some() {
            return false;
        }
        if self.behind() > fold.far_behind || self.turns.is_on() {
            return is_old;
        }
        const LONGEST_LIVE: Duration = Duration::from_millis(10);
        idle || opened.elapsed() >= LONGEST_LIVE
    }
}
