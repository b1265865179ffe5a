//! Messages applied one by one to tables in memory that hold the rows that matter, and no others.

use std::collections::{HashMap, HashSet};

use super::follow::{Way, is_derived};
use super::pass::Kept;
use crate::batch::Key;
use crate::checkpoint::Partition;
use crate::fold::{Identity, RowPatch};
use crate::golden::Model;
use crate::intake::intake;
use crate::patch::Row;
use crate::plan::derived::Join;
use crate::plan::{Plan, Table};

/// The rows that matter, by table.
#[derive(Debug)]
pub struct Rows(Vec<HashSet<Key>>);

impl Rows {
    pub fn of(plan: &Plan, ways: &[Way]) -> Rows {
        let mut rows = vec![HashSet::new(); plan.tables.len()];
        for way in ways {
            rows[way.table].extend(way.keys.iter().cloned());
        }
        Rows(rows)
    }

    pub fn have(&self, table: usize, key: &Key) -> bool {
        self.0[table].contains(key)
    }
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    Discarded,
    /// It did nothing, and why.
    PassedOver(String),
}

/// The tables, and what was counted so far.
pub struct Replay<'p> {
    plan: &'p Plan,
    rows: &'p Rows,
    pub model: Model,
    counted: HashMap<(Partition, Identity), i64>,
}

impl<'p> Replay<'p> {
    pub fn new(plan: &'p Plan, rows: &'p Rows) -> Replay<'p> {
        Replay { plan, rows, model: Model::new(plan), counted: HashMap::new() }
    }

    pub fn take(&mut self, event: &Kept) -> Outcome {
        if event.is_discarded() {
            return Outcome::Discarded;
        }
        let place = &event.message.place;
        let partition = Partition::new(place.topic.clone(), place.partition);
        let known = |identity: &Identity, horizon: i64| {
            self.counted.get(&(partition.clone(), *identity)).is_some_and(|time| *time >= horizon)
        };
        let taken = match intake(self.plan, event.source, &event.message.record(), event.clock, &known) {
            Ok(taken) => taken,
            Err(refused) => return Outcome::PassedOver(refused.reason.to_string()),
        };
        let own: Vec<&RowPatch> = taken.patches.iter().filter(|row| self.rows.have(row.table, &row.key)).collect();
        if own.is_empty() {
            return Outcome::PassedOver("it was counted before".into());
        }
        if let Err(why) = self.apply(&own) {
            return Outcome::PassedOver(why);
        }
        for counted in taken.counted {
            self.counted.insert((counted.partition, counted.identity), counted.time);
        }
        Outcome::Applied
    }

    /// All of it or nothing: an event is an atom.
    fn apply(&mut self, patches: &[&RowPatch]) -> Result<(), String> {
        let before: Vec<Option<Row>> =
            patches.iter().map(|row| self.model.tables[row.table].get(&row.key).cloned()).collect();
        for row in patches {
            let applied = self.model.apply(self.plan, row.table, &row.key, &row.patch);
            if let Err(error) = applied {
                self.put_back(patches, before);
                return Err(error.told(&self.plan.tables[row.table]));
            }
        }
        Ok(())
    }

    fn put_back(&mut self, patches: &[&RowPatch], before: Vec<Option<Row>>) {
        for (patch, row) in patches.iter().zip(before) {
            let rows = &mut self.model.tables[patch.table];
            match row {
                Some(row) => rows.insert(patch.key.clone(), row),
                None => rows.remove(&patch.key),
            };
        }
    }
}

/// The rows that others referred to at any time, by joins, each with the way to it.
///
/// # Errors
/// When what follows from the rows has no value.
pub fn partners(plan: &Plan, ways: &[Way], kept: &[Kept]) -> Result<HashSet<(usize, Key)>, String> {
    let mut found = HashSet::new();
    let referring: Vec<Referring<'_>> = (0..ways.len()).filter_map(|at| Referring::of(plan, ways, at)).collect();
    if referring.is_empty() {
        return Ok(found);
    }
    for one in &referring {
        found.extend(one.keys.iter().filter_map(|key| one.partner(key, None)));
    }
    let rows = Rows::of(plan, ways);
    let mut replay = Replay::new(plan, &rows);
    for event in kept {
        if replay.take(event) != Outcome::Applied {
            continue;
        }
        for one in &referring {
            if one.follows {
                // Whatever the event touches may change whom these refer to.
                let tables = replay.model.derived(plan)?;
                found.extend(one.keys.iter().filter_map(|key| one.partner(key, tables[one.at].get(key))));
            } else {
                let touched = event.rows.iter().filter(|(table, key)| *table == one.at && one.keys.contains(key));
                let tables = &replay.model.tables;
                found.extend(touched.filter_map(|(_, key)| one.partner(key, tables[one.at].get(key))));
            }
        }
    }
    Ok(found)
}

/// Rows that refer to others by a join.
struct Referring<'r> {
    /// The way to the others.
    way: usize,
    at: usize,
    table: &'r Table,
    join: &'r Join,
    keys: &'r HashSet<Key>,
    /// To whom they refer follows from other rows.
    follows: bool,
}

impl<'r> Referring<'r> {
    fn of(plan: &'r Plan, ways: &'r [Way], way: usize) -> Option<Referring<'r>> {
        let (from, edge) = ways[way].over.as_ref()?;
        let join = plan.join(edge)?;
        let table = &plan.tables[edge.to];
        let follows = is_derived(table, &join.by);
        Some(Referring { way, at: edge.to, table, join, keys: &ways[*from].keys, follows })
    }

    /// Whom a row refers to, with the way there. One that is not there yet refers by its key and its defaults.
    fn partner(&self, key: &Key, row: Option<&Row>) -> Option<(usize, Key)> {
        let blank;
        let row = match row {
            Some(row) => row,
            None => {
                blank = Row::blank(&self.table.shapes);
                &blank
            }
        };
        let partner: Key = self.join.by.iter().map(|by| self.table.value(*by, key, row).clone()).collect();
        partner.iter().all(|part| !part.is_null()).then_some((self.way, partner))
    }
}
