//! What a lane does when it is given partitions: where to begin, what to wait for, when to refuse.

use std::collections::{BTreeMap, BTreeSet};

use super::Running;
use super::end::{End, Owned};
use crate::checkpoint::Partition;
use crate::plan::{Source, Start};
use crate::source::{Consumer, begin, resume};
use crate::store::parked;
use crate::store::partitions::{self, Checkpoint, Waits};

/// Loads or makes the checkpoints of newly assigned partitions.
///
/// # Errors
/// [`End::Halted`] when history is not what the generation needs; [`End::Retry`] when Kafka or Postgres is away.
pub fn take_over(
    running: &Running,
    runtime: &tokio::runtime::Handle,
    consumer: &Consumer,
    assigned: &[Partition],
) -> Result<BTreeMap<Partition, Owned>, End> {
    let mut owned = BTreeMap::new();
    let topics: BTreeSet<&str> = assigned.iter().map(|p| p.topic.as_str()).collect();
    for topic in topics {
        let Some(source) = running.plan.sources.iter().position(|source| source.topics.matches(topic)) else {
            continue;
        };
        let known = know_topic(running, runtime, consumer, &running.plan.sources[source], topic)?;
        let numbers: Vec<i32> = assigned.iter().filter(|p| p.topic == topic).map(|p| p.partition).collect();
        let (pool, generation) = (&running.pool, &running.generation);
        // After the checkpoints: what is parked meanwhile is found out by the first commit.
        let mut parked = runtime.block_on(parked::of_topic(pool, generation, topic, &numbers))?;
        for partition in assigned.iter().filter(|p| p.topic == topic) {
            let offsets = consumer.offsets(partition)?;
            let checkpoint = match known.get(&partition.partition) {
                Some(checkpoint) => checkpoint.clone(),
                None => add_partition(running, runtime, consumer, partition, offsets.low, &known)?,
            };
            resume(partition, checkpoint.next_offset, offsets).map_err(End::gap)?;
            let next = checkpoint.next_offset;
            let decisions = runtime.block_on(parked::decisions(pool, generation, partition, next))?;
            let here = parked.remove(&partition.partition).unwrap_or_default();
            let owns = Owned {
                source,
                next: checkpoint.next_offset,
                committed: checkpoint.next_offset,
                high: offsets.high,
                clock: checkpoint.clock,
                waits_for: checkpoint.waits_for,
                in_line: false,
                // Should there be one, the first commit runs into it.
                stop_at: None,
                blocked: here.blocked,
                parked: here.events,
                decisions,
            };
            owned.insert(partition.clone(), owns);
        }
    }
    Ok(owned)
}

/// The checkpoints of a topic. Whoever comes first records where all its partitions begin, in one statement.
fn know_topic(
    running: &Running,
    runtime: &tokio::runtime::Handle,
    consumer: &Consumer,
    source: &Source,
    topic: &str,
) -> Result<BTreeMap<i32, Checkpoint>, End> {
    let (pool, generation) = (&running.pool, &running.generation);
    let facts = running.admin.topic_facts(runtime, topic)?;
    let mut known = runtime.block_on(partitions::of_topic(pool, generation, topic))?;
    let mut truncated = None;
    if known.is_empty() {
        let count = consumer.topics(Some(topic))?.first().map_or(0, |(_, count)| *count);
        let accepted = source.accept_truncated.as_deref();
        let mut begins = Vec::new();
        for partition in (0..count).map(|p| Partition::new(topic, p)) {
            let offsets = consumer.offsets(&partition)?;
            let at_start = match source.start {
                Start::At(time) => consumer.offset_at(&partition, time)?,
                _ => None,
            };
            let begin = begin(&partition, source.start, offsets, at_start, facts.compacted, accepted.is_some())
                .map_err(End::gap)?;
            truncated = truncated.or(accepted.filter(|_| begin.truncated));
            begins.push((partition.partition, begin.offset));
        }
        let waits_for = joined_first(running, consumer, source)?;
        runtime.block_on(partitions::begin_topic(pool, generation, topic, &begins, &waits_for))?;
        known = runtime.block_on(partitions::of_topic(pool, generation, topic))?;
    }
    let identity =
        runtime.block_on(partitions::topic_identity(pool, generation, topic, facts.id.as_deref(), truncated))?;
    match (identity, facts.id) {
        (Some(before), Some(now)) if before != now => Err(End::halted(
            "topic-made-anew",
            format!(
                "the topic {topic} was deleted and made anew: its identity was {before} and is {now} now. Its offsets mean \
                 other events than the checkpoint's; build the view anew: projector apply --recreate {}",
                running.plan.name
            ),
        )),
        _ => Ok(known),
    }
}

/// What a topic that nothing was read of waits for: the topics of the tables that its own tables join. Rows whose
/// partners are there already are written once; the others would be written again when the partner comes.
fn joined_first(running: &Running, consumer: &Consumer, source: &Source) -> Result<Waits, End> {
    let mut waits_for = Waits::new();
    let sources = running.plan.read_first(source);
    if sources.is_empty() {
        return Ok(waits_for);
    }
    for (topic, count) in consumer.topics(None)? {
        // A topic is read for the first source that it matches: that one has to come first, or two could wait for each other.
        let reads = running.plan.sources.iter().find(|source| source.topics.matches(&topic));
        if !reads.is_some_and(|reads| sources.iter().any(|source| source.name == reads.name)) {
            continue;
        }
        for number in 0..count {
            let end = consumer.offsets(&Partition::new(&topic, number))?.high;
            waits_for.entry(topic.clone()).or_default().insert(number, end);
        }
    }
    Ok(waits_for)
}

/// A partition that came later: entities may have moved to it from the older ones, so it is read from its beginning once
/// those have passed the ends that they have now.
fn add_partition(
    running: &Running,
    runtime: &tokio::runtime::Handle,
    consumer: &Consumer,
    partition: &Partition,
    low: i64,
    known: &BTreeMap<i32, Checkpoint>,
) -> Result<Checkpoint, End> {
    let mut ends = BTreeMap::new();
    for older in known.keys() {
        let offsets = consumer.offsets(&Partition::new(&partition.topic, *older))?;
        ends.insert(*older, offsets.high);
    }
    let waits_for = Waits::from([(partition.topic.clone(), ends)]);
    tracing::info!(
        "{}: {partition} is new; it is read when the older partitions have passed their present ends",
        running.generation
    );
    runtime.block_on(partitions::begin(&running.pool, &running.generation, partition, low, &waits_for))?;
    Ok(Checkpoint { next_offset: low, clock: None, waits_for })
}

/// Partitions whose wait is over.
///
/// # Errors
/// [`End::Retry`] when Postgres is away.
pub fn waits_over(
    running: &Running,
    runtime: &tokio::runtime::Handle,
    owned: &BTreeMap<Partition, Owned>,
) -> Result<Vec<Partition>, End> {
    let mut over = Vec::new();
    for (partition, waiting) in owned.iter().filter(|(_, owned)| !owned.waits_for.is_empty()) {
        let mut all_passed = true;
        for (topic, ends) in &waiting.waits_for {
            let known = runtime.block_on(partitions::of_topic(&running.pool, &running.generation, topic))?;
            let passed = |(other, end): (&i32, &i64)| known.get(other).is_some_and(|c| c.next_offset >= *end);
            all_passed &= ends.iter().all(passed);
        }
        if all_passed {
            runtime.block_on(partitions::stop_waiting(&running.pool, &running.generation, partition))?;
            over.push(partition.clone());
        }
    }
    Ok(over)
}
