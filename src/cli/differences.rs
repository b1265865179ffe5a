//! How the differences between two generations are told.

use std::fmt::Write as _;

use comfy_table::Table;
use indexmap::{IndexMap, IndexSet};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Failure, Format, Outcome, count, explain};
use crate::rebuild::diff::Compared;
use crate::rebuild::explain::Changed;
use crate::rebuild::explain::effects::{Effect, Effects, Made};
use crate::store::compare::Difference;
use crate::store::shown::{ShownRow, differing};

/// What is told, and how it is called.
pub struct Told<'t> {
    pub title: &'t str,
    /// What the two are called: the old one and the new one.
    pub sides: [String; 2],
    pub compared: &'t Compared,
    /// The events that made the samples different, in their order; none, if they were not looked for.
    pub made: &'t [Made],
    pub notes: &'t [String],
}

impl Told<'_> {
    pub fn print(&self, format: Format) -> Outcome {
        match format {
            Format::Json => println!("{}", serde_json::to_string(&self.to_json()).map_err(Failure::failed)?),
            Format::Text => self.print_text(),
        }
        Ok(())
    }

    /// The views, each with the events of its samples.
    fn views(&self) -> impl Iterator<Item = (&Difference, &[Made])> {
        let mut rest = self.made;
        self.compared.differences.iter().map(move |view| {
            let (own, others) = rest.split_at(rest.len().min(view.samples.len()));
            rest = others;
            (view, own)
        })
    }

    fn print_text(&self) {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["view", "rows", "now", "removed", "added", "changed"]);
        for view in &self.compared.differences {
            let numbers = [view.rows.0, view.rows.1, view.removed, view.added, view.changed].map(|n| n.to_string());
            table.add_row(std::iter::once(view.view.clone()).chain(numbers));
        }
        println!("{}\n{table}", self.title);
        for (view, made) in self.views() {
            let name = &view.view;
            for (columns, what) in [(&view.only.0, "gone"), (&view.only.1, "new")] {
                if !columns.is_empty() {
                    println!("{name}: columns {what}: {}", columns.join(", "));
                }
            }
            for (column, rows) in &view.columns {
                println!("{name}: {column} differs in {}", count(*rows as usize, "row"));
            }
            for (at, (old, new)) in view.samples.iter().enumerate() {
                print!("{}", sample(view, old.as_ref(), new.as_ref()));
                if let Some(made) = made.get(at) {
                    print!("{}", events(made, &self.sides));
                }
            }
        }
        for why in &self.compared.incomparable {
            println!("{why}");
        }
        for note in self.notes {
            println!("note: {note}");
        }
    }

    fn to_json(&self) -> Json<'_> {
        let views = self.views().map(|(view, made)| JsonView::of(view, made));
        Json { views: views.collect(), incomparable: &self.compared.incomparable, notes: self.notes }
    }
}

/// A row that differs: its key, and the columns that do; of one that only one generation has, all of it.
fn sample(view: &Difference, old: Option<&ShownRow>, new: Option<&ShownRow>) -> String {
    let name = &view.view;
    match (old, new) {
        (Some(row), None) => format!("- {name} {}\n", whole(row)),
        (None, Some(row)) => format!("+ {name} {}\n", whole(row)),
        (Some(old), Some(new)) => {
            let key = view.key.iter().filter_map(|column| Some(format!("{column} {}", old.get(column)?)));
            let mut text = format!("~ {name} {}\n", key.collect::<Vec<_>>().join(", "));
            for (column, before, after) in differing(old, new) {
                let _ = writeln!(text, "    {column}: {before} -> {after}");
            }
            text
        }
        (None, None) => String::new(),
    }
}

fn whole(row: &ShownRow) -> String {
    let columns: Vec<String> = row.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", columns.join(","))
}

/// The events that made a row different.
fn events(made: &Made, sides: &[String; 2]) -> String {
    let mut text: String = made.differ.iter().map(|event| effects(event, sides)).collect();
    let did_the_same = count(made.same, "event");
    let _ = match (made.differ.len(), made.more, made.same) {
        (0, _, 0) => Ok(()),
        (0, _, _) => writeln!(text, "    {did_the_same} did the same in both, and none did anything else"),
        (_, 0, 0) => Ok(()),
        (_, 0, _) => writeln!(text, "    {did_the_same} did the same in both"),
        (_, more, 0) => writeln!(text, "    {} did something else", count(more, "more event")),
        (_, more, same) => {
            writeln!(text, "    {} did something else, and {same} the same in both", count(more, "more event"))
        }
    };
    for note in &made.notes {
        let _ = writeln!(text, "    note: {note}");
    }
    text
}

fn effects(event: &Effects, [one, other]: &[String; 2]) -> String {
    let Effects { place, time, type_, others, old, new } = event;
    let (time, type_) = (time.as_deref().unwrap_or("?"), type_.as_deref().unwrap_or("?"));
    let others = if others.is_empty() { String::new() } else { format!("   ({})", explain::names(others)) };
    let mut text = format!("    {place}  {time}  {type_}{others}\n");
    for (side, effect) in [(one, old), (other, new)] {
        let Some(effect) = effect else { continue };
        if let Some(code) = &effect.parked {
            let _ = writeln!(text, "        is parked in {side} [{code}]");
        }
        if let Some(why) = &effect.passed_over {
            let _ = writeln!(text, "        is passed over in {side}: {why}");
        }
    }
    let is = |mark: fn(&Effect) -> bool| [old, new].map(|effect| effect.as_ref().is_some_and(mark));
    for (what, [in_one, in_other]) in
        [("appears", is(|effect| effect.appears)), ("vanishes", is(|effect| effect.vanishes))]
    {
        if in_one != in_other {
            let _ = writeln!(text, "        the row {what} in {} alone", if in_one { one } else { other });
        }
    }
    let changes = |effect: &'_ Option<Effect>| effect.iter().flat_map(|e| e.changes.clone()).collect::<Vec<Changed>>();
    let (before, after) = (changes(old), changes(new));
    let columns: IndexSet<&str> = before.iter().chain(&after).map(|change| change.column.as_str()).collect();
    for column in columns {
        let told = |changes: &[Changed], side: &str| match changes.iter().find(|change| change.column == column) {
            Some(Changed { before, after, .. }) => format!("{before} -> {after} in {side}"),
            None => format!("unchanged in {side}"),
        };
        let _ = writeln!(text, "        {column}: {}, {}", told(&before, one), told(&after, other));
    }
    text
}

#[derive(Serialize)]
struct Json<'t> {
    views: Vec<JsonView<'t>>,
    incomparable: &'t [String],
    notes: &'t [String],
}

#[derive(Serialize)]
struct JsonView<'t> {
    view: &'t str,
    rows_old: i64,
    rows_new: i64,
    removed: i64,
    added: i64,
    changed: i64,
    columns: IndexMap<&'t str, i64>,
    columns_old_only: &'t [String],
    columns_new_only: &'t [String],
    samples: Vec<JsonSample<'t>>,
}

#[derive(Serialize)]
struct JsonSample<'t> {
    old: Option<IndexMap<&'t str, &'t RawValue>>,
    new: Option<IndexMap<&'t str, &'t RawValue>>,
    /// Nothing, if they were not looked for.
    events: Option<&'t Made>,
}

impl<'t> JsonView<'t> {
    fn of(view: &'t Difference, made: &'t [Made]) -> JsonView<'t> {
        let samples = view.samples.iter().enumerate().map(|(at, (old, new))| JsonSample {
            old: old.as_ref().map(raw),
            new: new.as_ref().map(raw),
            events: made.get(at),
        });
        JsonView {
            view: &view.view,
            rows_old: view.rows.0,
            rows_new: view.rows.1,
            removed: view.removed,
            added: view.added,
            changed: view.changed,
            columns: view.columns.iter().map(|(name, rows)| (name.as_str(), *rows)).collect(),
            columns_old_only: &view.only.0,
            columns_new_only: &view.only.1,
            samples: samples.collect(),
        }
    }
}

/// The columns with their texts as they are, so that no digit is lost.
fn raw(row: &ShownRow) -> IndexMap<&str, &RawValue> {
    row.iter().map(|(name, value)| (name.as_str(), serde_json::from_str(value).unwrap_or(RawValue::NULL))).collect()
}
