//! One message, from Kafka's bytes into the batch: applied, or parked in its place.

use std::collections::BTreeMap;

use super::Running;
use super::end::Owned;
use crate::batch::Batch;
use crate::checkpoint::Partition;
use crate::error_kind::{ErrorKind, Policy, Reason};
use crate::event::{Place, Record};
use crate::fold::Identity;
use crate::intake::{Intake, Refused, intake};
use crate::parking::{Cause, Decision, Letter, Message, each, each_sequence, sequences};
use crate::plan::Plan;
use crate::proof::{self, Sabotage};
use crate::seen::Seen;
use crate::store::partitions::Halt;

/// Events that are known not to be applicable for a reason that only showed after they had been folded.
pub type SetAside = BTreeMap<Place, Reason>;

/// What became of a message.
pub enum Folded {
    /// It is in the batch, in one way or another.
    Taken,
    /// The projection has to stand still before it; nothing of it is in the batch.
    Halt(Halt),
    /// It cannot be applied, and a part of it is in the batch: the batch is to be folded again with it set aside.
    Halfway(Place, Reason),
}

/// Decodes and folds a message.
pub fn fold_message(
    running: &Running,
    owned: &mut Owned,
    original: &Record<'_>,
    partition: &Partition,
    set_aside: &SetAside,
    seen: &mut Seen,
    batch: &mut Batch,
) -> Folded {
    let plan = &running.plan;
    let corrected;
    let mut record = original;
    if !owned.decisions.is_empty() && !proof::sabotaged(Sabotage::Decisions) {
        match owned.decisions.get(&original.offset) {
            Some(Decision::Discard) => return Folded::Taken,
            Some(Decision::Correct { payload }) => {
                corrected = Record { payload: payload.as_deref(), ..original.clone() };
                record = &corrected;
            }
            None => {}
        }
    }
    let clock = owned.clock;
    let known = |identity: &Identity, horizon: i64| seen.knows(partition, identity, horizon);
    let take = |record: &Record<'_>| intake(plan, owned.source, record, clock, &known);
    let known_reason = if set_aside.is_empty() { None } else { set_aside.get(&record.place()) };
    let taken = match known_reason {
        None => {
            proof::suffer(record.payload);
            take(record)
        }
        // It must not be touched again.
        Some(reason) if reason.kind() == ErrorKind::Poison => {
            Err(Box::new(Refused { reason: reason.clone(), type_: None, rows: Vec::new(), clock }))
        }
        Some(reason) => Err(refused_after(take(record), reason)),
    };
    let taken = match taken {
        Ok(taken) => taken,
        Err(refused) => return refuse(plan, owned, original, *refused, batch),
    };
    if !owned.blocked.is_empty() && !taken.patches.is_empty() && !proof::sabotaged(Sabotage::ParkedOrder) {
        let touched = taken.patches.iter().map(|row| (row.table, &row.key));
        let all = each_sequence(plan, owned.source, record.topic, record.key, touched);
        let before = owned.blocked.first(all).cloned();
        if let Some(before) = before {
            let cause = Cause::Behind(before);
            let rows = taken.rows();
            let sequences = sequences(plan, owned.source, record.topic, record.key, each(&rows));
            let message = Message::of(original);
            park(owned, Letter { message, type_: taken.type_, clock, sequences, rows, cause }, batch);
            owned.clock = taken.clock;
            return Folded::Taken;
        }
    }
    match batch.absorb(plan, taken.patches) {
        Ok(()) => {
            owned.clock = taken.clock;
            taken.unhandled.iter().for_each(|type_| batch.pass_over(owned.source, type_));
            for counted in taken.counted {
                seen.count(&counted);
                batch.count(counted);
            }
            Folded::Taken
        }
        Err(unabsorbed) => {
            let reason = Reason::new(unabsorbed.error.code, unabsorbed.error.told(&plan.tables[unabsorbed.table]));
            if unabsorbed.halfway && !proof::sabotaged(Sabotage::Refold) {
                return Folded::Halfway(record.place(), reason);
            }
            let refused = refused_after(take(record), &reason);
            refuse(plan, owned, original, *refused, batch)
        }
    }
}

/// An event that seemed fine when it was folded.
fn refused_after(taken: Result<Intake, Box<Refused>>, reason: &Reason) -> Box<Refused> {
    let reason = reason.clone();
    match taken {
        Ok(taken) => Box::new(Refused { reason, rows: taken.rows(), type_: taken.type_, clock: taken.clock }),
        Err(refused) => Box::new(Refused { reason, ..*refused }),
    }
}

/// Does with an event that cannot be applied what the projection says.
fn refuse(plan: &Plan, owned: &mut Owned, record: &Record<'_>, refused: Refused, batch: &mut Batch) -> Folded {
    let Refused { reason, type_, rows, clock } = refused;
    let sequences = sequences(plan, owned.source, record.topic, record.key, each(&rows));
    let halt = |message: String| Folded::Halt(Halt { code: reason.code.into(), message, place: Some(record.place()) });
    let mut policy = plan.errors.policy(reason.kind());
    if policy == Policy::Park && sequences.is_empty() && rows.is_empty() {
        policy = plan.errors.keyless;
        if policy == Policy::Halt {
            return halt(format!(
                "{}; it has no record key, so nobody knows which later events would have to wait behind it \
                 (`errors: {{ keyless: park }}` parks it alone)",
                reason.message
            ));
        }
    }
    match policy {
        Policy::Park => {
            let letter = Letter {
                message: Message::of(record),
                type_,
                clock: owned.clock,
                sequences,
                rows,
                cause: Cause::Failed(reason),
            };
            park(owned, letter, batch);
        }
        Policy::Skip => batch.skip(reason.code),
        Policy::Halt | Policy::Retry => return halt(reason.message),
    }
    owned.clock = clock.max(owned.clock);
    Folded::Taken
}

fn park(owned: &mut Owned, letter: Letter, batch: &mut Batch) {
    owned.blocked.add(&letter.sequences, &letter.message.place);
    owned.parked += 1;
    batch.park(letter);
}
