//! Parked events: what is kept of them, and what has to wait behind them.
//!
//! An event is a dead letter when it could not be applied, or when something that has to come before it is one. Order is
//! promised within a partition, so this is looked after partition by partition: a *sequence* is the events of one topic
//! and record key, or those that touch one row where two events of their source may clash. Where they commute there is no
//! order to keep, and nothing waits.

use std::collections::HashMap;

use compact_str::CompactString;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_128;

use crate::batch::Key;
use crate::error_kind::Reason;
use crate::event::{Place, Record};
use crate::plan::Plan;
use crate::value::Value;

/// A digest that stands for a sequence (XXH3, 128 bits). It is taken of every message while anything is parked, so it is a
/// fast one; two sequences of one digest would wait for one another, and do no other harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub [u8; 16]);

impl Sequence {
    pub fn of_key(topic: &str, key: &[u8]) -> Sequence {
        let mut parts = Parts::new("key");
        parts.add(topic.as_bytes());
        parts.add(key);
        parts.digest()
    }

    pub fn of_row(table: &str, key: &Key) -> Sequence {
        let mut parts = Parts::new("row");
        parts.add(table.as_bytes());
        for value in key {
            match value {
                Value::Text(text) => parts.add(text.as_bytes()),
                other => parts.add(other.to_json_text().as_bytes()),
            }
        }
        parts.digest()
    }
}

/// What a digest is taken of, each part with its length before it.
struct Parts(SmallVec<[u8; 256]>);

impl Parts {
    fn new(of: &str) -> Parts {
        let mut parts = Parts(SmallVec::new());
        parts.add(of.as_bytes());
        parts
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn digest(&self) -> Sequence {
        Sequence(xxh3_128(&self.0).to_be_bytes())
    }
}

/// The sequences that a message of a source belongs to, one after the other; some may come twice.
pub fn each_sequence<'k>(
    plan: &Plan,
    source: usize,
    topic: &str,
    key: Option<&[u8]>,
    rows: impl Iterator<Item = (usize, &'k Key)>,
) -> impl Iterator<Item = Sequence> {
    let of_key = key.map(|key| Sequence::of_key(topic, key));
    let ordered = rows.filter(move |(table, _)| plan.tables[*table].ordered_sources.contains(&source));
    let of_rows = ordered.map(|(table, key)| Sequence::of_row(&plan.tables[table].name, key));
    of_key.into_iter().chain(of_rows)
}

/// The sequences that a message of a source belongs to.
pub fn sequences<'k>(
    plan: &Plan,
    source: usize,
    topic: &str,
    key: Option<&[u8]>,
    rows: impl Iterator<Item = (usize, &'k Key)>,
) -> Vec<Sequence> {
    let mut all: Vec<Sequence> = each_sequence(plan, source, topic, key, rows).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Rows, as [`sequences`] takes them.
pub fn each(rows: &[(usize, Key)]) -> impl Iterator<Item = (usize, &Key)> {
    rows.iter().map(|(table, key)| (*table, key))
}

/// The sequences of a partition in which something is parked. Asked for every message, so it is kept in memory; empty
/// it costs nothing.
#[derive(Debug, Clone, Default)]
pub struct Blocked(HashMap<Sequence, Place, ahash::RandomState>);

impl Blocked {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A parked event that is before this one in some sequence.
    pub fn before(&self, sequences: &[Sequence]) -> Option<&Place> {
        self.first(sequences.iter().copied())
    }

    /// The same, without having them in a list.
    pub fn first(&self, mut sequences: impl Iterator<Item = Sequence>) -> Option<&Place> {
        sequences.find_map(|sequence| self.0.get(&sequence))
    }

    /// An event of these sequences is parked. Of each, the first one is remembered.
    pub fn add(&mut self, sequences: &[Sequence], place: &Place) {
        for sequence in sequences {
            self.0.entry(*sequence).or_insert_with(|| place.clone());
        }
    }
}

/// A message, with all that it needs to be taken in again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub place: Place,
    /// Microseconds since the Unix epoch.
    pub time: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Message {
    pub fn of(record: &Record<'_>) -> Message {
        let header = |(name, value): &(&str, Option<&[u8]>)| (name.to_string(), value.map(<[u8]>::to_vec));
        Message {
            place: record.place(),
            time: record.time,
            key: record.key.map(<[u8]>::to_vec),
            payload: record.payload.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(header).collect(),
        }
    }

    pub fn record(&self) -> Record<'_> {
        Record {
            topic: &self.place.topic,
            partition: self.place.partition,
            offset: self.place.offset,
            time: self.time,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            headers: self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect(),
        }
    }

    pub fn bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.payload.as_ref().map_or(0, Vec::len) + headers
    }
}

/// Why an event is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It cannot be applied.
    Failed(Reason),
    /// This one has to come first.
    Behind(Place),
}

/// A parked event, about to be stored.
#[derive(Debug, Clone)]
pub struct Letter {
    pub message: Message,
    /// The event's type, where it could be read.
    pub type_: Option<CompactString>,
    /// The partition's time before it.
    pub clock: Option<i64>,
    pub sequences: Vec<Sequence>,
    /// The rows that it would touch, as far as that is known.
    pub rows: Vec<(usize, Key)>,
    pub cause: Cause,
}

/// What a person decided about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is passed over.
    Discard,
    /// This payload stands for its own.
    Correct { payload: Option<Vec<u8>> },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_told_apart_by_what_they_are_of() {
        let key = |text: &str| Key::from_iter([Value::text(text)]);
        let all = [
            Sequence::of_key("a", b"b"),
            Sequence::of_key("ab", b""),
            Sequence::of_row("a", &key("b")),
            Sequence::of_row("a", &Key::from_iter([Value::text("b"), Value::text("")])),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| one != other));
        }
        assert_eq!(Sequence::of_key("a", b"b"), Sequence::of_key("a", b"b"));
    }

    #[test]
    fn the_first_parked_event_of_a_sequence_is_remembered() {
        let place = |offset| Place { topic: "t".into(), partition: 0, offset };
        let (a, b) = (Sequence::of_key("t", b"a"), Sequence::of_key("t", b"b"));
        let mut blocked = Blocked::default();
        assert!(blocked.is_empty() && blocked.before(&[a]).is_none());
        blocked.add(&[a], &place(3));
        blocked.add(&[a, b], &place(5));
        assert_eq!(blocked.before(&[a, b]), Some(&place(3)));
        assert_eq!(blocked.before(&[b]), Some(&place(5)));
    }
}
