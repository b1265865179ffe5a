//! Tables in memory, as simple as they can be: what the store is measured against.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::ReadRow;
use super::case::Encoded;
use super::derived::derive;
use crate::batch::{Batch, Key};
use crate::checkpoint::Partition;
use crate::error_kind::Policy;
use crate::fold::Identity;
use crate::intake::{Intake, intake};
use crate::patch::{Misapplied, Patch, Row};
use crate::plan::expr::{Env, Expr, RowView};
use crate::plan::{GeneratedValue, Plan, Table};
use crate::value::Value;

/// The rows of a projection, by table and key, and what stands beside them in the catalog.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub tables: Vec<HashMap<Key, Row>>,
    clocks: HashMap<Partition, Option<i64>>,
    counted: HashMap<(Partition, Identity), i64>,
    /// Events that no table handles, by source and type.
    pub(super) unhandled: BTreeMap<(usize, String), u64>,
}

impl Model {
    pub fn new(plan: &Plan) -> Model {
        Model { tables: plan.tables.iter().map(|_| HashMap::new()).collect(), ..Model::default() }
    }

    /// Applies one patch to one row.
    ///
    /// # Errors
    /// When a sum leaves its column's type, or the row is not what the event needs.
    pub fn apply(&mut self, plan: &Plan, table: usize, key: &Key, patch: &Patch) -> Result<(), Misapplied> {
        let shapes = &plan.tables[table].shapes;
        let row = self.tables[table].entry(key.clone()).or_insert_with(|| Row::blank(shapes));
        patch.apply(key, row, shapes)
    }

    /// The naive way: every event to its rows at once, no batch.
    pub(super) fn take(&mut self, plan: &Plan, event: &Encoded) -> Result<(), String> {
        let intake = self.intake(plan, event, self.clock(event), &[])?;
        for row in &intake.patches {
            let applied = self.apply(plan, row.table, &row.key, &row.patch);
            applied.map_err(|error| at(event, &error.told(&plan.tables[row.table])))?;
        }
        for type_ in intake.unhandled {
            *self.unhandled.entry((event.source, type_)).or_default() += 1;
        }
        self.note(event.partition(), intake.clock, intake.counted.iter());
        Ok(())
    }

    fn clock(&self, event: &Encoded) -> Option<i64> {
        self.clocks.get(&event.partition()).copied().flatten()
    }

    /// What an event does, after what is committed and the identities of an open batch.
    fn intake(
        &self,
        plan: &Plan,
        event: &Encoded,
        clock: Option<i64>,
        open: &[(Partition, Identity)],
    ) -> Result<Intake, String> {
        let partition = event.partition();
        let known = |identity: &Identity, horizon: i64| {
            let key = (partition.clone(), *identity);
            open.contains(&key) || self.counted.get(&key).is_some_and(|time| *time >= horizon)
        };
        match intake(plan, event.source, &event.record(), clock, &known) {
            Ok(taken) => Ok(taken),
            Err(refused) if plan.errors.policy(refused.reason.kind()) == Policy::Skip => {
                Ok(Intake { clock: refused.clock, ..Intake::default() })
            }
            Err(refused) => Err(at(event, &refused.reason.message)),
        }
    }

    fn note<'c>(
        &mut self,
        partition: Partition,
        clock: Option<i64>,
        counted: impl Iterator<Item = &'c crate::seen::Counted>,
    ) {
        for counted in counted {
            self.counted.insert((counted.partition.clone(), counted.identity), counted.time);
        }
        self.clocks.insert(partition, clock);
    }

    /// What readers see of a table at a time, by column.
    ///
    /// # Errors
    /// When a column that is worked out from the row has no value.
    pub fn visible_rows(&self, plan: &Plan, table: usize, now: i64) -> Result<Vec<ReadRow>, String> {
        let shape = &plan.tables[table];
        let mut rows = Vec::new();
        for (key, row) in &self.derived(plan)?[table] {
            if is_visible(shape, key, row, now)? {
                rows.push(read(shape, key, row)?);
            }
        }
        Ok(rows)
    }

    /// What readers see of one row at a time; `None`: it is not there for them.
    ///
    /// # Errors
    /// When a column that is worked out from the row has no value.
    pub fn visible_row(&self, plan: &Plan, table: usize, key: &Key, now: i64) -> Result<Option<ReadRow>, String> {
        let shape = &plan.tables[table];
        let follows = plan.edges.iter().any(|edge| edge.to == table);
        let tables = if follows { self.derived(plan)? } else { Cow::Borrowed(&self.tables[..]) };
        match tables[table].get(key) {
            Some(row) if is_visible(shape, key, row, now)? => read(shape, key, row).map(Some),
            _ => Ok(None),
        }
    }

    /// The rows, with all that follows from other rows.
    ///
    /// # Errors
    /// When an expression has no value.
    pub fn derived(&self, plan: &Plan) -> Result<Cow<'_, [HashMap<Key, Row>]>, String> {
        let mut tables = Cow::Borrowed(&self.tables[..]);
        if !plan.edges.is_empty() {
            derive(plan, tables.to_mut())?;
        }
        Ok(tables)
    }
}

fn is_visible(table: &Table, key: &Key, row: &Row, now: i64) -> Result<bool, String> {
    if !table.exists(row) {
        return Ok(false);
    }
    let expired = |at: u16| matches!(row.values[usize::from(at)], Value::Time(end) if end <= now);
    if table.expire.is_some_and(expired) {
        return Ok(false);
    }
    table.show.as_ref().map_or(Ok(true), |show| holds(show, key, row))
}

fn holds(condition: &Expr, key: &Key, row: &Row) -> Result<bool, String> {
    condition.holds(&Env::reader(RowView { key, values: &row.values })).map_err(|failure| failure.message)
}

fn read(table: &Table, key: &Key, row: &Row) -> Result<ReadRow, String> {
    let key_columns = table.key.iter().zip(key).map(|(column, value)| (column.name.clone(), value.clone()));
    let rest = table.columns.iter().zip(&row.values).filter(|(column, _)| !column.hidden);
    let stored = key_columns.chain(rest.map(|(column, value)| (column.name.clone(), value.clone())));
    let mut found: ReadRow = stored.collect();
    for column in table.generated.iter().filter(|column| !column.hidden) {
        let value = match &column.value {
            GeneratedValue::Expr(expr) => expr
                .eval(&Env::reader(RowView { key, values: &row.values }))
                .map_err(|failure| failure.message)
                .and_then(|value| column.type_.coerce(value))?,
            GeneratedValue::Flags(flags) => {
                let mut names = Vec::new();
                for (name, condition) in flags {
                    if holds(condition, key, row)? {
                        names.push(Value::text(name));
                    }
                }
                Value::List(names.into())
            }
        };
        found.insert(column.name.clone(), value);
    }
    Ok(found)
}

/// A lane over a model: what it has folded since its last commit.
pub(super) struct Lane<'p> {
    plan: &'p Plan,
    batch: Batch,
    open: Vec<(Partition, Identity)>,
    clocks: HashMap<Partition, Option<i64>>,
    /// For messages: the last event folded.
    last: Option<Encoded>,
}

impl<'p> Lane<'p> {
    pub fn new(plan: &'p Plan) -> Lane<'p> {
        Lane { plan, batch: Batch::new(plan), open: Vec::new(), clocks: HashMap::new(), last: None }
    }

    /// Folds an event into the open batch.
    pub fn fold(&mut self, model: &Model, event: &Encoded) -> Result<(), String> {
        let partition = event.partition();
        let clock = self.clocks.get(&partition).copied().unwrap_or_else(|| model.clock(event));
        let intake = model.intake(self.plan, event, clock, &self.open)?;
        self.batch
            .absorb(self.plan, intake.patches)
            .map_err(|refused| at(event, &refused.error.told(&self.plan.tables[refused.table])))?;
        for counted in intake.counted {
            self.open.push((partition.clone(), counted.identity));
            self.batch.count(counted);
        }
        self.clocks.insert(partition, intake.clock);
        self.last = Some(event.clone());
        Ok(())
    }

    /// Commits what is folded.
    pub fn commit(&mut self, model: &mut Model) -> Result<(), String> {
        let sealed = std::mem::replace(&mut self.batch, Batch::new(self.plan)).seal();
        for (table, rows) in sealed.tables.iter().enumerate() {
            for (key, patch) in rows {
                model.apply(self.plan, table, key, patch).map_err(|error| {
                    let told = error.told(&self.plan.tables[table]);
                    self.last.as_ref().map_or(told.clone(), |last| at(last, &told))
                })?;
            }
        }
        for (partition, clock) in self.clocks.drain() {
            model.note(partition, clock, sealed.counted.iter());
        }
        self.open.clear();
        Ok(())
    }
}

fn at(event: &Encoded, message: &str) -> String {
    format!("the event on line {} cannot be applied: {message}", event.line)
}
