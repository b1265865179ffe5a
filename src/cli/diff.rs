//! `projector diff` and `projector verify`

use clap::Args;

use super::chosen::Chosen;
use super::differences::Told;
use super::{Common, FAILED, Failure, Format, Outcome, replay, runtime};
use crate::config::Settings;
use crate::plan::Plan;
use crate::rebuild::diff::{Compared, diff as compare};
use crate::rebuild::explain::effects::{Found, Made, Sample, Side, effects};
use crate::rebuild::explain::{Question, Trouble};
use crate::rebuild::verify;
use crate::store::compare::{Difference, Rows};
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
    /// Tell the events that made the difference even if more than a million are to be read for it.
    #[arg(long, conflicts_with = "no_events")]
    events: bool,
    /// Do not tell the events that made the difference: the log is not read for them.
    #[arg(long)]
    no_events: bool,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    common: Common,
    /// The projection, by its name or that of one of its views.
    projection: String,
    /// Compare this row alone, of the view that is named; if its key has several columns, their values in order, with commas
    /// between. Several times for several rows.
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// Put right what is served: the rows that were compared, and without --key what readers do not see, too.
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
    let pair = runtime()?.block_on(Compare::of(options))?;
    let Compare { live, other, compared, .. } = &pair;
    let (old, new) = (live.generation.number, other.generation.number);
    // Kafka's client blocks; of Postgres nothing more is needed.
    let (made, notes) = match options.no_events {
        true => (Vec::new(), Vec::new()),
        false => pair.events((!options.events).then_some(MANY)),
    };
    let title = format!("generation {new} beside {old}, which readers see");
    let sides = [old, new].map(|number| number.to_string());
    Told { title: &title, sides, compared, made: &made, notes: &notes }.print(options.format)?;
    let met = options.fail_if.iter().filter(|gate| gate.is_met(&compared.differences));
    let met: Vec<&str> = met.map(|gate| gate.text.as_str()).collect();
    match met.as_slice() {
        [] => Ok(()),
        met => Err(Failure::failed(format!("it is so: {}", met.join(", ")))),
    }
}

/// With more events to read, those that made the difference are only told when that is asked for: nobody expects a
/// comparison to take minutes.
const MANY: i64 = 1_000_000;

/// Two generations, compared.
struct Compare {
    settings: Settings,
    live: Listed,
    other: Listed,
    plans: (Plan, Plan),
    compared: Compared,
}

impl Compare {
    async fn of(options: &Diff) -> Result<Compare, Failure> {
        let chosen = Chosen::find(&options.common, &options.projection).await?;
        let (live, other) = (chosen.live()?.clone(), other(&chosen, options.generation)?.clone());
        let plans = (chosen.plan(&live)?, chosen.plan(&other)?);
        let (old, new) = ((&live.generation, &plans.0), (&other.generation, &plans.1));
        let compared = compare(&chosen.pool, old, new, None, options.samples).await.map_err(Failure::failed)?;
        chosen.pool.close().await;
        Ok(Compare { settings: chosen.settings, live, other, plans, compared })
    }

    /// The events that made the samples different, and what is not known of them. The comparison stands without them.
    fn events(&self, most: Option<i64>) -> (Vec<Made>, Vec<String>) {
        let samples: Vec<Sample<'_>> = self.compared.differences.iter().flat_map(samples).collect();
        if samples.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let sides = (
            Side::of(&self.live, &self.plans.0, &self.compared.moments.0),
            Side::of(&self.other, &self.plans.1, &self.compared.moments.1),
        );
        match effects(&self.settings, sides, &samples, most) {
            Ok(Found { rows, notes }) => (rows, notes),
            Err(trouble) => {
                let cure = if matches!(trouble, Trouble::TooLong(_)) { "; they are with --events" } else { "" };
                let note = format!("the events that made the difference are not told: {trouble}{cure}");
                (Vec::new(), vec![note])
            }
        }
    }
}

fn samples(view: &Difference) -> impl Iterator<Item = Sample<'_>> {
    view.samples.iter().map(|(old, new)| Sample { view: &view.view, old: old.as_ref(), new: new.as_ref() })
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
        let rows = rows(&plan, options)?;
        let scratch = verify::begin(pool, &plan, live, options.max_rate).await.map_err(Failure::refused)?;
        let outcome = tokio::select! {
            outcome = verified(&chosen, options, &plan, (&live.generation, &scratch), rows.as_ref()) => outcome,
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

/// The rows that are meant, if not all.
fn rows(plan: &Plan, options: &Verify) -> Result<Option<Rows>, Failure> {
    let named = options.key.iter().map(|key| Question::of(plan, &options.projection, key));
    let keys: Vec<_> =
        named.map(|asked| asked.map(|row| row.key)).collect::<Result<_, _>>().map_err(Failure::refused)?;
    Ok((!keys.is_empty()).then(|| Rows { table: options.projection.clone(), keys }))
}

async fn verified(
    chosen: &Chosen,
    options: &Verify,
    plan: &Plan,
    (live, scratch): (&Generation, &Generation),
    rows: Option<&Rows>,
) -> Outcome {
    let pool = &chosen.pool;
    replay::until_near(pool, &chosen.settings, plan, scratch).await?;
    let compared = compare(pool, (live, plan), (scratch, plan), rows, options.samples).await;
    let compared = compared.map_err(Failure::failed)?;
    let (title, sides) = ("what the log gives beside what is served", ["what is served", "the log"].map(String::from));
    Told { title, sides, compared: &compared, made: &[], notes: &[] }.print(options.format)?;
    let differ = |view: &Difference| view.removed + view.added + view.changed > 0;
    if !options.repair {
        return match compared.differences.iter().any(differ) {
            true => Err(Failure::told(FAILED)),
            false => Ok(()),
        };
    }
    // What readers do not see may be wrong, too.
    let mended = verify::repair(pool, plan, live, scratch, rows).await.map_err(Failure::failed)?;
    for (table, rows) in &mended {
        println!("{table}: {} put right", super::count(*rows as usize, "row"));
    }
    if mended.is_empty() {
        println!("nothing to put right");
    }
    Ok(())
}
