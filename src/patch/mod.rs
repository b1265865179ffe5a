//! Patches: what events do to a row, as values that compose.
//!
//! `a.then(b)` is the patch that does what `a` and then `b` do; it is associative and [`Patch::default`] is its
//! identity, so a million events over a thousand keys become a thousand patches. [`Patch::apply`] is the one meaning
//! of a patch; the store's bulk upsert has to agree with it, and property tests hold it to that.
//!
//! Closed changes say all by themselves and compose to one for each column. What depends on the row as it is stands in
//! the patch's tail, in order, and runs when the row is loaded.

mod change;
mod merge;
mod records;
mod step;

use std::sync::Arc;

use crate::event::Place;
use crate::plan::types::ColumnType;
use crate::value::Value;
use crate::version::Version;

pub use change::Change;
pub use merge::Merge;
pub use records::{RecordShape, Records};
pub use step::{BoundEffect, OnRow, Origin, Reset, Step, change_of};

/// What happens to the presence of sources in a row, one bit each. The two sets are disjoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presence {
    pub begun: u32,
    pub ended: u32,
}

/// The bit of a row that has ended for good.
pub const FINAL: u32 = 1 << 30;
/// The bit of a row that was ever there. Those below it are the sources'.
pub const EVER: u32 = 1 << 29;

/// What happens to one row. Changes are sorted by column and name each column once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patch {
    pub presence: Presence,
    pub changes: Vec<(u16, Change)>,
    /// What comes after the changes, in order.
    pub tail: Vec<Step>,
}

/// A row as the patches see it: a value a column, a version a slot, and which sources are present.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    pub present: u32,
    pub values: Vec<Value>,
    pub versions: Vec<Option<Version>>,
}

/// What composing and applying need to know of a column.
#[derive(Debug, Clone)]
pub struct ColumnShape {
    pub type_: ColumnType,
    pub default: Value,
    /// The row's version slot that says how new the column is, if it is under `latest`. Columns that are always written
    /// together share one.
    pub version: Option<u16>,
    /// The column that keeps the versions of a JSON document's members.
    pub members: Option<u16>,
    pub records: Option<Arc<RecordShape>>,
}

impl ColumnShape {
    pub fn plain(type_: ColumnType, default: Value) -> ColumnShape {
        ColumnShape { type_, default, version: None, members: None, records: None }
    }
}

/// A patch that cannot be applied, or two that have no exact composition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misapplied {
    /// The event, where it is known.
    pub place: Option<Place>,
    pub column: Option<u16>,
    pub code: &'static str,
    pub message: String,
}

impl Misapplied {
    /// The message, with the table and the column it is about.
    pub fn told(&self, table: &crate::plan::Table) -> String {
        match self.column {
            Some(at) => format!("{}.{}: {}", table.name, table.columns[usize::from(at)].name, self.message),
            None => self.message.clone(),
        }
    }

    fn overflow(column: u16, message: String) -> Misapplied {
        Misapplied { place: None, column: Some(column), code: "overflow", message }
    }
}

impl Presence {
    pub fn then(self, next: Presence) -> Presence {
        Presence { begun: (self.begun & !next.ended) | next.begun, ended: (self.ended & !next.begun) | next.ended }
    }

    pub fn apply(self, present: u32) -> u32 {
        (present & !self.ended) | self.begun
    }
}

impl Patch {
    /// Whether the row has ended for good after this, whatever it was.
    pub fn is_final(&self) -> bool {
        self.presence.begun & FINAL != 0 && self.tail.is_empty()
    }

    /// Whether this patch can be extended by the other.
    ///
    /// # Errors
    /// Those of [`Patch::then`].
    pub fn check_then(&self, next: &Patch, columns: &[ColumnShape]) -> Result<(), Misapplied> {
        let last = match self.tail.last() {
            None => self,
            Some(Step::Closed(last)) => last,
            Some(Step::OnRow(_)) => return Ok(()),
        };
        for (column, change) in next.changes.iter().filter(|(_, change)| change.can_fail()) {
            let Ok(at) = last.changes.binary_search_by_key(column, |(c, _)| *c) else { continue };
            let (_, earlier) = &last.changes[at];
            let composed = earlier.clone().then(change.clone(), &columns[usize::from(*column)]);
            composed.map_err(|message| Misapplied::overflow(*column, message))?;
        }
        Ok(())
    }

    /// Whether something may be in the way of composing it with what is before.
    pub fn can_fail(&self) -> bool {
        self.changes.iter().any(|(_, change)| change.can_fail())
    }

    /// Extends this patch by what comes after it.
    ///
    /// # Errors
    /// When a sum leaves its column's type. The patch is then not to be used.
    pub fn then(&mut self, next: Patch, columns: &[ColumnShape]) -> Result<(), Misapplied> {
        if self.is_final() {
            return Ok(());
        }
        if next.is_final() {
            *self = next;
            return Ok(());
        }
        let Patch { presence, changes, tail } = next;
        let closed = Patch { presence, changes, tail: Vec::new() };
        match self.tail.last_mut() {
            None => self.then_closed(closed, columns)?,
            Some(Step::Closed(last)) => last.then_closed(closed, columns)?,
            Some(Step::OnRow(_)) if closed == Patch::default() => {}
            Some(Step::OnRow(_)) => self.tail.push(Step::Closed(closed)),
        }
        for step in tail {
            match (self.tail.last_mut(), step) {
                (Some(Step::Closed(last)), Step::Closed(patch)) => last.then_closed(patch, columns)?,
                (_, step) => self.tail.push(step),
            }
        }
        Ok(())
    }

    fn then_closed(&mut self, next: Patch, columns: &[ColumnShape]) -> Result<(), Misapplied> {
        self.presence = self.presence.then(next.presence);
        for (column, change) in next.changes {
            match self.changes.binary_search_by_key(&column, |(c, _)| *c) {
                Err(at) => self.changes.insert(at, (column, change)),
                Ok(at) => {
                    let earlier = &mut self.changes[at].1;
                    let before = std::mem::replace(earlier, Change::Set(Value::Null));
                    *earlier = before
                        .then(change, &columns[usize::from(column)])
                        .map_err(|message| Misapplied::overflow(column, message))?;
                }
            }
        }
        Ok(())
    }

    /// Applies the patch to the row of a key.
    ///
    /// # Errors
    /// When a sum leaves its column's type, or an event that reads the row cannot be applied to it. The row is then not
    /// to be used.
    pub fn apply(&self, key: &[Value], row: &mut Row, columns: &[ColumnShape]) -> Result<(), Misapplied> {
        if row.present & FINAL != 0 {
            return Ok(());
        }
        row.present = self.presence.apply(row.present);
        for (column, change) in &self.changes {
            let at = usize::from(*column);
            change.apply(at, row, &columns[at]).map_err(|message| match change {
                Change::Merge(_) | Change::Records(_) => {
                    Misapplied { place: None, column: Some(*column), code: "wrong-value", message }
                }
                _ => Misapplied::overflow(*column, message),
            })?;
        }
        for step in &self.tail {
            match step {
                Step::Closed(patch) => patch.apply(key, row, columns)?,
                Step::OnRow(step) if row.present & FINAL == 0 => step.apply(key, row, columns)?,
                Step::OnRow(_) => {}
            }
        }
        Ok(())
    }

    /// Bytes the patch takes in memory, about.
    pub fn size(&self) -> usize {
        let changes = |changes: &[(u16, Change)]| {
            changes.iter().map(|(_, c)| size_of::<(u16, Change)>() + c.heap_bytes()).sum::<usize>()
        };
        let step = |step: &Step| match step {
            Step::Closed(patch) => patch.size(),
            Step::OnRow(step) => size_of::<OnRow>() + 256 * (1 + step.effects.len()) + changes(&step.changes),
        };
        size_of::<Patch>() + changes(&self.changes) + self.tail.iter().map(step).sum::<usize>()
    }
}

impl Row {
    /// The row before anything was said about it.
    pub fn blank(columns: &[ColumnShape]) -> Row {
        let slots = columns.iter().filter_map(|column| column.version).max().map_or(0, |slot| usize::from(slot) + 1);
        Row {
            present: 0,
            values: columns.iter().map(|column| column.default.clone()).collect(),
            versions: vec![None; slots],
        }
    }
}

#[cfg(test)]
mod tests;
