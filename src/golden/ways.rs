//! The ways in which a case is run. All of them have to give the same rows.

use std::collections::{HashMap, VecDeque};

use super::case::Encoded;
use super::model::{Lane, Model};
use crate::checkpoint::Partition;
use crate::plan::Plan;

/// How the events of a case are taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Every event to its rows at once.
    Straight,
    OneEventABatch,
    OneBatch,
    /// The partitions read in other orders, each in its own.
    Interleaved,
    /// Every event delivered again, at once and at the end.
    Repeated,
    /// A crash after every commit, in the middle of the next batch.
    Crashes,
    /// Two lanes that share the partitions.
    TwoLanes,
}

impl Way {
    pub const ALL: [Way; 7] = [
        Way::Straight,
        Way::OneEventABatch,
        Way::OneBatch,
        Way::Interleaved,
        Way::Repeated,
        Way::Crashes,
        Way::TwoLanes,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Way::Straight => "straight",
            Way::OneEventABatch => "one event a batch",
            Way::OneBatch => "one batch",
            Way::Interleaved => "interleaved",
            Way::Repeated => "repeated",
            Way::Crashes => "crashes",
            Way::TwoLanes => "two lanes",
        }
    }

    /// Why the way is not gone, where it cannot be.
    pub fn left_out(self, plan: &Plan) -> Option<&'static str> {
        let order_free = plan.tables.iter().all(|table| table.order_free);
        match self {
            Way::Interleaved | Way::TwoLanes if !order_free => Some("its rows depend on the order; validate says why"),
            Way::Repeated if !plan.sources.iter().any(|source| source.stands_repeats) => {
                Some("no source of it stands repeats")
            }
            _ => None,
        }
    }
}

/// Takes the events in, in the one order that the way has.
///
/// # Errors
/// Why an event cannot be applied.
pub fn take(plan: &Plan, events: &[Encoded], way: Way) -> Result<Model, String> {
    let mut model = Model::new(plan);
    let mut lane = Lane::new(plan);
    match way {
        Way::Straight | Way::Interleaved => {
            for event in events {
                model.take(plan, event)?;
            }
        }
        Way::OneEventABatch => {
            for event in events {
                lane.fold(&model, event)?;
                lane.commit(&mut model)?;
            }
        }
        Way::OneBatch => {
            for event in events {
                lane.fold(&model, event)?;
            }
            lane.commit(&mut model)?;
        }
        Way::Repeated => {
            for event in repeated(plan, events) {
                lane.fold(&model, &event)?;
            }
            lane.commit(&mut model)?;
        }
        Way::Crashes => {
            const BATCH: usize = 2;
            for (at, batch) in events.chunks(BATCH).enumerate() {
                for event in batch {
                    lane.fold(&model, event)?;
                }
                lane.commit(&mut model)?;
                // The process dies with the next event folded and not committed; a new one knows what is committed.
                if let Some(next) = events.get((at + 1) * BATCH) {
                    lane.fold(&model, next)?;
                }
                lane = Lane::new(plan);
            }
        }
        Way::TwoLanes => {
            let mut lanes = [Lane::new(plan), Lane::new(plan)];
            for (at, event) in events.iter().enumerate() {
                let which = (event.partition as usize + event.source) % 2;
                lanes[which].fold(&model, event)?;
                // The one commits often, the other seldom.
                if at % (2 + 3 * which) == 0 {
                    lanes[which].commit(&mut model)?;
                }
            }
            for lane in &mut lanes {
                lane.commit(&mut model)?;
            }
        }
    }
    Ok(model)
}

/// Every event of a source that stands it twice in a row, and once more at the end where that is within its window.
fn repeated(plan: &Plan, events: &[Encoded]) -> Vec<Encoded> {
    let stands = |event: &&Encoded| plan.sources[event.source].stands_repeats;
    let latest = events.iter().map(|event| event.time).max().unwrap_or(0);
    let in_window = |event: &&Encoded| {
        let dedupe = plan.sources[event.source].dedupe.as_ref();
        dedupe.is_none_or(|dedupe| event.time >= latest - dedupe.window)
    };
    let mut all: Vec<Encoded> = Vec::new();
    for event in events {
        all.extend(std::iter::once(event).chain(Some(event).filter(stands)).cloned());
    }
    all.extend(events.iter().filter(stands).filter(in_window).cloned());
    let mut ends: HashMap<Partition, i64> = HashMap::new();
    for event in &mut all {
        let end = ends.entry(event.partition()).or_default();
        event.offset = *end;
        *end += 1;
    }
    all
}

/// Another order of the events that keeps each partition's own. The same seed gives the same order.
pub fn interleaving(events: &[Encoded], seed: u64) -> Vec<usize> {
    let mut partitions: Vec<(Partition, VecDeque<usize>)> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let partition = event.partition();
        match partitions.iter_mut().find(|(known, _)| *known == partition) {
            Some((_, queue)) => queue.push_back(at),
            None => partitions.push((partition, VecDeque::from([at]))),
        }
    }
    let mut state = seed;
    let mut order = Vec::with_capacity(events.len());
    while order.len() < events.len() {
        // splitmix64: <https://prng.di.unimi.it/splitmix64.c>
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let pick = ((z ^ (z >> 31)) % partitions.len() as u64) as usize;
        match partitions[pick].1.pop_front() {
            Some(at) => order.push(at),
            None => drop(partitions.swap_remove(pick)),
        }
    }
    order
}

/// The order nearest to the straight one that still fails: neighbours are swapped back as long as it does.
pub fn smallest(events: &[Encoded], mut order: Vec<usize>, fails: &dyn Fn(&[usize]) -> bool) -> Vec<usize> {
    let mut changed = true;
    while changed {
        changed = false;
        for at in 1..order.len() {
            let (a, b) = (order[at - 1], order[at]);
            if a > b && events[a].partition() != events[b].partition() {
                order.swap(at - 1, at);
                if fails(&order) {
                    changed = true;
                } else {
                    order.swap(at - 1, at);
                }
            }
        }
    }
    order
}
