//! `projector diff` and `projector verify`

use clap::Args;
use comfy_table::Table;
use serde_json::{Value as Json, json};

use super::promote::of_projection;
use super::{Common, FAILED, Failure, Format, Outcome, apply, plans, replay, runtime};
use crate::rebuild::diff::{Compared, diff as compare};
use crate::rebuild::verify;
use crate::store::compare::Difference;
use crate::store::generations::{Listed, State};
use crate::store::{meeting, promotion};

#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    common: Common,
    /// The projection, by its name or that of one of its views.
    projection: String,
    /// The number of the generation to compare with the live one; the one that is being built, or else the newest that is
    /// kept, if nothing is said.
    generation: Option<i32>,
    /// Rows to show of each view.
    #[arg(long, default_value_t = 5)]
    samples: i64,
    /// Fail when this holds: `removed`, `added` or `changed`, a comparison and a number, for example 'removed > 0'.
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Gate>,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    common: Common,
    /// The projection, by its name or that of one of its views.
    projection: String,
    /// Put right what is served.
    #[arg(long)]
    repair: bool,
    /// Events a second to fold at most.
    #[arg(long, value_name = "EVENTS")]
    max_rate: Option<f64>,
    /// Rows to show of each view.
    #[arg(long, default_value_t = 5)]
    samples: i64,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// A condition on the number of rows that differ.
#[derive(Debug, Clone)]
struct Gate {
    text: String,
    what: String,
    operator: String,
    number: i64,
}

impl std::str::FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Gate, String> {
        let help = || format!("`{text}` is no condition; for example: removed > 0");
        let mut words = text.split_whitespace();
        let (Some(what), Some(operator), Some(number), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(help());
        };
        let known = matches!(what, "removed" | "added" | "changed")
            && matches!(operator, ">" | ">=" | "<" | "<=" | "==" | "!=");
        let number = number.parse().map_err(|_| help())?;
        match known {
            true => Ok(Gate { text: text.into(), what: what.into(), operator: operator.into(), number }),
            false => Err(help()),
        }
    }
}

impl Gate {
    fn holds(&self, differences: &[Difference]) -> bool {
        let rows = differences.iter().map(|view| match self.what.as_str() {
            "removed" => view.removed,
            "added" => view.added,
            _ => view.changed,
        });
        let rows: i64 = rows.sum();
        match self.operator.as_str() {
            ">" => rows > self.number,
            ">=" => rows >= self.number,
            "<" => rows < self.number,
            "<=" => rows <= self.number,
            "==" => rows == self.number,
            _ => rows != self.number,
        }
    }
}

pub fn diff(options: &Diff) -> Outcome {
    let settings = options.common.settings()?;
    let plans = if settings.projections.exists() { plans(&settings.projections)? } else { Vec::new() };
    runtime()?.block_on(async {
        let pool = apply::pool(&settings)?;
        let listed = of_projection(&pool, &options.projection).await?;
        let (live, other) = choose(&listed, options)?;
        let (old_plan, new_plan) =
            (live.plan(&plans).map_err(Failure::refused)?, other.plan(&plans).map_err(Failure::refused)?);
        let (old, new) = (&live.generation, &other.generation);
        let compared =
            compare(&pool, (old, &old_plan), (new, &new_plan), options.samples).await.map_err(Failure::failed)?;
        pool.close().await;
        let title = format!("generation {} beside {}, which readers see", new.number, old.number);
        print(&compared, &title, options.format);
        let failed: Vec<&str> = (options.fail_if.iter())
            .filter(|gate| gate.holds(&compared.differences))
            .map(|gate| gate.text.as_str())
            .collect();
        match failed.as_slice() {
            [] => Ok(()),
            failed => Err(Failure::failed(format!("it is so: {}", failed.join(", ")))),
        }
    })
}

fn choose<'l>(listed: &'l [Listed], options: &Diff) -> Result<(&'l Listed, &'l Listed), Failure> {
    let name = &options.projection;
    let live = listed.iter().find(|listed| listed.state == State::Live);
    let live = live.ok_or_else(|| Failure::refused(format!("`{name}` has no live generation")))?;
    let newest =
        |state: State| listed.iter().filter(|l| l.state == state).max_by_key(|listed| listed.generation.number);
    let other = match options.generation {
        Some(number) => listed.iter().find(|listed| listed.generation.number == number && listed.state != State::Live),
        None => newest(State::Building).or(newest(State::Kept)),
    };
    let none = || Failure::refused(format!("`{name}` has no other generation to compare; see `projector status`"));
    Ok((live, other.ok_or_else(none)?))
}

pub fn verify(options: &Verify) -> Outcome {
    let settings = options.common.settings()?;
    let plans = if settings.projections.exists() { plans(&settings.projections)? } else { Vec::new() };
    runtime()?.block_on(async {
        let pool = apply::pool(&settings)?;
        let listed = of_projection(&pool, &options.projection).await?;
        let live = listed.iter().find(|listed| listed.state == State::Live);
        let Some(live) = live else {
            return Err(Failure::refused(format!("`{}` has no live generation", options.projection)));
        };
        let plan = live.plan(&plans).map_err(Failure::refused)?;
        let scratch = verify::begin(&pool, &plan, live, options.max_rate).await.map_err(Failure::refused)?;
        let outcome = tokio::select! {
            outcome = verified(&pool, &settings, options, &plan, live, &scratch) => outcome,
            () = super::stop_signal() => Err(Failure::failed("stopped")),
        };
        meeting::release(&pool, &[live.generation.id]).await.map_err(Failure::failed)?;
        // Whatever came of it: nobody needs it any more.
        promotion::drop(&pool, &scratch).await.map_err(Failure::failed)?;
        pool.close().await;
        outcome
    })
}

async fn verified(
    pool: &sqlx::PgPool,
    settings: &crate::config::Settings,
    options: &Verify,
    plan: &crate::plan::Plan,
    live: &Listed,
    scratch: &crate::store::Generation,
) -> Outcome {
    replay::until_caught_up(pool, settings, plan, scratch).await?;
    let old = &live.generation;
    let compared = verify::compare(pool, plan, old, scratch, options.samples).await.map_err(Failure::failed)?;
    print(&compared, "what the log gives beside what is served", options.format);
    let differ = |view: &Difference| view.removed + view.added + view.changed > 0;
    if !compared.differences.iter().any(differ) && !options.repair {
        return Ok(());
    }
    if !options.repair {
        return Err(Failure::told(FAILED));
    }
    let mended = verify::repair(pool, plan, old, scratch).await.map_err(Failure::failed)?;
    for (table, rows) in &mended {
        println!("{table}: {rows} rows put right");
    }
    if mended.is_empty() {
        println!("nothing to put right");
    }
    Ok(())
}

fn print(compared: &Compared, title: &str, format: Format) {
    match format {
        Format::Json => println!("{}", to_json(compared)),
        Format::Text => print_text(compared, title),
    }
}

fn to_json(compared: &Compared) -> Json {
    let views: Vec<Json> = compared
        .differences
        .iter()
        .map(|view| {
            let columns: serde_json::Map<String, Json> =
                view.columns.iter().map(|(name, rows)| (name.clone(), json!(rows))).collect();
            let samples: Vec<Json> = view.samples.iter().map(|(old, new)| json!({ "old": old, "new": new })).collect();
            json!({
                "view": view.view, "rows_old": view.rows.0, "rows_new": view.rows.1, "removed": view.removed,
                "added": view.added, "changed": view.changed, "columns": columns, "columns_old_only": view.only.0,
                "columns_new_only": view.only.1, "samples": samples,
            })
        })
        .collect();
    json!({ "views": views, "incomparable": compared.incomparable })
}

fn print_text(compared: &Compared, title: &str) {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["view", "rows", "now", "removed", "added", "changed"]);
    for view in &compared.differences {
        let numbers = [view.rows.0, view.rows.1, view.removed, view.added, view.changed].map(|n| n.to_string());
        table.add_row(std::iter::once(view.view.clone()).chain(numbers));
    }
    println!("{title}\n{table}");
    for view in &compared.differences {
        let name = &view.view;
        for (columns, what) in [(&view.only.0, "gone"), (&view.only.1, "new")] {
            if !columns.is_empty() {
                println!("{name}: columns {what}: {}", columns.join(", "));
            }
        }
        for (column, rows) in &view.columns {
            println!("{name}: {column} differs in {}", super::count(*rows as usize, "row"));
        }
        for (old, new) in &view.samples {
            print_sample(name, old.as_ref(), new.as_ref());
        }
    }
    for why in &compared.incomparable {
        println!("{why}");
    }
}

/// A row that differs: the columns that do, and the first ones, by which it is found.
fn print_sample(view: &str, old: Option<&Json>, new: Option<&Json>) {
    match (old, new) {
        (Some(row), None) => println!("- {view} {row}"),
        (None, Some(row)) => println!("+ {view} {row}"),
        (Some(Json::Object(old)), Some(Json::Object(new))) => {
            let key: Vec<String> = old.iter().take(1).map(|(name, value)| format!("{name} {value}")).collect();
            println!("~ {view} {}", key.join(", "));
            for (name, value) in old {
                match new.get(name) {
                    Some(other) if other != value => println!("    {name}: {value} -> {other}"),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}
