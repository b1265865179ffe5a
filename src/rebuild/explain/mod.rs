//! Why a row is as it is: the events that made it, told from the log, with what each of them changed.
//!
//! A row follows from others, by joins and rollups. These are found while the log is read, so it is read several times:
//! once more for every step from table to table. Then what was kept of it is applied to tables in memory, one by one.

mod changes;
pub mod effects;
mod follow;
mod pass;
mod question;
mod reading;
mod replay;
mod steps;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::value::RawValue;

pub use question::Question;

use crate::config::Settings;
use crate::plan::Plan;
use crate::source::SourceError;
use crate::store::explain::Moment;
use crate::store::generations::Listed;
use crate::store::shown::ShownRow;
use changes::{differences, shown_row};
use follow::Way;
use pass::Kept;
use reading::{Most, Reader, Search, read};
use replay::Rows;

/// What is told of a row.
#[derive(Debug, Serialize)]
pub struct Explained {
    pub row: RowName,
    pub steps: Vec<Step>,
    /// What readers see, by the log.
    pub columns: Option<IndexMap<String, Box<RawValue>>>,
    /// Events that wait to be settled, and would touch the row or one that it follows from.
    pub parked: Vec<ParkedEvent>,
    /// What is served is something else.
    pub served_differs: bool,
    pub differences: Vec<Difference>,
    pub notes: Vec<String>,
}

/// A row, by its table and its key: the parts of the key with commas between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowName {
    pub table: String,
    pub key: String,
}

/// What one event did to the row.
#[derive(Debug, Serialize)]
pub struct Step {
    /// TOPIC/PARTITION@OFFSET
    pub place: String,
    /// The record's, RFC 3339.
    pub time: Option<String>,
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// It touches the row itself.
    pub direct: bool,
    /// The other rows that it touches, of those that the row follows from.
    pub others: Vec<RowName>,
    pub appears: bool,
    pub vanishes: bool,
    pub changes: Vec<Changed>,
    /// What a person decided about it.
    pub decision: Option<Decided>,
    /// Why it did nothing.
    pub passed_over: Option<String>,
}

/// A column as readers see it before an event and after it.
#[derive(Debug, Clone, Serialize)]
pub struct Changed {
    pub column: String,
    pub before: Box<RawValue>,
    pub after: Box<RawValue>,
}

#[derive(Debug, Serialize)]
pub struct Decided {
    /// `discarded` or `corrected`
    pub decision: &'static str,
    pub who: String,
    pub reason: String,
    /// RFC 3339.
    pub at: String,
}

#[derive(Debug, Serialize)]
pub struct ParkedEvent {
    pub place: String,
    #[serde(rename = "type")]
    pub type_: Option<String>,
    pub code: String,
    pub message: String,
    pub rows: Vec<RowName>,
}

/// A column that is served otherwise than the log has it.
#[derive(Debug, Serialize)]
pub struct Difference {
    pub column: String,
    pub log: Box<RawValue>,
    pub served: Box<RawValue>,
}

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("{0}")]
    Log(String),
    #[error("{0} events are to be read for them")]
    TooLong(i64),
    #[error("what follows from the events cannot be worked out: {0}")]
    Rows(String),
}

impl std::fmt::Display for RowName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.table, self.key)
    }
}

/// Reads the log as far as the generation had read it at that moment, and tells how the row came about, of which `served`
/// is what readers saw. Blocks for as long as reading takes.
///
/// # Errors
/// When Kafka does not answer, or the log is not what the generation has read.
pub fn explain(
    settings: &Settings,
    plan: &Plan,
    live: &Listed,
    question: &Question,
    moment: &Moment,
    served: Option<&ShownRow>,
) -> Result<Explained, Trouble> {
    let mut readers = [Reader::new(settings, (plan, moment, live.age_s), [question.clone()], Most::ALL)?];
    read(settings, &mut readers)?;
    let [reader] = readers;
    let [Search { ways, kept: Some(kept), notes, .. }] = &reader.searches[..] else {
        return Err(Trouble::Log("nothing was looked for".into()));
    };
    let rows = Rows::of(plan, ways);
    let mut notes = notes.clone();
    notes.extend(reader.notes().cloned());
    notes.extend(order_note(plan, ways, kept));
    let told = steps::tell(plan, question, &rows, kept).map_err(Trouble::Rows)?;
    let now = told.model.visible_row(plan, question.table, &question.key, moment.now).map_err(Trouble::Rows)?;
    if now.is_none() && told.last.is_some() {
        notes.push("it has expired: readers do not see it any more".into());
    }
    if told.steps.is_empty() {
        notes.push("no event that was read so far has touched it".into());
    }
    let table = &plan.tables[question.table];
    let differences = differences(table, now.as_ref(), served);
    let served_differs = now.is_some() != served.is_some() || !differences.is_empty();
    if served_differs && moment.propagating {
        notes.push("changes are still on their way to rows that follow from them; ask again in a moment".into());
    }
    Ok(Explained {
        row: RowName::of(table, &question.key),
        steps: told.steps,
        columns: now.map(|row| shown_row(table, &row)),
        parked: steps::parked(plan, &rows, moment),
        served_differs,
        differences,
        notes,
    })
}

/// That the view may have met the events in another order than they are told in.
fn order_note(plan: &Plan, ways: &[Way], kept: &[Kept]) -> Option<String> {
    let partition = |event: &Kept| (event.message.place.topic.clone(), event.message.place.partition);
    let first = kept.first().map(partition)?;
    let several = kept.iter().any(|event| partition(event) != first);
    let table = ways.iter().map(|way| &plan.tables[way.table]).find(|table| !table.order_free)?;
    several.then(|| {
        format!(
            "rows of {} depend on the order in which partitions are read; told is that of the records' times",
            table.name
        )
    })
}

#[cfg(test)]
mod tests;
