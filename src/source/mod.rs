//! Kafka: membership in a group, fetching, offsets. Broker types stop here.

mod consumer;
mod dead_letter_topic;
mod gaps;
mod sample;
mod scan;
mod topic_id;

pub use consumer::{Consumer, GroupEvent, Polled, Watched, client_config, clock, record_of};
pub use dead_letter_topic::{Failed, Publisher};
pub use gaps::{Begin, Gap, Offsets, begin, resume};
pub use sample::{Sampled, sample};
pub use scan::{Ranges, scan};
pub use topic_id::{Admin, TopicFacts};

/// Kafka cannot be asked right now, or at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    #[error(transparent)]
    Password(#[from] crate::config::SettingsError),
    #[error("Kafka: {0}")]
    Unreadable(String),
}
