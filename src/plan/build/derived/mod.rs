//! Columns, put together for all tables at once: those of joins and rollups take their types from other tables.
//!
//! The graph is acyclic by column, not by table: each column that follows from others is worked out once those are known,
//! and what is left over goes in a circle.

mod child;
mod references;

use indexmap::IndexMap;

use super::versions::state_column;
use super::{Build, LONGEST_NAME};
use crate::patch::ColumnShape;
use crate::plan::Column;
use crate::plan::derived::{Addend, Join, Quotient, Rollup, Search, Sum};
use crate::plan::expr::{Expr as Compiled, RowRef};
use crate::plan::types::{ColumnType, Scalar};
use crate::spec::diagnostic::suggest;
use crate::spec::{self, Aggregate, Name, OnDelete};
use crate::value::Value;
use child::Child;

type Written = IndexMap<Name, spec::Table>;

/// A table's columns, and what fills those that handlers do not.
#[derive(Default)]
pub(super) struct Shape {
    pub key: Vec<Column>,
    pub columns: Vec<Column>,
    pub joins: Vec<Join>,
    pub rollups: Vec<Rollup>,
    pub children: Option<u16>,
}

impl Shape {
    fn find(&self, name: &str) -> Option<RowRef> {
        let at = |columns: &[Column]| columns.iter().position(|column| column.name == name).map(|at| at as u16);
        let of_key = at(&self.key).map(|at| RowRef { of_key: true, at });
        of_key.or_else(|| at(&self.columns).map(|at| RowRef { of_key: false, at }))
    }

    fn column(&self, at: RowRef) -> &Column {
        if at.of_key { &self.key[usize::from(at.at)] } else { &self.columns[usize::from(at.at)] }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.key.iter().chain(&self.columns).filter(|c| !c.name.starts_with("projector_")).map(|c| c.name.as_str())
    }
}

/// A column whose type is not known yet.
struct Pending<'w> {
    table: usize,
    column: u16,
    name: &'w Name,
    from: usize,
    what: Filling<'w>,
}

#[derive(Clone, Copy)]
enum Filling<'w> {
    Join { index: usize, column: &'w Name },
    Rollup { index: usize, aggregate: &'w Aggregate },
}

/// Why a column cannot be put in its place.
enum Unfinished {
    /// It waits for another pending column.
    Waits,
    /// And that was told.
    Wrong,
}

/// What fills the column, beside its type.
enum Made {
    Copy(RowRef),
    Sum(Sum),
    Average { value: Compiled, condition: Option<Compiled>, scale: u16 },
    Any(Sum),
    Search(Search),
}

impl Build<'_> {
    pub(super) fn shapes(&self, written: &Written) -> Vec<Shape> {
        let mut shapes: Vec<Shape> = written.values().map(|table| self.own_columns(table)).collect();
        let mut pending = Vec::new();
        for (at, (name, table)) in written.iter().enumerate() {
            self.pend_joins(at, table, written, &mut shapes, &mut pending);
            self.pend_rollups(at, name, table, written, &mut shapes, &mut pending);
        }
        while !pending.is_empty() {
            let before = pending.len();
            let waiting: Vec<(usize, u16)> = pending.iter().map(|p| (p.table, p.column)).collect();
            let mut still = Vec::new();
            for one in std::mem::take(&mut pending) {
                match self.look(&one, written, &shapes, &waiting) {
                    Ok((column, made)) => settle(&mut shapes[one.table], &one, column, made),
                    Err(Unfinished::Waits) => still.push(one),
                    Err(Unfinished::Wrong) => {}
                }
            }
            if still.len() == before {
                self.circle(&still, &shapes, written);
                break;
            }
            pending = still;
        }
        if !self.sink.has_errors() {
            self.check_keys(written, &shapes);
        }
        shapes
    }

    /// The key, and the columns that events fill.
    fn own_columns(&self, table: &spec::Table) -> Shape {
        let filled = |name: &Name| fills(table).any(|other| other.value == name.value);
        let columns = table
            .columns
            .iter()
            .filter(|(name, column)| !table.key.contains_key(*name) && column.0.generated.is_none() && !filled(name));
        let columns = columns.map(|(name, column)| self.column(name, &column.0)).collect();
        Shape { key: self.key_columns(table), columns, ..Shape::default() }
    }

    fn pend_joins<'w>(
        &self,
        at: usize,
        table: &'w spec::Table,
        written: &Written,
        shapes: &mut [Shape],
        pending: &mut Vec<Pending<'w>>,
    ) {
        for (index, join) in table.join.iter().enumerate() {
            let from = self.other_table(&join.table, written);
            shapes[at].joins.push(Join {
                table: from.unwrap_or(at),
                by: Vec::new(),
                fill: Vec::new(),
                keep: join.on_delete == OnDelete::Keep,
            });
            if join.fill.is_empty() {
                let help = Some("fill: { customer_name: name }");
                self.error("missing-name", &join.table.span, "the join fills no columns", help);
            }
            for (name, column) in &join.fill {
                let Some(from) = from.filter(|_| self.is_free(name, table, &shapes[at])) else { continue };
                let place = shapes[at].columns.len() as u16;
                shapes[at].columns.push(placeholder(name));
                pending.push(Pending { table: at, column: place, name, from, what: Filling::Join { index, column } });
            }
        }
    }

    fn pend_rollups<'w>(
        &self,
        at: usize,
        table_name: &Name,
        table: &'w spec::Table,
        written: &Written,
        shapes: &mut [Shape],
        pending: &mut Vec<Pending<'w>>,
    ) {
        if table.handlers.is_empty() && !table.rollups.is_empty() {
            shapes[at].children = Some(shapes[at].columns.len() as u16);
            let default = Value::Int(0);
            let shape = ColumnShape::plain(ColumnType::scalar(Scalar::Int8), default);
            shapes[at].columns.push(Column { shape, ..state(state_column("projector_rows".into(), Scalar::Int8)) });
            for (name, expr) in table.key.iter().filter(|(_, expr)| !expr.value.0.is_empty()) {
                let message = format!("no event makes a row of `{}`: nothing works this out", table_name.value);
                let help = format!("leave it empty: {}: null", name.value);
                self.error("bad-key", &expr.span, message, Some(&help));
            }
        }
        for (index, rollup) in table.rollups.iter().enumerate() {
            let from = self.other_table(&rollup.table, written);
            shapes[at].rollups.push(Rollup {
                table: from.unwrap_or(at),
                by: Vec::new(),
                condition: None,
                sums: Vec::new(),
                quotients: Vec::new(),
                searches: Vec::new(),
            });
            for (name, aggregate) in &rollup.fill {
                let Some(from) = from.filter(|_| self.is_free(name, table, &shapes[at])) else { continue };
                let place = shapes[at].columns.len() as u16;
                shapes[at].columns.push(placeholder(name));
                pending.push(Pending {
                    table: at,
                    column: place,
                    name,
                    from,
                    what: Filling::Rollup { index, aggregate },
                });
            }
        }
    }

    fn other_table(&self, name: &Name, written: &Written) -> Option<usize> {
        let found = written.get_index_of(name);
        if found.is_none() {
            let help = suggest(name, written.keys().map(|n| n.as_str()));
            self.error("unknown-table", &name.span, format!("there is no table `{}`", name.value), help.as_deref());
        }
        let other = found.map(|at| &written[at]);
        if let Some(expire) = other.and_then(|table| table.expire.as_ref()) {
            let message =
                format!("rows of `{}` expire: what is made of them would depend on when it is looked", name.value);
            self.error("bad-expire", &name.span, message, Some(&format!("leave `expire: {}` out there", expire.value)));
        }
        found
    }

    /// Whether nothing else fills the column.
    fn is_free(&self, name: &Name, table: &spec::Table, shape: &Shape) -> bool {
        self.identifier(name, "column", LONGEST_NAME);
        if table.key.contains_key(name) {
            let message = format!("`{}` is part of the key; its value comes from there", name.value);
            self.error("key-set", &name.span, message, Some("give the column another name"));
            return false;
        }
        if table.columns.get(name).is_some_and(|column| column.0.generated.is_some()) || shape.find(name).is_some() {
            let message = format!("`{}` is filled twice", name.value);
            self.error("duplicate-column", &name.span, message, Some("give one of the two another name"));
            return false;
        }
        true
    }

    fn look(
        &self,
        one: &Pending<'_>,
        written: &Written,
        shapes: &[Shape],
        waiting: &[(usize, u16)],
    ) -> Result<(Column, Made), Unfinished> {
        let unknown = |at: RowRef| !at.of_key && waiting.contains(&(one.from, at.at));
        match one.what {
            Filling::Join { index, .. } => {
                let mut by = written[one.table].join[index].by.iter().filter_map(|name| shapes[one.table].find(name));
                if by.any(|at| !at.of_key && waiting.contains(&(one.table, at.at))) {
                    return Err(Unfinished::Waits);
                }
                // Of a table that no handler feeds, whether a row is there follows from the rows that it is made of.
                self.there(one.from, written, shapes, (waiting, &mut Vec::new()))?;
            }
            Filling::Rollup { index, .. } => {
                let rollup = &written[one.table].rollups[index];
                self.grouped(rollup, written, shapes, (waiting, &mut Vec::new()))?;
            }
        }
        let declared = written[one.table].columns.get(one.name).map(|column| &column.0);
        let (type_, default, made, from_one) = match one.what {
            Filling::Join { column, .. } => {
                let at = self.joined_column(column, one.from, written, shapes)?;
                if unknown(at) {
                    return Err(Unfinished::Waits);
                }
                let type_ = shapes[one.from].column(at).shape.type_.clone();
                (type_, Value::Null, Made::Copy(at), true)
            }
            Filling::Rollup { aggregate, .. } => {
                let (name, shape) = (name_of(written, one.from), &shapes[one.from]);
                let child = Child { build: self, name, shape, unknown: &unknown };
                let (type_, default, made) = child.aggregate(one.name, aggregate, declared)?;
                (type_, default, made, false)
            }
        };
        let column = self.finished(one.name, declared, type_, default, from_one).ok_or(Unfinished::Wrong)?;
        Ok((column, made))
    }

    /// Whether it is known what the rows of a table that no handler feeds are made of.
    fn there(
        &self,
        table: usize,
        written: &Written,
        shapes: &[Shape],
        (waiting, seen): (&[(usize, u16)], &mut Vec<usize>),
    ) -> Result<(), Unfinished> {
        if shapes[table].children.is_none() || seen.contains(&table) {
            return Ok(());
        }
        seen.push(table);
        for rollup in written[table].rollups.iter() {
            self.grouped(rollup, written, shapes, (waiting, seen))?;
        }
        Ok(())
    }

    /// Whether it is known which rows a rollup takes, and into which row each.
    fn grouped(
        &self,
        rollup: &spec::Rollup,
        written: &Written,
        shapes: &[Shape],
        (waiting, seen): (&[(usize, u16)], &mut Vec<usize>),
    ) -> Result<(), Unfinished> {
        let Some(from) = written.get_index_of(&rollup.table) else { return Ok(()) };
        let unknown = |at: RowRef| !at.of_key && waiting.contains(&(from, at.at));
        if rollup.by.iter().filter_map(|name| shapes[from].find(name)).any(unknown) {
            return Err(Unfinished::Waits);
        }
        let child = Child { build: self, name: name_of(written, from), shape: &shapes[from], unknown: &unknown };
        if let Some(expr) = &rollup.condition {
            child.condition(expr)?;
        }
        self.there(from, written, shapes, (waiting, seen))
    }

    fn joined_column(
        &self,
        column: &Name,
        from: usize,
        written: &Written,
        shapes: &[Shape],
    ) -> Result<RowRef, Unfinished> {
        if let Some(at) = shapes[from].find(column) {
            return Ok(at);
        }
        let (message, help) = match written[from].columns.get(column) {
            Some(_) => (
                format!("`{}.{}` is generated, and not stored", name_of(written, from), column.value),
                Some("work it out here, from the columns it is made of".into()),
            ),
            None => (
                format!("the table `{}` has no column `{}`", name_of(written, from), column.value),
                suggest(column, shapes[from].names()),
            ),
        };
        self.error("unknown-column", &column.span, message, help.as_deref());
        Err(Unfinished::Wrong)
    }

    /// The column as it is stored. A declaration may describe it, hide it, and give what is copied from one row a default.
    fn finished(
        &self,
        name: &Name,
        declared: Option<&spec::Column>,
        type_: ColumnType,
        default: Value,
        from_one: bool,
    ) -> Option<Column> {
        let mut column = Column {
            name: name.value.clone(),
            shape: ColumnShape::plain(type_, default),
            not_null: false,
            hidden: false,
            derived: true,
            kept: false,
            description: None,
        };
        let Some(declared) = declared else { return Some(column) };
        if !declared.type_.is_empty() {
            let own = self.column(name, declared).shape.type_;
            if own != column.shape.type_ {
                let message = format!("`{}` is {own}, what fills it is {}", name.value, column.shape.type_);
                let help = "leave the type out: it is taken from there";
                self.error("join-type", &declared.type_.span, message, Some(help));
                return None;
            }
        }
        if declared.not_null {
            let message = format!("`{}` is filled from other rows, which may not be there", name.value);
            self.error("unfilled-not-null", &name.span, message, Some("leave `not_null` out"));
        }
        if let Some(default) = &declared.default {
            if from_one && column.shape.default.is_null() {
                column.shape.default = self.literal(&column.shape.type_, default);
            } else {
                let message = format!("over nothing, `{}` is {}", name.value, column.shape.default.to_json_text());
                self.error("wrong-value", &default.span, message, Some("leave `default` out"));
            }
        }
        column.hidden = declared.hidden;
        column.description.clone_from(&declared.description);
        Some(column)
    }

    fn circle(&self, still: &[Pending<'_>], shapes: &[Shape], written: &Written) {
        for one in still {
            let what = match one.what {
                Filling::Join { column, .. } => format!("{}.{}", name_of(written, one.from), column.value),
                Filling::Rollup { .. } => format!("columns of {} that follow from it", name_of(written, one.from)),
            };
            let column = &shapes[one.table].columns[usize::from(one.column)].name;
            let message = format!("`{}.{column}` is filled from itself, by way of {what}", name_of(written, one.table));
            self.error("derived-cycle", &one.name.span, message, Some("break the circle: fill one of them by events"));
        }
    }
}

fn name_of(written: &Written, at: usize) -> String {
    written.get_index(at).map(|(name, _)| name.value.clone()).unwrap_or_default()
}

/// The columns that joins and rollups fill.
pub(super) fn fills(table: &spec::Table) -> impl Iterator<Item = &Name> {
    let joins = table.join.iter().flat_map(|join| join.fill.keys());
    joins.chain(table.rollups.iter().flat_map(|rollup| rollup.fill.keys()))
}

fn placeholder(name: &Name) -> Column {
    Column { name: name.value.clone(), hidden: false, ..state(state_column(String::new(), Scalar::Jsonb)) }
}

/// State that no handler writes.
fn state(column: Column) -> Column {
    Column { derived: true, ..column }
}

/// Puts a column in its place, and what fills it with its join or rollup.
fn settle(shape: &mut Shape, one: &Pending<'_>, column: Column, made: Made) {
    shape.columns[usize::from(one.column)] = column;
    let column = one.column;
    let index = match one.what {
        Filling::Join { index, .. } | Filling::Rollup { index, .. } => index,
    };
    let mut state_of = |word: &str, scalar: Scalar| {
        let at = shape.columns.len() as u16;
        let named = state_column(format!("projector_{word}_{column}"), scalar.clone());
        let shape_of = ColumnShape::plain(ColumnType::scalar(scalar), Value::Int(0));
        shape.columns.push(Column { shape: shape_of, ..state(named) });
        at
    };
    match made {
        Made::Copy(from) => shape.joins[index].fill.push((column, from)),
        Made::Sum(sum) => shape.rollups[index].sums.push(Sum { column, ..sum }),
        Made::Search(search) => shape.rollups[index].searches.push(Search { column, ..search }),
        Made::Any(sum) => {
            let count = state_of("count", Scalar::Int8);
            shape.rollups[index].sums.push(Sum { column: count, ..sum });
            shape.rollups[index].quotients.push(Quotient::Any { column, count });
        }
        Made::Average { value, condition, scale } => {
            let (sum, count) = (state_of("sum", Scalar::Numeric(None)), state_of("count", Scalar::Int8));
            let present = Sum { column: count, condition: condition.clone(), addend: Addend::Present(value.clone()) };
            let rollup = &mut shape.rollups[index];
            rollup.sums.push(Sum { column: sum, condition, addend: Addend::Value(value) });
            rollup.sums.push(present);
            rollup.quotients.push(Quotient::Average { column, sum, count, scale });
        }
    }
}
