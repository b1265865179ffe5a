//! The rows that a row follows from, by joins and rollups, whenever it did.

use std::collections::{BTreeSet, HashSet};

use crate::batch::Key;
use crate::plan::derived::{Edge, Join, Rollup, Via};
use crate::plan::expr::RowRef;
use crate::plan::{Plan, Table};

/// Rows of one table that are come to in one way: over these joins and rollups, from the row that is explained. The
/// first way is that row itself.
#[derive(Debug)]
pub struct Way {
    pub table: usize,
    /// The way that this one goes on from, and over what.
    pub over: Option<(usize, Edge)>,
    /// What the row is made of in them.
    columns: BTreeSet<u16>,
    pub keys: HashSet<Key>,
}

/// The ways from a row, with that row's key alone, and what is not followed. Only what its columns are made of counts:
/// who copies a customer's name has nothing to do with what the customer's other orders add up to.
pub fn ways(plan: &Plan, table: usize, key: &Key) -> (Vec<Way>, Vec<String>) {
    let all = (0..plan.tables[table].columns.len() as u16).collect();
    let mut ways = vec![Way { table, over: None, columns: all, keys: HashSet::from([key.clone()]) }];
    let mut notes = Vec::new();
    let mut at = 0;
    while at < ways.len() {
        let to = ways[at].table;
        let columns = with_references(&plan.tables[to], ways[at].columns.clone());
        for edge in plan.edges.iter().filter(|edge| edge.to == to) {
            let read = read_over(plan, edge, &columns).filter(|read| !goes_round(&ways, at, edge, read));
            let Some(read) = read else { continue };
            if let Some(rollup) = plan.rollup(edge).filter(|rollup| is_derived(&plan.tables[edge.from], &rollup.by)) {
                notes.push(not_followed(plan, edge, rollup));
            }
            ways.push(Way { table: edge.from, over: Some((at, *edge)), columns: read, keys: HashSet::new() });
        }
        at += 1;
    }
    (ways, notes)
}

/// Whether a way has been over the edge for the same columns. Who belongs to whom may go in a circle; once round is
/// enough.
fn goes_round(ways: &[Way], at: usize, edge: &Edge, columns: &BTreeSet<u16>) -> bool {
    let mut way = &ways[at];
    while let Some((from, over)) = &way.over {
        if over == edge && way.columns == *columns {
            return true;
        }
        way = &ways[*from];
    }
    false
}

/// The columns, and those by which the joins refer that fill some of them.
fn with_references(table: &Table, mut columns: BTreeSet<u16>) -> BTreeSet<u16> {
    loop {
        let joins = table.joins.iter().filter(|join| fills(join, &columns));
        let by: Vec<u16> = joins.flat_map(|join| &join.by).filter(|by| !by.of_key).map(|by| by.at).collect();
        let before = columns.len();
        columns.extend(by);
        if columns.len() == before {
            return columns;
        }
    }
}

fn fills(join: &Join, columns: &BTreeSet<u16>) -> bool {
    join.fill.iter().any(|(column, _)| columns.contains(column))
}

/// The columns of the other table that some columns are made of; `None` if they have nothing to do with it.
fn read_over(plan: &Plan, edge: &Edge, columns: &BTreeSet<u16>) -> Option<BTreeSet<u16>> {
    let table = &plan.tables[edge.to];
    let read: Vec<RowRef> = match edge.via {
        Via::Join(at) => {
            let join = Some(&table.joins[at]).filter(|join| fills(join, columns))?;
            let copied = join.fill.iter().filter(|(column, _)| columns.contains(column));
            copied.map(|(_, from)| *from).collect()
        }
        Via::Rollup(at) => {
            let rollup = &table.rollups[at];
            // Of a table without handlers, every rollup says whether the row is there.
            let counts = table.children.is_some() || rollup.fills().iter().any(|column| columns.contains(column));
            counts.then(|| rollup.reads())?
        }
    };
    Some(read.iter().filter(|column| !column.of_key).map(|column| column.at).collect())
}

/// Whether another row decides what a row refers to.
pub fn is_derived(table: &Table, by: &[RowRef]) -> bool {
    by.iter().any(|by| table.column(*by).derived)
}

fn not_followed(plan: &Plan, edge: &Edge, rollup: &Rollup) -> String {
    let (child, parent) = (&plan.tables[edge.from], &plan.tables[edge.to]);
    let by: Vec<&str> = rollup.by.iter().map(|by| child.column(*by).name.as_str()).collect();
    format!(
        "rows of {} belong to {} by {}, which other rows decide: they are not followed, and what they add is not told",
        child.name,
        parent.name,
        by.join(", ")
    )
}

/// Adds rows that were found, each with the way to it. False when all were known.
pub fn grow(ways: &mut [Way], found: impl Iterator<Item = (usize, Key)>) -> bool {
    let mut grown = false;
    for (way, key) in found {
        grown |= ways[way].keys.insert(key);
    }
    grown
}
