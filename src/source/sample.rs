//! The last messages of a topic, read without a group.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::message::{Headers as _, Message as _};

use super::{Consumer, Polled, SourceError};
use crate::checkpoint::Partition;
use crate::config::{Fold, Kafka};

/// A message of a sample: text, as far as it is any.
#[derive(Debug, Clone)]
pub struct Sampled {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<String>,
    pub payload: Option<String>,
    pub headers: Vec<(String, String)>,
}

/// Reads the newest messages of a topic, at most so many, spread over its partitions, in the order of each.
///
/// # Errors
/// When Kafka does not answer.
pub fn sample(settings: &Kafka, topic: &str, most: usize) -> Result<Vec<Sampled>, SourceError> {
    const PATIENCE: Duration = Duration::from_secs(15);
    let consumer = Consumer::new(settings, &Fold::default(), "projector-sample")?;
    let count = consumer.topics(Some(topic))?.first().map_or(0, |(_, count)| *count);
    let share = (most / count.max(1) as usize).max(1) as i64;
    let mut wanted: BTreeMap<Partition, (i64, i64)> = BTreeMap::new();
    for partition in (0..count).map(|p| Partition::new(topic, p)) {
        let offsets = consumer.offsets(&partition)?;
        if offsets.high > offsets.low {
            wanted.insert(partition, ((offsets.high - share).max(offsets.low), offsets.high));
        }
    }
    consumer.assign(wanted.iter().map(|(partition, (from, _))| (partition, *from)))?;
    let mut found = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let mut in_vain = 0;
    // Markers of transactions take offsets and are no messages: an end is also what two long waits do not get past.
    while !wanted.is_empty() && Instant::now() < deadline && in_vain < 2 {
        match consumer.poll(Duration::from_secs(2)) {
            Polled::Message(message) => {
                in_vain = 0;
                let partition = Partition::new(message.topic(), message.partition());
                if wanted.get(&partition).is_some_and(|(_, end)| message.offset() + 1 >= *end) {
                    wanted.remove(&partition);
                }
                let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).to_string());
                let headers = message.headers().map(|headers| {
                    headers.iter().map(|h| (h.key.to_string(), text(h.value).unwrap_or_default())).collect()
                });
                found.push(Sampled {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: text(message.key()),
                    payload: text(message.payload()),
                    headers: headers.unwrap_or_default(),
                });
            }
            Polled::Nothing => in_vain += 1,
            _ => {}
        }
    }
    found.sort_by_key(|message| (message.partition, message.offset));
    Ok(found)
}
