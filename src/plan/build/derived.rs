//! Columns, put together for all tables at once: those of joins and rollups take their types from other tables.
//!
//! The graph is acyclic by column, not by table: each column that follows from others is worked out once those are known,
//! and what is left over goes in a circle.

use std::ops::Range;

use indexmap::IndexMap;

use super::row::RowCompiler;
use super::versions::state_column;
use super::{Build, LONGEST_NAME};
use crate::patch::ColumnShape;
use crate::plan::derived::{Addend, Item, Join, Quotient, Rollup, Search, Sum, What};
use crate::plan::expr::{Expr as Compiled, Misread, Node, RowColumn, RowRef};
use crate::plan::types::{ColumnType, Digits, Kind, Scalar};
use crate::plan::{Column, Table};
use crate::spec::diagnostic::suggest;
use crate::spec::{self, Aggregate, Expr, Name, OnDelete};
use crate::value::Value;

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

/// What came of looking at a pending column.
enum Looked {
    Done(Column, Made),
    /// It waits for another pending column.
    Waits,
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
                    Looked::Done(column, made) => settle(&mut shapes[one.table], &one, column, made),
                    Looked::Waits => still.push(one),
                    Looked::Wrong => {}
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

    fn look(&self, one: &Pending<'_>, written: &Written, shapes: &[Shape], waiting: &[(usize, u16)]) -> Looked {
        let unknown = |at: RowRef| !at.of_key && waiting.contains(&(one.from, at.at));
        let declared = written[one.table].columns.get(one.name).map(|column| &column.0);
        match one.what {
            Filling::Join { column, .. } => {
                let from = &shapes[one.from];
                let Some(at) = from.find(column) else {
                    let message =
                        format!("the table `{}` has no column `{}`", name_of(written, one.from), column.value);
                    let is_generated = written[one.from].columns.get(column).is_some();
                    let help = match is_generated {
                        true => Some(
                            "a generated column is not stored; work it out here, from the columns it is made of".into(),
                        ),
                        false => suggest(column, from.names()),
                    };
                    self.error("unknown-column", &column.span, message, help.as_deref());
                    return Looked::Wrong;
                };
                if unknown(at) {
                    return Looked::Waits;
                }
                let type_ = from.column(at).shape.type_.clone();
                self.finished(one.name, declared, type_, Value::Null)
                    .map_or(Looked::Wrong, |c| Looked::Done(c, Made::Copy(at)))
            }
            Filling::Rollup { aggregate, .. } => {
                let child = Child {
                    build: self,
                    name: name_of(written, one.from),
                    shape: &shapes[one.from],
                    unknown: &unknown,
                };
                match child.aggregate(one.name, aggregate, declared) {
                    Err(looked) => looked,
                    Ok((type_, default, made)) => {
                        let finished = self.finished(one.name, declared, type_, default);
                        finished.map_or(Looked::Wrong, |column| Looked::Done(column, made))
                    }
                }
            }
        }
    }

    /// The column as it is stored. A declaration may describe it, hide it, and give a join a default.
    fn finished(
        &self,
        name: &Name,
        declared: Option<&spec::Column>,
        type_: ColumnType,
        default: Value,
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
            if column.shape.default.is_null() {
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

    /// Resolves what refers to whose key.
    fn check_keys(&self, written: &Written, shapes: &[Shape]) {
        for (at, table) in written.values().enumerate() {
            for join in table.join.iter() {
                if let Some(other) = written.get_index_of(&join.table) {
                    self.refers(
                        &join.by,
                        &join.table.span,
                        (&shapes[at], &name_of(written, at)),
                        &shapes[other],
                        &join.table,
                    );
                }
            }
            for rollup in table.rollups.iter() {
                if let Some(other) = written.get_index_of(&rollup.table) {
                    let from = (&shapes[other], rollup.table.as_str());
                    self.refers(&rollup.by, &rollup.table.span, from, &shapes[at], &name_of(written, at));
                }
            }
        }
    }

    /// Columns of one table hold the key of the other.
    fn refers(&self, by: &[Name], place: &Range<usize>, (from, from_name): (&Shape, &str), to: &Shape, to_name: &str) {
        if by.len() != to.key.len() {
            let message = format!(
                "the key of `{to_name}` has {} columns, `by` names {}: {}",
                to.key.len(),
                by.len(),
                to.key.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
            );
            self.error("join-type", by.first().map_or(place, |name| &name.span), message, None);
            return;
        }
        for (name, key) in by.iter().zip(&to.key) {
            let Some(at) = from.find(name) else {
                let message = format!("the table `{from_name}` has no column `{}`", name.value);
                let help = suggest(name, from.names());
                self.error("unknown-column", &name.span, message, help.as_deref());
                continue;
            };
            let column = from.column(at);
            if column.shape.type_ != key.shape.type_ {
                let message = format!(
                    "`{from_name}.{}` is {}, the key `{to_name}.{}` is {}",
                    name.value, column.shape.type_, key.name, key.shape.type_
                );
                self.error("join-type", &name.span, message, Some("give both the same type"));
            }
        }
    }

    /// Fills in what only the finished shapes say: which columns refer to which key.
    pub(super) fn refer(&self, written: &Written, shapes: &mut [Shape]) {
        let find = |shape: &Shape, names: &[Name]| names.iter().filter_map(|name| shape.find(name)).collect::<Vec<_>>();
        for (at, table) in written.values().enumerate() {
            for (index, join) in table.join.iter().enumerate() {
                shapes[at].joins[index].by = find(&shapes[at], &join.by);
                let Join { table: other, keep, fill, .. } = shapes[at].joins[index].clone();
                for (_, from) in fill.iter().filter(|(_, from)| keep && !from.of_key) {
                    shapes[other].columns[usize::from(from.at)].kept = true;
                }
            }
            for (index, rollup) in table.rollups.iter().enumerate() {
                let child = shapes[at].rollups[index].table;
                let by = find(&shapes[child], &rollup.by);
                let condition = rollup.condition.as_ref().and_then(|expr| {
                    let no = |_: RowRef| false;
                    let name = name_of(written, child);
                    let scope = Child { build: self, name, shape: &shapes[child], unknown: &no };
                    scope.condition(expr).ok()
                });
                let children = shapes[at].children;
                let into = &mut shapes[at].rollups[index];
                (into.by, into.condition) = (by, condition);
                let counted = children.map(|column| Sum { column, condition: None, addend: Addend::One });
                into.sums.extend(counted);
            }
        }
    }

    /// What refers to another row is set by somebody, and handlers keep to what events say.
    pub(super) fn check_derived(&self, written: &Written, tables: &[Table]) {
        for (at, table) in tables.iter().enumerate() {
            for handler in &table.handlers {
                let read = handler.reads().into_iter().find(|column| table.columns[usize::from(*column)].derived);
                if let Some(column) = read {
                    let name = &table.columns[usize::from(column)].name;
                    let message = format!(
                        "the handler on line {} reads `row.{name}`, which follows from other rows: when it does is not in the events",
                        handler.line
                    );
                    let help = "read it where the row is read: in a generated column, a flag, or `show`";
                    self.error(
                        "reads-derived",
                        &written.get_index(at).map_or(0..0, |(name, _)| name.span.clone()),
                        message,
                        Some(help),
                    );
                }
            }
        }
        for (at, table) in written.values().enumerate() {
            for join in table.join.iter() {
                self.check_set(&join.by, &tables[at]);
            }
            for rollup in table.rollups.iter() {
                if let Some(child) = written.get_index_of(&rollup.table) {
                    self.check_set(&rollup.by, &tables[child]);
                }
            }
            if table.rollups.is_nothing() || table.forget_deleted_after.is_none() && table.expire.is_none() {
                continue;
            }
            let place =
                table.expire.as_ref().or(table.forget_deleted_after.as_ref()).map_or(0..0, |name| name.span.clone());
            let message = "a row that is forgotten would forget what it is made of, which is still there";
            self.error("bad-expire", &place, message, Some("leave it out, or the rollups into a table of their own"));
        }
    }

    fn check_set(&self, by: &[Name], table: &Table) {
        for name in by {
            let Some(at) = table.columns.iter().position(|column| column.name == name.value) else { continue };
            let writes = |handler: &crate::plan::Handler| {
                !handler.deletes() && handler.effects.iter().any(|effect| usize::from(effect.column) == at)
            };
            if !table.columns[at].derived && !table.handlers.iter().any(writes) {
                let message = format!("nothing sets `{}.{}`: it refers to no row", table.name, name.value);
                self.error("unset-by", &name.span, message, Some("set it in a handler"));
            }
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

/// The table that is aggregated, as its expressions see it.
struct Child<'c, 'b> {
    build: &'c Build<'b>,
    name: String,
    shape: &'c Shape,
    unknown: &'c dyn Fn(RowRef) -> bool,
}

impl Child<'_, '_> {
    fn row(&self) -> Vec<RowColumn> {
        let column = |of_key: bool, (at, column): (usize, &Column)| {
            let node = Node::Row(RowRef { of_key, at: at as u16 });
            RowColumn { name: column.name.clone(), node, kind: column.shape.type_.kind() }
        };
        let key = self.shape.key.iter().enumerate().map(|one| column(true, one));
        key.chain(self.shape.columns.iter().enumerate().map(|one| column(false, one))).collect()
    }

    fn compile(&self, expr: &Expr) -> Result<Compiled, Looked> {
        let row = self.row();
        match RowCompiler::bare(&row).compile(&expr.value.0) {
            Ok(compiled) => {
                let mut read = Vec::new();
                compiled.node.row_refs(&mut read);
                if read.into_iter().any(self.unknown) {
                    return Err(Looked::Waits);
                }
                if self.build.answerable(expr, &compiled).is_none() {
                    return Err(Looked::Wrong);
                }
                Ok(compiled)
            }
            Err(misread) => {
                let code = if misread.code == "unknown-name" { "unknown-column" } else { misread.code };
                let message = match code {
                    "unknown-column" => format!("{} (of `{}`)", misread.message, self.name),
                    _ => misread.message,
                };
                self.build.misread(expr, Misread { code, message, ..misread });
                Err(Looked::Wrong)
            }
        }
    }

    fn condition(&self, expr: &Expr) -> Result<Compiled, Looked> {
        let compiled = self.compile(expr)?;
        if matches!(compiled.kind, Kind::Bool | Kind::Any | Kind::Null) {
            return Ok(compiled);
        }
        let message = format!("a condition is needed, this is {}", compiled.kind.describe());
        self.build.error("wrong-kind", &expr.span, message, None);
        Err(Looked::Wrong)
    }

    fn column(&self, name: &Name) -> Result<RowRef, Looked> {
        match self.shape.find(name) {
            Some(at) if (self.unknown)(at) => Err(Looked::Waits),
            Some(at) => Ok(at),
            None => {
                let message = format!("the table `{}` has no column `{}`", self.name, name.value);
                let help = suggest(name, self.shape.names());
                self.build.error("unknown-column", &name.span, message, help.as_deref());
                Err(Looked::Wrong)
            }
        }
    }

    fn columns(&self, names: &[Name]) -> Result<Vec<RowRef>, Looked> {
        names.iter().map(|name| self.column(name)).collect()
    }

    fn wrong(&self, place: &Range<usize>, message: String, help: &str) -> Looked {
        self.build.error("wrong-aggregate", place, message, Some(help));
        Looked::Wrong
    }

    /// The type of an aggregate's column, its value over nothing, and what fills it.
    fn aggregate(
        &self,
        name: &Name,
        aggregate: &Aggregate,
        declared: Option<&spec::Column>,
    ) -> Result<(ColumnType, Value, Made), Looked> {
        let (word, expr) = self.word(name, aggregate)?;
        let condition = aggregate.condition.as_ref().map(|expr| self.condition(expr)).transpose()?;
        let sum = |addend: Addend| Sum { column: 0, condition: condition.clone(), addend };
        let search = |what: What| Made::Search(Search { column: 0, condition: condition.clone(), what });
        let scalar = ColumnType::scalar;
        let ordered = !aggregate.by.is_nothing() || !aggregate.of.is_nothing();
        if ordered && !matches!(word, "latest" | "list") {
            let message = format!("`by` and `of` say nothing to `{word}`");
            return Err(self.wrong(&name.span, message, "leave them out"));
        }
        Ok(match word {
            "count" => {
                if expr.value.0.trim() != "true" {
                    return Err(self.wrong(
                        &expr.span,
                        "`count` counts rows".into(),
                        "count: true; a condition is `where`",
                    ));
                }
                (scalar(Scalar::Int8), Value::Int(0), Made::Sum(sum(Addend::One)))
            }
            "any" => (scalar(Scalar::Bool), Value::Bool(false), Made::Any(sum(Addend::Holds(self.condition(expr)?)))),
            "sum" | "avg" => {
                let value = self.compile(expr)?;
                if !matches!(value.kind, Kind::Number) || self.is_float(&value) {
                    let message = format!("`{word}` needs numbers that are exact, this is {}", self.describe(&value));
                    return Err(self.wrong(&expr.span, message, "integers and numeric are"));
                }
                if word == "sum" {
                    (scalar(Scalar::Numeric(None)), Value::Int(0), Made::Sum(sum(Addend::Value(value))))
                } else {
                    let scale = self.average_scale(&value, declared);
                    let type_ = declared.and_then(|column| ColumnType::parse(&column.type_.value).ok());
                    let type_ = type_.filter(|type_| matches!(type_.scalar, Scalar::Numeric(_)) && !type_.array);
                    let made = Made::Average { value, condition: condition.clone(), scale };
                    (type_.unwrap_or(scalar(Scalar::Numeric(None))), Value::Null, made)
                }
            }
            "min" | "max" => {
                let value = self.compile(expr)?;
                let type_ = self.type_of(&value);
                let Some(type_) = type_.filter(ColumnType::is_ordered) else {
                    let message = format!(
                        "`{word}` needs values with an order that everyone agrees on, this is {}",
                        self.describe(&value)
                    );
                    return Err(self.wrong(
                        &expr.span,
                        message,
                        "text, numbers, dates, timestamps and enum(…) have one",
                    ));
                };
                let what = if word == "min" { What::Min(value) } else { What::Max(value) };
                (type_, Value::Null, search(what))
            }
            "count_distinct" => {
                let value = self.compile(expr)?;
                if self.type_of(&value).is_none_or(|type_| !type_.is_key()) {
                    let message = format!("equal values of {} cannot be told", self.describe(&value));
                    return Err(self.wrong(
                        &expr.span,
                        message,
                        "count text, numbers, dates, timestamps, uuid, bool or enum(…)",
                    ));
                }
                (scalar(Scalar::Int8), Value::Int(0), search(What::CountDistinct(value)))
            }
            "latest" if expr.value.0.trim().parse::<u32>().is_ok() => {
                let newest = expr.value.0.trim().parse().ok();
                if newest == Some(0) {
                    return Err(self.wrong(
                        &expr.span,
                        "a list of 0 rows is always empty".into(),
                        "for example latest: 5",
                    ));
                }
                let (by, of) = (self.columns(&self.order(name, aggregate, word)?)?, self.members(name, aggregate)?);
                (scalar(Scalar::Jsonb), Value::Json("[]".into()), search(What::List { item: of, by, newest }))
            }
            "latest" => {
                let value = self.compile(expr)?;
                let by = self.columns(&self.order(name, aggregate, word)?)?;
                let Some(type_) = self.type_of(&value) else {
                    let message = format!("`latest` of {} has no type of its own", self.describe(&value));
                    return Err(self.wrong(&expr.span, message, "name a column"));
                };
                (type_, Value::Null, search(What::Newest { value, by }))
            }
            "list" => {
                let by = self.columns(&aggregate.by)?;
                let item = match expr.value.0.trim() {
                    "true" => self.members(name, aggregate)?,
                    _ => Item::Value(self.compile(expr)?),
                };
                (scalar(Scalar::Jsonb), Value::Json("[]".into()), search(What::List { item, by, newest: None }))
            }
            _ => {
                let (Some(key), Some(value)) = (&aggregate.object, &aggregate.value) else {
                    return Err(self.wrong(
                        &name.span,
                        "an object needs names and values".into(),
                        "{ object: NAME, value: COLUMN }",
                    ));
                };
                let (at, value) = (self.column(key)?, self.column(value)?);
                if !matches!(self.shape.column(at).shape.type_.kind(), Kind::Text) {
                    let message = format!(
                        "`{}` is {}; the members of an object are named by texts",
                        key.value,
                        self.shape.column(at).shape.type_
                    );
                    return Err(self.wrong(&key.span, message, "name a text column"));
                }
                (scalar(Scalar::Jsonb), Value::Json("{}".into()), search(What::Object { name: at, value }))
            }
        })
    }

    /// The one word of an aggregate that says what it is.
    fn word<'a>(&self, name: &Name, aggregate: &'a Aggregate) -> Result<(&'static str, &'a Expr), Looked> {
        let words = [
            ("count", &aggregate.count),
            ("count_distinct", &aggregate.count_distinct),
            ("sum", &aggregate.sum),
            ("avg", &aggregate.avg),
            ("min", &aggregate.min),
            ("max", &aggregate.max),
            ("any", &aggregate.any),
            ("latest", &aggregate.latest),
            ("list", &aggregate.list),
        ];
        let mut given = words.into_iter().filter_map(|(word, expr)| Some((word, expr.as_ref()?)));
        static NONE: std::sync::LazyLock<Expr> = std::sync::LazyLock::new(Expr::default);
        let object = aggregate.object.as_ref().map(|_| ("object", &*NONE));
        match (given.next(), object, given.next()) {
            (Some(one), None, None) | (None, Some(one), None) => Ok(one),
            _ => {
                let help = "count, count_distinct, sum, avg, min, max, any, latest, list or object";
                Err(self.wrong(&name.span, format!("one thing fills `{}`", name.value), help))
            }
        }
    }

    fn order(&self, name: &Name, aggregate: &Aggregate, word: &str) -> Result<Vec<Name>, Looked> {
        if aggregate.by.is_nothing() {
            let message = format!("`{word}` needs `by`: the columns that say what is newer");
            return Err(self.wrong(&name.span, message, "by: [posted_at]"));
        }
        Ok(aggregate.by.0.clone())
    }

    fn members(&self, name: &Name, aggregate: &Aggregate) -> Result<Item, Looked> {
        if aggregate.of.is_nothing() {
            let message = "the list needs `of`: the columns that stand in it".to_string();
            return Err(self.wrong(&name.span, message, "of: [review_id, rating, title]"));
        }
        let members = aggregate.of.iter().map(|name| Ok((name.value.clone(), self.column(name)?)));
        members.collect::<Result<_, _>>().map(Item::Members)
    }

    /// The type of an expression that a column can have.
    fn type_of(&self, value: &Compiled) -> Option<ColumnType> {
        if let Node::Row(at) = value.node {
            return Some(self.shape.column(at).shape.type_.clone());
        }
        let scalar = match value.kind {
            Kind::Bool => Scalar::Bool,
            Kind::Number if !self.is_float(value) => Scalar::Numeric(None),
            Kind::Text => Scalar::Text,
            Kind::Time => Scalar::Timestamptz,
            Kind::Date => Scalar::Date,
            _ => return None,
        };
        Some(ColumnType::scalar(scalar))
    }

    fn columns_read<'s>(&'s self, value: &Compiled) -> impl Iterator<Item = &'s Column> + 's {
        let mut read = Vec::new();
        value.node.row_refs(&mut read);
        read.into_iter().map(|at| self.shape.column(at))
    }

    fn is_float(&self, value: &Compiled) -> bool {
        self.columns_read(value).any(|column| column.shape.type_.scalar == Scalar::Float8)
    }

    fn describe(&self, value: &Compiled) -> String {
        match value.node {
            Node::Row(at) => self.shape.column(at).shape.type_.to_string(),
            _ => value.kind.describe().to_string(),
        }
    }

    /// Two digits more than the values have, unless the column's type says how many.
    fn average_scale(&self, value: &Compiled, declared: Option<&spec::Column>) -> u16 {
        let scale = |type_: &ColumnType| match type_.scalar {
            Scalar::Numeric(Some(Digits { scale, .. })) => Some(scale),
            _ => None,
        };
        let own = declared.and_then(|column| ColumnType::parse(&column.type_.value).ok());
        let of_values = self.columns_read(value).filter_map(|column| scale(&column.shape.type_)).max().unwrap_or(0);
        own.as_ref().and_then(scale).unwrap_or(of_values + 2)
    }
}
