//! Two generations brought to the same place: what they make of the same events can be compared then.
//!
//! A place is written down that neither has passed, for each partition that both read. Nobody can commit anything beyond it,
//! and lanes that run into it go on to exactly there. It ends by itself after a while, should whoever wanted it die.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, PgPool, Row};

use super::commit::Generation;
use super::error::StoreError;
use super::marks::marks_name;
use super::sql::vouched;
use crate::plan::Plan;
use crate::proof::{self, Sabotage};

/// Nobody is stopped for longer.
pub const LONGEST: Duration = Duration::from_secs(30);

/// Two generations that stand still at the same place, until this is ended.
#[derive(Debug)]
pub struct Meeting {
    generations: [i64; 2],
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
    until_begun(pool, [(one, one_plan), (other, other_plan)]).await?;
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    // Locked, they cannot move while it is looked where they are.
    sqlx::query("SELECT 1 FROM projector.checkpoints WHERE generation_id = ANY($1) ORDER BY generation_id, topic, partition FOR UPDATE")
        .bind(generations)
        .execute(&mut *transaction)
        .await?;
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
    let meeting = Meeting { generations };
    match until_met(pool, [one, other]).await {
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
        let mut known: [BTreeSet<(String, i32)>; 2] = Default::default();
        for (known, (generation, _)) in known.iter_mut().zip(both) {
            let rows = sqlx::query("SELECT topic, partition FROM projector.checkpoints WHERE generation_id = $1");
            for row in rows.bind(generation.id).fetch_all(pool).await? {
                known.insert((row.try_get(0)?, row.try_get(1)?));
            }
        }
        let reads = |plan: &Plan, topic: &str| plan.sources.iter().any(|source| source.topics.matches(topic));
        let lacks = |at: usize| {
            let missing = known[1 - at].difference(&known[at]);
            missing.clone().any(|(topic, _)| reads(both[at].1, topic))
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

async fn until_met(pool: &PgPool, generations: [&Generation; 2]) -> Result<(), StoreError> {
    let deadline = Instant::now() + LONGEST / 2;
    let ids = generations.map(|generation| generation.id);
    loop {
        let missing: Option<i64> = sqlx::query_scalar(
            "SELECT sum(stop_at - next_offset)::bigint FROM projector.checkpoints WHERE generation_id = ANY($1)",
        )
        .bind(ids)
        .fetch_one(pool)
        .await?;
        if missing.unwrap_or(0) == 0 {
            let mut followed = true;
            for generation in generations {
                followed &= has_followed(pool, generation).await?;
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

/// Whether nothing is left to be propagated.
async fn has_followed(pool: &PgPool, generation: &Generation) -> Result<bool, StoreError> {
    let name = marks_name(&generation.schema);
    let there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&name).fetch_one(pool).await?;
    if !there {
        return Ok(true);
    }
    let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM {name})");
    Ok(sqlx::query_scalar(vouched(sql)).fetch_one(pool).await?)
}

impl Meeting {
    /// Lets nobody move a checkpoint before the transaction has ended, however long it takes.
    ///
    /// # Errors
    /// That they have moved already, or what Postgres says.
    pub async fn hold(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        connection.execute("SET LOCAL statement_timeout = 0").await?;
        let moved: Option<bool> = sqlx::query_scalar(
            "SELECT bool_or(next_offset <> stop_at) FROM (
                 SELECT next_offset, stop_at FROM projector.checkpoints WHERE generation_id = ANY($1)
                 ORDER BY generation_id, topic, partition FOR UPDATE) AS c",
        )
        .bind(self.generations)
        .fetch_one(connection)
        .await?;
        match moved {
            Some(true) => Err(StoreError::Catalog("it took too long to stop both generations; try again".into())),
            _ => Ok(()),
        }
    }

    /// Lets both go on.
    ///
    /// # Errors
    /// What Postgres says; they go on by themselves then, after a while.
    pub async fn end(self, pool: &PgPool) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE projector.checkpoints SET stop_at = NULL, stop_until = NULL
             WHERE generation_id = ANY($1) AND stop_at IS NOT NULL",
        )
        .bind(self.generations)
        .execute(pool)
        .await?;
        Ok(())
    }
}
