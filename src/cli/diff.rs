//! `projector diff` and `projector verify`

use clap::Args;
use comfy_table::Table;
use serde_json::{Value as Json, json};

use super::chosen::Chosen;
use super::{Common, FAILED, Failure, Format, Outcome, replay, runtime};
use crate::plan::Plan;
use crate::rebuild::diff::{Compared, diff as compare};
use crate::rebuild::verify;
use crate::store::compare::Difference;
use crate::store::generations::{Listed, State};
use crate::store::{Generation, meeting, promotion};

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
    rows: fn(&Difference) -> i64,
    holds: fn(&i64, &i64) -> bool,
    number: i64,
}

impl std::str::FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Gate, String> {
        let read = || {
            let mut words = text.split_whitespace();
            let rows: fn(&Difference) -> i64 = match words.next()? {
                "removed" => |view| view.removed,
                "added" => |view| view.added,
                "changed" => |view| view.changed,
                _ => return None,
            };
            let holds = match words.next()? {
                ">" => i64::gt,
                ">=" => i64::ge,
                "<" => i64::lt,
                "<=" => i64::le,
                "==" => i64::eq,
                "!=" => i64::ne,
                _ => return None,
            };
            let number = words.next()?.parse().ok()?;
            words.next().is_none().then(|| Gate { text: text.into(), rows, holds, number })
        };
        read().ok_or_else(|| format!("`{text}` is no condition; for example: removed > 0"))
    }
}

impl Gate {
    fn is_met(&self, differences: &[Difference]) -> bool {
        (self.holds)(&differences.iter().map(self.rows).sum(), &self.number)
    }
}

pub fn diff(options: &Diff) -> Outcome {
    runtime()?.block_on(async {
        let chosen = Chosen::find(&options.common, &options.projection).await?;
        let (live, other) = (chosen.live()?, other(&chosen, options.generation)?);
        let (old, new) = (&live.generation, &other.generation);
        let (old_plan, new_plan) = (chosen.plan(live)?, chosen.plan(other)?);
        let compared = compare(&chosen.pool, (old, &old_plan), (new, &new_plan), options.samples).await;
        let compared = compared.map_err(Failure::failed)?;
        chosen.pool.close().await;
        let title = format!("generation {} beside {}, which readers see", new.number, old.number);
        print(&compared, &title, options.format);
        let met = options.fail_if.iter().filter(|gate| gate.is_met(&compared.differences));
        let met: Vec<&str> = met.map(|gate| gate.text.as_str()).collect();
        match met.as_slice() {
            [] => Ok(()),
            met => Err(Failure::failed(format!("it is so: {}", met.join(", ")))),
        }
    })
}

fn other(chosen: &Chosen, number: Option<i32>) -> Result<&Listed, Failure> {
    let other = match number {
        Some(number) => {
            let of_number = |listed: &&Listed| listed.generation.number == number && listed.state != State::Live;
            chosen.listed.iter().find(of_number)
        }
        None => chosen.newest(State::Building).or(chosen.newest(State::Kept)),
    };
    other.ok_or_else(|| {
        let name = &chosen.name;
        Failure::refused(format!("`{name}` has no other generation to compare; see `projector status`"))
    })
}

pub fn verify(options: &Verify) -> Outcome {
    runtime()?.block_on(async {
        let chosen = Chosen::find(&options.common, &options.projection).await?;
        let (live, pool) = (chosen.live()?, &chosen.pool);
        let plan = chosen.plan(live)?;
        let scratch = verify::begin(pool, &plan, live, options.max_rate).await.map_err(Failure::refused)?;
        let outcome = tokio::select! {
            outcome = verified(&chosen, options, &plan, &live.generation, &scratch) => outcome,
            () = super::stop_signal() => {
                // It may have been stopped itself, to be compared.
                meeting::release(pool, &[live.generation.id]).await.map_err(Failure::failed)?;
                Err(Failure::failed("stopped"))
            }
        };
        // Whatever came of it: nobody needs it any more.
        promotion::drop_when_free(pool, &scratch).await.map_err(Failure::failed)?;
        pool.close().await;
        outcome
    })
}

async fn verified(chosen: &Chosen, options: &Verify, plan: &Plan, live: &Generation, scratch: &Generation) -> Outcome {
    let pool = &chosen.pool;
    replay::until_near(pool, &chosen.settings, plan, scratch).await?;
    let compared = compare(pool, (live, plan), (scratch, plan), options.samples).await.map_err(Failure::failed)?;
    print(&compared, "what the log gives beside what is served", options.format);
    let differ = |view: &Difference| view.removed + view.added + view.changed > 0;
    if !options.repair {
        return match compared.differences.iter().any(differ) {
            true => Err(Failure::told(FAILED)),
            false => Ok(()),
        };
    }
    // What readers do not see may be wrong, too.
    let mended = verify::repair(pool, plan, live, scratch).await.map_err(Failure::failed)?;
    for (table, rows) in &mended {
        println!("{table}: {} put right", super::count(*rows as usize, "row"));
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
