//! What becomes of events that cannot be applied.

use crate::error_kind::{ErrorKind, Policy};

/// A projection's choices.
#[derive(Debug, Clone)]
pub struct Errors {
    /// Kinds whose policy is not the usual one.
    pub chosen: Vec<(ErrorKind, Policy)>,
    /// Of an event that would be parked, but belongs to no sequence that could wait behind it.
    pub keyless: Policy,
    pub max_parked_events: u32,
    pub max_parked_sequences: u32,
    /// The Kafka topic that parked events are written to as well.
    pub topic: Option<String>,
}

impl Default for Errors {
    fn default() -> Errors {
        Errors {
            chosen: Vec::new(),
            keyless: Policy::Halt,
            max_parked_events: 10_000,
            max_parked_sequences: 1_000,
            topic: None,
        }
    }
}

impl Errors {
    pub fn policy(&self, kind: ErrorKind) -> Policy {
        let chosen = self.chosen.iter().find(|(known, _)| *known == kind);
        chosen.map_or(kind.default_policy(), |(_, policy)| *policy)
    }
}
