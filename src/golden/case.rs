//! The test file as written, and its events as the bytes a producer would send.

use std::collections::HashMap;

use bumpalo::Bump;
use indexmap::IndexMap;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::ReadRow;
use crate::checkpoint::Partition;
use crate::decode::decode;
use crate::event::Record;
use crate::plan::expr::Env;
use crate::plan::types::ColumnType;
use crate::plan::{Plan, Source, Table, Topics};
use crate::sample::Message;
use crate::spec::diagnostic::{Sink, suggest};
use crate::spec::{Format, Literal, Located, Name, Named};
use crate::value::json::json_value;
use crate::value::{Value, parse_time};

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
    pub events: Vec<Located<Event>>,
    /// All visible rows of each table named here. A column that is left out is at its default.
    pub rows: IndexMap<Located<String>, Vec<Named<Located<Literal>>>>,
    /// A part of the message, when the last event cannot be applied.
    pub error: Option<Name>,
    /// When the rows are read, for those that expire: RFC 3339. The time of the latest event, if nothing is said.
    pub now: Option<Name>,
    /// Queries of the view, and what they answer.
    pub queries: Vec<Asked>,
}

/// A query as the endpoint takes it, and the rows of its answer in their order.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    /// For example `orders?state=eq.open&order=total.desc`.
    pub get: Name,
    pub rows: Vec<Named<Located<Literal>>>,
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
    /// RFC 3339; of plain JSON, the record's. Without one, a second after the event before.
    pub time: Option<Name>,
    /// Messages of one partition are read in their order; by the source's `ordered_by`, else by the key, if nothing is
    /// said.
    pub partition: Option<Located<u32>>,
    pub headers: IndexMap<String, String>,
    /// Nothing: a message without value.
    pub data: Option<Literal>,
}

/// A message as it would stand in Kafka.
#[derive(Debug, Clone)]
pub struct Encoded {
    pub source: usize,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Microseconds since the Unix epoch.
    pub time: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    pub line: usize,
}

impl Encoded {
    pub fn partition(&self) -> Partition {
        Partition::new(self.topic.as_str(), self.partition)
    }

    pub fn record(&self) -> Record<'_> {
        Record {
            topic: &self.topic,
            partition: self.partition,
            offset: self.offset,
            time: Some(self.time),
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            headers: self.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes()))).collect(),
        }
    }

    /// The partition that a producer would choose: by what the source is ordered by, else by the key.
    fn chosen_partition(&self, plan: &Plan) -> i32 {
        const PARTITIONS: u64 = 3;
        let source = &plan.sources[self.source];
        let record = self.record();
        let by = match &source.ordered_by {
            Some(field) => decode(source, &record, None, &Bump::new()).ok().and_then(|events| {
                let value = field.eval(&Env::event(events.first()?, &[])).ok()?;
                Some(value.to_json_text().into_bytes())
            }),
            None => self.key.clone(),
        };
        let Some(by) = by else { return 0 };
        let digest = Sha256::digest(&by);
        (u64::from(digest[0]) % PARTITIONS) as i32
    }
}

/// When the first event of a case happened, if nothing is said: 2026-01-01.
const BEGINNING: i64 = 1_767_225_600_000_000;

/// The events of a case as messages of the partitions that a producer would choose.
pub fn encode(plan: &Plan, case: &Case, sink: &Sink) -> Vec<Encoded> {
    let mut encoded: Vec<Encoded> = Vec::new();
    let mut ends: HashMap<Partition, i64> = HashMap::new();
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
        let place = &event.span;
        let time = match &event.time {
            None => encoded.last().map_or(BEGINNING, |before| before.time + 1_000_000),
            Some(time) => parse_time(time).unwrap_or_else(|| {
                let message = format!("`{}` is not an RFC 3339 timestamp", time.value);
                sink.error("wrong-value", &time.span, message, None);
                BEGINNING
            }),
        };
        let mut event = Encoded {
            source: index,
            topic,
            partition: event.partition.as_ref().map_or(-1, |partition| partition.value as i32),
            offset: 0,
            time,
            key: event.key.as_ref().map(|key| key.clone().into_bytes()),
            payload: payload.map(String::into_bytes),
            headers: event.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            line: sink.file.position(place.start).0,
        };
        if event.partition < 0 {
            event.partition = event.chosen_partition(plan);
        }
        let end = ends.entry(event.partition()).or_default();
        event.offset = *end;
        *end += 1;
        encoded.push(event);
    }
    encoded
}

/// Messages of a file as those of a topic. Those that no source takes are left out.
pub fn encode_messages(plan: &Plan, messages: &[Message]) -> Vec<Encoded> {
    let mut encoded: Vec<Encoded> = Vec::new();
    let mut ends: HashMap<Partition, i64> = HashMap::new();
    for message in messages {
        let of_topic = |source: &Source| message.topic.as_ref().is_none_or(|topic| source.topics.matches(topic));
        let as_source = |index: usize| {
            let named = match &plan.sources[index].topics {
                Topics::Named(name) => name.clone(),
                Topics::Matching(_) => String::new(),
            };
            Encoded {
                source: index,
                topic: message.topic.clone().unwrap_or(named),
                partition: 0,
                offset: 0,
                time: encoded.last().map_or(BEGINNING, |before| before.time + 1_000_000),
                key: message.key.as_ref().map(|key| key.clone().into_bytes()),
                payload: message.payload.as_ref().map(|payload| payload.clone().into_bytes()),
                headers: message.headers.clone(),
                line: message.line,
            }
        };
        let knows = |event: &Encoded| {
            let source = &plan.sources[event.source];
            match decode(source, &event.record(), None, &Bump::new()) {
                Ok(events) => events.iter().any(|event| source.routes.knows(&event.type_)),
                Err(_) => false,
            }
        };
        let candidates: Vec<Encoded> =
            (0..plan.sources.len()).filter(|index| of_topic(&plan.sources[*index])).map(as_source).collect();
        let at = candidates.iter().position(knows).unwrap_or(0);
        let Some(mut event) = candidates.into_iter().nth(at) else { continue };
        let own_time = |event: &Encoded| {
            let record = event.record();
            let arena = Bump::new();
            let events = decode(&plan.sources[event.source], &record, None, &arena).ok()?;
            events.first().and_then(|event| event.time)
        };
        event.time = own_time(&event).unwrap_or(event.time);
        event.partition = event.chosen_partition(plan);
        let end = ends.entry(event.partition()).or_default();
        event.offset = *end;
        *end += 1;
        encoded.push(event);
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
    let time = event.time.as_ref().map(|time| &time.value);
    for (name, value) in [("time", time), ("subject", event.subject.as_ref())] {
        if let Some(value) = value {
            envelope += &format!(",\"{name}\":{}", quote(value));
        }
    }
    if let Some(data) = data {
        envelope += &format!(",\"data\":{data}");
    }
    envelope + "}"
}

/// A row as written, with every visible column: what is left out is at its default. Columns that are worked out from the
/// row are compared where they are written.
pub fn expected_row(table: &Table, row: &Named<Located<Literal>>, sink: &Sink) -> ReadRow {
    let columns = || table.key.iter().chain(table.columns.iter().filter(|column| !column.hidden));
    let generated = |name: &str| table.generated.iter().find(|column| column.name == name && !column.hidden);
    for name in row.keys().filter(|name| generated(name).is_none()) {
        if !columns().any(|column| column.name == name.value) {
            let help = suggest(name, columns().map(|column| column.name.as_str()));
            sink.error("unknown-column", &name.span, format!("{} has no column `{}`", table.name, name.value), help);
        }
    }
    let value = |type_: &ColumnType, literal: &Located<Literal>| {
        let value = json_value(&literal.value.0).and_then(|value| type_.coerce(value));
        value.unwrap_or_else(|message| {
            sink.error("wrong-value", &literal.span, message, None);
            Value::Null
        })
    };
    let stored = columns().map(|column| {
        let written = row.get(column.name.as_str());
        let value = written.map_or(column.shape.default.clone(), |literal| value(&column.shape.type_, literal));
        (column.name.clone(), value)
    });
    let worked_out =
        row.iter().filter_map(|(name, literal)| Some((name.value.clone(), value(&generated(name)?.type_, literal))));
    stored.chain(worked_out).collect()
}
