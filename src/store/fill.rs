//! Joins in SQL: the columns of rows brought up to date with the rows that they refer to.

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{Row as _, postgres::PgRow};

use super::bind;
use super::error::StoreError;
use super::sql::{ident, literal, vouched};
use super::tables::{exists, sql_type, table_name};
use super::write::Target;
use crate::batch::Key;
use crate::plan::derived::Join;
use crate::plan::expr::RowRef;
use crate::plan::types::Scalar;
use crate::plan::{Column, Table};

/// What a table's joins copy, as SQL.
pub(super) struct Fill {
    /// `LEFT JOIN … ON …`, one for each join.
    pub joins: String,
    /// The filled columns, and the expression that each has.
    pub columns: Vec<(u16, String)>,
}

impl Target<'_> {
    /// The joins of the table, reading its own columns by way of `own`.
    pub(super) fn fill(&self, own: &dyn Fn(RowRef) -> String) -> Fill {
        let mut fill = Fill { joins: String::new(), columns: Vec::new() };
        for (at, join) in self.in_order() {
            let other = &self.plan.tables[join.table];
            let alias = format!("projector_{at}");
            let mut conditions: Vec<String> = Vec::new();
            for (by, key) in join.by.iter().zip(&other.key) {
                // A column that an earlier join fills is read from there.
                let filled = fill.columns.iter().find(|(column, _)| !by.of_key && *column == by.at);
                let mut value = filled.map(|(_, sql)| sql.clone()).unwrap_or_else(|| own(*by));
                if is_enum(key) {
                    value = format!("({value})::text::{}", sql_type(self.schema, &other.name, key));
                }
                conditions.push(format!("{alias}.{} = {value}", ident(&key.name)));
            }
            conditions.extend(exists(other, &format!("{alias}."), join.keep));
            fill.joins +=
                &format!(" LEFT JOIN {} AS {alias} ON {}", table_name(self.schema, other), conditions.join(" AND "));
            for (column, from) in &join.fill {
                let into = &self.table.columns[usize::from(*column)];
                let mut value = format!("{alias}.{}", ident(&other.column(*from).name));
                if is_enum(into) {
                    value = format!("{value}::text::{}", sql_type(self.schema, &self.table.name, into));
                }
                if let Some(default) = into.shape.default.to_sql_text() {
                    let type_ = sql_type(self.schema, &self.table.name, into);
                    value = format!("COALESCE({value}, {}::{type_})", literal(&default));
                }
                fill.columns.push((*column, value));
            }
        }
        fill
    }

    /// Joins that read what others fill come after them.
    fn in_order(&self) -> Vec<(usize, &Join)> {
        let mut waiting: Vec<(usize, &Join)> = self.table.joins.iter().enumerate().collect();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            let fills = |column: u16, join: &Join| join.fill.iter().any(|(filled, _)| *filled == column);
            let ready = |one: &Join| {
                let own = one.by.iter().filter(|by| !by.of_key);
                own.clone().all(|by| !waiting.iter().any(|(_, other)| fills(by.at, other)))
            };
            let at = waiting.iter().position(|(_, join)| ready(join)).unwrap_or(0);
            order.push(waiting.remove(at));
        }
        order
    }

    /// The joined columns of rows `o` as they should be: the joins, the columns' names, their values.
    fn wanted(&self) -> (String, Vec<String>, Vec<String>) {
        let fill = self.fill(&|by| format!("o.{}", ident(&self.table.column(by).name)));
        let name = |column: u16| ident(&self.table.columns[usize::from(column)].name);
        let (names, values) = fill.columns.into_iter().map(|(at, sql)| (name(at), sql)).unzip();
        (fill.joins, names, values)
    }

    /// Brings the joined columns of rows up to date. Returns the keys of those that were not.
    ///
    /// A row that begins to refer to another one meanwhile is left alone: whoever makes it do so fills it, within the gate.
    pub(super) async fn refill(&self, connection: &mut PgConnection, keys: &[&Key]) -> Result<Vec<Key>, StoreError> {
        if self.table.joins.is_empty() || keys.is_empty() {
            return Ok(Vec::new());
        }
        let (joins, names, values) = self.wanted();
        let key = self.key_names("");
        let mut by: Vec<String> = Vec::new();
        for column in self.table.joins.iter().flat_map(|join| &join.by).filter(|by| !by.of_key) {
            let column = self.table.column(*column);
            if !column.derived && !by.contains(&ident(&column.name)) {
                by.push(ident(&column.name));
            }
        }
        let of = |alias: &str, columns: &[String]| -> String {
            columns.iter().map(|name| format!("{alias}.{name}")).collect::<Vec<_>>().join(", ")
        };
        let named: Vec<String> = values.iter().zip(&names).map(|(sql, name)| format!("{sql} AS {name}")).collect();
        let assignments: Vec<String> = names.iter().map(|name| format!("{name} = f.{name}")).collect();
        let same: Vec<String> = key.iter().map(|key| format!("t.{key} = f.{key}")).collect();
        let referring = by.iter().map(|by| format!(" AND t.{by} IS NOT DISTINCT FROM f.{by}")).collect::<String>();
        let given: Vec<String> = (self.table.key.iter())
            .map(|column| format!("o.{} = {}", ident(&column.name), self.selected(column)))
            .collect();
        let own: Vec<String> = key.iter().chain(&by).cloned().collect();
        let table = table_name(self.schema, self.table);
        let sql = format!(
            "UPDATE {table} AS t SET {} FROM (
                 SELECT {}, {} FROM {} JOIN {table} AS o ON {}{joins}
             ) AS f
             WHERE {}{referring} AND ROW({}) IS DISTINCT FROM ROW({}) RETURNING {}",
            assignments.join(", "),
            of("o", &own),
            named.join(", "),
            self.unnest(&[], &[]),
            given.join(" AND "),
            same.join(" AND "),
            of("t", &names),
            of("f", &names),
            self.key_texts("t."),
        );
        let mut arguments = PgArguments::default();
        self.bind_key(&mut arguments, keys.iter().copied())?;
        let changed = sqlx::query_with(vouched(sql), arguments).fetch_all(connection).await?;
        changed.iter().map(|row| self.read_key(row, 0)).collect()
    }

    /// The key's columns as texts, in the form in which [`Target::read_key`] reads them.
    pub(super) fn key_texts(&self, prefix: &str) -> String {
        let texts: Vec<String> = self.key_names(prefix).iter().map(|name| format!("{name}::text")).collect();
        texts.join(", ")
    }

    pub(super) fn read_key(&self, row: &PgRow, from: usize) -> Result<Key, StoreError> {
        let columns = self.table.key.iter().enumerate();
        columns
            .map(|(at, column)| {
                let text: &str = row.try_get(from + at)?;
                super::locked::from_sql_text(column, text)
            })
            .collect()
    }

    /// Rows that refer to one of these rows of another table and are not up to date, each with the index of that row: the
    /// first so many, in the order of the keys that are referred to. Of a single one, a page after one of the rows.
    pub(super) async fn stale(
        &self,
        connection: &mut PgConnection,
        by: &[RowRef],
        (other, referred): (&Table, &[&Key]),
        after: Option<&Key>,
        most: usize,
    ) -> Result<Vec<(usize, Key)>, StoreError> {
        let (joins, names, values) = self.wanted();
        let mut sources = Vec::new();
        let mut conditions = Vec::new();
        let mut arguments = PgArguments::default();
        for (at, (column, key)) in by.iter().zip(&other.key).enumerate() {
            let source = format!("${}::{}", at + 1, bind::array_type(&key.shape.type_));
            let own = self.table.column(*column);
            // Of a single one the planner sees that the index gives its rows in order.
            let value = if referred.len() == 1 { format!("({source})[1]") } else { format!("m.c{at}") };
            conditions.push(format!("o.{} = {value}::{}", ident(&own.name), self.sql_type(own)));
            sources.push(source);
            bind::add(&mut arguments, &key.shape.type_, referred.iter().map(|key| Some(&key[at])))?;
        }
        let columns: Vec<String> = (0..by.len()).map(|at| format!("c{at}")).collect();
        if let Some(after) = after {
            let mut bounds = Vec::new();
            for (at, column) in self.table.key.iter().enumerate() {
                let array = bind::array_type(&column.shape.type_);
                bounds.push(format!("(${}::{array})[1]::{}", by.len() + at + 1, self.sql_type(column)));
                bind::add(&mut arguments, &column.shape.type_, std::iter::once(Some(&after[at])))?;
            }
            conditions.push(format!("({}) > ({})", self.key_names("o.").join(", "), bounds.join(", ")));
        }
        let (from, order) = match referred.len() {
            1 => ("(SELECT 1::bigint AS n) AS m".into(), format!(" ORDER BY {}", self.key_names("o.").join(", "))),
            _ => (
                format!("unnest({}) WITH ORDINALITY AS m({}, n)", sources.join(", "), columns.join(", ")),
                String::new(),
            ),
        };
        let own: Vec<String> = names.iter().map(|name| format!("o.{name}")).collect();
        let sql = format!(
            "SELECT m.n, {} FROM {from} JOIN {} AS o ON {}{joins}
             WHERE ROW({}) IS DISTINCT FROM ROW({}){order} LIMIT {most}",
            self.key_texts("o."),
            table_name(self.schema, self.table),
            conditions.join(" AND "),
            own.join(", "),
            values.join(", "),
        );
        let found = sqlx::query_with(vouched(sql), arguments).fetch_all(connection).await?;
        let stale = found.iter().map(|row| {
            let number: i64 = row.try_get(0)?;
            Ok((number as usize - 1, self.read_key(row, 1)?))
        });
        stale.collect()
    }
}

/// Whether a column is of an enum that was made for its own table.
fn is_enum(column: &Column) -> bool {
    matches!(column.shape.type_.scalar, Scalar::Enum(_))
}

/// Whether a patch may change what a row refers to, or make the row.
pub(super) fn refers_anew(table: &Table, patch: &crate::patch::Patch) -> bool {
    let changes = |by: &RowRef| by.of_key || patch.changes.iter().any(|(column, _)| *column == by.at);
    !patch.tail.is_empty() || table.joins.iter().flat_map(|join| &join.by).any(changes)
}
