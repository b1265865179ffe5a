//! One message into patches: decoded, repeats told apart, folded. The lane and the golden tests do the same.

use crate::checkpoint::Partition;
use crate::decode::decode;
use crate::event::Record;
use crate::fold::{Identity, RowPatches, fold, identity};
use crate::plan::Plan;
use crate::seen::Counted;

/// What all events of a message do together.
#[derive(Debug, Default)]
pub struct Intake {
    pub patches: RowPatches,
    /// Events whose repeats are to be found out.
    pub counted: Vec<Counted>,
    /// Types that no table handles.
    pub unhandled: Vec<String>,
    /// The partition's time after them: the greatest event time so far, in microseconds.
    pub clock: Option<i64>,
}

/// Why a message cannot be applied. `code` is stable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub code: &'static str,
    pub message: String,
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
) -> Result<Intake, Refused> {
    let refused = |failure: crate::plan::expr::Failure| Refused { code: failure.code, message: failure.message };
    let spec = &plan.sources[source];
    let mut intake = Intake { clock, ..Intake::default() };
    for event in decode(spec, record, clock).map_err(refused)? {
        intake.clock = event.clock;
        // Of an event that no handler takes nothing is looked at.
        if spec.routes.handlers(&event.type_).is_empty() {
            if !spec.routes.knows(&event.type_) {
                intake.unhandled.push(event.type_.to_string());
            }
            continue;
        }
        if let Some((identity, horizon)) = identity(spec, &event).map_err(refused)? {
            let here = intake.counted.iter().any(|other| other.identity == identity);
            if here || known(&identity, horizon) {
                continue;
            }
            let partition = Partition::new(record.topic, record.partition);
            let time = event.time.unwrap_or(horizon);
            intake.counted.push(Counted { partition, identity, time, horizon });
        }
        let patches = fold(plan, source, &event)
            .map_err(|unapplied| Refused { code: unapplied.code, message: unapplied.to_string() })?;
        intake.patches.extend(patches);
    }
    Ok(intake)
}
