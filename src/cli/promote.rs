//! `projector promote`, `projector rollback` and `projector drop`

use std::time::{Duration, Instant};

use super::{Common, Failure, Outcome, apply, plans, runtime};
use crate::config::Settings;
use crate::store::generations::{self, Listed, State};
use crate::store::promotion::{self, Promoted};
use crate::store::read::source_of;

/// Which generation readers are to see.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// The one that was built.
    Built,
    /// One that was replaced: of this number, or the newest.
    Kept(Option<i32>),
}

pub fn promote(common: &Common, projection: &str, which: Which) -> Outcome {
    let settings = common.settings()?;
    // A projection that was taken out of the files can be promoted all the same: the catalog has its definition.
    let plans = if settings.projections.exists() { plans(&settings.projections)? } else { Vec::new() };
    runtime()?.block_on(async {
        let pool = apply::pool(&settings)?;
        let listed = of_projection(&pool, projection).await?;
        let chosen = choose(&listed, projection, which)?;
        let plan = chosen.plan(&plans).map_err(Failure::refused)?;
        let outcome = until_promoted(&pool, &settings, chosen, &plan).await;
        pool.close().await;
        outcome
    })
}

/// The generations of a projection that are folded. The name of one of its views will do.
pub async fn of_projection(pool: &sqlx::PgPool, projection: &str) -> Result<Vec<Listed>, Failure> {
    crate::store::catalog::require(pool).await.map_err(Failure::refused)?;
    let mut listed = generations::list(pool).await.map_err(Failure::failed)?;
    let known: Vec<String> = listed.iter().map(|listed| listed.generation.projection.clone()).collect();
    let of_view = source_of(pool, projection).await.map_err(Failure::failed)?.map(|source| source.projection);
    let name = if known.iter().any(|known| known == projection) {
        projection
    } else {
        of_view.as_deref().unwrap_or(projection)
    };
    listed.retain(|listed| listed.generation.projection == name);
    if listed.is_empty() {
        let near = crate::spec::diagnostic::suggest(projection, known.iter().map(String::as_str));
        let near = near.map(|near| format!("; {near}")).unwrap_or_default();
        return Err(Failure::refused(format!("the catalog has no projection `{projection}`{near}")));
    }
    Ok(listed)
}

fn choose<'l>(listed: &'l [Listed], projection: &str, which: Which) -> Result<&'l Listed, Failure> {
    let has = |state: State| listed.iter().filter(move |listed| listed.state == state);
    match which {
        Which::Built => has(State::Building).next().ok_or_else(|| {
            Failure::refused(format!("no generation of `{projection}` is being built; see `projector status`"))
        }),
        Which::Kept(None) => has(State::Kept)
            .max_by_key(|listed| listed.generation.number)
            .ok_or_else(|| Failure::refused(format!("no replaced generation of `{projection}` is kept"))),
        Which::Kept(Some(number)) => {
            has(State::Kept).find(|listed| listed.generation.number == number).ok_or_else(|| {
                let kept: Vec<String> = has(State::Kept).map(|kept| kept.generation.number.to_string()).collect();
                let kept = if kept.is_empty() { "none is".to_string() } else { format!("kept: {}", kept.join(", ")) };
                Failure::refused(format!("generation {number} of `{projection}` is not kept; {kept}"))
            })
        }
    }
}

async fn until_promoted(
    pool: &sqlx::PgPool,
    settings: &Settings,
    chosen: &Listed,
    plan: &crate::plan::Plan,
) -> Outcome {
    const PATIENCE: Duration = Duration::from_secs(60);
    let generation = &chosen.generation;
    let (name, number) = (&generation.projection, generation.number);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let behind = promotion::behind(pool, plan, generation).await.map_err(Failure::failed)?;
        if let Some(behind) = behind.filter(|behind| !behind.is_near()) {
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
    let settings = common.settings()?;
    runtime()?.block_on(async {
        let pool = apply::pool(&settings)?;
        let listed = of_projection(&pool, projection).await?;
        let Some(number) = number else {
            let taken = promotion::take_away(&pool, projection, &settings.serve.schema).await;
            taken.map_err(Failure::refused)?;
            pool.close().await;
            println!("{projection}: its views and all its generations are dropped");
            return Ok(());
        };
        let Some(chosen) = listed.iter().find(|listed| listed.generation.number == number) else {
            let there: Vec<String> = listed.iter().map(|listed| listed.generation.number.to_string()).collect();
            let there = there.join(", ");
            return Err(Failure::refused(format!("`{projection}` has no generation {number}; there are {there}")));
        };
        promotion::drop(&pool, &chosen.generation).await.map_err(Failure::refused)?;
        pool.close().await;
        println!("{projection}: generation {number} is dropped");
        Ok(())
    })
}
