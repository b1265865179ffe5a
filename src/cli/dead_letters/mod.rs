//! `projector dead-letters`: finding parked events, and settling them.

mod act;
mod exchange;
mod look;
mod mark;

use clap::{Args, Subcommand};

use super::{Common, Failure, Format, Outcome, apply, runtime};
use crate::config::Settings;
use crate::event::Place;
use crate::store::catalog;
use crate::store::parked::desk::{self, Filter, Summary};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List parked events.
    List {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        which: Which,
        /// Only events with an error of their own, not those that wait behind them.
        #[arg(long)]
        failed: bool,
        /// Show at most so many.
        #[arg(long, default_value_t = 50)]
        limit: i64,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Show an event, with the place that fails marked, and what can be done.
    Show {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        which: Which,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Try parked events again, and those that wait behind them, in order.
    Retry {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        which: Which,
        /// Write nothing; show what would change in the rows.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        action: Action,
    },
    /// Pass events over for good. Every rebuild will pass them over too.
    Discard {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        which: Which,
        /// Why; it is kept with the decision.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        action: Action,
    },
    /// Let another payload stand for an event's own. Every rebuild will use it too; the original is kept.
    Correct {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        which: Which,
        /// File that holds the payload; `-` for standard input.
        #[arg(long)]
        payload: String,
        /// Why; it is kept with the decision.
        #[arg(long)]
        reason: String,
        /// Record it even if the event cannot be applied with this payload either.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        action: Action,
    },
    /// Write parked events as lines of JSON.
    Export {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        which: Which,
        /// Write the recorded decisions instead.
        #[arg(long)]
        decisions: bool,
    },
    /// Read lines of JSON that `export` wrote: a changed payload corrects its event, a `decision` is recorded.
    Import {
        #[command(flatten)]
        common: Common,
        /// The file; `-` for standard input.
        file: String,
        /// Why; it is kept with the decisions that bring no reason of their own.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        action: Action,
    },
    /// Show who did what about dead letters.
    Log {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        which: Which,
        /// The last so many lines.
        #[arg(long, default_value_t = 100)]
        limit: i64,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

/// Which events are meant.
#[derive(Debug, Clone, Default, Args)]
pub struct Which {
    /// One event: TOPIC/PARTITION@OFFSET.
    place: Option<String>,
    /// All that is parked in the event's sequence, not it alone.
    #[arg(long, requires = "place")]
    sequence: bool,
    /// Of this projection alone.
    #[arg(long)]
    projection: Option<String>,
    /// With this error code.
    #[arg(long)]
    code: Option<String>,
    /// Of this event type.
    #[arg(long = "type")]
    type_: Option<String>,
    /// With this record key.
    #[arg(long)]
    key: Option<String>,
    /// Of this topic.
    #[arg(long)]
    topic: Option<String>,
    /// All that are parked.
    #[arg(long, conflicts_with = "place")]
    all: bool,
}

/// Who acts, and how long to wait for what comes of it.
#[derive(Debug, Clone, Args)]
pub struct Action {
    /// Who is acting; the name of the login, if nothing is said.
    #[arg(long)]
    by: Option<String>,
    /// Wait at most so many seconds for the daemon to carry it out; 0 does not wait.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    wait: u64,
}

impl Action {
    fn who(&self) -> String {
        let login = || nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
        self.by.clone().or_else(login).unwrap_or_else(|| "unknown".into())
    }
}

/// The catalog, opened for an operator.
struct Desk {
    settings: Settings,
    pool: sqlx::PgPool,
}

pub fn dead_letters(verb: &Verb) -> Outcome {
    let common = match verb {
        Verb::List { common, .. }
        | Verb::Show { common, .. }
        | Verb::Retry { common, .. }
        | Verb::Discard { common, .. }
        | Verb::Correct { common, .. }
        | Verb::Export { common, .. }
        | Verb::Import { common, .. }
        | Verb::Log { common, .. } => common,
    };
    let settings = common.settings()?;
    runtime()?.block_on(async {
        let desk = Desk { pool: apply::pool(&settings)?, settings };
        catalog::require(&desk.pool).await.map_err(Failure::failed)?;
        let outcome = match verb {
            Verb::List { which, failed, limit, format, .. } => desk.list(which, *failed, *limit, *format).await,
            Verb::Show { which, format, .. } => desk.show(which, *format).await,
            Verb::Retry { which, dry_run: true, .. } => desk.try_retry(which).await,
            Verb::Retry { which, action, .. } => desk.retry(which, action).await,
            Verb::Discard { which, reason, action, .. } => desk.discard(which, reason, action).await,
            Verb::Correct { which, payload, reason, force, action, .. } => {
                desk.correct(which, payload, reason, *force, action).await
            }
            Verb::Export { which, decisions, .. } => desk.export(which, *decisions).await,
            Verb::Import { file, reason, action, .. } => desk.import(file, reason.as_deref(), action).await,
            Verb::Log { which, limit, format, .. } => desk.log(which, *limit, *format).await,
        };
        desk.pool.close().await;
        outcome
    })
}

impl Which {
    fn place(&self) -> Result<Option<Place>, Failure> {
        self.place.as_deref().map(parse_place).transpose()
    }

    fn filter(&self) -> Result<Filter, Failure> {
        let place = self.place()?;
        Ok(Filter {
            projection: self.projection.clone(),
            topic: place.as_ref().map(|place| place.topic.clone()).or_else(|| self.topic.clone()),
            partition: place.as_ref().map(|place| place.partition),
            offset: place.as_ref().map(|place| place.offset),
            code: self.code.clone(),
            type_: self.type_.clone(),
            key: self.key.clone(),
            failed: false,
            limit: i64::MAX,
        })
    }

    fn says_something(&self) -> bool {
        let filters = [&self.place, &self.projection, &self.code, &self.type_, &self.key, &self.topic];
        self.all || filters.iter().any(|filter| filter.is_some())
    }
}

/// Reads TOPIC/PARTITION@OFFSET, as errors and `list` write it.
fn parse_place(text: &str) -> Result<Place, Failure> {
    text.parse().map_err(|()| Failure::refused(format!("`{text}` is no event's place; it is written shop.orders/0@17")))
}

impl Desk {
    /// The letters that are meant, with the whole sequence where that is asked for.
    async fn chosen(&self, which: &Which) -> Result<Vec<Summary>, Failure> {
        if !which.says_something() {
            return Err(Failure::refused("say which events: TOPIC/PARTITION@OFFSET, --projection, --code, … or --all"));
        }
        let found = desk::list(&self.pool, &which.filter()?).await.map_err(Failure::failed)?;
        if found.is_empty() {
            return Err(Failure::refused("no parked event is meant by that; `projector dead-letters list` shows all"));
        }
        if !which.sequence {
            return Ok(found);
        }
        let mut whole = Vec::new();
        for letter in found {
            let place = letter.place();
            let offsets = desk::sequence_of(&self.pool, letter.generation, &place).await.map_err(Failure::failed)?;
            let of_partition = Filter {
                projection: Some(letter.projection.clone()),
                topic: Some(letter.topic.clone()),
                partition: Some(letter.partition),
                limit: i64::MAX,
                ..Filter::default()
            };
            let all = desk::list(&self.pool, &of_partition).await.map_err(Failure::failed)?;
            whole.extend(all.into_iter().filter(|other| offsets.contains(&other.offset)));
        }
        Ok(whole)
    }
}

/// A payload or key as text, where it is text.
fn text_or_hex(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_string(),
        Err(_) => format!("0x{}", hex::encode(bytes)),
    }
}
