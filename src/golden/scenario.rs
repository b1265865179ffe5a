//! Golden cases for those who run them elsewhere than in memory.

use std::sync::Arc;

use super::case::{self, Encoded, TestFile};
use super::ways::{self, Way};
use super::{ReadRow, Runner, Trouble};
use crate::plan::Plan;
use crate::spec;
use crate::spec::diagnostic::{Sink, SourceFile};

/// What a case sends, and what readers are to see of it.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: String,
    /// In the order of the case; each partition is to be read in it.
    pub events: Vec<Encoded>,
    /// The last event cannot be applied, and is to be without effect.
    pub fails: bool,
    /// When the rows are read: microseconds since the Unix epoch.
    pub now: i64,
    /// The served tables, and all their rows as the naive model has them, by column.
    pub rows: Vec<(String, Vec<ReadRow>)>,
}

/// The cases of a test file as scenarios.
///
/// # Errors
/// What is wrong with the test file, or which case does not give its golden rows in memory.
pub fn scenarios(plan: &Plan, file: &Arc<SourceFile>) -> Result<Vec<Scenario>, Trouble> {
    let sink = Sink::new(file.clone());
    let tests: Option<TestFile> = spec::read(&sink);
    let mut scenarios = Vec::new();
    for case in tests.iter().flat_map(|tests| &tests.cases) {
        let runner = Runner { plan, case, events: case::encode(plan, case, &sink), sink: &sink };
        let scenario = runner.scenario();
        scenarios.push(scenario.map_err(|message| Trouble::Event(format!("{}: {message}", case.name.value)))?);
    }
    if sink.has_errors() { Err(Trouble::File(sink.into_diagnostics())) } else { Ok(scenarios) }
}

impl Runner<'_> {
    fn scenario(&self) -> Result<Scenario, String> {
        let differences = self.differences(&self.events, Way::Straight);
        if !differences.is_empty() {
            return Err(differences.join("; "));
        }
        let fails = self.case.error.is_some();
        let applied = &self.events[..self.events.len() - usize::from(fails)];
        let (model, now) = (ways::take(self.plan, applied, Way::Straight)?, self.now());
        let served = self.plan.tables.iter().enumerate().filter(|(_, table)| table.served);
        let rows = served.map(|(at, table)| Ok((table.name.clone(), model.visible_rows(self.plan, at, now)?)));
        Ok(Scenario {
            name: self.case.name.value.clone(),
            rows: rows.collect::<Result<_, String>>()?,
            events: self.events.clone(),
            fails,
            now,
        })
    }
}
