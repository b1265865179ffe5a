//! Columns that follow from the rows of other tables: joins (n:1), rollups (1:n), and the edges they make.
//!
//! What they hold is a function of the other tables' rows as they are, whatever the order in which those came about.
//! Handlers never write them and never read them.

use super::expr::{Expr, RowRef};
use super::{Plan, Source, Table};
use crate::patch::{EVER, FINAL, Row};
use crate::value::Value;

/// Columns copied in from the one row of another table that a row refers to.
#[derive(Debug, Clone)]
pub struct Join {
    /// The other table, by index of [`Plan::tables`].
    pub table: usize,
    /// The columns that hold its key. NULL in one of them refers to nothing.
    pub by: Vec<RowRef>,
    /// This table's columns, and what they are copied from.
    pub fill: Vec<(u16, RowRef)>,
    /// A row that has ended is still copied from.
    pub keep: bool,
}

/// Columns aggregated from the rows of another table that refer to this one.
#[derive(Debug, Clone)]
pub struct Rollup {
    /// The other table, by index of [`Plan::tables`].
    pub table: usize,
    /// Its columns that hold this table's key. A row with NULL in one of them belongs to nobody.
    pub by: Vec<RowRef>,
    pub condition: Option<Expr>,
    /// Kept up to date by what changes.
    pub sums: Vec<Sum>,
    /// Follow from sums.
    pub quotients: Vec<Quotient>,
    /// Worked out anew from all the rows.
    pub searches: Vec<Search>,
}

/// A column to which each row adds something.
#[derive(Debug, Clone)]
pub struct Sum {
    pub column: u16,
    pub condition: Option<Expr>,
    pub addend: Addend,
}

#[derive(Debug, Clone)]
pub enum Addend {
    One,
    /// The value; NULL is nothing.
    Value(Expr),
    /// One, if there is a value.
    Present(Expr),
    /// One, if it holds.
    Holds(Expr),
}

/// A column worked out from sums of the same row.
#[derive(Debug, Clone)]
pub enum Quotient {
    /// NULL while nothing is counted.
    Average { column: u16, sum: u16, count: u16, scale: u16 },
    /// Whether anything is counted.
    Any { column: u16, count: u16 },
}

/// A column for which all rows are looked at.
#[derive(Debug, Clone)]
pub struct Search {
    pub column: u16,
    pub condition: Option<Expr>,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    Min(Expr),
    Max(Expr),
    CountDistinct(Expr),
    /// The value in the row with the greatest `by`.
    Newest {
        value: Expr,
        by: Vec<RowRef>,
    },
    /// Lists of a value, or of objects with these members.
    List {
        item: Item,
        by: Vec<RowRef>,
        /// The greatest first, and no more than so many; else the least first, and all.
        newest: Option<u32>,
    },
    /// Of two rows with one name, the one with the greater key stands.
    Object {
        name: RowRef,
        value: RowRef,
    },
}

#[derive(Debug, Clone)]
pub enum Item {
    Value(Expr),
    Members(Vec<(String, RowRef)>),
}

/// How a row of one table bears on rows of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// The table whose rows change.
    pub from: usize,
    /// The table whose columns follow.
    pub to: usize,
    pub via: Via,
}

/// The index in [`Table::joins`] or [`Table::rollups`] of [`Edge::to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    Join(usize),
    Rollup(usize),
}

/// All edges of a plan, in an order that the definition alone decides.
pub(super) fn edges(tables: &[Table]) -> Vec<Edge> {
    let of_table = |(to, table): (usize, &Table)| -> Vec<Edge> {
        let joins = table.joins.iter().enumerate().map(|(at, join)| Edge { from: join.table, to, via: Via::Join(at) });
        let rollups = table.rollups.iter().enumerate();
        let rollups = rollups.map(|(at, rollup)| Edge { from: rollup.table, to, via: Via::Rollup(at) });
        joins.chain(rollups).collect()
    };
    tables.iter().enumerate().flat_map(of_table).collect()
}

/// The tables in an order in which each comes after those it joins, as far as there is one.
pub(super) fn write_order(tables: &[Table]) -> Vec<usize> {
    fn visit(at: usize, tables: &[Table], visited: &mut Vec<bool>, order: &mut Vec<usize>) {
        if std::mem::replace(&mut visited[at], true) {
            return;
        }
        tables[at].joins.iter().for_each(|join| visit(join.table, tables, visited, order));
        order.push(at);
    }
    let (mut visited, mut order) = (vec![false; tables.len()], Vec::new());
    (0..tables.len()).for_each(|at| visit(at, tables, &mut visited, &mut order));
    order
}

impl Plan {
    /// The edges that begin at a table, with their indexes.
    pub fn edges_from(&self, table: usize) -> impl Iterator<Item = (usize, &Edge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.from == table)
    }

    /// The sources that are better read before another one: they feed tables that the other's tables join.
    pub fn read_first(&self, source: &Source) -> Vec<&Source> {
        let rank = |source: &Source| -> usize {
            let is_fed = |table: &&Table| table.handlers.iter().any(|h| self.sources[h.source].name == source.name);
            self.tables.iter().filter(is_fed).map(|table| self.depth(table, 0)).min().unwrap_or(0)
        };
        let own = rank(source);
        let mut reached: Vec<usize> = (0..self.tables.len())
            .filter(|at| self.tables[*at].handlers.iter().any(|h| self.sources[h.source].name == source.name))
            .collect();
        let mut at = 0;
        while at < reached.len() {
            let partners: Vec<usize> = self.tables[reached[at]].joins.iter().map(|join| join.table).collect();
            partners.into_iter().for_each(|partner| {
                if !reached.contains(&partner) {
                    reached.push(partner)
                }
            });
            at += 1;
        }
        let feeds = |other: &Source| {
            let mut handlers = reached.iter().flat_map(|at| &self.tables[*at].handlers);
            handlers.any(|handler| self.sources[handler.source].name == other.name)
        };
        self.sources.iter().filter(|other| rank(other) < own && feeds(other)).collect()
    }

    /// How many joins there are to the end of the longest chain.
    fn depth(&self, table: &Table, above: usize) -> usize {
        // Tables may join in a circle, by different columns.
        if above > self.tables.len() {
            return 0;
        }
        table.joins.iter().map(|join| 1 + self.depth(&self.tables[join.table], above + 1)).max().unwrap_or(0)
    }

    pub fn join(&self, edge: &Edge) -> Option<&Join> {
        match edge.via {
            Via::Join(at) => Some(&self.tables[edge.to].joins[at]),
            Via::Rollup(_) => None,
        }
    }

    pub fn rollup(&self, edge: &Edge) -> Option<&Rollup> {
        match edge.via {
            Via::Rollup(at) => Some(&self.tables[edge.to].rollups[at]),
            Via::Join(_) => None,
        }
    }

    /// Whether some table aggregates this one's rows: both what a row was and what it is then count.
    pub fn is_aggregated(&self, table: usize) -> bool {
        self.edges_from(table).any(|(_, edge)| matches!(edge.via, Via::Rollup(_)))
    }
}

impl Rollup {
    /// The columns that are filled.
    pub fn fills(&self) -> Vec<u16> {
        let sums = self.sums.iter().map(|sum| sum.column);
        let quotients = self.quotients.iter().map(|quotient| match quotient {
            Quotient::Average { column, .. } | Quotient::Any { column, .. } => *column,
        });
        sums.chain(quotients).chain(self.searches.iter().map(|search| search.column)).collect()
    }

    /// The columns of the aggregated table that anything here depends on.
    pub fn reads(&self) -> Vec<RowRef> {
        let mut found: Vec<RowRef> = self.by.clone();
        let mut read = |expr: &Expr| expr.node.row_refs(&mut found);
        let conditions = self.sums.iter().map(|sum| &sum.condition).chain(self.searches.iter().map(|s| &s.condition));
        conditions.chain([&self.condition]).flatten().for_each(&mut read);
        for sum in &self.sums {
            match &sum.addend {
                Addend::One => {}
                Addend::Value(expr) | Addend::Present(expr) | Addend::Holds(expr) => read(expr),
            }
        }
        for search in &self.searches {
            found.extend(search.reads());
        }
        found
    }
}

impl Search {
    /// The columns of the aggregated table that the value depends on, beside who belongs to whom.
    pub fn reads(&self) -> Vec<RowRef> {
        let mut found = Vec::new();
        if let Some(condition) = &self.condition {
            condition.node.row_refs(&mut found);
        }
        match &self.what {
            What::Min(value) | What::Max(value) | What::CountDistinct(value) => value.node.row_refs(&mut found),
            What::Newest { value, by } => {
                value.node.row_refs(&mut found);
                found.extend(by.iter().copied());
            }
            What::List { item, by, .. } => {
                match item {
                    Item::Value(value) => value.node.row_refs(&mut found),
                    Item::Members(members) => found.extend(members.iter().map(|(_, column)| *column)),
                }
                found.extend(by.iter().copied());
            }
            What::Object { name, value } => found.extend([*name, *value]),
        }
        found
    }
}

impl Table {
    /// Whether a row is there for readers, joins and rollups. What expires, and what `show` hides, is still there.
    pub fn exists(&self, row: &Row) -> bool {
        if let Some(children) = self.children {
            return matches!(
                row.values[usize::from(children)].compare(&Value::Int(0)),
                Some(std::cmp::Ordering::Greater)
            );
        }
        let alive = || self.alive.iter().any(|at| row.values[usize::from(*at)] == Value::Bool(true));
        !self.presence || (row.present & FINAL == 0 && (row.present & (EVER - 1) != 0 || alive()))
    }

    /// Whether a row is there or was.
    pub fn has_existed(&self, row: &Row) -> bool {
        let known = || self.alive.iter().any(|at| !row.values[usize::from(*at)].is_null());
        self.exists(row) || row.present & EVER != 0 || known()
    }

    /// The column or the part of the key.
    pub fn column(&self, at: RowRef) -> &super::Column {
        if at.of_key { &self.key[usize::from(at.at)] } else { &self.columns[usize::from(at.at)] }
    }

    /// A value of a row and its key.
    pub fn value<'r>(&self, at: RowRef, key: &'r [Value], row: &'r Row) -> &'r Value {
        if at.of_key { &key[usize::from(at.at)] } else { &row.values[usize::from(at.at)] }
    }
}
