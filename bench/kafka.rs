//! Topics, a producer and a bare consumer.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use crate::Result;

pub const PARTITIONS: i32 = 8;
const PATIENCE: Duration = Duration::from_secs(30);

pub type Producer = ThreadedProducer<DefaultProducerContext>;

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

/// Makes a topic and waits until the broker leads all of its partitions.
pub async fn create_topic(brokers: &str, name: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create()?;
    let topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1));
    for created in admin.create_topics([&topic], &AdminOptions::new()).await? {
        created.map_err(|(name, code)| format!("the topic {name} could not be made: {code}"))?;
    }
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let metadata = admin.inner().fetch_metadata(Some(name), PATIENCE)?;
        let partitions = metadata.topics().iter().filter(|t| t.error().is_none()).flat_map(|t| t.partitions());
        if partitions.filter(|partition| partition.leader() >= 0).count() == PARTITIONS as usize {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("the topic {name} has no leaders after {} s", PATIENCE.as_secs()).into())
}

/// A producer that keeps the order of a key's events even when it has to send again.
pub fn producer(brokers: &str, properties: &[(&str, &str)]) -> Result<Producer> {
    let mut config = config(brokers);
    config.set("enable.idempotence", "true");
    for (name, value) in properties {
        config.set(*name, *value);
    }
    Ok(config.create()?)
}

/// A producer for a whole history.
pub fn bulk_producer(brokers: &str) -> Result<Producer> {
    let properties = [
        ("compression.type", "lz4"),
        ("linger.ms", "20"),
        ("queue.buffering.max.messages", "200000"),
        ("queue.buffering.max.kbytes", "262144"),
    ];
    producer(brokers, &properties)
}

/// Hands over a CloudEvent in structured mode, waiting while the producer's queue is full.
pub fn send(producer: &Producer, topic: &str, key: &str, payload: &str) -> Result<()> {
    let content_type = Header { key: "content-type", value: Some("application/cloudevents+json; charset=UTF-8") };
    let headers = OwnedHeaders::new_with_capacity(1).insert(content_type);
    let mut record = BaseRecord::to(topic).key(key).payload(payload).headers(headers);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                record = unsent;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Waits until everything is sent. Whether everything arrived is told by [`ends`].
pub fn finish(producer: &Producer) -> Result<()> {
    Ok(producer.flush(4 * PATIENCE)?)
}

/// The sum of the ends of a topic's partitions: how many events there are, as none was ever deleted.
pub fn ends(brokers: &str, topic: &str) -> Result<i64> {
    let consumer: BaseConsumer = config(brokers).create()?;
    let mut sum = 0;
    for partition in 0..PARTITIONS {
        let (_, end) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
        sum += end;
    }
    Ok(sum)
}

/// Reads a topic from its beginning and does nothing with it. Returns the seconds that took, connecting included, and
/// the bytes of all payloads.
pub fn read_all(brokers: &str, topic: &str, events: u64) -> Result<(f64, u64)> {
    let mut config = config(brokers);
    config
        .set("group.id", "bench") // needed to assign partitions; no group is joined
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "1")
        .set("queued.min.messages", "50000");
    let mut beginnings = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        beginnings.add_partition_offset(topic, partition, Offset::Offset(0))?;
    }
    let started = Instant::now();
    let consumer: BaseConsumer = config.create()?;
    consumer.assign(&beginnings)?;
    let mut bytes = 0;
    for read in 0..events {
        let Some(message) = consumer.poll(PATIENCE) else {
            return Err(format!("only {read} of {events} events could be read from {topic}").into());
        };
        bytes += message?.payload().map_or(0, <[u8]>::len) as u64;
    }
    Ok((started.elapsed().as_secs_f64(), bytes))
}
