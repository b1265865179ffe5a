//! A lane: one ordered worker over some partitions of one projection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::message::Message as _;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::commit::{Outcome, settle};
use super::end::{End, Owned};
use super::message::{Folded, fold_message};
use super::partition_ends::{Ends, Fetched};
use super::rate::Rate;
use super::{Outage, Running, assignment};
use crate::batch::Batch;
use crate::checkpoint::{Partition, Progress};
use crate::event::Place;
use crate::proof::{self, Sabotage};
use crate::seen::Seen;
use crate::source::{Consumer, GroupEvent, Polled};
use crate::store::StoreError;
use crate::store::commit::checkpoints;
use crate::store::partitions::Halt;
use crate::store::seen::require_intact;
use crate::store::sweep::sweep;

/// Where folding has to stop, because what comes next cannot be applied or has to be found out.
#[derive(Debug, Default)]
enum Limit {
    #[default]
    None,
    /// The event at the place cannot be applied: what is before it is committed, then the lane halts.
    Before { place: Place, halt: Halt },
    /// Postgres refused a batch; batches of at most this many events are committed until the culprit stands alone.
    Events(u64),
}

impl Limit {
    /// The event that is known not to be applicable, and why.
    fn before(&self) -> Option<(&Place, &Halt)> {
        match self {
            Limit::Before { place, halt } => Some((place, halt)),
            _ => None,
        }
    }
}

pub struct Lane {
    running: Arc<Running>,
    runtime: Handle,
    consumer: Consumer,
    stop: CancellationToken,
    owned: BTreeMap<Partition, Owned>,
    batch: Batch,
    seen: Seen,
    /// When the first event of the batch came.
    opened: Option<Instant>,
    in_flight: Option<Receiver<Outcome>>,
    limit: Limit,
    ends: Ends,
    topics: Vec<String>,
    topics_checked: Instant,
    waits_checked: Instant,
    swept: Instant,
    reported: Instant,
    rate: Rate,
    outage: Outage,
    missing_topic_told: bool,
}

impl Lane {
    /// Makes a lane; it joins its group when it runs.
    ///
    /// # Errors
    /// When the settings do not make a consumer.
    pub fn new(running: Arc<Running>, runtime: Handle, stop: CancellationToken) -> Result<Lane, End> {
        let generation = &running.generation;
        let group = format!("{}.{}.{}", running.settings.kafka.group_prefix, generation.projection, generation.number);
        let consumer = Consumer::new(&running.settings.kafka, &running.settings.fold, &group)?;
        let now = Instant::now();
        Ok(Lane {
            batch: Batch::new(&running.plan),
            seen: Seen::default(),
            running,
            runtime,
            consumer,
            stop,
            owned: BTreeMap::new(),
            opened: None,
            in_flight: None,
            limit: Limit::None,
            ends: Ends::default(),
            topics: Vec::new(),
            topics_checked: now,
            waits_checked: now,
            swept: now,
            reported: now,
            rate: Rate::default(),
            outage: Outage::default(),
            missing_topic_told: false,
        })
    }

    /// Runs until it is told to stop or cannot go on.
    pub fn run(mut self) -> End {
        match self.work() {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    fn work(&mut self) -> Result<std::convert::Infallible, End> {
        const TOPICS_EVERY: Duration = Duration::from_secs(10);
        const WAITS_EVERY: Duration = Duration::from_millis(300);
        let Running { pool, plan, generation, .. } = &*self.running;
        self.runtime.block_on(require_intact(pool, plan, generation))?;
        self.subscribe()?;
        loop {
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
            if self.swept.elapsed() > Duration::from_secs(self.running.settings.fold.sweep_s) {
                self.sweep();
            }
            let wait = self.patience();
            let fetched = self.fetch(wait)?;
            self.follow_ends(fetched);
            if self.is_due(fetched != Fetched::Message) {
                self.seal()?;
            }
        }
    }

    /// Lets expired rows go, beside the folding.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        if self.running.plan.tables.iter().all(|table| table.expire.is_none() && table.forget.is_none()) {
            return;
        }
        let running = self.running.clone();
        self.runtime.spawn(async move {
            match sweep(&running.pool, &running.plan, &running.generation).await {
                Ok(0) => {}
                Ok(rows) => tracing::debug!("{}: {rows} expired rows swept", running.plan.name),
                // The next sweep takes them; when Postgres is away the lane says so.
                Err(error) => tracing::debug!("{}: not swept: {error}", running.plan.name),
            }
        });
    }

    /// Subscribes to the topics there are. Patterns are matched here, because librdkafka's own know no captures.
    fn subscribe(&mut self) -> Result<(), End> {
        self.topics_checked = Instant::now();
        let mut wanted: Vec<String> = Vec::new();
        let sources = &self.running.plan.sources;
        let patterns = sources.iter().any(|s| matches!(s.topics, crate::plan::Topics::Matching(_)));
        let existing = if patterns { self.consumer.topics(None)? } else { Vec::new() };
        for source in sources {
            match &source.topics {
                crate::plan::Topics::Named(name) => wanted.push(name.clone()),
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

    fn rebalance(&mut self, event: GroupEvent) -> Result<(), End> {
        match event {
            GroupEvent::Assigned(partitions) => {
                let taken = assignment::take_over(&self.running, &self.runtime, &self.consumer, &partitions)?;
                self.consumer.assign(taken.iter().map(|(partition, owned)| (partition, owned.next)))?;
                let waiting =
                    taken.iter().filter(|(_, owned)| !owned.waits_for.is_empty()).map(|(partition, _)| partition);
                self.consumer.pause(waiting)?;
                self.ends.moved(taken.keys());
                self.owned.extend(taken);
                let names: Vec<String> = self.owned.keys().map(ToString::to_string).collect();
                if !names.is_empty() {
                    tracing::info!("{}: a lane owns {}", self.running.plan.name, names.join(", "));
                }
            }
            GroupEvent::Revoked { partitions, lost } => {
                if !lost {
                    self.flush(Duration::from_secs(10))?;
                }
                self.consumer.unassign(&partitions)?;
                self.owned.retain(|partition, _| !partitions.contains(partition));
                if lost || self.in_flight.is_some() || !self.batch.progress.is_empty() {
                    self.reload("partitions were given to another member")?;
                }
            }
        }
        Ok(())
    }

    /// How long to wait for a message: a batch that could be committed now is not kept waiting.
    fn patience(&self) -> Duration {
        match (&self.in_flight, self.opened) {
            (None, Some(_)) => Duration::ZERO,
            (Some(_), _) => Duration::from_millis(1),
            (None, None) => Duration::from_millis(50),
        }
    }

    /// Polls once and folds what came.
    fn fetch(&mut self, wait: Duration) -> Result<Fetched, End> {
        match self.consumer.poll(wait) {
            Polled::Message(message) => {
                let partition = Partition::new(message.topic(), message.partition());
                // What a seek or a rebalance left in the queue is not ours to fold.
                let Some(owned) = self.owned.get_mut(&partition).filter(|owned| message.offset() >= owned.next) else {
                    return Ok(Fetched::Message);
                };
                let before = self.limit.before();
                let (seen, batch) = (&mut self.seen, &mut self.batch);
                match fold_message(&self.running, owned, &message, &partition, before, seen, batch) {
                    Folded::Taken => {
                        let time = message.timestamp().to_millis().map(|millis| millis * 1000);
                        self.batch.progress.read(&partition, owned.next, message.offset(), time, owned.clock);
                        owned.next = message.offset() + 1;
                        self.ends.delivered(&partition);
                        self.opened.get_or_insert_with(Instant::now);
                        self.outage.over(&self.running.plan.name);
                        Ok(Fetched::Message)
                    }
                    Folded::Untouched(halt) => self.stop_before(halt, false),
                    Folded::Halfway(halt) => self.stop_before(halt, true),
                }
            }
            Polled::Nothing if wait.is_zero() => Ok(Fetched::Glance),
            Polled::Nothing => Ok(Fetched::Nothing),
            Polled::EndOfPartition(number) => {
                self.ends.reached(number, self.owned.keys());
                Ok(Fetched::Word)
            }
            Polled::NoTopic => {
                if !self.missing_topic_told {
                    self.missing_topic_told = true;
                    tracing::info!("{}: a topic does not exist yet; waiting for it", self.running.plan.name);
                }
                Ok(Fetched::Word)
            }
            Polled::OutOfRange => Err(self.out_of_range()),
            Polled::Problem(error) => {
                // librdkafka tries on at its own pace; a pause here would only let its messages queue up.
                let _ = self.outage.failed(&self.running.plan.name, &error);
                Ok(Fetched::Word)
            }
        }
    }

    /// An event cannot be applied: commit what is before it, then halt. When the batch already holds a part of the event
    /// it is folded again up to the event.
    fn stop_before(&mut self, halt: Halt, halfway: bool) -> Result<Fetched, End> {
        if halfway && !proof::sabotaged(Sabotage::Refold) {
            let Some(place) = halt.place.clone() else { return Err(End::Halted(halt)) };
            self.limit = Limit::Before { place, halt };
            self.reload("a batch is folded again without an event that cannot be applied")?;
            return Ok(Fetched::Message);
        }
        self.flush(Duration::from_secs(self.running.settings.shutdown_s))?;
        Err(End::Halted(halt))
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
        if let Some(watched) = self.consumer.watched() {
            for (partition, owned) in &mut self.owned {
                owned.high = watched.get(partition).map_or(owned.high, |seen| owned.high.max(seen.high));
            }
            self.ends.report(watched);
        }
        let Some(proven) = self.ends.polled(fetched) else { return };
        for (partition, owned) in &mut self.owned {
            let end = proven.get(partition).map_or(-1, |seen| seen.end_reached);
            if end > owned.next && owned.waits_for.is_empty() {
                self.batch.progress.skip(partition, owned.next, end);
                owned.next = end;
                self.opened.get_or_insert_with(Instant::now);
            }
        }
    }

    fn end_waits(&mut self) -> Result<(), End> {
        self.waits_checked = Instant::now();
        if self.owned.values().all(|owned| owned.waits_for.is_empty()) {
            return Ok(());
        }
        let over = assignment::waits_over(&self.running, &self.runtime, &self.owned)?;
        for partition in &over {
            if let Some(owned) = self.owned.get_mut(partition) {
                owned.waits_for.clear();
            }
        }
        self.consumer.resume(&over)?;
        Ok(())
    }

    /// Events that are still to be folded, as far as is known.
    fn behind(&self) -> i64 {
        self.owned.values().map(|owned| (owned.high - owned.next).max(0)).sum()
    }

    fn is_due(&self, idle: bool) -> bool {
        let fold = &self.running.settings.fold;
        let Some(opened) = self.opened else { return false };
        if self.batch.bytes >= fold.memory_mb << 20 {
            return true;
        }
        if let Limit::Events(most) = self.limit {
            return idle || self.batch.progress.events() >= most;
        }
        if self.in_flight.is_some() {
            return false;
        }
        if self.behind() > fold.far_behind {
            return opened.elapsed() >= Duration::from_secs(fold.catch_up_s);
        }
        const LONGEST_LIVE: Duration = Duration::from_millis(10);
        idle || opened.elapsed() >= LONGEST_LIVE
    }

    /// Hands the batch to be committed. Waits for the one before it, if that is still under way.
    fn seal(&mut self) -> Result<(), End> {
        self.hear_commit_for_long()?;
        if self.batch.progress.is_empty() {
            self.opened = None;
            return Ok(());
        }
        proof::failpoint(proof::AFTER_FOLD);
        let batch = std::mem::replace(&mut self.batch, Batch::new(&self.running.plan));
        self.opened = None;
        let rate = self.rate.now();
        let (answer, receiver) = sync_channel(1);
        let running = self.running.clone();
        self.runtime.spawn(async move {
            let outcome = settle(running, batch.seal(), rate).await;
            // The lane may be gone; the catalog knows what was committed.
            let _ = answer.send(outcome);
        });
        self.in_flight = Some(receiver);
        if matches!(self.limit, Limit::Events(_)) {
            self.hear_commit_for_long()?;
        }
        Ok(())
    }

    /// Waits for the commit under way. The group is kept informed meanwhile, with all partitions paused.
    fn hear_commit_for_long(&mut self) -> Result<(), End> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let begun = Instant::now();
        let mut paused = false;
        while self.in_flight.is_some() {
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
            self.consumer.seek(self.owned.iter().map(|(partition, owned)| (partition, owned.next)))?;
            self.consumer.resume(self.owned.iter().filter(|(_, owned)| owned.waits_for.is_empty()).map(|(p, _)| p))?;
        }
        Ok(())
    }

    fn hear_commit(&mut self, patience: Duration) -> Result<(), End> {
        let Some(receiver) = &self.in_flight else { return Ok(()) };
        let outcome = match receiver.recv_timeout(patience) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return Err(End::Retry("a commit was abandoned".into())),
        };
        self.in_flight = None;
        match outcome {
            Outcome::Committed { progress, rows, counted } => {
                self.seen.committed(counted.into_iter().map(|c| (c.partition, c.identity, c.time)));
                tracing::trace!("{}: {} events, {rows} rows", self.running.plan.name, progress.events());
                self.rate.add(progress.events());
                self.report(&progress);
                self.relax();
                Ok(())
            }
            Outcome::Stale { why } => self.reload(&why),
            Outcome::Repeated(repeats) => {
                self.reload("some events were counted before")?;
                self.seen.committed(repeats.into_iter().map(|c| (c.partition, c.identity, c.time)));
                Ok(())
            }
            Outcome::Misapplied { place, halt } => {
                self.limit = Limit::Before { place, halt };
                self.reload("a batch is folded again without an event that cannot be applied")
            }
            Outcome::Refused { error, progress } => self.search(error, &progress),
            Outcome::Fatal(error) => Err(End::from(error)),
        }
    }

    /// Postgres refused a batch: commit ever smaller ones until the event stands alone.
    fn search(&mut self, error: StoreError, refused: &Progress) -> Result<(), End> {
        let events = refused.events();
        if events > 1 {
            self.limit = Limit::Events(events / 2);
            return self.reload("Postgres refuses a row; looking for the event");
        }
        let alone = refused.0.iter().find(|(_, step)| step.events > 0);
        let place = alone.map(|(partition, step)| Place {
            topic: partition.topic.clone(),
            partition: partition.partition,
            offset: step.to - 1,
        });
        Err(End::Halted(Halt { code: "refused-by-postgres".into(), message: error.to_string(), place }))
    }

    /// A search that meets no culprit any more ends by itself: what was refused as a whole is fine in parts.
    fn relax(&mut self) {
        const AS_GOOD_AS_ALL: u64 = 1 << 20;
        if let Limit::Events(most) = self.limit {
            self.limit = if most >= AS_GOOD_AS_ALL { Limit::None } else { Limit::Events(most * 2) };
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
    fn reload(&mut self, why: &str) -> Result<(), End> {
        tracing::info!("{}: going on from the checkpoints: {why}", self.running.plan.name);
        self.in_flight = None;
        self.ends.moved(self.owned.keys());
        self.batch = Batch::new(&self.running.plan);
        self.seen.forget_open();
        self.opened = None;
        let known = self.runtime.block_on(checkpoints(&self.running.pool, &self.running.generation))?;
        for (partition, owned) in &mut self.owned {
            match known.get(partition) {
                Some((next, clock)) => {
                    owned.next = *next;
                    owned.clock = *clock;
                }
                None => return Err(End::halted("generation-gone", "the generation was dropped or built anew".into())),
            }
        }
        self.consumer.seek(self.owned.iter().map(|(partition, owned)| (partition, owned.next)))?;
        Ok(())
    }

    /// Commits what is folded, within a time.
    fn flush(&mut self, patience: Duration) -> Result<(), End> {
        let deadline = Instant::now() + patience;
        while (self.in_flight.is_some() || self.opened.is_some()) && Instant::now() < deadline {
            self.hear_commit(Duration::from_millis(20))?;
            if self.in_flight.is_none() && self.opened.is_some() {
                self.seal()?;
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> End {
        let name = self.running.plan.name.clone();
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
