//! The policies of a projection, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Located, Name};

/// What becomes of events that cannot be applied, by the kind of error. An event that is parked is kept with its bytes
/// and its reason, and what has to stay in order behind it waits; everything else goes on.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Errors {
    /// For the kinds that are not named here, except `unhandled` and `keyless`; `park`, if nothing is said.
    pub default: Option<OnError>,
    /// The bytes are no event of the source's format, or of a version that no upcaster brings up to date.
    pub undecodable: Option<OnError>,
    /// A field is missing, or a value does not fit its column.
    pub invalid: Option<OnError>,
    /// A condition under `require` does not hold.
    pub requirement: Option<OnError>,
    /// The event is older than what is remembered of identities or of ended rows.
    pub too_late: Option<OnError>,
    /// Postgres refuses the row: a constraint that a person added, a value out of range.
    pub refused: Option<OnError>,
    /// The event brings the process down, or runs out of time.
    pub poison: Option<OnError>,
    /// No table handles the event's type; `ignore`, if nothing is said.
    pub unhandled: Option<OnUnhandled>,
    /// An event that would be parked has neither a record key nor a row, so that nobody knows what would have to wait
    /// behind it; `halt`, if nothing is said.
    pub keyless: Option<OnError>,
    /// With more events parked than this the projection stands still; 10000, if nothing is said.
    pub max_parked_events: Option<Located<u32>>,
    /// The same of sequences: events parked for an error of their own; 1000, if nothing is said.
    pub max_parked_sequences: Option<Located<u32>>,
    /// A Kafka topic to which parked events are written too, with the headers of Kafka Connect's dead-letter queues.
    pub topic: Option<Name>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Keep it aside, with those that have to stay behind it.
    Park,
    /// Stand still before it.
    Halt,
    /// Pass it over, and count it.
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnUnhandled {
    /// Count it, and show the count in `projector status`.
    Ignore,
    Park,
    Halt,
}
