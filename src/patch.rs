//! Patches: what events do to a row, as values that compose.
//!
//! `a.then(b)` is the patch that does what `a` and then `b` do; it is associative and [`Patch::default`] is its
//! identity, so a million events over a thousand keys become a thousand patches. [`Patch::apply`] is the one meaning
//! of a patch; the store's bulk upsert has to agree with it, and property tests hold it to that.

use crate::plan::types::{self, ColumnType};
use crate::value::Value;

/// What happens to one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Set(Value),
    /// Adds; NULL counts as zero.
    Add(Value),
    /// Keeps the greater; NULL counts as nothing.
    Max(Value),
    Min(Value),
}

/// What happens to the presence of sources in a row, one bit each. The two sets are disjoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presence {
    pub begun: u32,
    pub ended: u32,
}

/// What happens to one row. Changes are sorted by column and name each column once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patch {
    pub presence: Presence,
    pub changes: Vec<(u16, Change)>,
}

/// A row as the patches see it: a value a column, and which sources are present.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    pub present: u32,
    pub values: Vec<Value>,
}

/// What composing and applying need to know of a column.
#[derive(Debug, Clone)]
pub struct ColumnShape {
    pub type_: ColumnType,
    pub default: Value,
}

/// Two changes to a column have no exact result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overflow {
    pub column: u16,
    pub message: String,
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
    /// Extends this patch by what comes after it.
    ///
    /// # Errors
    /// When a sum leaves its column's type. The patch is then not to be used.
    pub fn then(&mut self, next: Patch, columns: &[ColumnShape]) -> Result<(), Overflow> {
        self.presence = self.presence.then(next.presence);
        for (column, change) in next.changes {
            match self.changes.binary_search_by_key(&column, |(c, _)| *c) {
                Err(at) => self.changes.insert(at, (column, change)),
                Ok(at) => {
                    let earlier = &mut self.changes[at].1;
                    let before = std::mem::replace(earlier, Change::Set(Value::Null));
                    *earlier = before
                        .then(change, &columns[usize::from(column)].type_)
                        .map_err(|message| Overflow { column, message })?;
                }
            }
        }
        Ok(())
    }

    /// Applies the patch to a row.
    ///
    /// # Errors
    /// When a sum leaves its column's type. The row is then not to be used.
    pub fn apply(&self, row: &mut Row, columns: &[ColumnShape]) -> Result<(), Overflow> {
        row.present = self.presence.apply(row.present);
        for (column, change) in &self.changes {
            let value = &mut row.values[usize::from(*column)];
            *value = change
                .apply(value, &columns[usize::from(*column)].type_)
                .map_err(|message| Overflow { column: *column, message })?;
        }
        Ok(())
    }

    /// Bytes the patch takes in memory, about.
    pub fn size(&self) -> usize {
        size_of::<Patch>()
            + self.changes.iter().map(|(_, c)| size_of::<(u16, Change)>() + c.value().heap_bytes()).sum::<usize>()
    }
}

impl Row {
    /// The row before anything was said about it.
    pub fn blank(columns: &[ColumnShape]) -> Row {
        Row { present: 0, values: columns.iter().map(|column| column.default.clone()).collect() }
    }
}

impl Change {
    pub fn value(&self) -> &Value {
        match self {
            Change::Set(v) | Change::Add(v) | Change::Max(v) | Change::Min(v) => v,
        }
    }

    fn then(self, next: Change, type_: &ColumnType) -> Result<Change, String> {
        Ok(match (self, next) {
            (_, Change::Set(value)) => Change::Set(value),
            (Change::Set(value), next) => Change::Set(next.apply(&value, type_)?),
            (Change::Add(a), Change::Add(b)) => Change::Add(types::add(&a, &b)?),
            (Change::Max(a), Change::Max(b)) => Change::Max(extreme(a, b, type_, true)),
            (Change::Min(a), Change::Min(b)) => Change::Min(extreme(a, b, type_, false)),
            (a, b) => return Err(format!("{a:?} then {b:?} has no one patch: the plan refuses such handlers")),
        })
    }

    fn apply(&self, value: &Value, type_: &ColumnType) -> Result<Value, String> {
        match self {
            Change::Set(new) => Ok(new.clone()),
            Change::Add(amount) => type_.coerce(types::add(value, amount)?),
            Change::Max(other) => Ok(extreme(value.clone(), other.clone(), type_, true)),
            Change::Min(other) => Ok(extreme(value.clone(), other.clone(), type_, false)),
        }
    }
}

fn extreme(a: Value, b: Value, type_: &ColumnType, greatest: bool) -> Value {
    if a.is_null() {
        return b;
    }
    if b.is_null() {
        return a;
    }
    let ordering = type_.compare(&a, &b);
    if (greatest && ordering.is_lt()) || (!greatest && ordering.is_gt()) { b } else { a }
}

#[cfg(test)]
mod tests;
