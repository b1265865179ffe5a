//! How far a generation has read, as steps from one offset to another.

use std::collections::BTreeMap;

use crate::event::Place;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    pub topic: String,
    pub partition: i32,
}

impl Partition {
    pub fn new(topic: impl Into<String>, partition: i32) -> Partition {
        Partition { topic: topic.into(), partition }
    }

    pub fn at(&self, offset: i64) -> Place {
        Place { topic: self.topic.clone(), partition: self.partition, offset }
    }
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// One partition's step: everything from `from` up to, not including, `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub from: i64,
    pub to: i64,
    /// Events among them; offsets of transaction markers and compacted messages are none.
    pub events: u64,
    /// Time of the last record, in microseconds since the Unix epoch.
    pub last_time: Option<i64>,
    /// The greatest event time so far, likewise.
    pub clock: Option<i64>,
}

/// The steps of a batch, by partition, in the one global order in which checkpoints are locked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress(pub BTreeMap<Partition, Step>);

impl Progress {
    /// Notes that a record was read. Offsets of one partition only grow.
    pub fn read(
        &mut self,
        partition: &Partition,
        next_expected: i64,
        offset: i64,
        time: Option<i64>,
        clock: Option<i64>,
    ) {
        let step = match self.0.get_mut(partition) {
            Some(step) => step,
            None => {
                let start = Step { from: next_expected, to: next_expected, events: 0, last_time: None, clock: None };
                self.0.entry(partition.clone()).or_insert(start)
            }
        };
        step.to = offset + 1;
        step.events += 1;
        step.last_time = time.or(step.last_time);
        step.clock = clock.max(step.clock);
    }

    /// Notes that there is nothing up to `to`, though offsets have been used.
    pub fn skip(&mut self, partition: &Partition, next_expected: i64, to: i64) {
        let start = Step { from: next_expected, to, events: 0, last_time: None, clock: None };
        self.0.entry(partition.clone()).or_insert(start).to = to;
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn events(&self) -> u64 {
        self.0.values().map(|step| step.events).sum()
    }
}
