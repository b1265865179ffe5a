//! Writing the golden rows anew, from what the events make now.

use std::sync::Arc;

use super::case::{self, TestFile};
use super::ways::{self, Way};
use super::{ReadRow, Runner, Trouble};
use crate::plan::{Plan, Table};
use crate::spec;
use crate::spec::diagnostic::{Sink, SourceFile};
use crate::value::Value;

/// A test file with its rows as the events make them now, and the lines that changed: `-` before, `+` after.
#[derive(Debug)]
pub struct Blessed {
    pub text: String,
    pub changes: Vec<String>,
}

/// Makes the golden rows anew. Cases that expect an error, and tables that a case does not name, are left alone.
///
/// # Errors
/// What is wrong with the test file, as far as its rows are not concerned.
pub fn bless(plan: &Plan, file: &Arc<SourceFile>) -> Result<Blessed, Trouble> {
    let sink = Sink::new(file.clone());
    let tests: Option<TestFile> = spec::read(&sink);
    let mut lines: Vec<String> = file.text.lines().map(String::from).collect();
    let mut changes = Vec::new();
    for case in tests.iter().flat_map(|tests| &tests.cases).rev().filter(|case| case.error.is_none()) {
        // What is wrong with the rows as they are is about to be written anew.
        let rows_as_they_are = Sink::new(file.clone());
        let runner = Runner { plan, case, events: case::encode(plan, case, &sink), sink: &rows_as_they_are };
        let right = runner.differences(&runner.events, Way::Straight).is_empty() && !rows_as_they_are.has_errors();
        if right || case.rows.is_empty() {
            continue;
        }
        let rows = match ways::take(plan, &runner.events, Way::Straight) {
            Ok(model) => golden_lines(&runner, &model),
            Err(message) => Err(message),
        };
        let rows = match rows {
            Ok(rows) => rows,
            Err(message) => return Err(Trouble::Event(format!("{}: {message}", case.name.value))),
        };
        let (line, column) = sink.file.position(case.name.span.start);
        let Some((from, to)) = rows_of(&lines, line - 1, column) else { continue };
        let indent = " ".repeat(indentation(&lines[from]));
        let new: Vec<String> = rows.iter().map(|line| format!("{indent}{line}")).collect();
        let old: Vec<String> = lines.splice(from..to, new.clone()).collect();
        let mut told = vec![format!("{}:", case.name.value)];
        told.extend(old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {}", line.trim_end())));
        told.extend(new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}")));
        if told.len() > 1 {
            changes.splice(0..0, told);
        }
    }
    if sink.has_errors() {
        return Err(Trouble::File(sink.into_diagnostics()));
    }
    Ok(Blessed { text: lines.join("\n") + "\n", changes })
}

fn golden_lines(runner: &Runner<'_>, model: &super::Model) -> Result<Vec<String>, String> {
    let mut lines = vec!["rows:".to_string()];
    for (at, table) in runner.plan.tables.iter().enumerate() {
        if !runner.case.rows.contains_key(table.name.as_str()) {
            continue;
        }
        let mut rows = model.visible_rows(runner.plan, at, runner.now())?;
        sort(table, &mut rows);
        match rows.is_empty() {
            true => lines.push(format!("  {}: []", table.name)),
            false => lines.push(format!("  {}:", table.name)),
        }
        lines.extend(rows.iter().map(|row| format!("    - {}", row_text(table, row))));
    }
    Ok(lines)
}

/// The lines of a case's own `rows:`, from the line of its name on: from, and up to the next line that is not part of it.
/// `value` is the column in which the name's value stands: its key, and every other of the case, stands before it.
fn rows_of(lines: &[String], name: usize, value: usize) -> Option<(usize, usize)> {
    let key = lines[name][..value.saturating_sub(1).min(lines[name].len())].rfind("name:")?;
    let is_own = |line: &String| indentation(line) == key && line[key..].starts_with("rows:");
    let in_case = |line: &&String| line.trim().is_empty() || indentation(line) >= key;
    let length = 1 + lines[name + 1..].iter().take_while(in_case).count();
    let from = (name..name + length).find(|at| is_own(&lines[*at]))?;
    let deeper = |line: &String| line.trim().is_empty() || indentation(line) > indentation(&lines[from]);
    let mut to = (from + 1..lines.len()).find(|at| !deeper(&lines[*at])).unwrap_or(lines.len());
    while lines[to - 1].trim().is_empty() {
        to -= 1;
    }
    Some((from, to))
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

pub(super) fn sort(table: &Table, rows: &mut [ReadRow]) {
    rows.sort_by(|a, b| {
        let parts = table.key.iter().map(|column| column.shape.type_.compare(&a[&column.name], &b[&column.name]));
        parts.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    });
}

/// A row as a line of YAML; what is at its default is left out.
pub(super) fn row_text(table: &Table, row: &ReadRow) -> String {
    let default = |name: &str| {
        let column = table.columns.iter().find(|column| column.name == name);
        column.map(|column| &column.shape.default)
    };
    let kept = row.iter().filter(|(name, value)| default(name) != Some(*value));
    let columns: Vec<String> = kept.map(|(name, value)| format!("{name}: {}", plain(value))).collect();
    format!("{{ {} }}", columns.join(", "))
}

/// A value in YAML's flow style: a text that needs no quotes has none.
fn plain(value: &Value) -> String {
    let Value::Text(text) = value else { return value.to_json_text() };
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.' | '/' | '@'))
        && !text.ends_with(' ');
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if word && !reserved.contains(&text.to_ascii_lowercase().as_str()) {
        text.to_string()
    } else {
        value.to_json_text()
    }
}
