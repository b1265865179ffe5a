//! `projector replay`

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::chosen::Chosen;
use super::{Common, Failure, Outcome, runtime};
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
    runtime()?.block_on(async {
        let chosen = Chosen::find(&options.common, &options.projection).await?;
        let plan = chosen.plan(chosen.live()?)?;
        let making = Making {
            state: State::Building,
            manual: options.manual,
            history_from: options.from.map(jiff::Timestamp::as_microsecond),
            max_rate: options.max_rate,
        };
        let generation = promotion::begin(&chosen.pool, &plan, making).await.map_err(Failure::refused)?;
        println!("{}: generation {} is built, by a daemon", chosen.name, generation.number);
        let outcome = match options.detach {
            true => Ok(()),
            false => until_shown(&chosen.pool, &chosen.settings, &generation).await,
        };
        chosen.pool.close().await;
        outcome
    })
}

/// Shows how a generation gets on, until readers see it, or would if somebody said so.
async fn until_shown(pool: &sqlx::PgPool, settings: &Settings, generation: &Generation) -> Outcome {
    let mut watched = Watched::new(pool, settings, generation)?;
    loop {
        let listed = list(pool).await.map_err(Failure::failed)?;
        let now = listed.iter().find(|listed| listed.generation.id == generation.id);
        watched.look().await?;
        if let Some(outcome) = ended(generation, now) {
            watched.bar.finish_and_clear();
            return outcome;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Shows how a generation gets on that nobody promotes, until it has nearly caught up with the live one.
pub async fn until_near(pool: &sqlx::PgPool, settings: &Settings, plan: &Plan, generation: &Generation) -> Outcome {
    /// A daemon begins to fold it within a second or a few.
    const BEGUN: Duration = Duration::from_secs(30);
    let begun = Instant::now();
    let mut watched = Watched::new(pool, settings, generation)?;
    loop {
        let progress = watched.look().await?;
        if progress.done == 0 && progress.all > 0 && begun.elapsed() > BEGUN {
            return Err(Failure::failed(format!(
                "nothing was folded within {} s; a daemon has to run (projector run)",
                BEGUN.as_secs()
            )));
        }
        let behind = promotion::behind(pool, plan, generation).await.map_err(Failure::failed)?;
        if behind.is_some_and(promotion::Behind::is_near) {
            watched.bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// How often is looked.
const EVERY: Duration = Duration::from_millis(250);

/// A generation whose progress is shown: by a bar, or now and then by a line where there is no terminal.
struct Watched<'w> {
    pool: &'w sqlx::PgPool,
    generation: &'w Generation,
    consumer: Arc<Consumer>,
    bar: ProgressBar,
    rate: Rate,
    told: Instant,
}

impl<'w> Watched<'w> {
    fn new(pool: &'w sqlx::PgPool, settings: &Settings, generation: &'w Generation) -> Result<Watched<'w>, Failure> {
        let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} events, {msg}")
            .map_err(|error| Failure::failed(format!("no progress bar: {error}")))?;
        let consumer = Consumer::new(&settings.kafka, &settings.fold, "projector-progress").map_err(Failure::failed)?;
        Ok(Watched {
            pool,
            generation,
            consumer: Arc::new(consumer),
            bar: ProgressBar::new(1).with_style(style),
            rate: Rate::default(),
            told: Instant::now(),
        })
    }

    async fn look(&mut self) -> Result<Progress, Failure> {
        halted(self.pool, self.generation).await?;
        let progress = Progress::of(self.pool, &self.consumer, self.generation).await?;
        self.rate.saw(progress.done);
        self.bar.set_length(progress.all.max(1) as u64);
        self.bar.set_position(progress.done as u64);
        let line = self.rate.line(&progress);
        self.bar.set_message(line.clone());
        if !std::io::stderr().is_terminal() && self.told.elapsed() > Duration::from_secs(5) {
            eprintln!("{} of {} events, {line}", progress.done, progress.all);
            self.told = Instant::now();
        }
        Ok(progress)
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

/// How it ended, if it has.
fn ended(generation: &Generation, now: Option<&Listed>) -> Option<Outcome> {
    let (name, number) = (&generation.projection, generation.number);
    match now {
        None => Some(Err(Failure::failed(format!("generation {number} of `{name}` was dropped meanwhile")))),
        Some(listed) if listed.state == State::Live => {
            println!("{name}: readers see generation {number}");
            Some(Ok(()))
        }
        Some(Listed { refused: Some(why), .. }) => {
            Some(Err(Failure::failed(format!("{name}: generation {number} is not promoted: {why}"))))
        }
        Some(listed) if listed.ready && listed.manual => {
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
    async fn of(pool: &sqlx::PgPool, consumer: &Arc<Consumer>, generation: &Generation) -> Result<Progress, Failure> {
        let own = status::offsets(pool, generation.id).await.map_err(Failure::failed)?;
        let live = status::partitions_of_live(pool, &generation.projection).await.map_err(Failure::failed)?;
        let consumer = consumer.clone();
        let asked = tokio::task::spawn_blocking(move || -> Result<Progress, SourceError> {
            let mut progress = Progress { done: 0, all: 0 };
            let there: BTreeMap<String, i32> = consumer.topics(None)?.into_iter().collect();
            let partitions: BTreeSet<&Partition> = live.iter().chain(own.keys()).collect();
            // Of a topic that is not there any more nothing is to be folded.
            for partition in partitions.into_iter().filter(|partition| there.contains_key(&partition.topic)) {
                let offsets = consumer.offsets(partition)?;
                progress.all += offsets.high - offsets.low;
                progress.done += own.get(partition).map_or(0, |next| (next - offsets.low).max(0));
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
