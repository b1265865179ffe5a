//! What a change of rows means to rows of other tables: rows are looked at before and after it, and what differs is marked.
//!
//! Before, the rows are locked, so that each change of a row is seen by exactly one transaction: the sum of all that was
//! marked is what the rows amount to, whatever ran at the same time.

use rust_decimal::Decimal;
use sqlx::postgres::PgConnection;

use super::error::StoreError;
use super::fill::refers_anew;
use super::locked::Reach;
use super::marks::{Marks, TooManyDigits};
use super::write::Target;
use crate::batch::Key;
use crate::error_kind::Reason;
use crate::patch::{Patch, Row};
use crate::plan::derived::{Addend, Rollup, Sum, Via};
use crate::plan::expr::{Env, Expr, Failure, RowRef, RowView};
use crate::plan::{Plan, Table};
use crate::proof::{self, Sabotage};
use crate::value::Value;

/// The columns of a table that other tables' rows follow from.
pub(super) struct Watch {
    /// Rows are aggregated: they are looked at before and after.
    reach: Option<Reach>,
    /// Edges of joins that begin here.
    joined: Vec<usize>,
    /// The columns that those copy.
    copied: Vec<u16>,
}

impl Watch {
    pub fn of(plan: &Plan, table: usize) -> Watch {
        let mut watch = Watch { reach: None, joined: Vec::new(), copied: Vec::new() };
        let mut read: Vec<RowRef> = Vec::new();
        for (at, edge) in plan.edges_from(table) {
            match edge.via {
                Via::Join(_) => {
                    watch.joined.push(at);
                    let fills = plan.join(edge).into_iter().flat_map(|join| &join.fill);
                    watch.copied.extend(fills.filter(|(_, from)| !from.of_key).map(|(_, from)| from.at));
                }
                Via::Rollup(_) => read.extend(plan.rollup(edge).into_iter().flat_map(Rollup::reads)),
            }
        }
        let own = &plan.tables[table];
        if plan.is_aggregated(table) {
            let columns = read.iter().filter(|at| !at.of_key).map(|at| at.at).chain(own.alive.iter().copied());
            watch.reach = Some(Reach::reading(columns.chain(own.children)));
        }
        watch
    }

    /// Whether nothing follows from the table's rows.
    pub fn is_idle(&self) -> bool {
        self.reach.is_none() && self.joined.is_empty()
    }

    /// The rows before a change, locked; they are made if they are not there.
    pub async fn before(
        &self,
        target: &Target<'_>,
        connection: &mut PgConnection,
        keys: &[&Key],
    ) -> Result<Vec<Row>, StoreError> {
        let Some(reach) = &self.reach else { return Ok(Vec::new()) };
        target.make_rows(connection, keys).await?;
        target.load(connection, reach, keys, !proof::sabotaged(Sabotage::ChildLocks)).await
    }

    /// Marks what the change of rows of these keys means elsewhere.
    pub async fn after(
        &self,
        target: &Target<'_>,
        connection: &mut PgConnection,
        keys: &[&Key],
        before: &[Row],
        marks: &mut Marks,
    ) -> Result<(), StoreError> {
        let Some(reach) = &self.reach else { return Ok(()) };
        let after = target.load(connection, reach, keys, false).await?;
        for ((key, before), after) in keys.iter().zip(before).zip(&after) {
            self.compare(target, key, before, after, marks).map_err(StoreError::Unapplied)?;
        }
        Ok(())
    }

    fn compare(
        &self,
        target: &Target<'_>,
        key: &Key,
        before: &Row,
        after: &Row,
        marks: &mut Marks,
    ) -> Result<(), Reason> {
        if before == after {
            return Ok(());
        }
        let child = target.table;
        for (at, edge) in target.plan.edges_from(target.at) {
            let Some(rollup) = target.plan.rollup(edge) else { continue };
            let told = |failure: Failure| {
                let to = &target.plan.tables[edge.to].name;
                Reason::new(failure.code, format!("{} into {to}: {}", child.name, failure.message))
            };
            let was = contribution(child, rollup, key, before).map_err(told)?;
            let is = contribution(child, rollup, key, after).map_err(told)?;
            let mut mark = |parent: &Key, deltas: &[Decimal], search: bool| {
                let added = marks.add(at, parent, deltas, search && !rollup.searches.is_empty());
                added.map_err(|TooManyDigits| too_many_digits()).map_err(told)
            };
            match (was, is) {
                (None, None) => {}
                (Some((parent, was)), Some((same, is))) if parent == same => {
                    let deltas: Vec<Decimal> = was.iter().zip(&is).map(|(was, is)| is - was).collect();
                    let differs = |read: &RowRef| child.value(*read, key, before) != child.value(*read, key, after);
                    mark(&parent, &deltas, rollup.searches.iter().any(|search| search.reads().iter().any(differs)))?;
                }
                (was, is) => {
                    if let Some((parent, was)) = was.filter(|_| !proof::sabotaged(Sabotage::OldParent)) {
                        let deltas: Vec<Decimal> = was.iter().map(|was| -*was).collect();
                        mark(&parent, &deltas, true)?;
                    }
                    if let Some((parent, is)) = is {
                        mark(&parent, &is, true)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Marks rows that others may copy from, by what is done to them; their values are not looked at.
    pub fn touched<'k>(&self, table: &Table, rows: impl Iterator<Item = (&'k Key, &'k Patch)>, marks: &mut Marks) {
        if self.joined.is_empty() {
            return;
        }
        let copied = |column: &u16| self.copied.contains(column) || table.alive.contains(column);
        for (key, patch) in rows {
            let begins = patch.presence.begun | patch.presence.ended != 0 || !table.presence;
            let changes = patch.changes.iter().any(|(column, _)| copied(column));
            if begins || changes || refers_anew(table, patch) {
                self.joined(key, marks);
            }
        }
    }

    /// Whether others copy one of these columns, or the row may come or go by what fills them.
    pub fn is_copied(&self, table: &Table, columns: &[u16]) -> bool {
        !self.joined.is_empty()
            && (table.children.is_some() || columns.iter().any(|column| self.copied.contains(column)))
    }

    /// Marks a row that others may copy from.
    pub fn joined(&self, key: &Key, marks: &mut Marks) {
        self.joined.iter().for_each(|edge| marks.touch(*edge, key));
    }
}

/// What a row adds to which row of the other table.
fn contribution(child: &Table, rollup: &Rollup, key: &Key, row: &Row) -> Result<Option<(Key, Vec<Decimal>)>, Failure> {
    let parent: Key = rollup.by.iter().map(|by| child.value(*by, key, row).clone()).collect();
    let env = Env::reader(RowView { key, values: &row.values });
    let holds = |condition: &Option<Expr>| condition.as_ref().map_or(Ok(true), |condition| condition.holds(&env));
    if !child.exists(row) || parent.iter().any(Value::is_null) || !holds(&rollup.condition)? {
        return Ok(None);
    }
    let one = |yes: bool| if yes { Decimal::ONE } else { Decimal::ZERO };
    let addend = |sum: &Sum| -> Result<Decimal, Failure> {
        if !holds(&sum.condition)? {
            return Ok(Decimal::ZERO);
        }
        Ok(match &sum.addend {
            Addend::One => Decimal::ONE,
            Addend::Present(value) => one(!value.eval(&env)?.is_null()),
            Addend::Holds(condition) => one(condition.holds(&env)?),
            Addend::Value(value) => match value.eval(&env)? {
                Value::Null => Decimal::ZERO,
                value => value.as_decimal().ok_or_else(too_many_digits)?,
            },
        })
    };
    Ok(Some((parent, rollup.sums.iter().map(addend).collect::<Result<_, _>>()?)))
}

fn too_many_digits() -> Failure {
    Failure { code: "overflow", message: "a number to be summed has more than 28 digits".into() }
}
