//! One reading of the log: the messages that touch a row which matters, and rows that were not known to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};

use super::follow::{Way, is_derived};
use super::replay::Rows;
use crate::batch::Key;
use crate::checkpoint::Partition;
use crate::event::{Place, Record};
use crate::fold::RowPatch;
use crate::intake::intake;
use crate::parking::{Decision, Message};
use crate::patch::{Change, Patch, Step};
use crate::plan::Plan;
use crate::plan::expr::RowRef;
use crate::store::explain::{Moment, Verdict};
use crate::value::Value;

/// A message that touches a row which matters; if it was corrected, with the payload that stands for its own.
#[derive(Debug)]
pub struct Kept {
    /// Index into [`Plan::sources`].
    pub source: usize,
    pub message: Message,
    pub type_: Option<String>,
    /// The time of its partition before it.
    pub clock: Option<i64>,
    /// The rows that it touches, of those that matter.
    pub rows: Vec<(usize, Key)>,
    pub verdict: Option<Verdict>,
}

impl Kept {
    pub fn is_discarded(&self) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| verdict.decision == Decision::Discard)
    }
}

/// What a reading of the log has found.
#[derive(Debug)]
pub struct Found {
    /// Each partition's in order.
    pub kept: Vec<Kept>,
    /// Rows that belonged to one that matters at some time, each with the way to it.
    pub children: Vec<(usize, Key)>,
    pub notes: Vec<String>,
}

/// The source that reads a topic.
pub fn source_of(plan: &Plan, topic: &str) -> Option<usize> {
    plan.sources.iter().position(|source| source.topics.matches(topic))
}

/// A reading that is under way.
pub struct Pass<'p> {
    plan: &'p Plan,
    moment: &'p Moment,
    parked: BTreeSet<&'p Place>,
    rows: Rows,
    families: Vec<Family>,
    clocks: HashMap<Partition, Option<i64>>,
    kept: Vec<Kept>,
    /// Events that were discarded and of which nobody can say what they would touch.
    obscure: u64,
}

impl<'p> Pass<'p> {
    pub fn new(plan: &'p Plan, moment: &'p Moment, ways: &[Way]) -> Pass<'p> {
        Pass {
            plan,
            moment,
            parked: moment.parked.iter().map(|parked| &parked.place).collect(),
            rows: Rows::of(plan, ways),
            families: (0..ways.len()).filter_map(|at| Family::of(plan, ways, at)).collect(),
            clocks: HashMap::new(),
            kept: Vec::new(),
            obscure: 0,
        }
    }

    /// Takes the next message of its partition. It is taken as a lane would take it that builds the view anew; what is
    /// parked only moves the partition's time.
    pub fn take(&mut self, record: &Record<'_>) {
        let Some(source) = source_of(self.plan, record.topic) else { return };
        let partition = Partition::new(record.topic, record.partition);
        let place = partition.at(record.offset);
        let is_parked = self.parked.contains(&place);
        let verdict = self.moment.verdicts.get(&place).filter(|_| !is_parked);
        let corrected = corrected(record, verdict);
        let record = corrected.as_ref().unwrap_or(record);
        let clock = self.clocks.get(&partition).copied().flatten();
        // A repeat is the same event and touches the same rows: it is told apart when the events are applied.
        let taken = intake(self.plan, source, record, clock, &|_, _| false);
        let discarded = verdict.is_some_and(|verdict| verdict.decision == Decision::Discard);
        if !discarded {
            let after = taken.as_ref().map_or_else(|refused| refused.clock.max(clock), |taken| taken.clock);
            self.clocks.insert(partition, after);
        }
        if is_parked {
            return;
        }
        let (all, type_) = match &taken {
            Ok(taken) => (taken.rows(), &taken.type_),
            Err(refused) => (refused.rows.clone(), &refused.type_),
        };
        self.obscure += u64::from(discarded && taken.is_err() && all.is_empty());
        let rows: Vec<(usize, Key)> = all.into_iter().filter(|(table, key)| self.rows.have(*table, key)).collect();
        if !rows.is_empty() {
            let type_ = type_.as_ref().map(ToString::to_string);
            let (message, verdict) = (Message::of(record), verdict.cloned());
            self.kept.push(Kept { source, message, type_, clock, rows, verdict });
        }
        if let Ok(taken) = &taken
            && !discarded
        {
            for family in &mut self.families {
                taken.patches.iter().for_each(|row| family.look_at(self.plan, row));
            }
        }
    }

    pub fn end(self) -> Found {
        let notes = (self.obscure > 0).then(|| {
            format!("{} of the discarded events cannot be read: which rows they were about is not known", self.obscure)
        });
        let children = self.families.into_iter();
        let children = children.flat_map(|family| family.children.into_iter().map(move |key| (family.way, key)));
        Found { kept: self.kept, children: children.collect(), notes: notes.into_iter().collect() }
    }
}

/// The record with the payload that a person gave it, if one did.
fn corrected<'r>(record: &Record<'r>, verdict: Option<&'r Verdict>) -> Option<Record<'r>> {
    match &verdict?.decision {
        Decision::Correct { payload } => Some(Record { payload: payload.as_deref(), ..record.clone() }),
        Decision::Discard => None,
    }
}

/// Rows that may belong to rows that matter, by one rollup.
struct Family {
    way: usize,
    table: usize,
    by: Vec<RowRef>,
    /// What the keys of the others have in each part.
    wanted: Vec<HashSet<Value>>,
    /// Which of these a row has had so far, one bit each: the parts of a key may come one by one.
    had: HashMap<Key, u64>,
    children: HashSet<Key>,
}

impl Family {
    fn of(plan: &Plan, ways: &[Way], at: usize) -> Option<Family> {
        let (from, edge) = ways[at].over.as_ref()?;
        let rollup = plan.rollup(edge).filter(|rollup| !is_derived(&plan.tables[edge.from], &rollup.by))?;
        let parents = &ways[*from].keys;
        let part = |at: usize| -> HashSet<Value> { parents.iter().map(|key| key[at].clone()).collect() };
        Some(Family {
            way: at,
            table: edge.from,
            by: rollup.by.clone(),
            wanted: (0..rollup.by.len()).map(part).collect(),
            had: HashMap::new(),
            children: HashSet::new(),
        })
    }

    fn look_at(&mut self, plan: &Plan, row: &RowPatch) {
        if row.table != self.table {
            return;
        }
        let columns = &plan.tables[self.table].columns;
        let mut bits = 0;
        for (part, (by, wanted)) in self.by.iter().zip(&self.wanted).enumerate() {
            let column = usize::from(by.at);
            let has = match by.of_key {
                true => wanted.contains(&row.key[column]),
                false => wanted.contains(&columns[column].shape.default) || may_become(&row.patch, by.at, wanted),
            };
            bits |= u64::from(has) << part;
        }
        if bits == 0 {
            return;
        }
        let had = self.had.entry(row.key.clone()).or_default();
        *had |= bits;
        if had.count_ones() as usize == self.by.len() {
            self.children.insert(row.key.clone());
        }
    }
}

/// Whether a column may be one of these values after a patch. When in doubt, it may: what does not belong there adds
/// nothing in the end.
fn may_become(patch: &Patch, column: u16, wanted: &HashSet<Value>) -> bool {
    let step = |step: &Step| match step {
        Step::Closed(patch) => may_become(patch, column, wanted),
        Step::OnRow(step) => {
            sets(&step.changes, column, wanted) || step.effects.iter().any(|effect| effect.column == column)
        }
    };
    sets(&patch.changes, column, wanted) || patch.tail.iter().any(step)
}

fn sets(changes: &[(u16, Change)], column: u16, wanted: &HashSet<Value>) -> bool {
    changes.iter().filter(|(at, _)| *at == column).any(|(_, change)| match change {
        Change::Set(value) | Change::Max(value) | Change::Min(value) | Change::Newest { value, .. } => {
            wanted.contains(value)
        }
        Change::Add(_) | Change::Merge(_) | Change::Records(_) => true,
    })
}

/// The messages by the time of their records, as far as each partition's order allows it.
pub fn merged(kept: Vec<Kept>) -> Vec<Kept> {
    let mut partitions: BTreeMap<Partition, VecDeque<Kept>> = BTreeMap::new();
    for event in kept {
        let place = &event.message.place;
        partitions.entry(Partition::new(place.topic.clone(), place.partition)).or_default().push_back(event);
    }
    let mut queues: Vec<VecDeque<Kept>> = partitions.into_values().collect();
    let head = |queue: &VecDeque<Kept>, at: usize| queue.front().map(|event| Reverse((event.message.time, at)));
    let mut heads: BinaryHeap<_> = queues.iter().enumerate().filter_map(|(at, queue)| head(queue, at)).collect();
    let mut order = Vec::new();
    while let Some(Reverse((_, at))) = heads.pop() {
        order.extend(queues[at].pop_front());
        heads.extend(head(&queues[at], at));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(partition: i32, offset: i64, time: i64) -> Kept {
        let place = Partition::new("t", partition).at(offset);
        let message = Message { place, time: Some(time), key: None, payload: None, headers: Vec::new() };
        Kept { source: 0, message, type_: None, clock: None, rows: Vec::new(), verdict: None }
    }

    #[test]
    fn records_are_told_by_their_time_and_partitions_in_their_order() {
        // The clock of the first partition's producer goes wrong.
        let all = [(0, 1, 10), (0, 2, 50), (0, 3, 20), (1, 1, 15), (1, 2, 30)];
        let order = merged(all.map(|(partition, offset, time)| kept(partition, offset, time)).into());
        let order: Vec<(i32, i64)> =
            order.iter().map(|event| (event.message.place.partition, event.message.place.offset)).collect();
        assert_eq!(order, [(0, 1), (1, 1), (1, 2), (0, 2), (0, 3)]);
    }

    #[test]
    fn a_patch_may_set_what_it_says_and_what_it_does_not_say() {
        let wanted = HashSet::from([Value::text("c1")]);
        let patch = |change: Change| Patch { changes: vec![(3, change)], ..Patch::default() };
        assert!(may_become(&patch(Change::Set(Value::text("c1"))), 3, &wanted));
        assert!(!may_become(&patch(Change::Set(Value::text("c2"))), 3, &wanted));
        assert!(!may_become(&patch(Change::Set(Value::text("c1"))), 2, &wanted));
        let later = Patch { tail: vec![Step::Closed(patch(Change::Set(Value::text("c1"))))], ..Patch::default() };
        assert!(may_become(&later, 3, &wanted));
        assert!(may_become(&patch(Change::Add(Value::Int(1))), 3, &wanted));
    }
}
