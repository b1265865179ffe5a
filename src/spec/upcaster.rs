//! Upcaster files exactly as written: how events of an older shape are brought to the newest one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Expr, Literal, Located, Name, Named};

/// Brings events of some types up to date, version by version.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Upcaster {
    /// The upcaster's name.
    pub upcaster: Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The topic of the events.
    pub topic: Option<Name>,
    /// A regular expression over whole topic names.
    pub topics: Option<Name>,
    /// Whole event types: `A`, `A | B`, `Prefix*`.
    #[serde(rename = "type")]
    pub type_: Name,
    /// The type that the events have once they are up to date; their own, if nothing is said.
    #[serde(rename = "as")]
    pub as_: Option<Name>,
    /// Where an event says its version: an expression that gives a whole number. NULL is version 1.
    pub version: Option<Expr>,
    /// What has to be done to get from a version to the next one.
    pub steps: Named<Step>,
}

/// From one version to the next. Fields are paths in the event's data, such as `customer.name`; expressions read the event
/// as it was before the step. What is moved is moved first; then `set`, `default` and `remove` follow.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// Fields under new names or at other places: the old path, then the new one. One that is not there is left out.
    #[serde(rename = "move", skip_serializing_if = "indexmap::IndexMap::is_empty")]
    pub moves: Named<Name>,
    /// Fields that are worked out.
    #[serde(skip_serializing_if = "indexmap::IndexMap::is_empty")]
    pub set: Named<Expr>,
    /// Fields that get this value where they are missing.
    #[serde(skip_serializing_if = "indexmap::IndexMap::is_empty")]
    pub default: Named<Located<Literal>>,
    /// Fields that are no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<Name>,
}

/// The golden tests beside an upcaster.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TestFile {
    pub cases: Vec<Case>,
}

/// An event's data, and what becomes of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Case {
    pub name: Name,
    /// The whole type; the upcaster's, if nothing is said.
    #[serde(rename = "type")]
    pub type_: Option<Name>,
    pub data: Located<Literal>,
    pub becomes: Option<Located<Literal>>,
    /// A part of the message, when the event cannot be brought up to date.
    pub error: Option<Name>,
}
