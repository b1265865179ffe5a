//! What a daemon does about generations that are being built, and about those that were replaced.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::checkpoint::Partition;
use crate::config::Settings;
use crate::plan::{Plan, Topics};
use crate::source::{Consumer, SourceError};
use crate::store::generations::{self, Listed, State};
use crate::store::promotion::{self, Promoted};
use crate::store::{StoreError, status};

/// Promotes generations that have caught up, and drops those that were kept for long enough.
pub async fn keep_building(pool: sqlx::PgPool, settings: Settings, plans: Vec<Plan>, stop: CancellationToken) {
    const EVERY: Duration = Duration::from_millis(250);
    let mut builder = Builder { pool, settings, plans, rests: HashMap::new() };
    while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
        // Lanes say so when Postgres is away.
        if let Err(error) = builder.look().await {
            tracing::debug!("building: {error}");
        }
    }
}

struct Builder {
    pool: sqlx::PgPool,
    settings: Settings,
    plans: Vec<Plan>,
    /// Generations whose promotion did not succeed: when it is tried again, and how long was waited last.
    rests: HashMap<i64, (Instant, Duration)>,
}

impl Builder {
    async fn look(&mut self) -> Result<(), StoreError> {
        let listed = generations::list(&self.pool).await?;
        for building in listed.iter().filter(|listed| listed.state == State::Building) {
            let rests = self.rests.get(&building.generation.id).is_some_and(|(until, _)| Instant::now() < *until);
            if rests || building.manual && building.ready {
                continue;
            }
            // One that this program cannot fold is another's to promote.
            let Ok(plan) = building.plan(&self.plans) else { continue };
            match self.catch_up(building, &plan).await {
                Ok(true) => {}
                Ok(false) => self.rest(building.generation.id),
                Err(error) => {
                    self.rest(building.generation.id);
                    tracing::warn!("{}: {error}", building.generation);
                }
            }
        }
        let names: BTreeSet<&str> = listed.iter().map(|listed| listed.generation.projection.as_str()).collect();
        for name in names {
            let forgotten = self.forget(listed.iter().filter(|listed| listed.generation.projection == name)).await;
            if let Err(error) = forgotten {
                // Somebody still reads its tables.
                tracing::debug!("{name}: what was kept is not dropped yet: {error}");
            }
        }
        Ok(())
    }

    /// An attempt keeps the live one waiting: the next is made later and later.
    fn rest(&mut self, generation: i64) {
        const LONGEST: Duration = Duration::from_secs(15);
        let waited = self.rests.get(&generation).map_or(Duration::from_millis(250), |(_, waited)| *waited);
        let wait = (waited * 2).min(LONGEST);
        self.rests.insert(generation, (Instant::now() + wait, wait));
    }

    /// Promotes a generation that has caught up. False when that was tried and did not succeed.
    async fn catch_up(&self, building: &Listed, plan: &Plan) -> Result<bool, StoreError> {
        let generation = &building.generation;
        if status::halt(&self.pool, generation.id).await?.is_some() {
            return Ok(true);
        }
        let behind = promotion::behind(&self.pool, plan, generation).await?;
        if behind.is_none_or(|behind| !behind.is_near()) || !self.has_read_its_own(building, plan).await? {
            return Ok(true);
        }
        if !building.ready {
            tracing::info!("{generation} has caught up");
            promotion::note(&self.pool, generation, None).await?;
        }
        if building.manual {
            return Ok(true);
        }
        if let Some(reason) = self.worse(generation.id, &generation.projection).await? {
            self.refuse(building, &reason).await?;
            return Ok(false);
        }
        match promotion::promote(&self.pool, plan, generation, &self.settings.serve.schema).await? {
            Promoted::Done => {
                tracing::info!("readers see {generation}");
                return Ok(true);
            }
            Promoted::Behind(_) | Promoted::Busy => {}
            Promoted::Refused(reason) => self.refuse(building, &reason).await?,
        }
        Ok(false)
    }

    async fn refuse(&self, building: &Listed, reason: &str) -> Result<(), StoreError> {
        if building.refused.as_deref() != Some(reason) {
            let generation = &building.generation;
            tracing::warn!("{generation} is not promoted: {reason}");
            promotion::note(&self.pool, generation, Some(reason)).await?;
        }
        Ok(())
    }

    /// Why readers would be worse off, if they would be.
    async fn worse(&self, generation: i64, projection: &str) -> Result<Option<String>, StoreError> {
        let new = status::parked(&self.pool, generation).await?;
        let old = status::parked_live(&self.pool, projection).await?;
        Ok((new > old).then(|| {
            format!(
                "{new} sequences are parked in it, and {old} in the live one; settle them with `projector dead-letters`, or promote \
                 it all the same with: projector promote {projection}"
            )
        }))
    }

    /// Whether it has read what the live one does not read at all, to the end as it is now.
    async fn has_read_its_own(&self, building: &Listed, plan: &Plan) -> Result<bool, StoreError> {
        let own = status::offsets(&self.pool, building.generation.id).await?;
        let live = status::partitions_of_live(&self.pool, &building.generation.projection).await?;
        let named = plan.sources.iter().filter_map(|source| match &source.topics {
            Topics::Named(topic) => Some(topic.clone()),
            Topics::Matching(_) => None,
        });
        let known = own.keys().map(|partition| partition.topic.clone());
        let topics: BTreeSet<String> =
            named.chain(known).filter(|topic| live.iter().all(|read| read.topic != *topic)).collect();
        if topics.is_empty() {
            return Ok(true);
        }
        let settings = self.settings.clone();
        let read = tokio::task::spawn_blocking(move || -> Result<bool, SourceError> {
            let consumer = Consumer::new(&settings.kafka, &settings.fold, "projector-building")?;
            for topic in topics {
                for (topic, partitions) in consumer.topics(Some(&topic))? {
                    for number in 0..partitions {
                        let partition = Partition::new(topic.clone(), number);
                        let end = consumer.offsets(&partition)?.high;
                        let next = own.get(&partition).copied().unwrap_or(0);
                        if next < end {
                            return Ok(false);
                        }
                    }
                }
            }
            Ok(true)
        });
        // When Kafka cannot be asked, it is asked again.
        Ok(matches!(read.await, Ok(Ok(true))))
    }

    /// Drops what was kept for long enough, of one projection.
    async fn forget(&self, listed: impl Iterator<Item = &Listed>) -> Result<(), StoreError> {
        let mut kept: Vec<&Listed> = listed.filter(|listed| listed.state == State::Kept).collect();
        kept.sort_by(|a, b| a.replaced_s.unwrap_or(0.0).total_cmp(&b.replaced_s.unwrap_or(0.0)));
        let rebuild = &self.settings.rebuild;
        for (at, old) in kept.iter().enumerate() {
            let age_s = old.replaced_s.unwrap_or(0.0);
            if at >= rebuild.keep_generations || age_s > rebuild.keep_for_s as f64 {
                promotion::drop(&self.pool, &old.generation).await?;
                tracing::info!("{} was kept for long enough", old.generation);
            }
        }
        Ok(())
    }
}
