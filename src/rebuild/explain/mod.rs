//! Why a row is as it is: the events that made it, told from the log, with what each of them changed.
//!
//! A row follows from others, by joins and rollups. These are found while the log is read, so it is read several times:
//! once more for every step from table to table. Then what was kept of it is applied to tables in memory, one by one.

mod changes;
mod follow;
mod pass;
mod question;
mod replay;
mod steps;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::value::RawValue;

pub use question::Question;

use crate::checkpoint::Partition;
use crate::config::Settings;
use crate::plan::{Plan, Start};
use crate::source::{Consumer, Ranges, SourceError, resume, scan};
use crate::store::explain::Moment;
use crate::store::generations::Listed;
use crate::value::format_time;
use changes::{differences, shown_row};
use follow::Way;
use pass::{Kept, Pass, merged, source_of};
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
#[derive(Debug, Serialize)]
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
    #[error("what follows from the events cannot be worked out: {0}")]
    Rows(String),
}

impl std::fmt::Display for RowName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.table, self.key)
    }
}

/// Reads the log as far as the generation had read it at that moment, and tells how the row came about. Blocks for as
/// long as reading takes.
///
/// # Errors
/// When Kafka does not answer, or the log is not what the generation has read.
pub fn explain(
    settings: &Settings,
    plan: &Plan,
    live: &Listed,
    question: &Question,
    moment: &Moment,
) -> Result<Explained, Trouble> {
    let (mut ways, mut notes) = follow::ways(plan, question.table, &question.key);
    let begun_at = moment.now - (live.age_s * 1e6) as i64;
    let log = Log::of(settings, plan, &ways, moment, begun_at)?;
    let (kept, obscure) = read(settings, plan, moment, &log.ranges, &mut ways)?;
    notes.extend(log.notes.into_iter().chain(obscure));
    notes.extend(order_note(plan, &ways, &kept));
    let told = steps::tell(plan, question, &Rows::of(plan, &ways), &kept).map_err(Trouble::Rows)?;
    let now = told.model.visible_row(plan, question.table, &question.key, moment.now).map_err(Trouble::Rows)?;
    if now.is_none() && told.last.is_some() {
        notes.push("it has expired: readers do not see it any more".into());
    }
    if told.steps.is_empty() {
        notes.push("no event that was read so far has touched it".into());
    }
    let table = &plan.tables[question.table];
    let differences = differences(table, now.as_ref(), moment.served.as_ref());
    let served_differs = now.is_some() != moment.served.is_some() || !differences.is_empty();
    if served_differs && moment.propagating {
        notes.push("changes are still on their way to rows that follow from them; ask again in a moment".into());
    }
    Ok(Explained {
        row: RowName::of(table, &question.key),
        steps: told.steps,
        columns: now.map(|row| shown_row(table, &row)),
        parked: steps::parked(plan, &Rows::of(plan, &ways), moment),
        served_differs,
        differences,
        notes,
    })
}

/// Reads the log until no more rows are found that matter. Returns the messages that touch them, in the order in which
/// they are told, and what is not known.
fn read(
    settings: &Settings,
    plan: &Plan,
    moment: &Moment,
    ranges: &Ranges,
    ways: &mut [Way],
) -> Result<(Vec<Kept>, Vec<String>), Trouble> {
    loop {
        let mut pass = Pass::new(plan, moment, ways);
        scan(&settings.kafka, &settings.fold, ranges, &mut |record| pass.take(record))?;
        let found = pass.end();
        let kept = merged(found.kept);
        let partners = replay::partners(plan, ways, &kept).map_err(Trouble::Rows)?;
        if !follow::grow(ways, found.children.into_iter().chain(partners)) {
            return Ok((kept, found.notes));
        }
    }
}

/// The parts of the log that the generation has read, of topics that matter.
struct Log {
    ranges: Ranges,
    notes: Vec<String>,
}

impl Log {
    fn of(settings: &Settings, plan: &Plan, ways: &[Way], moment: &Moment, begun_at: i64) -> Result<Log, Trouble> {
        let consumer = Consumer::new(&settings.kafka, &settings.fold, "projector-explain")?;
        let mut log = Log { ranges: BTreeMap::new(), notes: Vec::new() };
        let feeds = |source: usize| {
            ways.iter().any(|way| plan.tables[way.table].handlers.iter().any(|handler| handler.source == source))
        };
        for (partition, next) in &moment.checkpoints {
            let Some(source) = source_of(plan, &partition.topic).filter(|source| feeds(*source)) else { continue };
            let offsets = consumer.offsets(partition).map_err(SourceError::from)?;
            resume(partition, *next, offsets).map_err(|gap| Trouble::Log(gap.message))?;
            let since = match plan.sources[source].start {
                Start::Earliest => None,
                Start::At(time) => Some(time),
                Start::Latest => {
                    log.notes.push(from_its_end(partition, begun_at));
                    Some(begun_at)
                }
            };
            let begin = since.map_or(Ok(Some(offsets.low)), |time| consumer.offset_at(partition, time));
            let begin = begin.map_err(SourceError::from)?.unwrap_or(offsets.high);
            if begin == offsets.low && begin > 0 {
                let gone = format!("the log of {partition} begins at offset {begin}: what came before is not told");
                log.notes.push(gone);
            }
            log.ranges.insert(partition.clone(), begin..*next);
        }
        Ok(log)
    }
}

fn from_its_end(partition: &Partition, begun_at: i64) -> String {
    format!(
        "{partition} was read from the end that it had; told is what came after {}, when the view was made",
        format_time(begun_at)
    )
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
