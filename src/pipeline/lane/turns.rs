//! Partitions that are read one after the other, while history is read into a generation that nobody sees.
//!
//! The events of a key are in one partition. Where partitions are read side by side, a key's events are as far apart as
//! the history is long: memory runs full before its row is complete, and the row is written again and again. One after
//! the other, a row is folded whole and written once, as long as the rows of one partition find room in memory. Any order
//! of partitions is as good as any other: a lane promises none. Readers do not see such a generation, so that nobody is
//! kept waiting for the partitions that come last.
//!
//! Not all lanes of the generation read history at once: one that has to wait has its partitions in line meanwhile. It
//! owns them from the beginning, so that nothing changes hands when the generation has caught up.
//!
//! A partition has its turn until the end that was known when it was given, and is read on beside the others then. The
//! next one is asked for a little before that, because Kafka takes its time to begin; what comes of it is held meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::super::end::{End, Owned};
use super::Lane;
use crate::checkpoint::Partition;
use crate::event::Record;
use crate::parking::Message;

/// Events before the end of a turn at which the next partition is asked for.
const AHEAD: i64 = 20_000;
/// Bytes of it that are held at most; more are not worth waiting for.
const MOST_HELD: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Turns {
    /// The right to read history.
    permit: Option<OwnedSemaphorePermit>,
    now: Option<Turn>,
    /// The partition that is next, and is fetched already.
    next: Option<Partition>,
    held: Vec<Message>,
    held_bytes: usize,
    /// When the lane was first told what it owns.
    joined: Option<Instant>,
}

struct Turn {
    partition: Partition,
    to: i64,
}

impl Turns {
    pub fn is_on(&self) -> bool {
        self.now.is_some()
    }

    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes a message whose partition's turn has not come. False if it is to be folded.
    pub fn hold(&mut self, record: &Record<'_>) -> bool {
        let is_next = |next: &Partition| next.partition == record.partition && next.topic == record.topic;
        if !self.next.as_ref().is_some_and(is_next) {
            return false;
        }
        let message = Message::of(record);
        self.held_bytes += message.bytes();
        self.held.push(message);
        true
    }

    /// Word of an end came, of whichever topic. A turn that ends too early costs memory at most.
    pub fn end_at(&mut self, number: i32) {
        self.now.take_if(|turn| turn.partition.partition == number);
    }

    /// What was held, and whatever was next.
    fn release(&mut self) -> (Option<Partition>, Vec<Message>) {
        self.held_bytes = 0;
        (self.next.take(), std::mem::take(&mut self.held))
    }
}

impl Lane {
    /// Of partitions that could be read now, all but the first wait for their turn. A short history is read as it comes.
    pub(super) fn line_up(&mut self, partitions: &mut BTreeMap<Partition, Owned>) {
        let ready = |owned: &Owned| owned.waits_for.is_empty() && owned.next < owned.high;
        let behind: i64 = partitions.values().filter(|o| ready(o)).map(|o| o.high - o.next).sum();
        if self.running.polite().is_none() || behind <= AHEAD {
            return;
        }
        let mut may_begin = self.turns.now.is_none() && self.may_read_history();
        for (partition, owned) in partitions.iter_mut().filter(|(_, owned)| ready(owned)) {
            owned.in_line = !std::mem::take(&mut may_begin);
            if !owned.in_line {
                self.turns.now = Some(Turn { partition: partition.clone(), to: owned.high });
            }
        }
    }

    /// The group has told what this lane owns.
    pub(super) fn note_joined(&mut self) {
        if let (Some(polite), None) = (self.running.polite(), self.turns.joined) {
            polite.joined.fetch_add(1, Ordering::Relaxed);
            self.turns.joined = Some(Instant::now());
        }
    }

    /// Whether the other lanes of this process own something as well, or do not come. Who begins before gives half of it
    /// back in the middle of its work.
    fn is_in_company(&self) -> bool {
        const PATIENCE: Duration = Duration::from_millis(400);
        let lanes = self.running.settings.fold.lanes;
        let all = self.running.polite().is_none_or(|polite| polite.joined.load(Ordering::Relaxed) >= lanes);
        all || self.turns.joined.is_some_and(|at| at.elapsed() > PATIENCE)
    }

    /// Whether this lane is among those that read history now; it is until its line is empty.
    fn may_read_history(&mut self) -> bool {
        if self.turns.permit.is_none() && self.is_in_company() {
            self.turns.permit = self.running.polite().and_then(|polite| polite.lanes.clone().try_acquire_owned().ok());
        }
        self.turns.permit.is_some()
    }

    /// Lets the next partition have its turn when the one before it is through. What is folded by then is written, if it
    /// is worth a batch.
    pub(super) fn take_turns(&mut self) -> Result<(), End> {
        let is_on = self.turns.now.is_some() || self.turns.next.is_some();
        if self.running.politeness.is_none() || !is_on && !self.owned.values().any(|owned| owned.in_line) {
            self.turns.permit = None;
            return Ok(());
        }
        let polite = self.running.polite().is_some();
        if polite && !self.may_read_history() {
            return Ok(());
        }
        let of_turn = |turn: &Turn| self.owned.get(&turn.partition).map_or(0, |owned| turn.to - owned.next);
        let left = self.turns.now.as_ref().map_or(0, of_turn);
        if polite && left > 0 && self.turns.held_bytes <= MOST_HELD {
            if left <= AHEAD && self.turns.next.is_none() {
                self.turns.next = self.fetch_in_line(1)?.pop();
            }
            return Ok(());
        }
        self.turns.now = None;
        /// Bytes of patches. Rows are written while the next ones are folded.
        const WORTH_A_BATCH: usize = 4 << 20;
        if polite && self.in_flight.is_none() && self.batch.bytes >= WORTH_A_BATCH {
            self.seal()?;
        }
        let (next, held) = self.turns.release();
        self.replay.insert(held);
        let next = match next {
            Some(next) => Some(next),
            None => self.fetch_in_line(if polite { 1 } else { usize::MAX })?.pop(),
        };
        if let (true, Some(next)) = (polite, next)
            && let Some(owned) = self.owned.get(&next)
        {
            self.turns.now = Some(Turn { partition: next, to: owned.high });
        }
        Ok(())
    }

    /// Begins to fetch partitions that stand in line.
    fn fetch_in_line(&mut self, most: usize) -> Result<Vec<Partition>, End> {
        let mut on = Vec::new();
        for (partition, owned) in self.owned.iter_mut().filter(|(_, owned)| owned.in_line).take(most) {
            owned.in_line = false;
            on.push(partition.clone());
        }
        if !on.is_empty() {
            self.ends.moved(on.iter());
            self.consumer.resume(&on)?;
        }
        Ok(on)
    }

    /// Partitions come or go: what is held is fetched again by whoever owns it then. True if there was something.
    pub(super) fn forget_held(&mut self) -> bool {
        !self.turns.release().1.is_empty()
    }
}
