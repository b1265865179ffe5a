//! `projector replay`

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::promote::of_projection;
use super::{Common, Failure, Outcome, apply, plans, runtime};
use crate::checkpoint::Partition;
use crate::config::Settings;
use crate::plan::Plan;
use crate::source::{Consumer, SourceError};
use crate::store::generations::{Listed, Making, State, list};
use crate::store::{Generation, promotion, status};

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// The projection, by its name or that of one of its views.
    projection: String,
    /// Fold the events from this time on only, RFC 3339.
    #[arg(long, value_name = "TIME")]
    from: Option<jiff::Timestamp>,
    /// Events a second to fold at most, until it has caught up.
    #[arg(long, value_name = "EVENTS")]
    max_rate: Option<f64>,
    /// Show what is built only when somebody says `projector promote`.
    #[arg(long)]
    manual: bool,
    /// Do not wait until it is built.
    #[arg(long)]
    detach: bool,
}

pub fn replay(options: &Options) -> Outcome {
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
        let making = Making {
            state: State::Building,
            manual: options.manual,
            history_from: options.from.map(jiff::Timestamp::as_microsecond),
            max_rate: options.max_rate,
        };
        let generation = promotion::begin(&pool, &plan, making).await.map_err(Failure::refused)?;
        println!("{}: generation {} is built, by a daemon", options.projection, generation.number);
        let outcome = match options.detach {
            true => Ok(()),
            false => follow(&pool, &settings, &generation).await,
        };
        pool.close().await;
        outcome
    })
}

/// Shows how a generation gets on, until readers see it, or would if somebody said so.
pub async fn follow(pool: &sqlx::PgPool, settings: &Settings, generation: &Generation) -> Outcome {
    const EVERY: Duration = Duration::from_millis(250);
    let bar = bar()?;
    let mut told = Instant::now();
    let mut rate = Rate::default();
    loop {
        let listed = list(pool).await.map_err(Failure::failed)?;
        let state = listed.iter().find(|listed| listed.generation.id == generation.id);
        halted(pool, generation).await?;
        let progress = Progress::of(pool, settings, generation).await?;
        rate.saw(progress.done);
        bar.set_length(progress.all.max(1) as u64);
        bar.set_position(progress.done as u64);
        let line = rate.line(&progress);
        bar.set_message(line.clone());
        if !std::io::stderr().is_terminal() && told.elapsed() > Duration::from_secs(5) {
            eprintln!("{} of {} events, {line}", progress.done, progress.all);
            told = Instant::now();
        }
        if let Some(outcome) = ended(generation, state) {
            bar.finish_and_clear();
            return outcome;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Shows how a generation gets on that nobody promotes, until it has caught up with the live one.
pub async fn until_caught_up(
    pool: &sqlx::PgPool,
    settings: &Settings,
    plan: &Plan,
    generation: &Generation,
) -> Outcome {
    /// A daemon notices it within a second.
    const NOTICED: Duration = Duration::from_secs(30);
    let bar = bar()?;
    let begun = Instant::now();
    let mut rate = Rate::default();
    loop {
        let progress = Progress::of(pool, settings, generation).await?;
        if progress.done == 0 && progress.all > 0 && begun.elapsed() > NOTICED {
            return Err(Failure::failed(format!(
                "nothing was folded within {} s; a daemon has to run (projector run)",
                NOTICED.as_secs()
            )));
        }
        rate.saw(progress.done);
        bar.set_length(progress.all.max(1) as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(rate.line(&progress));
        halted(pool, generation).await?;
        let behind = promotion::behind(pool, plan, generation).await.map_err(Failure::failed)?;
        // The rest of the way is gone when the two are brought to the same place.
        if behind.is_some_and(promotion::Behind::is_near) {
            bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Says so when the generation stands still: nobody has to wait for it then.
async fn halted(pool: &sqlx::PgPool, generation: &Generation) -> Outcome {
    match status::halt(pool, generation.id).await.map_err(Failure::failed)? {
        None => Ok(()),
        Some(message) => Err(Failure::failed(format!(
            "generation {} of `{}` stands still: {message}",
            generation.number, generation.projection
        ))),
    }
}

fn bar() -> Result<ProgressBar, Failure> {
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} events, {msg}")
        .map_err(|error| Failure::failed(format!("no progress bar: {error}")))?;
    Ok(ProgressBar::new(1).with_style(style))
}

/// How it ended, if it has.
fn ended(generation: &Generation, now: Option<&Listed>) -> Option<Outcome> {
    let (name, number) = (&generation.projection, generation.number);
    match now {
        None => Some(Err(Failure::failed(format!("generation {number} of `{name}` was dropped meanwhile")))),
        Some(listed) if listed.state == State::Live => {
            println!("{name}: readers see generation {number}");
            Some(Ok(()))
        }
        Some(listed) if listed.refused.is_some() => {
            let why = listed.refused.clone().unwrap_or_default();
            Some(Err(Failure::failed(format!("{name}: generation {number} is not promoted: {why}"))))
        }
        Some(listed) if listed.ready && (listed.manual || listed.state == State::Scratch) => {
            println!("{name}: generation {number} has caught up");
            Some(Ok(()))
        }
        Some(_) => None,
    }
}

struct Progress {
    /// Events that are applied, and that there are; by offsets.
    done: i64,
    all: i64,
}

impl Progress {
    async fn of(pool: &sqlx::PgPool, settings: &Settings, generation: &Generation) -> Result<Progress, Failure> {
        let own: BTreeMap<Partition, i64> =
            status::offsets(pool, generation.id).await.map_err(Failure::failed)?.into_iter().collect();
        let live: Vec<Partition> =
            status::partitions_of_live(pool, &generation.projection).await.map_err(Failure::failed)?;
        let settings = settings.clone();
        let asked = tokio::task::spawn_blocking(move || -> Result<Progress, SourceError> {
            let consumer = Consumer::new(&settings.kafka, &settings.fold, "projector-progress")?;
            let mut progress = Progress { done: 0, all: 0 };
            let mut partitions = live;
            partitions.extend(own.keys().cloned());
            partitions.sort();
            partitions.dedup();
            for partition in partitions {
                let offsets = consumer.offsets(&partition)?;
                progress.all += offsets.high - offsets.low;
                progress.done += own.get(&partition).map_or(0, |next| (next - offsets.low).max(0));
            }
            Ok(progress)
        });
        match asked.await {
            Ok(Ok(progress)) => Ok(progress),
            Ok(Err(error)) => Err(Failure::failed(format!("the ends of the topics are not known: {error}"))),
            Err(error) => Err(Failure::failed(error)),
        }
    }
}

/// Events a second, over the last few seconds.
#[derive(Default)]
struct Rate(Vec<(Instant, i64)>);

impl Rate {
    fn saw(&mut self, done: i64) {
        const REMEMBERED: Duration = Duration::from_secs(10);
        let now = Instant::now();
        self.0.push((now, done));
        self.0.retain(|(at, _)| now.duration_since(*at) < REMEMBERED);
    }

    fn line(&self, progress: &Progress) -> String {
        let left = (progress.all - progress.done).max(0);
        let (Some((from, first)), Some((to, last))) = (self.0.first(), self.0.last()) else { return String::new() };
        let seconds = to.duration_since(*from).as_secs_f64();
        let rate = if seconds > 0.5 { (last - first) as f64 / seconds } else { 0.0 };
        match rate > 0.0 {
            true => format!("{rate:.0} events/s, {:.0} s left", left as f64 / rate),
            false => format!("{left} left"),
        }
    }
}
