//! `projector plan`

use std::collections::BTreeSet;
use std::process::ExitCode;

use serde_json::{Value as Json, json};

use super::{Common, Failure, Format, apply, count, plans, runtime};
use crate::checkpoint::Partition;
use crate::config::Settings;
use crate::plan::Plan;
use crate::plan::change::{Change, Need, changes};
use crate::source::{Consumer, SourceError};
use crate::store::facts::{Build, Facts, facts, last_build};
use crate::store::generations::{self, Listed, State};
use crate::store::upcasters::Compared;
use crate::store::{catalog, connect};

/// Exit code when something would change, for pipelines.
const CHANGES: u8 = 2;

/// What `apply` would do about one projection.
struct Step {
    name: String,
    what: What,
    changes: Vec<Change>,
    /// Events to be folded.
    events: i64,
    topics: BTreeSet<String>,
    /// Partitions whose early history is gone, and the first offset that is there.
    truncated: Vec<(Partition, i64)>,
    facts: Facts,
    /// The newest build that was measured.
    last_build: Option<Build>,
    /// Steps of upcasters that are new, or what is another one.
    upcasters: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Create,
    Rebuild,
    /// The definition is the same; upcasters or the program are others.
    RebuildSame,
    InPlace,
    /// Steps were added to upcasters: no row is another, and events that were parked for want of them can be retried.
    MoreUpcasters,
    Nothing,
    /// A newer definition was applied after this one.
    Superseded,
    /// The catalog has it, and no file does.
    Orphan,
}

pub fn plan(common: &Common, format: Format) -> Result<ExitCode, Failure> {
    let settings = common.settings()?;
    let plans = plans(&settings.projections)?;
    let steps = runtime()?.block_on(async {
        let pool = apply::pool(&settings)?;
        connect::check_server(&pool).await.map_err(Failure::failed)?;
        // A database without a catalog has nothing.
        let known = catalog::catalog_exists(&pool).await.map_err(Failure::failed)?;
        if known {
            catalog::require(&pool).await.map_err(Failure::refused)?;
        }
        let listed = if known { generations::list(&pool).await.map_err(Failure::failed)? } else { Vec::new() };
        let mut steps = Vec::new();
        for plan in &plans {
            let superseded = known && catalog::is_superseded(&pool, plan).await.map_err(Failure::failed)?;
            let mut step = step(&pool, &settings, plan, &listed, superseded).await?;
            if known && step.is_built() {
                step.last_build = last_build(&pool, &plan.name).await.map_err(Failure::failed)?;
            }
            steps.push(step);
        }
        pool.close().await;
        for orphan in listed.iter().filter(|listed| listed.state == State::Live) {
            if !plans.iter().any(|plan| plan.name == orphan.generation.projection) {
                steps.push(Step::plain(&orphan.generation.projection, What::Orphan));
            }
        }
        Ok::<_, Failure>(steps)
    })?;
    match format {
        Format::Json => println!("{}", Json::from(steps.iter().map(Step::to_json).collect::<Vec<_>>())),
        Format::Text => print(&steps),
    }
    let nothing = |step: &Step| matches!(step.what, What::Nothing | What::Superseded | What::Orphan);
    let something = !steps.iter().all(nothing);
    Ok(ExitCode::from(if something { CHANGES } else { 0 }))
}

async fn step(
    pool: &sqlx::PgPool,
    settings: &Settings,
    plan: &Plan,
    listed: &[Listed],
    superseded: bool,
) -> Result<Step, Failure> {
    let of_state =
        |state: State| listed.iter().find(|listed| listed.generation.projection == plan.name && listed.state == state);
    let (live, newest) = (of_state(State::Live), of_state(State::Building).or(of_state(State::Live)));
    let Some(newest) = newest else {
        let mut step = Step::plain(&plan.name, What::Create);
        step.history(settings, plan).await?;
        return Ok(step);
    };
    let upcasters = newest.upcasters_of(plan);
    let what = match newest.need(plan) {
        _ if superseded && !newest.is_current(plan) && !newest.is_by_another(plan) => What::Superseded,
        Need::Nothing if newest.is_current(plan) => match upcasters {
            Compared::More(_) => What::MoreUpcasters,
            _ => What::Nothing,
        },
        Need::Nothing => What::RebuildSame,
        Need::InPlace if newest.state == State::Live => What::InPlace,
        _ => What::Rebuild,
    };
    let mut step = Step::plain(&plan.name, what);
    step.changes = changes(&newest.definition, &plan.definition);
    step.upcasters = match upcasters {
        Compared::Same => Vec::new(),
        Compared::More(steps) => steps.iter().map(|step| format!("+ upcaster {step}")).collect(),
        Compared::Changed(name) => vec![format!("~ upcaster {name}")],
    };
    if step.is_built() {
        step.history(settings, plan).await?;
    }
    if let (Some(live), What::Rebuild | What::RebuildSame | What::InPlace) = (live, what) {
        step.facts = facts(pool, &live.generation, &settings.serve.schema).await.map_err(Failure::failed)?;
    }
    Ok(step)
}

impl Step {
    fn plain(name: &str, what: What) -> Step {
        Step {
            name: name.into(),
            what,
            changes: Vec::new(),
            events: 0,
            topics: BTreeSet::new(),
            truncated: Vec::new(),
            facts: Facts::default(),
            last_build: None,
            upcasters: Vec::new(),
        }
    }

    /// Whether history is folded for it.
    fn is_built(&self) -> bool {
        matches!(self.what, What::Create | What::Rebuild | What::RebuildSame)
    }

    /// About how many seconds it takes to fold what there is, by the newest build that was measured.
    fn estimate_s(&self) -> Option<f64> {
        self.last_build.and_then(|last| last.estimate_s(self.events))
    }

    /// What there is to be folded.
    async fn history(&mut self, settings: &Settings, plan: &Plan) -> Result<(), Failure> {
        let (settings, sources) = (settings.clone(), plan.sources.clone());
        let asked = tokio::task::spawn_blocking(move || -> Result<_, SourceError> {
            let consumer = Consumer::new(&settings.kafka, &settings.fold, "projector-plan")?;
            let mut found = Vec::new();
            for (topic, partitions) in consumer.topics(None)? {
                if !sources.iter().any(|source| source.topics.matches(&topic)) {
                    continue;
                }
                for number in 0..partitions {
                    let partition = Partition::new(topic.clone(), number);
                    let offsets = consumer.offsets(&partition)?;
                    found.push((partition, offsets));
                }
            }
            Ok(found)
        });
        let found = match asked.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(Failure::failed(format!("what there is to be folded is not known: {error}"))),
            Err(error) => return Err(Failure::failed(error)),
        };
        for (partition, offsets) in found {
            self.events += offsets.high - offsets.low;
            self.topics.insert(partition.topic.clone());
            let source = plan.sources.iter().find(|source| source.topics.matches(&partition.topic));
            if offsets.low > 0 && source.is_some_and(|source| source.accept_truncated.is_none()) {
                self.truncated.push((partition, offsets.low));
            }
        }
        Ok(())
    }

    fn headline(&self) -> String {
        let name = &self.name;
        match self.what {
            What::Create => format!("{name}: is new"),
            What::Rebuild => format!("{name}: is built anew, beside the view that readers see"),
            What::RebuildSame => {
                format!(
                    "{name}: is built anew: its rows were folded by other upcasters, or by another version of the program"
                )
            }
            What::InPlace => format!("{name}: changes in place; no row is another"),
            What::MoreUpcasters => format!(
                "{name}: steps are added to upcasters; no row is another. For events that were parked for want of one, start the \
                 daemons again, then: projector dead-letters retry --code no-upcaster"
            ),
            What::Nothing => format!("{name}: unchanged"),
            What::Superseded => format!("{name}: a newer definition was applied after this one; apply leaves it alone"),
            What::Orphan => format!("{name}: is in the catalog, and no file defines it; it is folded and served on"),
        }
    }

    fn to_json(&self) -> Json {
        let what = match self.what {
            What::Create => "create",
            What::Rebuild | What::RebuildSame => "rebuild",
            What::InPlace => "in-place",
            What::MoreUpcasters => "more-upcasters",
            What::Nothing => "unchanged",
            What::Superseded => "superseded",
            What::Orphan => "no-file",
        };
        let changes: Vec<Json> = self
            .changes
            .iter()
            .map(|change| json!({ "path": change.path.join("."), "old": change.old, "new": change.new }))
            .collect();
        let truncated: Vec<Json> = self
            .truncated
            .iter()
            .map(|(partition, low)| json!({ "partition": partition.to_string(), "first_offset": low }))
            .collect();
        json!({
            "projection": self.name, "action": what, "changes": changes, "events": self.events, "topics": self.topics,
            "truncated": truncated, "bytes": self.facts.bytes, "last_build_s": self.last_build.map(|last| last.seconds),
            "last_build_events": self.last_build.map(|last| last.events), "estimated_s": self.estimate_s(),
            "upcasters": self.upcasters, "dependants": self.facts.dependants,
        })
    }
}

fn print(steps: &[Step]) {
    for step in steps {
        println!("{}", step.headline());
        for change in &step.changes {
            println!("  {}", shortened(&change.to_string()));
        }
        for upcaster in &step.upcasters {
            println!("  {upcaster}");
        }
        if !step.topics.is_empty() {
            let topics: Vec<&str> = step.topics.iter().map(String::as_str).collect();
            println!("  history: {} of {}", count(step.events as usize, "event"), topics.join(", "));
        }
        for (partition, low) in &step.truncated {
            println!(
                "  history: {partition} begins at offset {low}: what was before is gone. It is refused unless the source says \
                 accept_truncated"
            );
        }
        if step.is_built() && step.events > 0 {
            println!("  time: {}", time(step.last_build, step.estimate_s()));
        }
        if step.facts.bytes > 0 && step.what != What::InPlace {
            println!("  disk: about as much as the present tables have, {}", size(step.facts.bytes));
        }
        if !step.facts.dependants.is_empty() {
            println!("  on top of it: {}", step.facts.dependants.join(", "));
        }
    }
    let of = |what: &[What]| steps.iter().filter(|step| what.contains(&step.what)).count();
    println!(
        "{} to create, {} to build anew, {} to change in place, {} unchanged",
        of(&[What::Create]),
        of(&[What::Rebuild, What::RebuildSame]),
        of(&[What::InPlace, What::MoreUpcasters]),
        of(&[What::Nothing, What::Superseded, What::Orphan])
    );
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 160;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into(),
    }
}

/// About how long a build takes, and how that is known.
fn time(last: Option<Build>, estimate_s: Option<f64>) -> String {
    let Some(last) = last else { return "not known; no build of it has been measured yet".into() };
    let measured = format!("{} in {}", count(last.events as usize, "event"), span(last.seconds));
    match estimate_s {
        Some(seconds) => format!("about {}; the last build folded {measured}", span(seconds)),
        None => format!("not known; the last build, {measured}, was too short to tell"),
    }
}

fn span(seconds: f64) -> String {
    match seconds {
        ..10.0 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..7_200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}

fn size(bytes: i64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.0} {}", UNITS[unit])
}
