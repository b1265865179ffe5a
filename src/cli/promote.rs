//! `projector promote`, `projector rollback` and `projector drop`

use std::time::{Duration, Instant};

use super::chosen::Chosen;
use super::{Common, Failure, Outcome, runtime};
use crate::config::Settings;
use crate::plan::Plan;
use crate::store::generations::{Listed, State};
use crate::store::promotion::{self, Promoted};

/// Which generation readers are to see.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// The one that was built.
    Built,
    /// One that was replaced: of this number, or the newest.
    Kept(Option<i32>),
}

pub fn promote(common: &Common, projection: &str, which: Which) -> Outcome {
    runtime()?.block_on(async {
        let chosen = Chosen::find(common, projection).await?;
        let listed = choose(&chosen, which)?;
        let plan = chosen.plan(listed)?;
        let outcome = until_promoted(&chosen.pool, &chosen.settings, listed, &plan).await;
        chosen.pool.close().await;
        outcome
    })
}

fn choose(chosen: &Chosen, which: Which) -> Result<&Listed, Failure> {
    let name = &chosen.name;
    let (found, else_said) = match which {
        Which::Built => {
            let none = format!("no generation of `{name}` is being built; see `projector status`");
            (chosen.newest(State::Building), none)
        }
        Which::Kept(None) => (chosen.newest(State::Kept), format!("no replaced generation of `{name}` is kept")),
        Which::Kept(Some(number)) => {
            let kept: Vec<String> =
                chosen.of_state(State::Kept).map(|kept| kept.generation.number.to_string()).collect();
            let kept = if kept.is_empty() { "none is".to_string() } else { format!("kept: {}", kept.join(", ")) };
            let found = chosen.of_state(State::Kept).find(|listed| listed.generation.number == number);
            (found, format!("generation {number} of `{name}` is not kept; {kept}"))
        }
    };
    found.ok_or_else(|| Failure::refused(else_said))
}

async fn until_promoted(pool: &sqlx::PgPool, settings: &Settings, listed: &Listed, plan: &Plan) -> Outcome {
    const PATIENCE: Duration = Duration::from_secs(60);
    /// One that had caught up may be a batch behind just now.
    const A_BATCH: Duration = Duration::from_secs(5);
    let generation = &listed.generation;
    let had_caught_up = listed.ready || listed.state == State::Kept;
    let begun = Instant::now();
    let (name, number) = (&generation.projection, generation.number);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let behind = promotion::behind(pool, plan, generation).await.map_err(Failure::failed)?;
        if let Some(behind) = behind.filter(|behind| !behind.is_near()) {
            if had_caught_up && begun.elapsed() < A_BATCH {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            return Err(Failure::failed(format!(
                "generation {number} of `{name}` is not where the live one is: {} events are missing; see `projector status`",
                behind.missing
            )));
        }
        match promotion::promote(pool, plan, generation, &settings.serve.schema).await.map_err(Failure::failed)? {
            Promoted::Done => {
                println!("{name}: readers see generation {number}");
                return Ok(());
            }
            Promoted::Refused(reason) => return Err(Failure::refused(format!("{name}: {reason}"))),
            Promoted::Unindexed => {
                return Err(Failure::failed(format!(
                    "generation {number} of `{name}` has not got all of its indexes yet: a daemon makes them when it has caught \
                     up; see `projector status`, and try again"
                )));
            }
            Promoted::Behind(_) | Promoted::Busy if Instant::now() < deadline => {}
            Promoted::Behind(missing) => {
                return Err(Failure::failed(format!(
                    "generation {number} of `{name}` stays behind the live one by {missing} events; does a daemon fold it?"
                )));
            }
            Promoted::Busy => {
                return Err(Failure::failed(format!(
                    "{name}: somebody holds a lock on its views or its catalog for longer than {} s",
                    PATIENCE.as_secs()
                )));
            }
        }
    }
}

/// Drops a generation; without a number, all of the projection.
pub fn drop(common: &Common, projection: &str, number: Option<i32>) -> Outcome {
    runtime()?.block_on(async {
        let Chosen { settings, pool, name, listed, .. } = Chosen::find(common, projection).await?;
        match number {
            None => {
                let taken = promotion::take_away(&pool, &name, &settings.serve.schema).await;
                taken.map_err(Failure::refused)?;
                println!("{name}: its views and all its generations are dropped");
            }
            Some(number) => {
                let Some(one) = listed.iter().find(|listed| listed.generation.number == number) else {
                    let there: Vec<String> = listed.iter().map(|listed| listed.generation.number.to_string()).collect();
                    let there = there.join(", ");
                    return Err(Failure::refused(format!("`{name}` has no generation {number}; there are {there}")));
                };
                promotion::drop_when_free(&pool, &one.generation).await.map_err(Failure::refused)?;
                println!("{name}: generation {number} is dropped");
            }
        }
        pool.close().await;
        Ok(())
    })
}
