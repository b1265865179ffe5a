//! Golden tests: events in, rows out, through the real decoder and fold and without any service.
//!
//! Every case runs event by event (the naive model) and as one batch, and both have to give the golden rows.

mod case;
mod model;

use std::sync::Arc;

use indexmap::IndexMap;

pub use model::Model;

use crate::plan::{Plan, Table};
use crate::spec;
use crate::spec::diagnostic::{Diagnostic, Sink, SourceFile};
use crate::value::Value;
use case::{Case, TestFile};

/// How one case ended.
#[derive(Debug)]
pub struct Report {
    pub name: String,
    /// What differs, a line each; empty when the case passed.
    pub differences: Vec<String>,
}

/// Runs the cases of a test file against its projection.
///
/// # Errors
/// What is wrong with the test file itself.
pub fn run(plan: &Plan, file: &Arc<SourceFile>) -> Result<Vec<Report>, Vec<Diagnostic>> {
    let sink = Sink::new(file.clone());
    let tests: Option<TestFile> = spec::read(&sink);
    let reports = tests.map(|tests| {
        let run = |case: &Case| Report { name: case.name.value.clone(), differences: run_case(plan, case, &sink) };
        tests.cases.iter().map(run).collect()
    });
    if sink.has_errors() { Err(sink.into_diagnostics()) } else { Ok(reports.unwrap_or_default()) }
}

type Way = fn(&Plan, &[case::Encoded]) -> Result<Model, String>;

fn run_case(plan: &Plan, case: &Case, sink: &Sink) -> Vec<String> {
    let events = case::encode(plan, case, sink);
    let ways: [(&str, Way); 2] = [("event by event", Model::one_by_one), ("as one batch", Model::in_one_batch)];
    for (way, fold) in ways {
        let differences = match (fold(plan, &events), &case.error) {
            (Ok(_), Some(error)) => {
                vec![format!("the error {:?} was expected, and every event was applied", error.value)]
            }
            (Ok(model), None) => compare(plan, case, &model, sink),
            (Err(message), Some(error)) if message.contains(&error.value) => Vec::new(),
            (Err(message), _) => vec![message],
        };
        if !differences.is_empty() {
            return std::iter::once(format!("{way}:")).chain(differences).collect();
        }
    }
    Vec::new()
}

type ExpectedRow = IndexMap<String, Value>;

fn compare(plan: &Plan, case: &Case, model: &Model, sink: &Sink) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, _) in &case.rows {
        if !plan.tables.iter().any(|table| table.name == name.value) {
            sink.error("unknown-table", &name.span, format!("there is no table `{}`", name.value), None);
        }
    }
    for (at, table) in plan.tables.iter().enumerate() {
        let Some(written) = case.rows.get(table.name.as_str()) else { continue };
        let expected: Vec<ExpectedRow> = written.iter().map(|row| case::expected_row(table, row, sink)).collect();
        let found = model.visible_rows(plan, at);
        differences.extend(compare_rows(table, &expected, &found));
    }
    differences
}

fn compare_rows(table: &Table, expected: &[ExpectedRow], found: &[ExpectedRow]) -> Vec<String> {
    let key = |row: &ExpectedRow| {
        let parts: Vec<String> = table.key.iter().map(|column| row[&column.name].to_json_text()).collect();
        parts.join(", ")
    };
    let mut differences = Vec::new();
    for row in expected {
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

fn show(row: &ExpectedRow) -> String {
    let columns: Vec<String> = row.iter().map(|(name, value)| format!("{name}: {}", value.to_json_text())).collect();
    format!("{{ {} }}", columns.join(", "))
}
