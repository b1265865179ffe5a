//! Patches to rows, in bulk.
//!
//! A table's patches are sorted by key and written in chunks, so that every transaction takes its locks in the one
//! global order: tables as the plan lists them, keys ascending. A chunk goes **blind** when one upsert can say what
//! all of its patches mean, and **locked** otherwise: the rows are made, locked in key order, patched in memory by
//! [`Patch::apply`] and written back. Both give the same rows; a property test holds them to it.

use std::fmt::Write as _;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Arguments, Row as _};

use super::bind;
use super::error::StoreError;
use super::sql::{ident, vouched};
use super::tables::{PRESENCE, sql_type, table_name};
use crate::batch::Key;
use crate::patch::{Change, Patch, Row};
use crate::plan::types::{Scalar, json_value};
use crate::plan::{Column, Table};
use crate::proof::{self, Sabotage};
use crate::value::{Value, parse_date, parse_time};

/// Rows a statement writes at most. Larger ones gain nothing and hold more memory.
const CHUNK: usize = 5_000;

/// Which of the two ways to write may be taken; tests choose, the product always says [`Way::Best`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    #[default]
    Best,
    Locked,
}

/// Writes a table's patches, which come sorted by key. Returns how many rows were written.
///
/// # Errors
/// What Postgres says; the transaction is then not to be committed.
pub async fn write_table(
    connection: &mut PgConnection,
    schema: &str,
    table: &Table,
    rows: &[(Key, Patch)],
    way: Way,
) -> Result<u64, StoreError> {
    let target = Target { schema, table };
    let mut written = 0;
    for chunk in rows.chunks(CHUNK) {
        match Blind::of(table, chunk).filter(|_| way == Way::Best) {
            Some(form) => target.upsert(connection, &form, chunk).await?,
            None => target.patch_locked(connection, chunk).await?,
        }
        written += chunk.len() as u64;
        proof::failpoint(proof::BETWEEN_CHUNKS);
    }
    Ok(written)
}

/// How one column of a chunk is written by an upsert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blindly {
    /// Every row sets it.
    Set,
    /// Some rows set it, none to NULL; NULL stands for the others.
    SetSome,
    Add,
    Max,
    Min,
}

/// The one upsert that says what all patches of a chunk mean.
struct Blind {
    columns: Vec<(usize, Blindly)>,
    /// Presence bits that every row of the chunk ends.
    ended: u32,
}

impl Blind {
    fn of(table: &Table, chunk: &[(Key, Patch)]) -> Option<Blind> {
        let ended = chunk.first()?.1.presence.ended;
        if chunk.iter().any(|(_, patch)| patch.presence.ended != ended) {
            return None;
        }
        let mut columns = Vec::new();
        for (at, column) in table.columns.iter().enumerate() {
            let changes = || chunk.iter().filter_map(|(_, patch)| change_to(patch, at));
            let Some(first) = changes().next() else { continue };
            let kind = std::mem::discriminant(first);
            if changes().any(|change| std::mem::discriminant(change) != kind) {
                return None;
            }
            let all = changes().count() == chunk.len();
            let plain = column.shape.default.is_null();
            let form = match first {
                Change::Set(_) if all => Blindly::Set,
                Change::Set(_) if plain && !changes().any(|change| change.value().is_null()) => Blindly::SetSome,
                Change::Add(_) if plain || all => Blindly::Add,
                Change::Max(_) if plain => Blindly::Max,
                Change::Min(_) if plain => Blindly::Min,
                _ => return None,
            };
            columns.push((at, form));
        }
        Some(Blind { columns, ended })
    }
}

fn change_to(patch: &Patch, column: usize) -> Option<&Change> {
    let at = patch.changes.binary_search_by_key(&column, |(c, _)| usize::from(*c)).ok()?;
    Some(&patch.changes[at].1)
}

struct Target<'t> {
    schema: &'t str,
    table: &'t Table,
}

impl Target<'_> {
    fn sql_type(&self, column: &Column) -> String {
        sql_type(self.schema, &self.table.name, column)
    }

    /// `unnest($1::text[], …) AS s(…)` over the key and the given columns.
    fn unnest(&self, columns: &[&Column], more: &[(&str, &str)]) -> String {
        let mut sources = Vec::new();
        let mut names = Vec::new();
        for column in self.table.key.iter().chain(columns.iter().copied()) {
            sources.push(format!("${}::{}", sources.len() + 1, bind::array_type(&column.shape.type_)));
            names.push(ident(&column.name));
        }
        for (name, type_) in more {
            sources.push(format!("${}::{type_}", sources.len() + 1));
            names.push(ident(name));
        }
        format!("unnest({}) AS s({})", sources.join(", "), names.join(", "))
    }

    fn bind_key(&self, arguments: &mut PgArguments, chunk: &[(Key, Patch)]) -> Result<(), sqlx::Error> {
        for (at, column) in self.table.key.iter().enumerate() {
            bind::add(arguments, &column.shape.type_, chunk.iter().map(|(key, _)| Some(&key[at])))?;
        }
        Ok(())
    }

    fn key_names(&self, prefix: &str) -> Vec<String> {
        self.table.key.iter().map(|column| format!("{prefix}{}", ident(&column.name))).collect()
    }

    fn selected(&self, column: &Column) -> String {
        format!("s.{}::{}", ident(&column.name), self.sql_type(column))
    }

    /// The condition under which a row `t` is the one that `s` means.
    fn same_key(&self) -> String {
        let same = |column: &Column| format!("t.{} = {}", ident(&column.name), self.selected(column));
        self.table.key.iter().map(same).collect::<Vec<_>>().join(" AND ")
    }

    async fn upsert(
        &self,
        connection: &mut PgConnection,
        form: &Blind,
        chunk: &[(Key, Patch)],
    ) -> Result<(), StoreError> {
        let columns: Vec<&Column> = form.columns.iter().map(|(at, _)| &self.table.columns[*at]).collect();
        let presence: &[(&str, &str)] = if self.table.presence { &[(PRESENCE, "integer[]")] } else { &[] };
        let mut names = self.key_names("");
        let mut selected: Vec<String> = self.table.key.iter().map(|column| self.selected(column)).collect();
        let mut updates = Vec::new();
        for (column, (_, blindly)) in columns.iter().zip(&form.columns) {
            let name = ident(&column.name);
            let new = self.selected(column);
            names.push(name.clone());
            let default = column.shape.default.to_sql_text();
            let default = default.map(|text| format!("{}::{}", super::sql::literal(&text), self.sql_type(column)));
            selected.push(match (blindly, &default) {
                (Blindly::Add, Some(default)) => format!("{default} + {new}"),
                _ => new,
            });
            updates.push(match (blindly, &default) {
                (Blindly::Set, _) => format!("{name} = excluded.{name}"),
                (Blindly::SetSome, _) if proof::sabotaged(Sabotage::AbsentIsNull) => format!("{name} = excluded.{name}"),
                (Blindly::SetSome, _) => format!("{name} = COALESCE(excluded.{name}, t.{name})"),
                (Blindly::Max, _) => format!("{name} = GREATEST(t.{name}, excluded.{name})"),
                (Blindly::Min, _) => format!("{name} = LEAST(t.{name}, excluded.{name})"),
                (Blindly::Add, None) => format!(
                    "{name} = CASE WHEN excluded.{name} IS NULL THEN t.{name} ELSE COALESCE(t.{name}, 0) + excluded.{name} END"
                ),
                (Blindly::Add, Some(default)) => {
                    format!("{name} = COALESCE(t.{name}, 0) + (excluded.{name} - {default})")
                }
            });
        }
        if self.table.presence {
            names.push(PRESENCE.into());
            selected.push(format!("s.{}", ident(PRESENCE)));
            updates.push(format!("{PRESENCE} = (t.{PRESENCE} & ~{}) | excluded.{PRESENCE}", form.ended));
        }
        let action = if updates.is_empty() { "NOTHING".into() } else { format!("UPDATE SET {}", updates.join(", ")) };
        let sql = format!(
            "INSERT INTO {} AS t ({}) SELECT {} FROM {} ON CONFLICT ({}) DO {action}",
            table_name(self.schema, self.table),
            names.join(", "),
            selected.join(", "),
            self.unnest(&columns, presence),
            self.key_names("").join(", "),
        );
        let mut arguments = PgArguments::default();
        self.bind_key(&mut arguments, chunk)?;
        for (at, _) in &form.columns {
            let type_ = &self.table.columns[*at].shape.type_;
            bind::add(&mut arguments, type_, chunk.iter().map(|(_, patch)| change_to(patch, *at).map(Change::value)))?;
        }
        if self.table.presence {
            let begun: Vec<i32> = chunk.iter().map(|(_, patch)| patch.presence.begun as i32).collect();
            arguments.add(begun).map_err(sqlx::Error::Encode)?;
        }
        sqlx::query_with(vouched(sql), arguments).execute(connection).await?;
        Ok(())
    }

    async fn patch_locked(&self, connection: &mut PgConnection, chunk: &[(Key, Patch)]) -> Result<(), StoreError> {
        self.make_rows(connection, chunk).await?;
        let touched: Vec<usize> = (0..self.table.columns.len())
            .filter(|at| chunk.iter().any(|(_, patch)| change_to(patch, *at).is_some()))
            .collect();
        // A column that is only ever set needs no reading.
        let read: Vec<usize> = touched
            .iter()
            .copied()
            .filter(|at| {
                chunk
                    .iter()
                    .any(|(_, p)| matches!(change_to(p, *at), Some(change) if !matches!(change, Change::Set(_))))
            })
            .collect();
        let rows = self.load_locked(connection, &read, chunk).await?;
        let patched: Result<Vec<Row>, StoreError> = rows
            .into_iter()
            .zip(chunk)
            .map(|(mut row, (_, patch))| {
                patch
                    .apply(&mut row, &self.table.shapes)
                    .map_err(|overflow| StoreError::Data(sqlx::Error::Protocol(overflow.message)))?;
                Ok(row)
            })
            .collect();
        self.write_back(connection, &touched, &read, chunk, &patched?).await
    }

    /// Makes the rows that are not there yet, in key order, so that all of them can be locked.
    async fn make_rows(&self, connection: &mut PgConnection, chunk: &[(Key, Patch)]) -> Result<(), StoreError> {
        let selected: Vec<String> = self.table.key.iter().map(|column| self.selected(column)).collect();
        let sql = format!(
            "INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT DO NOTHING",
            table_name(self.schema, self.table),
            self.key_names("").join(", "),
            selected.join(", "),
            self.unnest(&[], &[]),
        );
        let mut arguments = PgArguments::default();
        self.bind_key(&mut arguments, chunk)?;
        sqlx::query_with(vouched(sql), arguments).execute(connection).await?;
        Ok(())
    }

    async fn load_locked(
        &self,
        connection: &mut PgConnection,
        read: &[usize],
        chunk: &[(Key, Patch)],
    ) -> Result<Vec<Row>, StoreError> {
        let mut columns = vec![if self.table.presence { format!("t.{PRESENCE}") } else { "0".into() }];
        columns.extend(read.iter().map(|at| format!("t.{}::text", ident(&self.table.columns[*at].name))));
        let unnest = self.unnest(&[], &[("ordinal", "bigint[]")]);
        let lock = if proof::sabotaged(Sabotage::RowLocks) { "" } else { " FOR UPDATE OF t" };
        let sql = format!(
            "SELECT {} FROM {unnest} JOIN {} AS t ON {} ORDER BY s.ordinal{lock}",
            columns.join(", "),
            table_name(self.schema, self.table),
            self.same_key(),
        );
        let mut arguments = PgArguments::default();
        self.bind_key(&mut arguments, chunk)?;
        let ordinals: Vec<i64> = (0..chunk.len() as i64).collect();
        arguments.add(ordinals).map_err(sqlx::Error::Encode)?;
        let found = sqlx::query_with(vouched(sql), arguments).fetch_all(connection).await?;
        if found.len() != chunk.len() {
            let message = format!("{} of {} rows of {} were found", found.len(), chunk.len(), self.table.name);
            return Err(StoreError::Transient(sqlx::Error::Protocol(message)));
        }
        found.iter().map(|row| self.read_row(row, read)).collect()
    }

    fn read_row(&self, found: &PgRow, read: &[usize]) -> Result<Row, StoreError> {
        let mut row = Row::blank(&self.table.shapes);
        row.present = found.try_get::<i32, _>(0)? as u32;
        for (index, at) in read.iter().enumerate() {
            let text: Option<&str> = found.try_get(index + 1)?;
            row.values[*at] = match text {
                Some(text) => from_sql_text(&self.table.columns[*at], text)?,
                None => Value::Null,
            };
        }
        Ok(row)
    }

    async fn write_back(
        &self,
        connection: &mut PgConnection,
        touched: &[usize],
        read: &[usize],
        chunk: &[(Key, Patch)],
        rows: &[Row],
    ) -> Result<(), StoreError> {
        let columns: Vec<&Column> = touched.iter().map(|at| &self.table.columns[*at]).collect();
        let masks: Vec<String> = touched.iter().map(|at| format!("projector_mask_{at}")).collect();
        let mut more: Vec<(&str, &str)> = masks.iter().map(|mask| (mask.as_str(), "boolean[]")).collect();
        more.push((PRESENCE, "integer[]"));
        let mut assignments = String::new();
        for (column, mask) in columns.iter().zip(&masks) {
            let name = ident(&column.name);
            let new = self.selected(column);
            let _ = write!(assignments, "{name} = CASE WHEN s.{} THEN {new} ELSE t.{name} END, ", ident(mask));
        }
        if self.table.presence {
            let _ = write!(assignments, "{PRESENCE} = s.{PRESENCE}, ");
        }
        let Some(assignments) = assignments.strip_suffix(", ") else { return Ok(()) };
        let sql = format!(
            "UPDATE {} AS t SET {assignments} FROM {} WHERE {}",
            table_name(self.schema, self.table),
            self.unnest(&columns, &more),
            self.same_key(),
        );
        let mut arguments = PgArguments::default();
        self.bind_key(&mut arguments, chunk)?;
        for at in touched {
            bind::add(
                &mut arguments,
                &self.table.columns[*at].shape.type_,
                rows.iter().map(|row| Some(&row.values[*at])),
            )?;
        }
        for at in touched {
            let loaded = read.contains(at);
            let mask: Vec<bool> = chunk.iter().map(|(_, patch)| loaded || change_to(patch, *at).is_some()).collect();
            arguments.add(mask).map_err(sqlx::Error::Encode)?;
        }
        let present: Vec<i32> = rows.iter().map(|row| row.present as i32).collect();
        arguments.add(present).map_err(sqlx::Error::Encode)?;
        sqlx::query_with(vouched(sql), arguments).execute(connection).await?;
        Ok(())
    }
}

/// A scalar as Postgres writes it, under `TimeZone=UTC` and `DateStyle=ISO`.
fn from_sql_text(column: &Column, text: &str) -> Result<Value, StoreError> {
    let value = match column.shape.type_.scalar {
        Scalar::Bool => Some(Value::Bool(text == "true")),
        Scalar::Int2 | Scalar::Int4 | Scalar::Int8 | Scalar::Numeric(_) | Scalar::Float8 => json_value(text).ok(),
        Scalar::Date => parse_date(text).map(Value::Date),
        Scalar::Timestamptz => parse_time(text).map(Value::Time),
        _ => Some(Value::text(text)),
    };
    let value = value.and_then(|value| column.shape.type_.coerce(value).ok());
    value.ok_or_else(|| {
        StoreError::Catalog(format!("the column {} holds {text:?}, which is no {}", column.name, column.shape.type_))
    })
}
