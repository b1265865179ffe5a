//! The topic that parked events are written to as well, for tools that read the dead-letter queues of Kafka Connect.
//!
//! Headers follow `org.apache.kafka.connect.runtime.errors.DeadLetterQueueReporter`.

use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::SourceError;
use super::consumer::client_config;
use crate::config::Kafka;
use crate::parking::Message;

/// Writes to dead-letter topics.
pub struct Publisher {
    producer: FutureProducer,
}

/// What went wrong, in Kafka Connect's words.
#[derive(Debug, Clone)]
pub struct Failed<'f> {
    pub projection: &'f str,
    pub generation: i32,
    /// Connect's name of the stage: `VALUE_CONVERTER`, `TRANSFORMATION` or `TASK_PUT`.
    pub stage: &'f str,
    pub code: &'f str,
    pub message: &'f str,
}

impl Publisher {
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(settings: &Kafka) -> Result<Publisher, SourceError> {
        let mut config = client_config(settings)?;
        config.set("enable.idempotence", "true").set("message.max.bytes", "26214400");
        Ok(Publisher { producer: config.create()? })
    }

    /// Writes a message with its own key, payload and headers, and why it is here. Returns when the broker has it.
    ///
    /// # Errors
    /// What Kafka says.
    pub async fn publish(&self, topic: &str, message: &Message, failed: &Failed<'_>) -> Result<(), String> {
        let place = &message.place;
        let added = [
            ("topic", place.topic.clone()),
            ("partition", place.partition.to_string()),
            ("offset", place.offset.to_string()),
            ("connector.name", failed.projection.to_string()),
            ("task.id", failed.generation.to_string()),
            ("stage", failed.stage.to_string()),
            ("class.name", "projector".to_string()),
            ("exception.class.name", failed.code.to_string()),
            ("exception.message", failed.message.to_string()),
            ("exception.stacktrace", format!("{} [{}] at {place}", failed.message, failed.code)),
        ];
        let mut headers = OwnedHeaders::new();
        for (key, value) in &message.headers {
            headers = headers.insert(Header { key, value: value.as_ref() });
        }
        for (name, value) in &added {
            headers = headers.insert(Header { key: &format!("__connect.errors.{name}"), value: Some(value) });
        }
        let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).headers(headers);
        record.key = message.key.as_deref();
        record.payload = message.payload.as_deref();
        record.timestamp = message.time.map(|micros| micros / 1000);
        let sent = self.producer.send(record, Duration::from_secs(30)).await;
        sent.map(drop).map_err(|(error, _)| error.to_string())
    }
}
