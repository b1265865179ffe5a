//! A member of a consumer group that hands over what happens to it, one thing at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::{Offsets, SourceError};
use crate::checkpoint::Partition;
use crate::config::{Fold, Kafka, password};
use crate::event::Record;

const QUERY: Duration = Duration::from_secs(10);

/// The librdkafka properties that the settings ask for.
///
/// # Errors
/// When the password file cannot be read.
pub fn client_config(settings: &Kafka) -> Result<ClientConfig, SourceError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.brokers).set("client.id", "projector");
    config.set("security.protocol", settings.security.replace('-', "_"));
    config.set("log.connection.close", "false");
    if settings.security.starts_with("sasl") {
        config.set("sasl.mechanism", &settings.sasl_mechanism).set("sasl.username", &settings.user);
        if let Some(password) = password(settings.password_file.as_deref(), "kafka_password")? {
            config.set("sasl.password", password.expose_secret());
        }
    }
    // The OpenSSL inside has no idea where this system keeps its certificates; `probe` looks for them.
    let ca_file = settings.ca_file.as_ref().map_or("probe".into(), |file| file.to_string_lossy());
    config.set("ssl.ca.location", ca_file);
    for (name, value) in &settings.properties {
        config.set(name, value);
    }
    config.set_log_level(RDKafkaLogLevel::Warning);
    Ok(config)
}

/// A change of what this member owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupEvent {
    Assigned(Vec<Partition>),
    /// `lost`: the group has given them to others already.
    Revoked {
        partitions: Vec<Partition>,
        lost: bool,
    },
}

/// What one poll brought.
pub enum Polled<'c> {
    Message(BorrowedMessage<'c>),
    /// The whole wait was in vain: the queue is empty.
    Nothing,
    /// The end of a partition of this number was reached, of whichever topic; messages of others may stand behind this
    /// in the queue.
    EndOfPartition(i32),
    /// A topic that is subscribed to does not exist yet.
    NoTopic,
    /// The log no longer has the offset that was asked for.
    OutOfRange,
    Problem(KafkaError),
}

/// What librdkafka's statistics say of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// The next offset to be written, as of the last fetch.
    pub high: i64,
    /// The end that fetching has reached; transaction markers before it are no messages. -1001 if none.
    pub end_reached: i64,
    /// Microseconds since anything was heard of the broker that leads it.
    pub silent_us: i64,
}

/// Microseconds of the clock that librdkafka dates its statistics by.
pub fn clock() -> i64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // A clock that does not tell makes every report too old to count.
    now.map_or(i64::MAX, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000)
}

pub struct Consumer {
    inner: BaseConsumer<Context>,
}

#[derive(Default)]
struct Context {
    group_events: Mutex<VecDeque<GroupEvent>>,
    watched: Mutex<Option<(i64, HashMap<Partition, Watched>)>>,
    complaint: Mutex<Option<(String, Instant)>>,
    /// Nobody asks for group events any more: leaving is answered at once.
    leaving: AtomicBool,
}

impl Context {
    /// A broker that is away is told once, not with every attempt to reach it.
    fn complain(&self, message: String) {
        const AGAIN: Duration = Duration::from_secs(300);
        let mut last = self.complaint.lock().unwrap_or_else(|e| e.into_inner());
        if last.as_ref().is_none_or(|(_, at)| at.elapsed() >= AGAIN) {
            tracing::warn!("Kafka: {message}; trying on");
            *last = Some((message, Instant::now()));
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!("librdkafka {level:?} {facility}: {message}");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) else { return };
        let silent = |leader: i32| {
            let broker = statistics.brokers.values().find(|broker| broker.nodeid == leader);
            broker.map_or(i64::MAX, |broker| broker.rxidle)
        };
        let mut watched = HashMap::new();
        for (topic, entry) in &statistics.topics {
            for (partition, entry) in &entry.partitions {
                if let Ok(partition) = partition.parse::<i32>().map(|p| Partition::new(topic.clone(), p)) {
                    let silent_us = silent(entry.leader);
                    let (high, end_reached) = (entry.hi_offset, entry.eof_offset);
                    watched.insert(partition, Watched { high, end_reached, silent_us });
                }
            }
        }
        *self.watched.lock().unwrap_or_else(|e| e.into_inner()) = Some((statistics.ts, watched));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match (&error, error.rdkafka_error_code()) {
            (KafkaError::PartitionEOF(_), _) => {}
            (
                _,
                Some(
                    RDKafkaErrorCode::PartitionEOF
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic,
                ),
            ) => {}
            _ => self.complain(reason.to_string()),
        }
    }
}

#[derive(Deserialize)]
struct Statistics {
    /// When they were made, by [`clock`].
    ts: i64,
    #[serde(default)]
    brokers: HashMap<String, BrokerStatistics>,
    #[serde(default)]
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct BrokerStatistics {
    nodeid: i32,
    rxidle: i64,
}

#[derive(Deserialize)]
struct TopicStatistics {
    #[serde(default)]
    partitions: HashMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    leader: i32,
    hi_offset: i64,
    eof_offset: i64,
}

impl ConsumerContext for Context {
    /// Only notes what is asked for: the lane answers when it has committed or loaded what it must.
    fn rebalance(&self, consumer: &BaseConsumer<Context>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.leaving.load(Ordering::SeqCst) {
            // A failure means that there is nothing left to give back.
            let _ = consumer.incremental_unassign(list);
            return;
        }
        let partitions = partitions_of(list);
        let event = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            GroupEvent::Assigned(partitions)
        } else {
            GroupEvent::Revoked { partitions, lost: consumer.assignment_lost() }
        };
        self.group_events.lock().unwrap_or_else(|e| e.into_inner()).push_back(event);
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements().iter().map(|element| Partition::new(element.topic(), element.partition())).collect()
}

fn list_of<'p>(
    partitions: impl IntoIterator<Item = (&'p Partition, Offset)>,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        list.add_partition_offset(&partition.topic, partition.partition, offset)?;
    }
    Ok(list)
}

impl Consumer {
    /// Makes a consumer that is in no group, but has a name of one.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(settings: &Kafka, fold: &Fold, group: &str) -> Result<Consumer, SourceError> {
        Consumer::member(settings, fold, group, Duration::from_secs(2))
    }

    /// Makes a member of a group; it joins when it subscribes and polls. By its heartbeats it learns that another member
    /// came: until then the partitions of that one are not folded, or by too few.
    ///
    /// # Errors
    /// The same.
    pub fn member(settings: &Kafka, fold: &Fold, group: &str, heartbeat: Duration) -> Result<Consumer, SourceError> {
        let mut config = client_config(settings)?;
        let defaults = [
            ("group.id", group.to_string()),
            ("partition.assignment.strategy", "cooperative-sticky".into()),
            ("enable.auto.commit", "false".into()),
            ("enable.auto.offset.store", "false".into()),
            ("auto.offset.reset", "error".into()),
            // A process that dies is replaced after this long; librdkafka's heartbeats do not depend on our pace.
            ("session.timeout.ms", "10000".into()),
            ("heartbeat.interval.ms", heartbeat.as_millis().to_string()),
            ("isolation.level", "read_committed".into()),
            ("enable.partition.eof", "true".into()),
            ("statistics.interval.ms", "500".into()),
            ("topic.metadata.refresh.interval.ms", "10000".into()),
            ("queued.min.messages", "50000".into()),
            ("queued.max.messages.kbytes", (fold.fetch_mb * 1024).to_string()),
            // A full queue would otherwise stop the fetching for a whole second.
            ("fetch.queue.backoff.ms", "2".into()),
            // A seek waits for the fetch that is under way.
            ("fetch.wait.max.ms", "100".into()),
            // What is under way comes on top of the queue. A larger message is still fetched, alone.
            ("fetch.max.bytes", "8388608".into()),
            ("fetch.message.max.bytes", "1048576".into()),
            ("receive.message.max.bytes", "209715200".into()),
        ];
        for (name, value) in defaults {
            if !settings.properties.contains_key(name) {
                config.set(name, value);
            }
        }
        Ok(Consumer { inner: config.create_with_context(Context::default())? })
    }

    /// Answers what the group has asked for and nobody has heard, so that closing does not wait for it.
    fn answer_all(&self) {
        while let Some(event) = self.group_event() {
            let answered = match event {
                GroupEvent::Assigned(partitions) => self.assign(partitions.iter().map(|p| (p, 0))),
                GroupEvent::Revoked { partitions, .. } => self.unassign(&partitions),
            };
            if let Err(error) = answered {
                tracing::debug!("leaving the group: {error}");
            }
        }
    }

    /// # Errors
    /// When librdkafka refuses the names.
    pub fn subscribe(&self, topics: &[String]) -> Result<(), KafkaError> {
        self.inner.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub fn poll(&self, timeout: Duration) -> Polled<'_> {
        match self.inner.poll(timeout) {
            None => Polled::Nothing,
            Some(Err(KafkaError::PartitionEOF(number))) => Polled::EndOfPartition(number),
            Some(Ok(message)) => {
                *self.context().complaint.lock().unwrap_or_else(|e| e.into_inner()) = None;
                Polled::Message(message)
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Polled::NoTopic,
                Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => Polled::OutOfRange,
                _ => Polled::Problem(error),
            },
        }
    }

    fn context(&self) -> &Context {
        self.inner.context()
    }

    /// The next change of the assignment that is still to be answered.
    pub fn group_event(&self) -> Option<GroupEvent> {
        self.context().group_events.lock().unwrap_or_else(|e| e.into_inner()).pop_front()
    }

    pub fn has_group_event(&self) -> bool {
        !self.context().group_events.lock().unwrap_or_else(|e| e.into_inner()).is_empty()
    }

    /// Statistics, when new ones have come since the last call, and when they were made.
    pub fn watched(&self) -> Option<(i64, HashMap<Partition, Watched>)> {
        self.context().watched.lock().unwrap_or_else(|e| e.into_inner()).take()
    }

    /// Begins to fetch partitions of an assignment, at these offsets.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn assign<'p>(&self, partitions: impl IntoIterator<Item = (&'p Partition, i64)>) -> Result<(), KafkaError> {
        let list = list_of(partitions.into_iter().map(|(p, offset)| (p, Offset::Offset(offset))))?;
        self.inner.incremental_assign(&list)
    }

    /// Stops to fetch partitions.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn unassign(&self, partitions: &[Partition]) -> Result<(), KafkaError> {
        self.inner.incremental_unassign(&list_of(partitions.iter().map(|p| (p, Offset::Invalid)))?)
    }

    /// # Errors
    /// When librdkafka refuses.
    pub fn pause<'p>(&self, partitions: impl IntoIterator<Item = &'p Partition>) -> Result<(), KafkaError> {
        self.inner.pause(&list_of(partitions.into_iter().map(|p| (p, Offset::Invalid)))?)
    }

    /// # Errors
    /// When librdkafka refuses.
    pub fn resume<'p>(&self, partitions: impl IntoIterator<Item = &'p Partition>) -> Result<(), KafkaError> {
        self.inner.resume(&list_of(partitions.into_iter().map(|p| (p, Offset::Invalid)))?)
    }

    /// Fetches these partitions from other offsets than before.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn seek<'p>(&self, partitions: impl IntoIterator<Item = (&'p Partition, i64)>) -> Result<(), KafkaError> {
        let list = list_of(partitions.into_iter().map(|(p, offset)| (p, Offset::Offset(offset))))?;
        // Each partition has an answer of its own: one that stayed where it was would lose what is before it.
        let answered = self.inner.seek_partitions(list, QUERY)?;
        answered.elements().iter().try_for_each(|element| element.error())
    }

    /// # Errors
    /// When the broker does not answer in time.
    pub fn offsets(&self, partition: &Partition) -> Result<Offsets, KafkaError> {
        let (low, high) = self.inner.fetch_watermarks(&partition.topic, partition.partition, QUERY)?;
        Ok(Offsets { low, high })
    }

    /// The offset of the first message at or after a time (microseconds since the Unix epoch); `None` if there is none.
    ///
    /// # Errors
    /// When the broker does not answer in time.
    pub fn offset_at(&self, partition: &Partition, time: i64) -> Result<Option<i64>, KafkaError> {
        let list = list_of([(partition, Offset::Offset(time / 1000))])?;
        let found = self.inner.offsets_for_times(list, QUERY)?;
        Ok(found.elements().first().and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }

    /// The topics of the cluster, with their numbers of partitions.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub fn topics(&self, topic: Option<&str>) -> Result<Vec<(String, i32)>, KafkaError> {
        let metadata = self.inner.fetch_metadata(topic, QUERY)?;
        Ok(metadata.topics().iter().map(|t| (t.name().to_string(), t.partitions().len() as i32)).collect())
    }

    /// Tells Kafka how far we are, for ordinary lag tools only. A failure is of no consequence.
    pub fn report<'p>(&self, partitions: impl IntoIterator<Item = (&'p Partition, i64)>) {
        let list = list_of(partitions.into_iter().map(|(p, offset)| (p, Offset::Offset(offset))));
        if let Ok(list) = list
            && let Err(error) = self.inner.commit(&list, CommitMode::Async)
        {
            tracing::debug!("group offsets were not committed: {error}");
        }
    }
}

impl Drop for Consumer {
    /// Leaves the group at once, so that others need not wait for the session to time out.
    fn drop(&mut self) {
        self.context().leaving.store(true, Ordering::SeqCst);
        self.answer_all();
    }
}

/// What Kafka gave, as the stages see it.
pub fn record_of<'m>(message: &'m BorrowedMessage<'_>) -> Record<'m> {
    let headers = match message.headers() {
        None => Vec::new(),
        Some(headers) => headers.iter().map(|header| (header.key, header.value)).collect(),
    };
    Record {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        time: message.timestamp().to_millis().map(|millis| millis * 1000),
        key: message.key(),
        payload: message.payload(),
        headers,
    }
}
