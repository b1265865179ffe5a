//! Two generations brought to the same place: what they make of the same events can be compared then.
//!
//! A place is written down that neither has passed, for each partition that both read. Nobody can commit anything beyond it,
//! and lanes that run into it go on to exactly there. It ends by itself after a while, should whoever wanted it die.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, PgPool, Postgres, Transaction};

use super::commit::Generation;
use super::error::StoreError;
use super::generations::hold;
use super::marks::is_followed;
use super::status::offsets_of_what_is_there;
use crate::plan::Plan;
use crate::proof::{self, Sabotage};

/// Nobody is stopped for longer.
const LONGEST: Duration = Duration::from_secs(30);

/// Two generations that stand still at the same place, until this is ended.
#[derive(Debug)]
pub struct Meeting {
    generations: [i64; 2],
    /// Holds the projection's place of meeting: there is one at a time.
    alone: Transaction<'static, Postgres>,
}

/// Class of the advisory lock; the projection's name is the other half.
const PLACE: i32 = 0x7072_6703;

/// Takes the projection's place of meeting.
///
/// # Errors
/// That another one is under way.
pub(super) async fn alone(pool: &PgPool, projection: &str) -> Result<Transaction<'static, Postgres>, StoreError> {
    let mut alone = pool.begin().await?;
    let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, hashtext($2))")
        .bind(PLACE)
        .bind(projection)
        .fetch_one(&mut *alone)
        .await?;
    match free {
        true => Ok(alone),
        false => Err(StoreError::Catalog(format!(
            "generations of `{projection}` are being compared by somebody else; try again when that is done"
        ))),
    }
}

/// By how many offsets two generations are apart, in partitions that both read.
const APART: &str = "SELECT sum(abs(a.next_offset - b.next_offset))::bigint FROM projector.checkpoints a
    JOIN projector.checkpoints b USING (topic, partition) WHERE a.generation_id = $1 AND b.generation_id = $2";

/// Lets generations go on that were stopped.
///
/// # Errors
/// What Postgres says; they go on by themselves then, after a while.
pub async fn release(pool: &PgPool, generations: &[i64]) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    release_within(&mut transaction, generations).await?;
    Ok(transaction.commit().await?)
}

/// The same, when a transaction is committed.
pub(super) async fn release_within(connection: &mut PgConnection, generations: &[i64]) -> Result<(), StoreError> {
    hold(connection, generations).await?;
    sqlx::query(
        "UPDATE projector.checkpoints SET stop_at = NULL, stop_until = NULL
         WHERE generation_id = ANY($1) AND stop_at IS NOT NULL",
    )
    .bind(generations)
    .execute(connection)
    .await?;
    Ok(())
}

/// Brings two generations to the same place.
///
/// # Errors
/// That they do not get there in time: nobody folds one of them, or it is far behind. Or what Postgres says.
pub async fn meet(
    pool: &PgPool,
    (one, one_plan): (&Generation, &Plan),
    (other, other_plan): (&Generation, &Plan),
) -> Result<Meeting, StoreError> {
    let generations = [one.id, other.id];
    let alone = alone(pool, &one.projection).await?;
    until_begun(pool, [(one, one_plan), (other, other_plan)]).await?;
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    // Locked, they cannot move while it is looked where they are.
    hold(&mut transaction, &generations).await?;
    if !proof::sabotaged(Sabotage::MeetingPlace) {
        sqlx::query(
            "UPDATE projector.checkpoints c SET stop_at = m.place, stop_until = clock_timestamp() + make_interval(secs => $2)
             FROM (SELECT topic, partition, max(next_offset) AS place FROM projector.checkpoints
                   WHERE generation_id = ANY($1) GROUP BY topic, partition HAVING count(*) = 2) AS m
             WHERE c.generation_id = ANY($1) AND c.topic = m.topic AND c.partition = m.partition",
        )
        .bind(generations)
        .bind(LONGEST.as_secs_f64())
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    let meeting = Meeting { generations, alone };
    match until_met(pool, [(one, one_plan), (other, other_plan)]).await {
        Ok(()) => Ok(meeting),
        Err(error) => {
            meeting.end(pool).await?;
            Err(error)
        }
    }
}

/// Waits until each has begun with every partition that the other reads, as far as it reads the topic at all.
async fn until_begun(pool: &PgPool, both: [(&Generation, &Plan); 2]) -> Result<(), StoreError> {
    let deadline = Instant::now() + LONGEST / 2;
    loop {
        let [one, other] = both.map(|(generation, _)| generation.id);
        let known = [offsets_of_what_is_there(pool, one).await?, offsets_of_what_is_there(pool, other).await?];
        let lacks = |at: usize| {
            let mut missing = known[1 - at].keys().filter(|partition| !known[at].contains_key(*partition));
            missing.any(|partition| both[at].1.reads(&partition.topic))
        };
        match (0..2).find(|at| lacks(*at)) {
            None => return Ok(()),
            Some(at) if Instant::now() > deadline => {
                let generation = both[at].0;
                return Err(StoreError::Catalog(format!(
                    "generation {} of `{}` has not begun with all partitions; does a daemon fold it?",
                    generation.number, generation.projection
                )));
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn until_met(pool: &PgPool, both: [(&Generation, &Plan); 2]) -> Result<(), StoreError> {
    let deadline = Instant::now() + LONGEST / 2;
    let generations = both.map(|(generation, _)| generation);
    let ids = generations.map(|generation| generation.id);
    loop {
        let missing: Option<i64> = sqlx::query_scalar(APART).bind(ids[0]).bind(ids[1]).fetch_one(pool).await?;
        let missing = missing.filter(|_| !proof::sabotaged(Sabotage::MeetingPlace));
        if missing.unwrap_or(0) == 0 {
            let mut followed = true;
            for (generation, plan) in both {
                followed &= is_followed(pool, plan, &generation.schema).await?;
            }
            if followed {
                return Ok(());
            }
        }
        if Instant::now() > deadline {
            let [one, other] = generations.map(|generation| generation.number);
            return Err(StoreError::Catalog(format!(
                "generations {one} and {other} of `{}` did not come to the same place within {} s ({} events are missing); does a \
                 daemon fold both, and have they caught up?",
                generations[0].projection,
                (LONGEST / 2).as_secs(),
                missing.unwrap_or(0)
            )));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Meeting {
    /// Lets nobody move a checkpoint before the transaction has ended, however long it takes.
    ///
    /// # Errors
    /// That they have moved already, or what Postgres says.
    pub async fn hold(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        connection.execute("SET LOCAL statement_timeout = 0").await?;
        hold(connection, &self.generations).await?;
        let [one, other] = self.generations;
        let apart: Option<i64> = sqlx::query_scalar(APART).bind(one).bind(other).fetch_one(connection).await?;
        match apart {
            Some(1..) => Err(StoreError::Catalog("it took too long to stop both generations; try again".into())),
            _ => Ok(()),
        }
    }

    /// Lets both go on.
    ///
    /// # Errors
    /// What Postgres says; they go on by themselves then, after a while.
    pub async fn end(self, pool: &PgPool) -> Result<(), StoreError> {
        release(pool, &self.generations).await?;
        Ok(self.alone.rollback().await?)
    }
}
