//! Dead letters taken in again, in order: what a person asked for, and what had only been waiting for it.
//!
//! A letter is tried when a person wants it or when nothing before it is parked any more. All that are tried together
//! are taken to succeed; whichever does not is noted, and the rest is worked out again without it, until what is left
//! commits as one.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::Batch;
use crate::checkpoint::Partition;
use crate::error_kind::Reason;
use crate::intake::intake;
use crate::parking::{Blocked, Decision, Message, each, sequences};
use crate::plan::Plan;
use crate::proof::{self, Sabotage};
use crate::seen::Counted;
use crate::store::parked::decisions;
use crate::store::parked::retry::{
    Earnest, FailedAgain, Parked, RowChange, Settled, begin, commit_retry, end, messages, of_partition,
};
use crate::store::{Generation, StoreError};

/// Letters that are tried in one transaction, at most.
const CHUNK: usize = 200;

/// The letters of a partition, and how they are to be taken in.
pub struct Retry<'r> {
    pub pool: &'r sqlx::PgPool,
    pub plan: &'r Plan,
    pub generation: &'r Generation,
    /// Index into the plan's sources.
    pub source: usize,
    pub partition: &'r Partition,
    pub served_schema: &'r str,
    /// A letter that brought the process down this often is not touched again.
    pub poison_attempts: u32,
}

/// What came of a retry.
#[derive(Debug, Default)]
pub struct Report {
    pub settled: Settled,
    /// Events whose repeats are found out from now on.
    pub counted: Vec<Counted>,
    /// What readers would see; in a dry run.
    pub changes: Vec<RowChange>,
    /// There may be more to do.
    pub more: bool,
}

impl Report {
    /// For the log.
    pub fn tell(&self, generation: &Generation, partition: &Partition) {
        let Settled { released, failed, .. } = &self.settled;
        if !released.is_empty() {
            tracing::info!("{generation}: {} parked events of {partition} are settled", released.len());
        }
        for again in failed {
            tracing::warn!("{generation}: {} stays parked: {}", again.place, again.reason);
        }
    }
}

/// How many retries of a letter were begun and have not ended.
fn begun(letters: &[Parked], offset: i64) -> i32 {
    letters.iter().find(|letter| letter.offset == offset).map_or(0, |letter| letter.begun)
}

/// What is tried next, worked out in memory.
#[derive(Default)]
struct Walk {
    batch: Batch,
    settled: Settled,
    counted: Vec<Counted>,
    more: bool,
}

impl Retry<'_> {
    /// Tries what can be tried now, up to a number. `wanted` are offsets to be tried beside those that were asked for,
    /// and `instead` decisions that are not recorded: both are for dry runs.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] when another owner was faster, or what Postgres says.
    pub async fn run(
        &self,
        wanted: &BTreeSet<i64>,
        instead: &BTreeMap<i64, Decision>,
        earnest: Earnest,
    ) -> Result<Report, StoreError> {
        let report = self.attempt(wanted, instead, earnest).await;
        proof::failpoint(proof::AFTER_RETRY);
        if earnest == Earnest::Really {
            end(self.pool, self.generation, self.partition).await?;
        }
        report
    }

    async fn attempt(
        &self,
        wanted: &BTreeSet<i64>,
        instead: &BTreeMap<i64, Decision>,
        earnest: Earnest,
    ) -> Result<Report, StoreError> {
        let mut letters = of_partition(self.pool, self.generation, self.partition).await?;
        letters.iter_mut().for_each(|letter| letter.requested |= wanted.contains(&letter.offset));
        let Some(first) = letters.first() else { return Ok(Report::default()) };
        let mut decided = decisions(self.pool, self.generation, self.partition, first.offset).await?;
        if proof::sabotaged(Sabotage::Decisions) {
            decided.clear();
        }
        decided.extend(instead.clone());
        let mut failed: BTreeMap<i64, FailedAgain> = BTreeMap::new();
        let mut candidates = self.candidates(&letters);
        // The process died in a retry: one at a time, and not for ever.
        let mut usual = CHUNK;
        if let Some(at) = candidates.iter().position(|offset| begun(&letters, *offset) > 0) {
            usual = 1;
            candidates.truncate((at + 1).max(1));
        }
        let mut most = usual;
        let messages = messages(self.pool, self.generation.id, self.partition, &candidates).await?;
        for offset in &candidates {
            let tries = begun(&letters, *offset);
            if tries >= self.poison_attempts as i32 {
                let reason = Reason::new("poison", format!("the process died {tries} times when it was tried again"));
                if let (Some(letter), Some(message)) =
                    (letters.iter().find(|l| l.offset == *offset), messages.get(offset))
                {
                    self.note(message, reason, &[], letter, &mut failed);
                }
            }
        }
        if earnest == Earnest::Really {
            let touched: Vec<i64> =
                candidates.iter().copied().filter(|o| !failed.contains_key(o)).take(usual).collect();
            begin(self.pool, self.generation, self.partition, &touched).await?;
        }
        let mut repeated: Vec<Counted> = Vec::new();
        loop {
            let walk = self.walk(&letters, &decided, &messages, &mut failed, &repeated, most);
            let Some(Walk { batch, mut settled, counted, more }) = walk else { continue };
            settled.failed = failed.values().cloned().collect();
            if settled.is_empty() {
                return Ok(Report::default());
            }
            let batch = batch.seal();
            let schema = self.served_schema;
            let done = commit_retry(self.pool, self.plan, self.generation, &batch, &settled, earnest, schema).await;
            let reason = match done {
                Ok(changes) => {
                    let more = more || (most < usual && !settled.released.is_empty());
                    return Ok(Report { settled, counted, changes, more });
                }
                Err(StoreError::Repeated(known)) => {
                    repeated.extend(known);
                    continue;
                }
                Err(StoreError::Misapplied(places)) => {
                    for (place, reason) in places {
                        self.fail(&letters, &messages, place.offset, reason, &mut failed);
                    }
                    continue;
                }
                Err(StoreError::Unapplied(reason)) => reason,
                Err(error @ StoreError::Data(_)) => Reason::new("refused-by-postgres", error.to_string()),
                Err(error @ StoreError::TimedOut(_)) => Reason::new("poison", error.to_string()),
                Err(error) => return Err(error),
            };
            // Postgres alone knows which it was: fewer of them, until it stands alone.
            match &settled.released[..] {
                [] => return Err(StoreError::Unapplied(reason)),
                [(place, _)] => {
                    self.fail(&letters, &messages, place.offset, reason, &mut failed);
                    most = usual;
                }
                several => most = several.len() / 2,
            }
        }
    }

    /// The letters that may come to be tried, at most: their messages are needed.
    fn candidates(&self, letters: &[Parked]) -> Vec<i64> {
        let mut blocked = Blocked::default();
        let mut offsets = Vec::new();
        for letter in letters {
            let free = blocked.before(&letter.sequences).is_none() && !letter.behind_elsewhere;
            if free && (letter.requested || letter.waits) {
                offsets.push(letter.offset);
                if offsets.len() > CHUNK {
                    break;
                }
            } else {
                blocked.add(&letter.sequences, &self.partition.at(letter.offset));
            }
        }
        offsets
    }

    /// Goes through the letters in order. `None` when one failed that is in the batch by half.
    fn walk(
        &self,
        letters: &[Parked],
        decided: &BTreeMap<i64, Decision>,
        messages: &BTreeMap<i64, Message>,
        failed: &mut BTreeMap<i64, FailedAgain>,
        repeated: &[Counted],
        most: usize,
    ) -> Option<Walk> {
        let mut walk = Walk { batch: Batch::new(self.plan), ..Walk::default() };
        let mut blocked = Blocked::default();
        for letter in letters {
            let place = self.partition.at(letter.offset);
            if let Some(known) = failed.get(&letter.offset) {
                blocked.add(&known.sequences, &place);
                continue;
            }
            if blocked.before(&letter.sequences).is_some() || letter.behind_elsewhere {
                if letter.requested {
                    walk.settled.waiting.push(place.clone());
                }
                blocked.add(&letter.sequences, &place);
                continue;
            }
            if !letter.requested && !letter.waits {
                blocked.add(&letter.sequences, &place);
                continue;
            }
            let message = messages.get(&letter.offset).filter(|_| walk.settled.released.len() < most);
            let Some(message) = message else {
                walk.more = true;
                break;
            };
            let mut record = message.record();
            let word = match decided.get(&letter.offset) {
                Some(Decision::Discard) => {
                    walk.settled.released.push((place, "discarded"));
                    continue;
                }
                Some(Decision::Correct { payload }) => {
                    record.payload = payload.as_deref();
                    "applied as corrected"
                }
                None => "applied",
            };
            let known = |identity: &crate::fold::Identity, horizon: i64| {
                let counts = |other: &Counted| other.identity == *identity && other.partition == *self.partition;
                repeated.iter().any(counts) || walk.counted.iter().any(|other| counts(other) && other.time >= horizon)
            };
            proof::suffer(record.payload);
            let taken = match intake(self.plan, self.source, &record, letter.clock, &known) {
                Ok(taken) => taken,
                Err(refused) => {
                    self.note(message, refused.reason, &refused.rows, letter, failed);
                    blocked.add(&failed[&letter.offset].sequences, &place);
                    continue;
                }
            };
            // What it touches is known better now than when it was parked.
            let rows = taken.rows();
            let sequences = sequences(self.plan, self.source, record.topic, record.key, each(&rows));
            if blocked.before(&sequences).is_some() {
                if letter.requested {
                    walk.settled.waiting.push(place.clone());
                }
                blocked.add(&letter.sequences, &place);
                blocked.add(&sequences, &place);
                continue;
            }
            if let Err(unabsorbed) = walk.batch.absorb(self.plan, taken.patches) {
                let told = unabsorbed.error.told(&self.plan.tables[unabsorbed.table]);
                self.note(message, Reason::new(unabsorbed.error.code, told), &rows, letter, failed);
                if unabsorbed.halfway {
                    return None;
                }
                blocked.add(&failed[&letter.offset].sequences, &place);
                continue;
            }
            for counted in taken.counted {
                walk.counted.push(counted.clone());
                walk.batch.count(counted);
            }
            taken.unhandled.iter().for_each(|type_| walk.batch.pass_over(self.source, type_));
            walk.settled.released.push((place, word));
        }
        Some(walk)
    }

    /// Notes that a letter cannot be applied after all.
    fn fail(
        &self,
        letters: &[Parked],
        messages: &BTreeMap<i64, Message>,
        offset: i64,
        reason: Reason,
        failed: &mut BTreeMap<i64, FailedAgain>,
    ) {
        let letter = letters.iter().find(|letter| letter.offset == offset);
        if let (Some(letter), Some(message)) = (letter, messages.get(&offset)) {
            let taken = intake(self.plan, self.source, &message.record(), letter.clock, &|_, _| false);
            let rows = taken.map(|taken| taken.rows()).unwrap_or_default();
            self.note(message, reason, &rows, letter, failed);
        }
    }

    fn note(
        &self,
        message: &Message,
        reason: Reason,
        rows: &[(usize, crate::batch::Key)],
        letter: &Parked,
        failed: &mut BTreeMap<i64, FailedAgain>,
    ) {
        let mut all = sequences(self.plan, self.source, &self.partition.topic, message.key.as_deref(), each(rows));
        all.extend(&letter.sequences);
        all.sort_unstable();
        all.dedup();
        let again =
            FailedAgain { place: self.partition.at(letter.offset), reason, sequences: all, rows: rows.to_vec() };
        failed.insert(letter.offset, again);
    }
}
