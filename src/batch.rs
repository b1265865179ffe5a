//! A batch: folded patches and the progress they stand for, committed as one.

use std::cmp::Ordering;
use std::collections::HashMap;

use smallvec::SmallVec;

use crate::checkpoint::Progress;
use crate::fold::RowPatches;
use crate::patch::{Overflow, Patch};
use crate::plan::Plan;
use crate::proof::{self, Sabotage};
use crate::value::Value;

/// A row's key: one coerced value for each key column.
pub type Key = SmallVec<[Value; 1]>;

pub type Patches = HashMap<Key, Patch, ahash::RandomState>;

/// What a lane has folded since its last commit.
#[derive(Debug, Default)]
pub struct Batch {
    /// By index of [`Plan::tables`].
    pub tables: Vec<Patches>,
    pub progress: Progress,
    /// Memory the patches take, about.
    pub bytes: usize,
}

impl Batch {
    pub fn new(plan: &Plan) -> Batch {
        Batch { tables: plan.tables.iter().map(|_| Patches::default()).collect(), ..Batch::default() }
    }

    /// Takes an event's patches in.
    ///
    /// # Errors
    /// When a sum leaves its column's type. The event may then be in the batch by half: the batch is not to be
    /// committed, but folded again without the event.
    pub fn absorb(&mut self, plan: &Plan, patches: RowPatches) -> Result<(), (usize, Overflow)> {
        const ENTRY: usize = size_of::<Key>() + 16;
        for row in patches {
            let shapes = &plan.tables[row.table].shapes;
            match self.tables[row.table].entry(row.key) {
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    let heap: usize = vacant.key().iter().map(Value::heap_bytes).sum();
                    self.bytes += ENTRY + heap + row.patch.size();
                    vacant.insert(row.patch);
                }
                std::collections::hash_map::Entry::Occupied(mut occupied) => {
                    let patch = occupied.get_mut();
                    let before = patch.size();
                    patch.then(row.patch, shapes).map_err(|overflow| (row.table, overflow))?;
                    self.bytes = (self.bytes + patch.size()).saturating_sub(before);
                }
            }
        }
        Ok(())
    }

    /// Closes the batch for writing: each table's patches in the order of their keys.
    pub fn seal(self) -> Sealed {
        let sorted = |patches: Patches| {
            let mut rows: Vec<(Key, Patch)> = patches.into_iter().collect();
            if !proof::sabotaged(Sabotage::KeyOrder) {
                rows.sort_unstable_by(|(a, _), (b, _)| compare_keys(a, b));
            }
            rows
        };
        Sealed { tables: self.tables.into_iter().map(sorted).collect(), progress: self.progress }
    }
}

/// A batch that is ready to be written, and can be written again when Postgres was away.
#[derive(Debug)]
pub struct Sealed {
    /// By index of [`Plan::tables`], sorted by key.
    pub tables: Vec<Vec<(Key, Patch)>>,
    pub progress: Progress,
}

fn compare_keys(a: &Key, b: &Key) -> Ordering {
    let columns = a.iter().zip(b).map(|(x, y)| x.compare(y).unwrap_or(Ordering::Equal));
    columns.fold(Ordering::Equal, Ordering::then)
}
