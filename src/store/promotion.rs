//! Promotion: readers are given another generation.
//!
//! Nobody who reads goes back in time: the checkpoints of the live generation are locked, so that it stands still, until
//! the new one has passed them and all that follows from there has followed. Then the views are swapped. It is one
//! transaction, with short patience for locks, so that no reader queues behind it for long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, PgPool, Row};

use super::catalog;
use super::commit::Generation;
use super::error::StoreError;
use super::generations::{self, Listed, Making, State};
use super::{propagate, views};
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
    /// It cannot be, for a reason that does not pass by itself.
    Refused(String),
}

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
    match known.iter().find(|listed| listed.generation.id == generation.id).map(|listed| listed.state) {
        Some(State::Building | State::Kept) => {}
        Some(State::Live) => return Ok(Promoted::Done),
        _ => {
            let number = generation.number;
            return Ok(Promoted::Refused(format!("generation {number} is there for comparison, or gone")));
        }
    }
    let held = hold(connection, live).await?;
    let missing = until_passed(connection, plan, generation, &held).await?;
    if missing.missing > 0 || missing.unbegun {
        return Ok(Promoted::Behind(missing.missing));
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
    sqlx::query(
        "UPDATE projector.generations SET state = 'live', promoted_at = now(), ready_at = COALESCE(ready_at, now()),
             replaced_at = NULL, refused = NULL WHERE id = $1",
    )
    .bind(generation.id)
    .execute(connection)
    .await?;
    Ok(Promoted::Done)
}

type Vector = BTreeMap<(String, i32), i64>;

/// Lets nobody move the checkpoints of the live generation. Returns them.
async fn hold(connection: &mut PgConnection, live: &Listed) -> Result<Vector, StoreError> {
    let rows = sqlx::query(
        "SELECT topic, partition, next_offset FROM projector.checkpoints WHERE generation_id = $1
         ORDER BY topic, partition FOR UPDATE",
    )
    .bind(live.generation.id)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))).collect()
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
    of: &Vector,
) -> Result<Behind, StoreError> {
    let rows = sqlx::query("SELECT topic, partition, next_offset FROM projector.checkpoints WHERE generation_id = $1")
        .bind(generation.id)
        .fetch_all(connection)
        .await?;
    let mut own = Vector::new();
    for row in &rows {
        own.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    let mut behind = Behind { missing: 0, of: 0, unbegun: false };
    for (partition, next) in of.iter().filter(|((topic, _), _)| plan.reads(topic)) {
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
    held: &Vector,
) -> Result<Behind, StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let behind = match proof::sabotaged(Sabotage::PromoteBehind) {
            true => Behind { missing: 0, of: 0, unbegun: false },
            false => behind_of(connection, plan, generation, held).await?,
        };
        if behind.missing == 0 && !behind.unbegun || Instant::now() > deadline {
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
    let rows = sqlx::query(
        "SELECT c.topic, c.partition, c.next_offset FROM projector.generations g
         LEFT JOIN projector.checkpoints c ON c.generation_id = g.id WHERE g.projection = $1 AND g.state = 'live'",
    )
    .bind(&generation.projection)
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut live = Vector::new();
    for row in &rows {
        if let (Some(topic), Some(partition), Some(next)) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?) {
            live.insert((topic, partition), next);
        }
    }
    behind_of(&mut connection, plan, generation, &live).await.map(Some)
}

/// Notes that a generation has caught up, or why it is not promoted all the same.
///
/// # Errors
/// What Postgres says.
pub async fn note(pool: &PgPool, generation: &Generation, refused: Option<&str>) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projector.generations SET ready_at = COALESCE(ready_at, now()), refused = $2
         WHERE id = $1 AND (ready_at IS NULL OR refused IS DISTINCT FROM $2)",
    )
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

/// Drops a generation that readers do not see.
///
/// # Errors
/// What Postgres says, or that it is the live one.
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
