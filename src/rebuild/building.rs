//! What a daemon does about generations that are being built, and about those that were replaced.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::Partition;
use crate::config::Settings;
use crate::plan::{Plan, Source, Topics};
use crate::source::{Consumer, SourceError};
use crate::store::finish::finish;
use crate::store::generations::{self, Listed, State};
use crate::store::promotion::{self, Promoted};
use crate::store::{Generation, StoreError, partitions, status};

/// Promotes generations that have caught up, and drops those that were kept for long enough.
pub async fn keep_building(pool: sqlx::PgPool, settings: Settings, plans: Vec<Plan>, stop: CancellationToken) {
    const EVERY: Duration = Duration::from_millis(250);
    /// While something is built: a short history should not wait for longer than it takes.
    const OFTEN: Duration = Duration::from_millis(100);
    let mut builder =
        Builder { pool, settings, plans, asked: HashMap::new(), rests: HashMap::new(), finishing: HashMap::new() };
    let mut wait = EVERY;
    while tokio::time::timeout(wait, stop.cancelled()).await.is_err() {
        wait = match builder.look().await {
            Ok(true) => OFTEN,
            Ok(false) => EVERY,
            // Lanes say so when Postgres is away.
            Err(error) => {
                tracing::debug!("building: {error}");
                EVERY
            }
        };
    }
    // Who starts next makes them anew.
    builder.finishing.values().for_each(JoinHandle::abort);
}

struct Builder {
    pool: sqlx::PgPool,
    settings: Settings,
    plans: Vec<Plan>,
    /// When it was looked last, beside which generations, whether topics are gone.
    asked: HashMap<i64, Instant>,
    /// Generations whose promotion did not succeed: when it is tried again, and how long was waited last.
    rests: HashMap<i64, (Instant, Duration)>,
    /// Generations whose late indexes are being made.
    finishing: HashMap<i64, JoinHandle<Result<(), StoreError>>>,
}

impl Builder {
    /// Does what there is to do now. Whether something is being built.
    async fn look(&mut self) -> Result<bool, StoreError> {
        let listed = generations::list(&self.pool).await?;
        let live_of = |beside: &Listed| {
            let of_projection = |other: &&Listed| other.generation.projection == beside.generation.projection;
            listed.iter().filter(of_projection).find(|other| other.state == State::Live)
        };
        for beside in listed.iter().filter(|listed| matches!(listed.state, State::Building | State::Scratch)) {
            if let Some(live) = live_of(beside) {
                self.miss_topics(beside, live).await?;
            }
        }
        for building in listed.iter().filter(|listed| listed.state == State::Building) {
            let rests = self.rests.get(&building.generation.id).is_some_and(|(until, _)| Instant::now() < *until);
            if rests || building.manual && building.ready {
                continue;
            }
            // One that this program cannot fold is another's to promote.
            let Ok(plan) = building.plan(&self.plans) else { continue };
            let Some(live) = live_of(building) else { continue };
            match self.catch_up(building, live, &plan).await {
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
        Ok(listed.iter().any(|listed| listed.state == State::Building && !listed.ready))
    }

    /// Finds out which topics of the live one are not there any more, of those that a pattern matches. The one beside it will
    /// never have them. A topic with a name of its own may still come.
    async fn miss_topics(&mut self, beside: &Listed, live: &Listed) -> Result<(), StoreError> {
        /// So long it has to begin with what is there, at first.
        const EVERY: Duration = Duration::from_secs(5);
        let asked = self.asked.entry(beside.generation.id).or_insert_with(Instant::now);
        if asked.elapsed() < EVERY {
            return Ok(());
        }
        *asked = Instant::now();
        let Ok(plan) = beside.plan(&self.plans) else { return Ok(()) };
        let own = status::offsets(&self.pool, beside.generation.id).await?;
        let of_live = status::offsets(&self.pool, live.generation.id).await?;
        let known = status::gone(&self.pool, live.generation.id).await?;
        let missing = of_live.into_keys().filter(|partition| !own.contains_key(partition));
        let doubtful = missing.map(|partition| partition.topic).chain(known.iter().cloned());
        let doubtful: BTreeSet<String> = doubtful.filter(|topic| is_by_pattern(&plan, topic)).collect();
        if doubtful.is_empty() {
            return Ok(());
        }
        let settings = self.settings.clone();
        let asked = tokio::task::spawn_blocking(move || -> Result<BTreeSet<String>, SourceError> {
            let consumer = Consumer::new(&settings.kafka, &settings.fold, "projector-building")?;
            Ok(consumer.topics(None)?.into_iter().map(|(topic, _)| topic).collect())
        });
        // When Kafka cannot be asked, it is asked again.
        let Ok(Ok(existing)) = asked.await else { return Ok(()) };
        let (there, gone): (Vec<String>, Vec<String>) =
            doubtful.into_iter().partition(|topic| existing.contains(topic));
        for topic in gone.iter().filter(|topic| !known.contains(topic)) {
            tracing::warn!("{}: the topic {topic} is not there any more, and is not waited for", beside.generation);
        }
        partitions::note_gone(&self.pool, live.generation.id, &gone, &there).await
    }

    /// An attempt keeps the live one waiting: the next is made later and later.
    fn rest(&mut self, generation: i64) {
        const LONGEST: Duration = Duration::from_secs(15);
        let waited = self.rests.get(&generation).map_or(Duration::from_millis(250), |(_, waited)| *waited);
        let wait = (waited * 2).min(LONGEST);
        self.rests.insert(generation, (Instant::now() + wait, wait));
    }

    /// Promotes a generation that has caught up. False when that was tried and did not succeed.
    async fn catch_up(&mut self, building: &Listed, live: &Listed, plan: &Plan) -> Result<bool, StoreError> {
        let generation = &building.generation;
        if status::halt(&self.pool, generation.id).await?.is_some() {
            return Ok(true);
        }
        let behind = promotion::behind(&self.pool, plan, generation).await?;
        if behind.is_none_or(|behind| !behind.is_near()) || !self.has_read_its_own(building, plan).await? {
            return Ok(true);
        }
        if !building.indexed {
            return self.finish(generation, plan).await;
        }
        if !building.ready {
            tracing::info!("{generation} has caught up");
            promotion::note(&self.pool, generation, None).await?;
        }
        if building.manual {
            return Ok(true);
        }
        if let Some(reason) = self.worse(generation.id, &live.generation).await? {
            self.refuse(building, &reason).await?;
            return Ok(false);
        }
        if let Some(reason) = self.lost(live, plan).await? {
            self.refuse(building, &reason).await?;
            return Ok(false);
        }
        match promotion::promote(&self.pool, plan, generation, &self.settings.serve.schema).await? {
            Promoted::Done => {
                tracing::info!("readers see {generation}");
                return Ok(true);
            }
            Promoted::Behind(_) | Promoted::Busy | Promoted::Unindexed => {}
            Promoted::Refused(reason) => self.refuse(building, &reason).await?,
        }
        Ok(false)
    }

    /// Has the late indexes of a generation made, beside all else. False when that was tried and did not succeed.
    async fn finish(&mut self, generation: &Generation, plan: &Plan) -> Result<bool, StoreError> {
        match self.finishing.remove(&generation.id) {
            Some(under_way) if !under_way.is_finished() => {
                self.finishing.insert(generation.id, under_way);
                Ok(true)
            }
            Some(ended) => match ended.await {
                Ok(finished) => finished.map(|()| true),
                // It was stopped with the daemon, or is a bug that has been told.
                Err(_) => Ok(false),
            },
            None => {
                tracing::info!("{generation} has caught up but for its indexes, which are made now");
                let (pool, plan, own) = (self.pool.clone(), plan.clone(), generation.clone());
                let under_way = tokio::spawn(async move { finish(&pool, &plan, &own).await });
                self.finishing.insert(generation.id, under_way);
                Ok(true)
            }
        }
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
    async fn worse(&self, generation: i64, live: &Generation) -> Result<Option<String>, StoreError> {
        let (new, old) = status::parked_beside(&self.pool, generation, live.id).await?;
        Ok((new > old).then(|| {
            format!(
                "{new} sequences are parked in it, and {old} in the live one; settle them with `projector dead-letters`, or promote \
                 it all the same with: projector promote {}",
                live.projection
            )
        }))
    }

    /// What readers would lose, if they would: what was made of topics that are not there any more, unless the definition
    /// accepts that history is gone.
    async fn lost(&self, live: &Listed, plan: &Plan) -> Result<Option<String>, StoreError> {
        let accepts = |topic: &str| source_of(plan, topic).is_none_or(|source| source.accept_truncated.is_some());
        let gone = status::gone(&self.pool, live.generation.id).await?;
        Ok(gone.iter().find(|topic| !accepts(topic)).map(|topic| {
            format!(
                "the topic {topic} is not there any more, and what the live one has of it is missing here; say accept_truncated \
                 in its source, or promote it all the same with: projector promote {}",
                plan.name
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

/// The source that reads a topic.
fn source_of<'p>(plan: &'p Plan, topic: &str) -> Option<&'p Source> {
    plan.sources.iter().find(|source| source.topics.matches(topic))
}

fn is_by_pattern(plan: &Plan, topic: &str) -> bool {
    source_of(plan, topic).is_some_and(|source| matches!(source.topics, Topics::Matching(_)))
}
