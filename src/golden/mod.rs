//! Golden tests: events in, rows out, through the real decoder and fold and without any service.
//!
//! Every case is run in many ways (see [`ways`]), and all of them have to give the golden rows.

mod bless;
mod case;
mod derived;
mod model;
mod query;
mod scenario;
mod upcast;
mod ways;

use std::sync::Arc;

use indexmap::IndexMap;

pub use bless::bless;
pub use case::Encoded;
pub use model::Model;
pub use scenario::{Scenario, scenarios};
pub use ways::Way;

use crate::plan::{Plan, Table};
use crate::sample::Message;
use crate::spec;
use crate::spec::diagnostic::{Diagnostic, Sink, SourceFile};
use crate::value::{Value, parse_time};
use case::{Case, TestFile};
pub use upcast::run_upcaster;

/// How many orders of the partitions a case is run in.
const INTERLEAVINGS: u64 = 24;

/// How one case ended.
#[derive(Debug)]
pub struct Report {
    pub name: String,
    /// The ways that were gone and gave the golden rows.
    pub passed: Vec<&'static str>,
    /// The ways that could not be gone, and why.
    pub left_out: Vec<(&'static str, &'static str)>,
    /// What differs in the first way that failed, a line each; empty when the case passed.
    pub differences: Vec<String>,
}

/// Runs the cases of a test file against its projection; with a seed, in that one interleaving alone.
///
/// # Errors
/// What is wrong with the test file itself.
pub fn run(plan: &Plan, file: &Arc<SourceFile>, seed: Option<u64>) -> Result<Vec<Report>, Vec<Diagnostic>> {
    let sink = Sink::new(file.clone());
    let tests: Option<TestFile> = spec::read(&sink);
    let reports = tests.map(|tests| {
        let run = |case: &Case| Runner { plan, case, events: case::encode(plan, case, &sink), sink: &sink }.run(seed);
        tests.cases.iter().map(run).collect()
    });
    if sink.has_errors() { Err(sink.into_diagnostics()) } else { Ok(reports.unwrap_or_default()) }
}

/// Why the golden rows of a file cannot be made.
#[derive(Debug)]
pub enum Trouble {
    /// The file is wrong.
    File(Vec<Diagnostic>),
    /// An event of a case cannot be applied, or its rows are others.
    Event(String),
}

/// What messages make of a projection.
#[derive(Debug, Default)]
pub struct Made {
    /// The served tables with their rows, each as a line of YAML.
    pub tables: Vec<(String, Vec<String>)>,
    /// What should make one think: types that no handler takes, messages that no source has.
    pub notes: Vec<String>,
}

/// The rows that messages make. A message that says no topic goes to the first source that knows its type.
///
/// # Errors
/// Which message cannot be applied, and why.
pub fn rows(plan: &Plan, messages: &[Message]) -> Result<Made, String> {
    let events = case::encode_messages(plan, messages);
    let now = events.iter().map(|event| event.time).max().unwrap_or(0);
    let model = ways::take(plan, &events, Way::Straight)?;
    let mut made = Made::default();
    let left_out = messages.len() - events.len();
    if left_out > 0 {
        made.notes.push(format!("{left_out} of {} messages are of no topic that it reads", messages.len()));
    }
    for ((source, type_), events) in &model.unhandled {
        made.notes.push(format!("no table handles {type_} of {} ({events})", plan.sources[*source].name));
    }
    for (at, table) in plan.tables.iter().enumerate().filter(|(_, table)| table.served) {
        let mut rows = model.visible_rows(plan, at, now)?;
        bless::sort(table, &mut rows);
        made.tables.push((table.name.clone(), rows.iter().map(|row| bless::row_text(table, row)).collect()));
    }
    Ok(made)
}

/// A row as readers see it: a value a column.
pub type ReadRow = IndexMap<String, Value>;

struct Runner<'r> {
    plan: &'r Plan,
    case: &'r Case,
    events: Vec<Encoded>,
    sink: &'r Sink,
}

impl Runner<'_> {
    fn run(&self, seed: Option<u64>) -> Report {
        let mut report = Report {
            name: self.case.name.value.clone(),
            passed: Vec::new(),
            left_out: Vec::new(),
            differences: Vec::new(),
        };
        if self.case.error.is_none() && self.case.rows.is_empty() && self.case.queries.is_empty() {
            let help = "say what comes of the events: `rows`, `queries` or `error`".to_string();
            self.sink.error("empty-case", &self.case.name.span, "the case expects nothing", Some(help));
        }
        for way in Way::ALL.into_iter().filter(|way| seed.is_none() || *way == Way::Interleaved) {
            // Which event cannot be applied is known of the straight order alone.
            let ordered = matches!(way, Way::Straight | Way::OneEventABatch | Way::OneBatch);
            if self.case.error.is_some() && !ordered {
                continue;
            }
            if let Some(why) = way.left_out(self.plan).filter(|_| seed.is_none()) {
                report.left_out.push((way.name(), why));
                continue;
            }
            let differences = match way {
                Way::Interleaved => self.interleaved(seed),
                way => self.differences(&self.events, way),
            };
            if differences.is_empty() {
                report.passed.push(way.name());
            } else if report.differences.is_empty() {
                report.differences = std::iter::once(format!("{}:", way.name())).chain(differences).collect();
            }
        }
        report
    }

    fn interleaved(&self, seed: Option<u64>) -> Vec<String> {
        let seeds = seed.map_or(1..=INTERLEAVINGS, |seed| seed..=seed);
        let in_order = |order: &[usize]| -> Vec<String> {
            let events: Vec<Encoded> = order.iter().map(|at| self.events[*at].clone()).collect();
            self.differences(&events, Way::Interleaved)
        };
        for seed in seeds {
            let order = ways::interleaving(&self.events, seed);
            if in_order(&order).is_empty() {
                continue;
            }
            let order = ways::smallest(&self.events, order, &|order| !in_order(order).is_empty());
            let mut lines = vec![format!("  in this order (again with --seed {seed}):")];
            lines.extend(order.iter().map(|at| {
                let event = &self.events[*at];
                let place = format!("{}/{}@{}", event.topic, event.partition, event.offset);
                format!("    {place}, line {}", event.line)
            }));
            return lines.into_iter().chain(in_order(&order)).collect();
        }
        Vec::new()
    }

    /// What the events make that is not golden.
    fn differences(&self, events: &[Encoded], way: Way) -> Vec<String> {
        let before_last = &events[..events.len().saturating_sub(1)];
        if self.case.error.is_some()
            && let Err(message) = ways::take(self.plan, before_last, way)
        {
            return vec![format!("the error was expected of the last event: {message}")];
        }
        match (ways::take(self.plan, events, way), &self.case.error) {
            (Ok(_), Some(error)) => {
                vec![format!("the error {:?} was expected, and every event was applied", error.value)]
            }
            (Ok(model), None) => self.compare(&model).unwrap_or_else(|message| vec![message]),
            (Err(message), Some(error)) if message.contains(&error.value) => Vec::new(),
            (Err(message), _) => vec![message],
        }
    }

    /// When the rows are read.
    fn now(&self) -> i64 {
        let latest = || self.events.iter().map(|event| event.time).max().unwrap_or(0);
        match &self.case.now {
            None => latest(),
            Some(now) => parse_time(now).unwrap_or_else(|| {
                let message = format!("`{}` is not an RFC 3339 timestamp", now.value);
                self.sink.error("wrong-value", &now.span, message, None);
                latest()
            }),
        }
    }

    fn compare(&self, model: &Model) -> Result<Vec<String>, String> {
        let (plan, sink) = (self.plan, self.sink);
        let mut differences = Vec::new();
        for (name, _) in &self.case.rows {
            if !plan.tables.iter().any(|table| table.name == name.value) {
                sink.error("unknown-table", &name.span, format!("there is no table `{}`", name.value), None);
            }
        }
        for (at, table) in plan.tables.iter().enumerate() {
            let Some(written) = self.case.rows.get(table.name.as_str()) else { continue };
            let expected: Vec<ReadRow> = written.iter().map(|row| case::expected_row(table, row, sink)).collect();
            differences.extend(compare_rows(table, &expected, &model.visible_rows(plan, at, self.now())?));
        }
        for asked in &self.case.queries {
            differences.extend(query::compare(plan, model, asked, self.now(), sink)?);
        }
        Ok(differences)
    }
}

fn compare_rows(table: &Table, expected: &[ReadRow], found: &[ReadRow]) -> Vec<String> {
    let key = |row: &ReadRow| {
        let parts: Vec<String> = table.key.iter().map(|column| row[&column.name].to_json_text()).collect();
        parts.join(", ")
    };
    let mut differences = Vec::new();
    for (at, row) in expected.iter().enumerate() {
        if expected[..at].iter().any(|other| key(other) == key(row)) {
            differences.push(format!("  {}: the row {} is expected twice", table.name, key(row)));
        }
        let Some(same) = found.iter().find(|other| key(other) == key(row)) else {
            differences.push(format!("  {}: - {}", table.name, show(row)));
            continue;
        };
        for (column, value) in row {
            let actual = &same[column];
            if actual != value {
                differences.push(format!(
                    "  {} {}: {column} is {}, expected {}",
                    table.name,
                    key(row),
                    actual.to_json_text(),
                    value.to_json_text()
                ));
            }
        }
    }
    for row in found.iter().filter(|row| !expected.iter().any(|other| key(other) == key(row))) {
        differences.push(format!("  {}: + {}", table.name, show(row)));
    }
    differences
}

fn show(row: &ReadRow) -> String {
    let columns: Vec<String> = row.iter().map(|(name, value)| format!("{name}: {}", value.to_json_text())).collect();
    format!("{{ {} }}", columns.join(", "))
}

#[cfg(test)]
mod tests;
