//! What a handler does that depends on the row as it is: kept in order, and run when the row is there.

use std::sync::Arc;

use super::change::Change;
use super::merge::Merge;
use super::{ColumnShape, EVER, Misapplied, Patch, Presence, Row};
use crate::event::Place;
use crate::plan::Fold;
use crate::plan::expr::{Env, Expr, Failure, RowView};
use crate::value::Value;
use crate::version::Version;

/// A part of a patch that comes after its closed changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Changes that say all by themselves.
    Closed(Patch),
    /// An event's, to be worked out on the row.
    OnRow(Arc<OnRow>),
}

/// What one event does to a row by what the row is. Expressions are bound: they read nothing but the row.
#[derive(Debug)]
pub struct OnRow {
    pub reset: Reset,
    pub when: Option<Expr>,
    pub require: Vec<(String, Expr)>,
    pub presence: Presence,
    /// What does not depend on the row.
    pub changes: Vec<(u16, Change)>,
    pub effects: Vec<BoundEffect>,
    pub origin: Origin,
}

/// When a row starts from nothing before an event meets it.
#[derive(Debug, Clone, Default)]
pub struct Reset {
    /// The time of the event's partition, in microseconds.
    pub clock: Option<i64>,
    /// The column that says when the row expires.
    pub expire: Option<u16>,
    /// The column that says when the row is forgotten, if it has ended; and those that say, under `latest`, that it has not.
    pub forget: Option<(u16, Vec<u16>)>,
}

impl Reset {
    fn is_due(&self, row: &Row) -> bool {
        let Some(clock) = self.clock else { return false };
        let passed = |column: u16| matches!(row.values[usize::from(column)], Value::Time(end) if end <= clock);
        let present = |alive: &[u16]| {
            row.present & (EVER - 1) != 0 || alive.iter().any(|at| row.values[usize::from(*at)] == Value::Bool(true))
        };
        self.expire.is_some_and(passed)
            || self.forget.as_ref().is_some_and(|(column, alive)| passed(*column) && !present(alive))
    }
}

#[derive(Debug)]
pub struct BoundEffect {
    pub column: u16,
    pub fold: Fold,
    pub expr: Expr,
    pub not_null: bool,
    pub version: Option<Version>,
}

/// Where a step came from, for its errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub place: Place,
    pub index: u32,
    /// File, line and table.
    pub at: Arc<str>,
}

/// One event meets a row of a table in one step at most for each handler; the origin tells them apart.
impl PartialEq for OnRow {
    fn eq(&self, other: &OnRow) -> bool {
        self.origin == other.origin && self.presence == other.presence && self.changes == other.changes
    }
}

impl OnRow {
    pub(super) fn apply(&self, key: &[Value], row: &mut Row, columns: &[ColumnShape]) -> Result<(), Misapplied> {
        if self.reset.is_due(row) {
            *row = Row::blank(columns);
        }
        if let Some(when) = &self.when
            && !self.holds(when, key, row, "when")?
        {
            return Ok(());
        }
        for (name, condition) in &self.require {
            if !self.holds(condition, key, row, "require")? {
                let message = format!("the requirement `{name}` does not hold: {}", condition.text);
                return Err(self.misapplied(Failure { code: "requirement", message }, "require"));
            }
        }
        // All expressions read the row as it was before this event.
        let mut changes = self.changes.clone();
        for effect in &self.effects {
            if let Some(change) = self.change(effect, key, row, columns)? {
                changes.push((effect.column, change));
            }
        }
        let patch = Patch { presence: self.presence, changes, tail: Vec::new() };
        patch.apply(key, row, columns).map_err(|mut error| {
            error.place = Some(self.origin.place.clone());
            error
        })
    }

    fn holds(&self, condition: &Expr, key: &[Value], row: &Row, word: &str) -> Result<bool, Misapplied> {
        condition.holds(&Env::row(RowView { key, values: &row.values })).map_err(|f| self.misapplied(f, word))
    }

    fn change(
        &self,
        effect: &BoundEffect,
        key: &[Value],
        row: &Row,
        columns: &[ColumnShape],
    ) -> Result<Option<Change>, Misapplied> {
        let shape = &columns[usize::from(effect.column)];
        let value = effect.expr.eval(&Env::row(RowView { key, values: &row.values }));
        let change = value.and_then(|value| change_of(effect.fold, value, shape, effect.not_null, &effect.version));
        change.map_err(|failure| self.misapplied(failure, effect.fold.word()))
    }

    fn misapplied(&self, failure: Failure, doing: &str) -> Misapplied {
        Misapplied {
            place: Some(self.origin.place.clone()),
            column: None,
            code: failure.code,
            message: format!("{} ({}, {doing})", failure.message, self.origin.at),
        }
    }
}

/// The change that a value makes, for every way to fold but `push`. `None`: none.
///
/// # Errors
/// When the value does not fit its column.
pub fn change_of(
    fold: Fold,
    value: Value,
    shape: &ColumnShape,
    not_null: bool,
    version: &Option<Version>,
) -> Result<Option<Change>, Failure> {
    const UNCHANGED: &str = "__debezium_unavailable_value";
    if fold == Fold::Spread && matches!(&value, Value::Text(text) if text == UNCHANGED) {
        return Ok(None);
    }
    if fold == Fold::Remove {
        return super::Records::remove(&value).map(|records| Some(Change::Records(records))).map_err(Failure::wrong);
    }
    if fold == Fold::Merge {
        let merge = if value.is_null() { None } else { Some(Merge::of_patch(&value, version.clone())) };
        return merge.transpose().map(|merge| merge.map(Change::Merge)).map_err(Failure::wrong);
    }
    let value = shape.type_.coerce(value).map_err(Failure::wrong)?;
    let sets = fold.sets();
    if value.is_null() && not_null && sets {
        return Err(Failure { code: "not-null", message: "the value is NULL, the column is not_null".into() });
    }
    Ok(match (fold, value, version) {
        (_, value, Some(version)) if sets && shape.members.is_some() => {
            Some(Change::Merge(Merge::of_value(&value, Some(version.clone()))))
        }
        (_, value, Some(version)) if sets => Some(Change::Newest { version: version.clone(), value }),
        (_, value, None) if sets => Some(Change::Set(value)),
        (_, Value::Null, _) => None,
        (Fold::Add, value, _) => Some(Change::Add(value)),
        (Fold::Max, value, _) => Some(Change::Max(value)),
        (_, value, _) => Some(Change::Min(value)),
    })
}
