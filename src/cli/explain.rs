//! `projector explain`

use clap::Args;

use super::chosen::Chosen;
use super::{Common, Failure, Format, Outcome, runtime};
use crate::config::Settings;
use crate::plan::Plan;
use crate::rebuild::explain::{Changed, Explained, Question, RowName, Step, explain as told};
use crate::store::explain::{Moment, row_and_moment};
use crate::store::generations::Listed;
use crate::store::shown::ShownRow;

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    view: String,
    /// The row's key; if it has several columns, their values in order, with commas between.
    key: String,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub fn explain(options: &Options) -> Outcome {
    let asked = runtime()?.block_on(Asked::of(options))?;
    // Kafka's client blocks; of Postgres nothing more is needed.
    let Asked { settings, live, plan, question, moment, served } = &asked;
    let explained = told(settings, plan, live, question, moment, served.as_ref()).map_err(Failure::failed)?;
    match options.format {
        Format::Json => println!("{}", serde_json::to_string(&explained).map_err(Failure::failed)?),
        Format::Text => print(&explained),
    }
    Ok(())
}

/// What is to be explained, and what the catalog knows of it.
struct Asked {
    settings: Settings,
    live: Listed,
    plan: Plan,
    question: Question,
    moment: Moment,
    /// The row that readers see.
    served: Option<ShownRow>,
}

impl Asked {
    async fn of(options: &Options) -> Result<Asked, Failure> {
        let chosen = Chosen::find(&options.common, &options.view).await?;
        let live = chosen.live()?.clone();
        let plan = chosen.plan(&live)?;
        let question = Question::of(&plan, &options.view, &options.key).map_err(Failure::refused)?;
        let row = (question.table, &question.key);
        let known = row_and_moment(&chosen.pool, &plan, &live.generation, &chosen.settings.serve.schema, row).await;
        let (moment, served) = known.map_err(Failure::failed)?;
        chosen.pool.close().await;
        Ok(Asked { settings: chosen.settings, live, plan, question, moment, served })
    }
}

fn print(explained: &Explained) {
    explained.steps.iter().for_each(print_step);
    match &explained.columns {
        Some(columns) => {
            let columns: Vec<String> = columns.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            println!("{}: {{ {} }}", explained.row, columns.join(", "));
        }
        None => println!("{}: readers see no such row", explained.row),
    }
    for parked in &explained.parked {
        let (type_, rows) = (parked.type_.as_deref().unwrap_or("?"), names(&parked.rows));
        println!("{}  {type_}  is parked: {} [{}]   ({rows})", parked.place, parked.message, parked.code);
    }
    for note in &explained.notes {
        println!("note: {note}");
    }
    if explained.served_differs {
        println!("the served row differs: see projector verify");
        for difference in &explained.differences {
            println!("    {}: {} by the log, {} served", difference.column, difference.log, difference.served);
        }
    }
}

fn print_step(step: &Step) {
    let time = step.time.as_deref().unwrap_or("?");
    let others = if step.direct { String::new() } else { format!("   ({})", names(&step.others)) };
    println!("{}  {time}  {}{others}", step.place, step.type_.as_deref().unwrap_or("?"));
    if let Some(decided) = &step.decision {
        println!("    {} by {}: {}", decided.decision, decided.who, decided.reason);
    }
    if let Some(why) = &step.passed_over {
        println!("    passed over: {why}");
    }
    if step.appears {
        println!("    the row appears");
    }
    if step.vanishes {
        println!("    the row vanishes");
    }
    for Changed { column, before, after } in &step.changes {
        println!("    {column}: {before} -> {after}");
    }
}

pub fn names(rows: &[RowName]) -> String {
    rows.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
