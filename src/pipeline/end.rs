//! What a lane owns, and why it stops.

use std::collections::BTreeMap;

use rdkafka::error::KafkaError;

use crate::error_kind::Policy;
use crate::parking::{Blocked, Decision};
use crate::source::{Gap, SourceError};
use crate::store::StoreError;
use crate::store::partitions::{Halt, Waits};

/// A partition that the lane owns.
#[derive(Debug, Clone)]
pub struct Owned {
    /// Index into the plan's sources.
    pub source: usize,
    /// The next offset to be folded.
    pub next: i64,
    /// The next offset to be committed.
    pub committed: i64,
    /// The end of the partition, as last heard.
    pub high: i64,
    /// The greatest event time folded so far, in microseconds.
    pub clock: Option<i64>,
    pub waits_for: Waits,
    /// It is read when those before it are.
    pub in_line: bool,
    /// Nothing from here on is folded for now: two generations are brought to the same place.
    pub stop_at: Option<i64>,
    /// What has to wait, because something before it is parked.
    pub blocked: Blocked,
    /// Events parked of this partition.
    pub parked: i64,
    /// What people decided about events still to come, by offset.
    pub decisions: BTreeMap<i64, Decision>,
}

impl Owned {
    /// Whether messages of it are asked for.
    pub fn is_fetched(&self) -> bool {
        self.waits_for.is_empty() && !self.in_line
    }
}

/// Why a lane stopped.
#[derive(Debug)]
pub enum End {
    /// It was asked to, and has committed what it had folded.
    Finished,
    /// A person has to do something.
    Halted(Halt),
    /// Kafka or Postgres did not answer; a new lane takes over from the checkpoints.
    Retry(String),
}

impl End {
    pub fn halted(code: &str, message: String) -> End {
        End::Halted(Halt { code: code.into(), message, place: None })
    }

    pub fn gap(gap: Gap) -> End {
        End::halted(gap.code, gap.message)
    }
}

impl From<KafkaError> for End {
    fn from(error: KafkaError) -> End {
        End::Retry(format!("Kafka: {error}"))
    }
}

impl From<SourceError> for End {
    fn from(error: SourceError) -> End {
        End::halted("settings", error.to_string())
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> End {
        match error {
            error if error.kind().default_policy() == Policy::Retry => End::Retry(error.to_string()),
            error @ StoreError::TooManyParked { .. } => End::halted("too-many-parked", error.to_string()),
            error => End::halted("postgres", error.to_string()),
        }
    }
}
