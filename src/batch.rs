//! A batch: folded patches and the progress they stand for, committed as one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use smallvec::SmallVec;

use crate::checkpoint::Progress;
use crate::demand::Share;
use crate::fold::RowPatches;
use crate::parking::Letter;
use crate::patch::{Misapplied, Patch};
use crate::plan::Plan;
use crate::proof::{self, Sabotage};
use crate::seen::Counted;
use crate::value::Value;

/// A row's key: one coerced value for each key column.
pub type Key = SmallVec<[Value; 1]>;

pub type Patches = HashMap<Key, Patch, ahash::RandomState>;

/// Why an event's patches cannot be taken into a batch.
#[derive(Debug)]
pub struct Unabsorbed {
    pub table: usize,
    pub error: Misapplied,
    /// Some of them are in the batch: it is not to be committed, but folded again without the event. So it goes with an
    /// event that touches a row several times, which no look beforehand sees.
    pub halfway: bool,
}

/// What a lane has folded since its last commit.
#[derive(Debug, Default)]
pub struct Batch {
    /// By index of [`Plan::tables`].
    pub tables: Vec<Patches>,
    pub progress: Progress,
    /// Events whose repeats are to be found out.
    pub counted: Vec<Counted>,
    /// Events that no table handles, by the source's index and their type.
    pub unhandled: BTreeMap<(usize, String), u64>,
    /// Events that are parked instead of applied, in the order of their offsets.
    pub parked: Vec<Letter>,
    /// Events passed over because the projection says so, by error code.
    pub skipped: BTreeMap<&'static str, u64>,
    /// That it commits does not yet mean that nothing of its partitions brings the process down.
    pub careful: bool,
    /// Of a generation that nobody reads yet.
    pub building: Option<Arc<Building>>,
    /// Memory the batch takes, about.
    pub bytes: usize,
}

impl Batch {
    pub fn new(plan: &Plan) -> Batch {
        Batch { tables: plan.tables.iter().map(|_| Patches::default()).collect(), ..Batch::default() }
    }

    /// Takes an event's patches in.
    ///
    /// # Errors
    /// When a sum leaves its column's type.
    pub fn absorb(&mut self, plan: &Plan, patches: RowPatches) -> Result<(), Unabsorbed> {
        const ENTRY: usize = size_of::<Key>() + 16;
        for row in patches.iter().filter(|row| row.patch.can_fail()) {
            if let Some(known) = self.tables[row.table].get(&row.key) {
                let fits = known.check_then(&row.patch, &plan.tables[row.table].shapes);
                fits.map_err(|error| Unabsorbed { table: row.table, error, halfway: false })?;
            }
        }
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
                    let composed = patch.then(row.patch, shapes);
                    composed.map_err(|error| Unabsorbed { table: row.table, error, halfway: true })?;
                    self.bytes = (self.bytes + patch.size()).saturating_sub(before);
                }
            }
        }
        Ok(())
    }

    /// Counts an event that no table handles. Types are counted up to a number: a source may make up ever new ones.
    pub fn pass_over(&mut self, source: usize, type_: &str) {
        const MOST_TYPES: usize = 200;
        if let Some(events) = self.unhandled.get_mut(&(source, type_.to_string())) {
            *events += 1;
        } else if self.unhandled.len() < MOST_TYPES {
            self.unhandled.insert((source, type_.to_string()), 1);
        }
    }

    pub fn count(&mut self, counted: Counted) {
        self.bytes += size_of::<Counted>() + counted.partition.topic.len();
        self.counted.push(counted);
    }

    pub fn park(&mut self, letter: Letter) {
        self.bytes += size_of::<Letter>() + letter.message.bytes() + 64 * letter.rows.len();
        self.parked.push(letter);
    }

    pub fn skip(&mut self, code: &'static str) {
        *self.skipped.entry(code).or_default() += 1;
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
        Sealed {
            tables: self.tables.into_iter().map(sorted).collect(),
            progress: self.progress,
            counted: self.counted,
            unhandled: self.unhandled,
            parked: self.parked,
            skipped: self.skipped,
            careful: self.careful,
            building: self.building,
        }
    }
}

/// A batch that is ready to be written, and can be written again when Postgres was away.
#[derive(Debug, Default)]
pub struct Sealed {
    /// By index of [`Plan::tables`], sorted by key.
    pub tables: Vec<Vec<(Key, Patch)>>,
    pub progress: Progress,
    pub counted: Vec<Counted>,
    pub unhandled: BTreeMap<(usize, String), u64>,
    pub parked: Vec<Letter>,
    pub skipped: BTreeMap<&'static str, u64>,
    pub careful: bool,
    pub building: Option<Arc<Building>>,
}

/// How a generation is written that nobody reads yet.
#[derive(Debug)]
pub struct Building {
    /// The part of the time that writing may take while others need answers.
    pub share: Share,
    /// By index of [`Plan::tables`]: rows of it were met that had been written before.
    met: Vec<AtomicBool>,
}

impl Building {
    pub fn new(plan: &Plan, share: Share) -> Building {
        Building { share, met: plan.tables.iter().map(|_| AtomicBool::new(false)).collect() }
    }

    /// Whether all rows of a table were new so far.
    pub fn is_new(&self, table: usize) -> bool {
        !self.met[table].load(Ordering::Relaxed)
    }

    /// A row of the table was there already: others will be, too.
    pub fn met(&self, table: usize) {
        self.met[table].store(true, Ordering::Relaxed);
    }
}

/// The order in which rows are locked.
pub fn compare_keys(a: &Key, b: &Key) -> std::cmp::Ordering {
    let columns = a.iter().zip(b).map(|(x, y)| x.compare(y).unwrap_or(std::cmp::Ordering::Equal));
    columns.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
}
