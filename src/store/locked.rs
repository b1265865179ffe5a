//! The locked way: rows are made, locked in key order, patched in memory and written back.

use std::fmt::Write as _;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Arguments, Row as _};

use super::bind;
use super::error::StoreError;
use super::sql::{ident, vouched};
use super::tables::{PRESENCE, table_name, version_column};
use super::write::{Filled, Target, change_to};
use crate::batch::Key;
use crate::error_kind::Reason;
use crate::event::Place;
use crate::patch::{Change, FINAL, Patch, Row};
use crate::plan::types::Scalar;
use crate::plan::{Column, Table};
use crate::proof::{self, Sabotage};
use crate::value::json::json_value;
use crate::value::{Value, parse_date, parse_time};

/// What of its rows a chunk reads and writes.
pub(super) struct Reach {
    /// Columns that are written, in their order.
    touched: Vec<usize>,
    /// Those of them whose new value depends on the old.
    read: Vec<usize>,
    slots: Vec<u16>,
}

impl Reach {
    /// One that reads columns, and writes none.
    pub fn reading(columns: impl Iterator<Item = u16>) -> Reach {
        let mut read: Vec<usize> = columns.map(usize::from).collect();
        read.sort_unstable();
        read.dedup();
        Reach { touched: Vec::new(), read, slots: Vec::new() }
    }

    fn of(table: &Table, chunk: &[(Key, Patch)]) -> Reach {
        if chunk.iter().any(|(_, patch)| !patch.tail.is_empty()) {
            let all: Vec<usize> = (0..table.columns.len()).filter(|at| !table.columns[*at].derived).collect();
            return Reach { touched: all.clone(), read: all, slots: (0..table.version_slots).collect() };
        }
        let changes = |at: usize| chunk.iter().filter_map(move |(_, patch)| change_to(patch, at));
        let mut touched: Vec<usize> = (0..table.columns.len()).filter(|at| changes(*at).next().is_some()).collect();
        let set_alone = |at: &usize| changes(*at).all(|change| matches!(change, Change::Set(_)));
        let mut read: Vec<usize> = touched.iter().copied().filter(|at| !set_alone(at)).collect();
        let members = |at: &usize| table.columns[*at].shape.members.map(usize::from);
        let state: Vec<usize> = touched.iter().filter_map(members).collect();
        touched.extend(&state);
        read.extend(&state);
        for columns in [&mut touched, &mut read] {
            columns.sort_unstable();
            columns.dedup();
        }
        let mut slots: Vec<u16> = read.iter().filter_map(|at| table.columns[*at].shape.version).collect();
        slots.sort_unstable();
        slots.dedup();
        Reach { touched, read, slots }
    }
}

impl Target<'_> {
    pub(super) async fn patch_locked(
        &self,
        connection: &mut PgConnection,
        chunk: &[(Key, Patch)],
        misapplied: &mut Vec<(Place, Reason)>,
    ) -> Result<Filled, StoreError> {
        let keys: Vec<&Key> = chunk.iter().map(|(key, _)| key).collect();
        self.make_rows(connection, &keys).await?;
        let reach = Reach::of(self.table, chunk);
        let mut rows = self.load(connection, &reach, &keys, !proof::sabotaged(Sabotage::RowLocks)).await?;
        let mut ended = Vec::with_capacity(rows.len());
        for (row, (key, patch)) in rows.iter_mut().zip(chunk) {
            ended.push(row.present & FINAL != 0);
            let Err(error) = patch.apply(key, row, &self.table.shapes) else { continue };
            let reason = Reason::new(error.code, error.told(self.table));
            match error.place {
                Some(place) => misapplied.push((place, reason)),
                None => return Err(StoreError::Unapplied(reason)),
            }
        }
        if misapplied.is_empty() {
            self.write_back(connection, &reach, chunk, &rows, &ended).await?;
        }
        Ok(Filled::NotYet)
    }

    /// Makes the rows that are not there yet, in key order, so that all of them can be locked.
    pub(super) async fn make_rows(&self, connection: &mut PgConnection, keys: &[&Key]) -> Result<(), StoreError> {
        let selected: Vec<String> = self.table.key.iter().map(|column| self.selected(column)).collect();
        let sql = format!(
            "INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT DO NOTHING",
            table_name(self.schema, self.table),
            self.key_names("").join(", "),
            selected.join(", "),
            self.unnest(&[], &[]),
        );
        let mut arguments = PgArguments::default();
        self.bind_key(&mut arguments, keys.iter().copied())?;
        sqlx::query_with(vouched(sql), arguments).execute(connection).await?;
        Ok(())
    }

    /// What is read of rows that are there, in the order of the keys.
    pub(super) async fn load(
        &self,
        connection: &mut PgConnection,
        reach: &Reach,
        keys: &[&Key],
        locked: bool,
    ) -> Result<Vec<Row>, StoreError> {
        let mut columns = vec![if self.table.presence { format!("t.{PRESENCE}") } else { "0".into() }];
        columns.extend(reach.slots.iter().map(|slot| format!("t.{}", ident(&version_column(*slot)))));
        columns.extend(reach.read.iter().map(|at| {
            let column = &self.table.columns[*at];
            let name = ident(&column.name);
            if column.shape.type_.array { format!("to_jsonb(t.{name})::text") } else { format!("t.{name}::text") }
        }));
        let unnest = self.unnest(&[], &[("ordinal", "bigint[]")]);
        let lock = if locked { " FOR UPDATE OF t" } else { "" };
        let sql = format!(
            "SELECT {} FROM {unnest} JOIN {} AS t ON {} ORDER BY s.ordinal{lock}",
            columns.join(", "),
            table_name(self.schema, self.table),
            self.same_key(),
        );
        let mut arguments = PgArguments::default();
        self.bind_key(&mut arguments, keys.iter().copied())?;
        let ordinals: Vec<i64> = (0..keys.len() as i64).collect();
        arguments.add(ordinals).map_err(sqlx::Error::Encode)?;
        let found = sqlx::query_with(vouched(sql), arguments).fetch_all(connection).await?;
        if found.len() != keys.len() {
            let message = format!("{} of {} rows of {} were found", found.len(), keys.len(), self.table.name);
            return Err(StoreError::Transient(sqlx::Error::Protocol(message)));
        }
        found.iter().map(|row| self.read_row(row, reach)).collect()
    }

    fn read_row(&self, found: &PgRow, reach: &Reach) -> Result<Row, StoreError> {
        let mut row = Row::blank(&self.table.shapes);
        row.present = found.try_get::<i32, _>(0)? as u32;
        for (index, slot) in reach.slots.iter().enumerate() {
            let bytes: Option<&[u8]> = found.try_get(1 + index)?;
            row.versions[usize::from(*slot)] = bytes.map(crate::version::Version::from_bytes);
        }
        for (index, at) in reach.read.iter().enumerate() {
            let text: Option<&str> = found.try_get(1 + reach.slots.len() + index)?;
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
        reach: &Reach,
        chunk: &[(Key, Patch)],
        rows: &[Row],
        ended: &[bool],
    ) -> Result<(), StoreError> {
        let columns: Vec<&Column> = reach.touched.iter().map(|at| &self.table.columns[*at]).collect();
        let masks: Vec<String> = reach.touched.iter().map(|at| format!("projector_mask_{at}")).collect();
        let versions: Vec<String> = reach.slots.iter().map(|slot| version_column(*slot)).collect();
        let mut more: Vec<(&str, &str)> = masks.iter().map(|mask| (mask.as_str(), "boolean[]")).collect();
        more.extend(versions.iter().map(|version| (version.as_str(), "bytea[]")));
        more.push((PRESENCE, "integer[]"));
        let mut assignments = String::new();
        for (column, mask) in columns.iter().zip(&masks) {
            let name = ident(&column.name);
            let new = self.selected(column);
            let _ = write!(assignments, "{name} = CASE WHEN s.{} THEN {new} ELSE t.{name} END, ", ident(mask));
        }
        for version in versions.iter().map(|name| ident(name)) {
            let _ = write!(assignments, "{version} = s.{version}, ");
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
        self.bind_key(&mut arguments, chunk.iter().map(|(key, _)| key))?;
        for at in &reach.touched {
            let type_ = &self.table.columns[*at].shape.type_;
            bind::add(&mut arguments, type_, rows.iter().map(|row| Some(&row.values[*at])))?;
        }
        for at in &reach.touched {
            let loaded = reach.read.contains(at);
            let changed = |(_, patch): &(Key, Patch)| change_to(patch, *at).is_some();
            let mask: Vec<bool> =
                chunk.iter().zip(ended).map(|(row, ended)| loaded || (changed(row) && !ended)).collect();
            arguments.add(mask).map_err(sqlx::Error::Encode)?;
        }
        for slot in &reach.slots {
            let version = |row: &Row| row.versions[usize::from(*slot)].as_ref().map(|v| v.as_bytes().to_vec());
            let versions: Vec<Option<Vec<u8>>> = rows.iter().map(version).collect();
            arguments.add(versions).map_err(sqlx::Error::Encode)?;
        }
        let present: Vec<i32> = rows.iter().map(|row| row.present as i32).collect();
        arguments.add(present).map_err(sqlx::Error::Encode)?;
        sqlx::query_with(vouched(sql), arguments).execute(connection).await?;
        Ok(())
    }
}

/// A value as Postgres writes it, under `TimeZone=UTC` and `DateStyle=ISO`; an array as JSON.
pub(super) fn from_sql_text(column: &Column, text: &str) -> Result<Value, StoreError> {
    let type_ = &column.shape.type_;
    let value = match type_.scalar {
        _ if type_.array => json_value(text).ok(),
        Scalar::Bool => Some(Value::Bool(text == "true")),
        Scalar::Int2 | Scalar::Int4 | Scalar::Int8 | Scalar::Numeric(_) | Scalar::Float8 => json_value(text).ok(),
        Scalar::Date => parse_date(text).map(Value::Date),
        Scalar::Timestamptz => parse_time(text).map(Value::Time),
        Scalar::Jsonb => json_value(text).ok(),
        // Postgres' own spelling of an interval is not the one that events have.
        Scalar::Interval => return Ok(Value::text(text)),
        _ => Some(Value::text(text)),
    };
    let value = value.and_then(|value| type_.coerce(value).ok());
    value.ok_or_else(|| StoreError::Catalog(format!("the column {} holds {text:?}, which is no {type_}", column.name)))
}
