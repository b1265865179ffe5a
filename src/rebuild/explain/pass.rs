//! One reading of the log: for each row that is looked into, the messages that touch a row which matters for it, and rows
//! that were not known to. A message is taken in once, however many rows are looked into.

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
use crate::source::Ranges;
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

/// What a reading of the log has found for one row.
#[derive(Debug)]
pub struct Found {
    /// Each partition's in order. `None`: they were too many.
    pub kept: Option<Vec<Kept>>,
    /// Rows that belonged to one that matters at some time, each with the way to it.
    pub children: Vec<(usize, Key)>,
}

/// The source that reads a topic.
pub fn source_of(plan: &Plan, topic: &str) -> Option<usize> {
    plan.sources.iter().position(|source| source.topics.matches(topic))
}

/// A reading that is under way, of one generation.
pub struct Pass<'p> {
    plan: &'p Plan,
    moment: &'p Moment,
    /// What the generation has read.
    ranges: &'p Ranges,
    parked: BTreeSet<&'p Place>,
    hunts: Vec<Hunt>,
    clocks: HashMap<Partition, Option<i64>>,
    /// Events that were discarded and of which nobody can say what they would touch.
    obscure: u64,
}

impl<'p> Pass<'p> {
    /// `hunts` has an entry for each row that is looked into: the ways from it, and how many messages are kept of it at most.
    pub fn new<'w>(
        plan: &'p Plan,
        moment: &'p Moment,
        ranges: &'p Ranges,
        hunts: impl Iterator<Item = (&'w [Way], usize)>,
    ) -> Pass<'p> {
        Pass {
            plan,
            moment,
            ranges,
            parked: moment.parked.iter().map(|parked| &parked.place).collect(),
            hunts: hunts.map(|(ways, most)| Hunt::of(plan, ways, most)).collect(),
            clocks: HashMap::new(),
            obscure: 0,
        }
    }

    /// Takes the next message of its partition. It is taken as a lane would take it that builds the view anew; what is
    /// parked only moves the partition's time.
    pub fn take(&mut self, record: &Record<'_>) {
        let Some(source) = source_of(self.plan, record.topic) else { return };
        let partition = Partition::new(record.topic, record.partition);
        if !self.ranges.get(&partition).is_some_and(|range| range.contains(&record.offset)) {
            return;
        }
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
        let (rows, type_) = match &taken {
            Ok(taken) => (taken.rows(), &taken.type_),
            Err(refused) => (refused.rows.clone(), &refused.type_),
        };
        self.obscure += u64::from(discarded && taken.is_err() && rows.is_empty());
        let kept = |rows| {
            let type_ = type_.as_ref().map(ToString::to_string);
            Kept { source, message: Message::of(record), type_, clock, rows, verdict: verdict.cloned() }
        };
        let patches = taken.as_ref().ok().filter(|_| !discarded).map(|taken| &taken.patches[..]).unwrap_or_default();
        for hunt in &mut self.hunts {
            hunt.take(self.plan, &rows, patches, &kept);
        }
    }

    /// What was found for each row, and what is not known.
    pub fn end(self) -> (Vec<Found>, Vec<String>) {
        let notes = (self.obscure > 0).then(|| {
            format!("{} of the discarded events cannot be read: which rows they were about is not known", self.obscure)
        });
        (self.hunts.into_iter().map(Hunt::end).collect(), notes.into_iter().collect())
    }
}

/// What is looked for because of one row.
struct Hunt {
    rows: Rows,
    families: Vec<Family>,
    kept: Vec<Kept>,
    most: usize,
    too_many: bool,
}

impl Hunt {
    fn of(plan: &Plan, ways: &[Way], most: usize) -> Hunt {
        let families = (0..ways.len()).filter_map(|at| Family::of(plan, ways, at)).collect();
        Hunt { rows: Rows::of(plan, ways), families, kept: Vec::new(), most, too_many: false }
    }

    fn take(
        &mut self,
        plan: &Plan,
        rows: &[(usize, Key)],
        patches: &[RowPatch],
        kept: &dyn Fn(Vec<(usize, Key)>) -> Kept,
    ) {
        if self.too_many {
            return;
        }
        let own: Vec<(usize, Key)> = rows.iter().filter(|(table, key)| self.rows.have(*table, key)).cloned().collect();
        if !own.is_empty() {
            self.kept.push(kept(own));
        }
        if self.kept.len() > self.most {
            self.too_many = true;
            self.kept = Vec::new();
        }
        for family in &mut self.families {
            patches.iter().for_each(|row| family.look_at(plan, row));
        }
    }

    fn end(self) -> Found {
        let children = self.families.into_iter();
        let children = children.flat_map(|family| family.children.into_iter().map(move |key| (family.way, key)));
        Found { kept: (!self.too_many).then_some(self.kept), children: children.collect() }
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
