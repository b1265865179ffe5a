//! The test file as written, and its events as the bytes a producer would send.

use indexmap::IndexMap;
use serde::Deserialize;

use super::ExpectedRow;
use crate::plan::types::json_value;
use crate::plan::{Plan, Table, Topics};
use crate::spec::diagnostic::{Sink, suggest};
use crate::spec::{Format, Literal, Located, Name, Named};
use crate::value::Value;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TestFile {
    pub cases: Vec<Case>,
}

/// Events, and the rows they make.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Case {
    pub name: Name,
    pub events: Vec<Event>,
    /// All visible rows of each table named here. A column that is left out is at its default.
    pub rows: IndexMap<Located<String>, Vec<Named<Located<Literal>>>>,
    /// A part of the message, when the last event cannot be applied.
    pub error: Option<Name>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Event {
    /// The source's name; may be left out when there is one source.
    pub source: Option<Name>,
    /// The topic, when the source has a pattern.
    pub topic: Option<Name>,
    /// The event type without the source's `type_prefix`.
    #[serde(rename = "type")]
    pub type_: Option<Name>,
    pub key: Option<String>,
    pub id: Option<String>,
    pub subject: Option<String>,
    /// RFC 3339.
    pub time: Option<String>,
    pub headers: IndexMap<String, String>,
    /// Nothing: a message without value.
    pub data: Option<Literal>,
}

/// A message as it would stand in Kafka.
#[derive(Debug, Clone)]
pub struct Encoded {
    pub source: usize,
    pub topic: String,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    pub line: usize,
}

/// The events of a case as messages of one partition.
pub fn encode(plan: &Plan, case: &Case, sink: &Sink) -> Vec<Encoded> {
    let mut encoded = Vec::new();
    for (at, event) in case.events.iter().enumerate() {
        let named = event.source.as_ref();
        let found = match named {
            Some(name) => plan.sources.iter().position(|source| source.name == name.value),
            None if plan.sources.len() == 1 => Some(0),
            None => None,
        };
        let Some(index) = found else {
            let span = named.map_or(case.name.span.clone(), |name| name.span.clone());
            let help = named.and_then(|name| suggest(name, plan.sources.iter().map(|s| s.name.as_str())));
            sink.error("unknown-source", &span, format!("event {} names no source of the projection", at + 1), help);
            continue;
        };
        let source = &plan.sources[index];
        let topic = match (&event.topic, &source.topics) {
            (Some(topic), _) => topic.value.clone(),
            (None, Topics::Named(name)) => name.clone(),
            (None, Topics::Matching(_)) => String::new(),
        };
        let data = event.data.as_ref().map(|data| data.0.as_str());
        let payload = match (source.format, &event.type_) {
            (Format::CloudEvents, Some(type_)) => {
                Some(structured(event, &format!("{}{}", source.type_prefix, type_.value), at, data))
            }
            _ => data.map(String::from),
        };
        let place = event.type_.as_ref().map_or(&case.name.span, |type_| &type_.span);
        encoded.push(Encoded {
            source: index,
            topic,
            offset: at as i64,
            key: event.key.as_ref().map(|key| key.clone().into_bytes()),
            payload: payload.map(String::into_bytes),
            headers: event.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            line: sink.file.position(place.start).0,
        });
    }
    encoded
}

fn structured(event: &Event, type_: &str, at: usize, data: Option<&str>) -> String {
    let quote = |text: &str| serde_json::to_string(text).expect("a string is always JSON");
    let mut envelope = format!(
        r#"{{"specversion":"1.0","source":"/test","type":{},"id":{}"#,
        quote(type_),
        quote(event.id.as_deref().unwrap_or(&format!("{}", at + 1)))
    );
    for (name, value) in [("time", &event.time), ("subject", &event.subject)] {
        if let Some(value) = value {
            envelope += &format!(",\"{name}\":{}", quote(value));
        }
    }
    if let Some(data) = data {
        envelope += &format!(",\"data\":{data}");
    }
    envelope + "}"
}

/// A row as written, with every visible column: what is left out is at its default.
pub fn expected_row(table: &Table, row: &Named<Located<Literal>>, sink: &Sink) -> ExpectedRow {
    let columns = || table.key.iter().chain(table.columns.iter().filter(|column| !column.hidden));
    for name in row.keys() {
        if !columns().any(|column| column.name == name.value) {
            let help = suggest(name, columns().map(|column| column.name.as_str()));
            sink.error("unknown-column", &name.span, format!("{} has no column `{}`", table.name, name.value), help);
        }
    }
    columns()
        .map(|column| {
            let value = match row.get(column.name.as_str()) {
                None => column.shape.default.clone(),
                Some(literal) => {
                    let value = json_value(&literal.value.0).and_then(|value| column.shape.type_.coerce(value));
                    value.unwrap_or_else(|message| {
                        sink.error("wrong-value", &literal.span, message, None);
                        Value::Null
                    })
                }
            };
            (column.name.clone(), value)
        })
        .collect()
}
