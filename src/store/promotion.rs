//! Promotion: readers are given another generation.
//!
//! Nobody who reads goes back in time: the checkpoints of the live generation are locked, so that it stands still, until
//! the new one has passed them and all that follows from there has followed. Then the views are swapped. It is one
//! transaction, with short patience for locks, so that no reader queues behind it for long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, PgPool};

use super::catalog;
use super::commit::Generation;
use super::error::StoreError;
use super::generations::{self, Listed, Making, State};
use super::sql::vouched;
use super::status::{offsets, offsets_of_what_is_there};
use super::{propagate, views};
use crate::checkpoint::Partition;
use crate::plan::Plan;
use crate::proof::{self, Sabotage};

/// What came of trying to promote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promoted {
    Done,
    /// So many events of the live one are missing in the other, or what follows from them.
    Behind(i64),
    /// Somebody else held a lock that is needed.
    Busy,
    /// Its indexes are not there yet.
    Unindexed,
    /// It cannot be, for a reason that does not pass by itself.
    Refused(String),
}

/// What is noted of a generation that has caught up, once. Of one that was there first nobody knows how long it took.
const CAUGHT_UP: &str = "ready_at = COALESCE(ready_at, now()),
    built_events = CASE WHEN ready_at IS NULL AND state = 'building'
        THEN (SELECT sum(c.events)::bigint FROM projector.checkpoints c WHERE c.generation_id = g.id) ELSE built_events END";

/// How long the live generation is kept standing still.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Lets readers see a generation that is being built or kept; the live one is kept from then on.
///
/// # Errors
/// What Postgres says; nothing has changed then.
pub async fn promote(
    pool: &PgPool,
    plan: &Plan,
    generation: &Generation,
    served_schema: &str,
) -> Result<Promoted, StoreError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let promoted = within(&mut transaction, plan, generation, served_schema).await;
    match promoted {
        Ok(Promoted::Done) => {
            proof::failpoint(proof::BEFORE_COMMIT);
            transaction.commit().await?;
            proof::failpoint(proof::AFTER_COMMIT);
            Ok(Promoted::Done)
        }
        Ok(other) => Ok(other),
        Err(error) if error.is_collision() || error.is_lock_timeout() => Ok(Promoted::Busy),
        Err(error) if error.is_transient() => Err(error),
        // Such as a mistake in the SQL file beside the projection.
        Err(error) => Ok(Promoted::Refused(error.to_string())),
    }
}

async fn within(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
    served_schema: &str,
) -> Result<Promoted, StoreError> {
    connection.execute("SET LOCAL lock_timeout = '1s'").await?;
    catalog::lock(connection).await?;
    let known = generations::list_of(connection, &generation.projection).await?;
    let Some(live) = known.iter().find(|listed| listed.state == State::Live) else {
        return Ok(Promoted::Refused(format!("`{}` has no live generation", generation.projection)));
    };
    let own = known.iter().find(|listed| listed.generation.id == generation.id);
    match own.map(|listed| (listed.state, listed.indexed)) {
        Some((State::Live, _)) => return Ok(Promoted::Done),
        Some((State::Building | State::Kept, true)) => {}
        Some((State::Building | State::Kept, false)) => return Ok(Promoted::Unindexed),
        Some((State::Scratch, _)) | None => {
            let number = generation.number;
            return Ok(Promoted::Refused(format!("generation {number} is there for comparison, or gone")));
        }
    }
    let held = hold(connection, live).await?;
    let behind = until_passed(connection, plan, generation, &held).await?;
    if !behind.has_passed() {
        return Ok(Promoted::Behind(behind.missing));
    }
    if !plan.edges.is_empty() && !until_followed(connection, generation).await? {
        return Ok(Promoted::Behind(0));
    }
    if let Err(reason) = views::swap(connection, plan, &live.generation, generation, served_schema).await? {
        return Ok(Promoted::Refused(reason));
    }
    sqlx::query("UPDATE projector.generations SET state = 'kept', replaced_at = now() WHERE id = $1")
        .bind(live.generation.id)
        .execute(&mut *connection)
        .await?;
    sqlx::query(vouched(format!(
        "UPDATE projector.generations g SET state = 'live', promoted_at = now(), {CAUGHT_UP},
                 replaced_at = NULL, refused = NULL WHERE id = $1"
    )))
    .bind(generation.id)
    .execute(connection)
    .await?;
    Ok(Promoted::Done)
}

/// Lets nobody move the checkpoints of the live generation. Returns them.
async fn hold(connection: &mut PgConnection, live: &Listed) -> Result<BTreeMap<Partition, i64>, StoreError> {
    generations::hold(connection, &[live.generation.id]).await?;
    offsets_of_what_is_there(connection, live.generation.id).await
}

/// How far a generation is behind the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// Events of the live one that it has not applied.
    pub missing: i64,
    /// Events of the live one, by offsets.
    pub of: i64,
    /// It has not begun with every partition that the live one reads.
    pub unbegun: bool,
}

impl Behind {
    fn has_passed(self) -> bool {
        self.missing == 0 && !self.unbegun
    }

    /// Whether it is near enough that the live one may wait for it.
    pub fn is_near(self) -> bool {
        const NEAR: i64 = 2_000;
        !self.unbegun && self.missing <= NEAR.min(self.of / 50)
    }
}

/// How far a generation is behind another's checkpoints. Topics that it does not read do not count.
async fn behind_of(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
    of: &BTreeMap<Partition, i64>,
) -> Result<Behind, StoreError> {
    let own = offsets(connection, generation.id).await?;
    let mut behind = Behind { missing: 0, of: 0, unbegun: false };
    for (partition, next) in of.iter().filter(|(partition, _)| plan.reads(&partition.topic)) {
        behind.of += next;
        match own.get(partition) {
            Some(at) => behind.missing += (next - at).max(0),
            None => (behind.missing, behind.unbegun) = (behind.missing + next, true),
        }
    }
    Ok(behind)
}

async fn until_passed(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
    held: &BTreeMap<Partition, i64>,
) -> Result<Behind, StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let behind = match proof::sabotaged(Sabotage::PromoteBehind) {
            true => Behind { missing: 0, of: 0, unbegun: false },
            false => behind_of(connection, plan, generation, held).await?,
        };
        if behind.has_passed() || Instant::now() > deadline {
            return Ok(behind);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What follows from what is applied by now has to have followed.
async fn until_followed(connection: &mut PgConnection, generation: &Generation) -> Result<bool, StoreError> {
    let deadline = Instant::now() + PATIENCE;
    let Some(horizon) = propagate::horizon(&mut *connection, &generation.schema).await? else { return Ok(true) };
    while !propagate::is_followed(&mut *connection, &generation.schema, horizon).await? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(true)
}

/// How far a generation is behind the live one. `None` when nothing is live.
///
/// # Errors
/// What Postgres says.
pub async fn behind(pool: &PgPool, plan: &Plan, generation: &Generation) -> Result<Option<Behind>, StoreError> {
    let mut connection = pool.acquire().await?;
    let live = "SELECT id FROM projector.generations WHERE projection = $1 AND state = 'live'";
    let live: Option<i64> =
        sqlx::query_scalar(live).bind(&generation.projection).fetch_optional(&mut *connection).await?;
    let Some(live) = live else { return Ok(None) };
    let live = offsets_of_what_is_there(&mut *connection, live).await?;
    behind_of(&mut connection, plan, generation, &live).await.map(Some)
}

/// Notes that a generation has caught up, or why it is not promoted all the same.
///
/// # Errors
/// What Postgres says.
pub async fn note(pool: &PgPool, generation: &Generation, refused: Option<&str>) -> Result<(), StoreError> {
    sqlx::query(vouched(format!(
        "UPDATE projector.generations g SET {CAUGHT_UP}, refused = $2
             WHERE id = $1 AND (ready_at IS NULL OR refused IS DISTINCT FROM $2)"
    )))
    .bind(generation.id)
    .bind(refused)
    .execute(pool)
    .await?;
    Ok(())
}

/// Takes a projection away, with its views and all its generations.
///
/// # Errors
/// What Postgres says, for example that something a person made stands on one of its views.
pub async fn take_away(pool: &PgPool, projection: &str, served_schema: &str) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    catalog::lock(&mut transaction).await?;
    for listed in generations::list_of(&mut transaction, projection).await? {
        if listed.state == State::Live {
            views::hide(&mut transaction, &listed.generation, served_schema).await?;
        }
        generations::drop(&mut transaction, &listed.generation).await?;
    }
    Ok(transaction.commit().await?)
}

/// Drops a generation that readers do not see, waiting for those who still use its tables: in short turns, so that they do
/// not keep everybody else from the catalog.
///
/// # Errors
/// The same as [`drop`]; that they are in use for too long, too.
pub async fn drop_when_free(pool: &PgPool, generation: &Generation) -> Result<(), StoreError> {
    const LONGEST: Duration = Duration::from_secs(60);
    let deadline = Instant::now() + LONGEST;
    loop {
        match drop(pool, generation).await {
            Err(error) if (error.is_lock_timeout() || error.is_collision()) && Instant::now() < deadline => {}
            other => return other,
        }
    }
}

/// Drops a generation that readers do not see.
///
/// # Errors
/// What Postgres says, or that it is the live one. A lock timeout, when its tables are in use.
pub async fn drop(pool: &PgPool, generation: &Generation) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    // Whoever reads its tables for long is not to keep everybody else from the catalog.
    transaction.execute("SET LOCAL lock_timeout = '1s'").await?;
    catalog::lock(&mut transaction).await?;
    let known = generations::list_of(&mut transaction, &generation.projection).await?;
    match known.iter().find(|listed| listed.generation.id == generation.id).map(|listed| listed.state) {
        None => return Ok(()),
        Some(State::Live) => {
            let (name, number) = (&generation.projection, generation.number);
            return Err(StoreError::Catalog(format!(
                "generation {number} of `{name}` is the one that readers see; promote another one first"
            )));
        }
        Some(_) => generations::drop(&mut transaction, generation).await?,
    }
    Ok(transaction.commit().await?)
}

/// Begins to build a generation of the same definition as the live one, or one for comparison.
///
/// # Errors
/// That one is being built already, or what Postgres says.
pub async fn begin(pool: &PgPool, plan: &Plan, making: Making) -> Result<Generation, StoreError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    catalog::lock(&mut transaction).await?;
    let known = generations::list_of(&mut transaction, &plan.name).await?;
    if making.state == State::Building
        && let Some(building) = known.iter().find(|listed| listed.state == State::Building)
    {
        let number = building.generation.number;
        return Err(StoreError::Catalog(format!(
            "generation {number} of `{0}` is being built already; see `projector status`, or give it up with: projector drop {0} {number}",
            plan.name
        )));
    }
    let manual = making.manual || plan.begins_late();
    let generation = generations::create(&mut transaction, plan, Making { manual, ..making }).await?;
    transaction.commit().await?;
    Ok(generation)
}
