//! What each message did to the row, one after the other.

use super::changes::changes;
use super::pass::Kept;
use super::replay::{Outcome, Replay, Rows};
use super::{Decided, ParkedEvent, Question, RowName, Step};
use crate::batch::Key;
use crate::golden::{Model, ReadRow};
use crate::parking::Decision;
use crate::plan::{Plan, Table};
use crate::store::explain::{Moment, Verdict};
use crate::value::format_time;
use crate::value::json::json_items;

/// Before this, nothing has expired.
const EVER: i64 = i64::MIN;

/// What came of the messages.
pub struct Told {
    pub steps: Vec<Step>,
    pub model: Model,
    /// The row after the last one, whether it has expired or not.
    pub last: Option<ReadRow>,
}

/// Applies the messages, and tells those that touch the row itself, change it, or were kept from changing it.
///
/// # Errors
/// When what follows from the rows has no value.
pub fn tell(plan: &Plan, question: &Question, rows: &Rows, kept: &[Kept]) -> Result<Told, String> {
    let mut replay = Replay::new(plan, rows);
    let mut last: Option<ReadRow> = None;
    let mut steps = Vec::new();
    for event in kept {
        let outcome = replay.take(event);
        let now = match outcome {
            Outcome::Applied => replay.model.visible_row(plan, question.table, &question.key, EVER)?,
            _ => last.clone(),
        };
        let mut step = step(plan, question, event);
        step.appears = last.is_none() && now.is_some();
        step.vanishes = last.is_some() && now.is_none();
        step.changes = changes(&plan.tables[question.table], last.as_ref(), now.as_ref());
        if let Outcome::PassedOver(why) = outcome {
            step.passed_over = Some(why);
        }
        if matters(&step) {
            steps.push(step);
        }
        last = now;
    }
    Ok(Told { steps, model: replay.model, last })
}

fn matters(step: &Step) -> bool {
    let changed = step.appears || step.vanishes || !step.changes.is_empty();
    step.direct || changed || step.decision.is_some() || step.passed_over.is_some()
}

/// A message, before it is known what it does.
fn step(plan: &Plan, question: &Question, event: &Kept) -> Step {
    let is_own = |table: usize, key: &Key| table == question.table && *key == question.key;
    let mut others: Vec<RowName> = Vec::new();
    for (table, key) in event.rows.iter().filter(|(table, key)| !is_own(*table, key)) {
        let name = RowName::of(&plan.tables[*table], key);
        if !others.contains(&name) {
            others.push(name);
        }
    }
    Step {
        place: event.message.place.to_string(),
        time: event.message.time.map(format_time),
        type_: event.type_.clone(),
        direct: event.rows.iter().any(|(table, key)| is_own(*table, key)),
        others,
        appears: false,
        vanishes: false,
        changes: Vec::new(),
        decision: event.verdict.as_ref().map(decided),
        passed_over: None,
    }
}

fn decided(verdict: &Verdict) -> Decided {
    let Verdict { decision, reason, who, at } = verdict;
    let decision = match decision {
        Decision::Discard => "discarded",
        Decision::Correct { .. } => "corrected",
    };
    Decided { decision, who: who.clone(), reason: reason.clone(), at: at.clone() }
}

/// The parked events that would touch some of the rows, in the order in which they were parked.
pub fn parked(plan: &Plan, rows: &Rows, moment: &Moment) -> Vec<ParkedEvent> {
    let mut found: Vec<ParkedEvent> = Vec::new();
    for parked in &moment.parked {
        let named = parked.row.as_ref().and_then(|(table, key)| {
            let at = plan.tables.iter().position(|known| known.name == *table)?;
            let key = key_of(&plan.tables[at], key).filter(|key| rows.have(at, key))?;
            Some(RowName::of(&plan.tables[at], &key))
        });
        let Some(row) = named else { continue };
        let place = parked.place.to_string();
        match found.last_mut().filter(|last| last.place == place) {
            Some(last) => last.rows.push(row),
            None => found.push(ParkedEvent {
                place,
                type_: parked.type_.clone(),
                code: parked.code.clone(),
                message: parked.message.clone(),
                rows: vec![row],
            }),
        }
    }
    found
}

/// A key as the catalog has it.
fn key_of(table: &Table, json: &str) -> Option<Key> {
    let parts = json_items(json).ok().filter(|parts| parts.len() == table.key.len())?;
    table.key.iter().zip(parts).map(|(column, part)| column.shape.type_.coerce(part).ok()).collect()
}
