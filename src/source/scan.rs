//! Parts of partitions, read once from one offset to another, without a group.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::{Consumer, Polled, SourceError, record_of};
use crate::checkpoint::Partition;
use crate::config::{Fold, Kafka};
use crate::event::Record;

/// The offsets that are read of each partition.
pub type Ranges = BTreeMap<Partition, Range<i64>>;

/// Hands over every message of these parts, each partition's in order. Offsets may be without one: transaction markers
/// take some, and compaction leaves some empty.
///
/// # Errors
/// When Kafka says nothing for long, or no longer has what is asked for.
pub fn scan(
    settings: &Kafka,
    fold: &Fold,
    ranges: &Ranges,
    each: &mut dyn FnMut(&Record<'_>),
) -> Result<(), SourceError> {
    // One topic after the other: of an end that is reached, the partition's number alone is told.
    let mut topics: BTreeMap<&str, BTreeMap<i32, Range<i64>>> = BTreeMap::new();
    for (partition, range) in ranges.iter().filter(|(_, range)| !range.is_empty()) {
        topics.entry(&partition.topic).or_default().insert(partition.partition, range.clone());
    }
    topics.into_iter().try_for_each(|(topic, open)| scan_topic(settings, fold, topic, open, each))
}

fn scan_topic(
    settings: &Kafka,
    fold: &Fold,
    topic: &str,
    mut open: BTreeMap<i32, Range<i64>>,
    each: &mut dyn FnMut(&Record<'_>),
) -> Result<(), SourceError> {
    const PATIENCE: Duration = Duration::from_secs(60);
    // A consumer of its own, so that nothing of another topic is left in the queue.
    let consumer = Consumer::new(settings, fold, "projector-scan")?;
    let begins: Vec<(Partition, i64)> =
        open.iter().map(|(number, range)| (Partition::new(topic, *number), range.start)).collect();
    consumer.assign(begins.iter().map(|(partition, from)| (partition, *from)))?;
    let mut heard = Instant::now();
    let mut problem = String::new();
    while !open.is_empty() {
        if heard.elapsed() > PATIENCE {
            return Err(unreadable(topic, &format!("gave nothing for {} s{problem}", PATIENCE.as_secs())));
        }
        let through = match consumer.poll(Duration::from_millis(500)) {
            Polled::Message(message) => {
                heard = Instant::now();
                hand_over(&record_of(&message), &open, each)
            }
            // There is nothing more, whatever the last offsets were used for.
            Polled::EndOfPartition(number) => Some(number),
            Polled::NoTopic => return Err(unreadable(topic, "is not there any more")),
            Polled::OutOfRange => return Err(unreadable(topic, "has lost events while it was read; try again")),
            Polled::Nothing => None,
            // librdkafka tries on by itself.
            Polled::Problem(error) => {
                problem = format!(": {error}");
                None
            }
        };
        if let Some(number) = through
            && open.remove(&number).is_some()
        {
            heard = Instant::now();
            consumer.unassign(&[Partition::new(topic, number)])?;
        }
    }
    Ok(())
}

/// Hands over a message, if it is wanted. Returns its partition's number when nothing after it is.
fn hand_over(record: &Record<'_>, open: &BTreeMap<i32, Range<i64>>, each: &mut dyn FnMut(&Record<'_>)) -> Option<i32> {
    let range = open.get(&record.partition)?;
    if range.contains(&record.offset) {
        each(record);
    }
    (record.offset + 1 >= range.end).then_some(record.partition)
}

fn unreadable(topic: &str, why: &str) -> SourceError {
    SourceError::Unreadable(format!("the topic {topic} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: i32, offset: i64) -> Record<'static> {
        Record { topic: "t", partition, offset, time: None, key: None, payload: None, headers: Vec::new() }
    }

    #[test]
    fn a_partition_is_through_with_its_last_offset_or_what_comes_after_it() {
        let open = BTreeMap::from([(0, 3..6)]);
        let mut got = Vec::new();
        let mut take = |partition, offset| {
            hand_over(&record(partition, offset), &open, &mut |record| got.push((record.partition, record.offset)))
        };
        assert_eq!(take(0, 3), None);
        assert_eq!(take(0, 5), Some(0));
        // The offsets before it were markers.
        assert_eq!(take(0, 8), Some(0));
        assert_eq!(take(1, 4), None, "nothing is wanted of it any more");
        assert_eq!(got, [(0, 3), (0, 5)]);
    }
}
