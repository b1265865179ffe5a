//! What happens to one column.

use super::merge::Merge;
use super::records::Records;
use super::{ColumnShape, Row};
use crate::plan::types::{self, ColumnType};
use crate::value::Value;
use crate::version::Version;

#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Set(Value),
    /// Adds; NULL counts as zero.
    Add(Value),
    /// Keeps the greater; NULL counts as nothing.
    Max(Value),
    Min(Value),
    /// Last-writer-wins: stands unless something newer was said.
    Newest {
        version: Version,
        value: Value,
    },
    /// Merges into a JSON document; under `latest` with versions, each member for itself.
    Merge(Merge),
    /// Puts records in and takes them out.
    Records(Records),
}

impl Change {
    /// The value that stands alone for the change, where one does.
    pub fn value(&self) -> &Value {
        match self {
            Change::Set(v) | Change::Add(v) | Change::Max(v) | Change::Min(v) => v,
            Change::Newest { value, .. } => value,
            Change::Merge(_) | Change::Records(_) => &Value::Null,
        }
    }

    pub fn version(&self) -> Option<&Version> {
        match self {
            Change::Newest { version, .. } => Some(version),
            _ => None,
        }
    }

    pub fn heap_bytes(&self) -> usize {
        match self {
            Change::Merge(merge) => merge.heap_bytes(),
            Change::Records(records) => records.heap_bytes(),
            Change::Newest { version, value } => version.as_bytes().len() + 16 + value.heap_bytes(),
            other => other.value().heap_bytes(),
        }
    }

    /// Sums can leave their type; all else composes, whatever it meets.
    pub(super) fn can_fail(&self) -> bool {
        matches!(self, Change::Add(_))
    }

    pub(super) fn then(self, next: Change, shape: &ColumnShape) -> Result<Change, String> {
        let type_ = &shape.type_;
        Ok(match (self, next) {
            (_, Change::Set(value)) => Change::Set(value),
            (Change::Set(value), next) if shape.version.is_none() && shape.members.is_none() => {
                Change::Set(next.folded(&value, shape)?)
            }
            (Change::Add(a), Change::Add(b)) => Change::Add(types::add(&a, &b)?),
            (Change::Max(a), Change::Max(b)) => Change::Max(extreme(a, b, type_, true)),
            (Change::Min(a), Change::Min(b)) => Change::Min(extreme(a, b, type_, false)),
            (Change::Newest { version, value }, Change::Newest { version: other, value: theirs }) => {
                if other >= version {
                    Change::Newest { version: other, value: theirs }
                } else {
                    Change::Newest { version, value }
                }
            }
            (Change::Merge(a), Change::Merge(b)) => Change::Merge(a.then(b)),
            (Change::Records(a), Change::Records(b)) => match &shape.records {
                Some(records) => Change::Records(a.then(b, records)),
                None => return Err("the column has no records".into()),
            },
            (a, b) => return Err(format!("{a:?} then {b:?} has no one patch: the plan refuses such handlers")),
        })
    }

    /// Applies the change to its column of a row.
    pub(super) fn apply(&self, column: usize, row: &mut Row, shape: &ColumnShape) -> Result<(), String> {
        match (self, shape.version, shape.members) {
            (Change::Newest { version, value }, Some(slot), _) => {
                let known = &mut row.versions[usize::from(slot)];
                if known.as_ref().is_none_or(|known| version >= known) {
                    *known = Some(version.clone());
                    row.values[column] = value.clone();
                }
            }
            (Change::Merge(merge), _, Some(members)) => {
                let members = usize::from(members);
                let all = Merge::from_value(&row.values[members])?.then(merge.clone());
                row.values[members] = all.to_value();
                row.values[column] = all.apply(&shape.default)?;
            }
            (change, ..) => row.values[column] = change.folded(&row.values[column], shape)?,
        }
        Ok(())
    }

    /// What becomes of a value, where nothing but the value counts.
    fn folded(&self, value: &Value, shape: &ColumnShape) -> Result<Value, String> {
        let type_ = &shape.type_;
        match self {
            Change::Set(new) | Change::Newest { value: new, .. } => Ok(new.clone()),
            Change::Add(amount) => type_.coerce(types::add(value, amount)?),
            Change::Max(other) => Ok(extreme(value.clone(), other.clone(), type_, true)),
            Change::Min(other) => Ok(extreme(value.clone(), other.clone(), type_, false)),
            Change::Merge(merge) => merge.apply(value),
            Change::Records(records) => match &shape.records {
                Some(shape) => records.apply(value, shape),
                None => Err("the column has no records".into()),
            },
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
