//! One message into patches: decoded, repeats told apart, folded. The lane and the golden tests do the same.

use bumpalo::Bump;
use compact_str::CompactString;

use crate::batch::Key;
use crate::checkpoint::Partition;
use crate::decode::decode;
use crate::error_kind::{ErrorKind, Policy, Reason};
use crate::event::{Event, Record};
use crate::fold::{Identity, RowPatches, fold, identity, rows};
use crate::plan::Plan;
use crate::plan::expr::Failure;
use crate::seen::Counted;

/// What all events of a message do together.
#[derive(Debug, Default)]
pub struct Intake {
    pub patches: RowPatches,
    /// Events whose repeats are to be found out.
    pub counted: Vec<Counted>,
    /// Types that no table handles.
    pub unhandled: Vec<String>,
    /// The type of its events, or of the first of them.
    pub type_: Option<CompactString>,
    /// The partition's time after them: the greatest event time so far, in microseconds.
    pub clock: Option<i64>,
}

impl Intake {
    /// The rows that it touches.
    pub fn rows(&self) -> Vec<(usize, Key)> {
        self.patches.iter().map(|row| (row.table, row.key.clone())).collect()
    }
}

/// A message that cannot be applied, and what is known of it all the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    pub reason: Reason,
    pub type_: Option<CompactString>,
    /// The rows that it would touch, as far as they can be worked out.
    pub rows: Vec<(usize, Key)>,
    pub clock: Option<i64>,
}

/// Takes a message in. `clock` is its partition's time before; `known` says whether an identity was counted already,
/// given the time from which on it counts.
///
/// # Errors
/// Why the message, as a whole, cannot be applied.
pub fn intake(
    plan: &Plan,
    source: usize,
    record: &Record<'_>,
    clock: Option<i64>,
    known: &dyn Fn(&Identity, i64) -> bool,
) -> Result<Intake, Box<Refused>> {
    let mut intake = Intake { clock, ..Intake::default() };
    let arena = Bump::new();
    let events = match decode(&plan.sources[source], record, clock, &arena) {
        Ok(events) => events,
        Err(failure) => {
            return Err(Box::new(Refused { reason: reason(failure), type_: None, rows: Vec::new(), clock }));
        }
    };
    intake.type_ = events.first().map(|event| CompactString::from(&*event.type_));
    for event in &events {
        intake.clock = event.clock;
        if let Err(reason) = take(plan, source, event, known, &mut intake) {
            let rows = events.iter().flat_map(|event| rows(plan, source, event)).collect();
            let clock = events.last().and_then(|last| last.clock);
            return Err(Box::new(Refused { reason, type_: Some(CompactString::from(&*event.type_)), rows, clock }));
        }
    }
    Ok(intake)
}

fn take(
    plan: &Plan,
    source: usize,
    event: &Event<'_>,
    known: &dyn Fn(&Identity, i64) -> bool,
    intake: &mut Intake,
) -> Result<(), Reason> {
    let spec = &plan.sources[source];
    // Of an event that no handler takes nothing is looked at.
    if spec.routes.handlers(&event.type_).is_empty() {
        if !spec.routes.knows(&event.type_) {
            if plan.errors.policy(ErrorKind::Unhandled) != Policy::Skip {
                let message = format!("no table handles {} of the source `{}`", event.type_, spec.name);
                return Err(Reason::new("unhandled-type", message));
            }
            intake.unhandled.push(event.type_.to_string());
        }
        return Ok(());
    }
    if let Some((identity, horizon)) = identity(spec, event).map_err(reason)? {
        let here = intake.counted.iter().any(|other| other.identity == identity);
        if here || known(&identity, horizon) {
            return Ok(());
        }
        let partition = Partition::new(event.record.topic, event.record.partition);
        let time = event.time.unwrap_or(horizon);
        intake.counted.push(Counted { partition, identity, time, horizon });
    }
    let patches = fold(plan, source, event).map_err(|unapplied| Reason::new(unapplied.code, unapplied.to_string()))?;
    intake.patches.extend(patches);
    Ok(())
}

fn reason(failure: Failure) -> Reason {
    Reason { code: failure.code, message: failure.message }
}
