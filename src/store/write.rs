//! Patches to rows, in bulk.
//!
//! A table's patches are sorted by key and written in chunks, so that every transaction takes its locks in the one
//! global order: tables as the plan lists them, keys ascending. A chunk goes **blind** when one upsert can say what
//! all of its patches mean, and **locked** otherwise: the rows are made, locked in key order, patched in memory by
//! [`Patch::apply`] and written back. Into a generation that is being built, rows are **loaded** as long as all are new.
//! All give the same rows; a property test holds them to it.

use std::time::Instant;

use sqlx::Arguments;
use sqlx::postgres::{PgArguments, PgConnection};

use super::bind;
use super::error::StoreError;
use super::fill::{Fill, refers_anew};
use super::load::Loaded;
use super::marks::Marks;
use super::observe::Watch;
use super::sql::{ident, vouched};
use super::tables::{PRESENCE, sql_type, table_name, version_column};
use crate::batch::{Building, Key};
use crate::error_kind::Reason;
use crate::event::Place;
use crate::patch::{Change, FINAL, Patch};
use crate::plan::expr::RowRef;
use crate::plan::{Column, Plan, Table};
use crate::proof::{self, Sabotage};

/// Rows a statement writes at most. Larger ones gain nothing and hold more memory.
const CHUNK: usize = 5_000;

/// The same while others need answers, who have to wait for it.
const SHARED_CHUNK: usize = 500;

/// Which ways to write may be taken; tests choose, the product always says [`Way::Best`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    #[default]
    Best,
    Locked,
    /// Rows that are new are loaded, as in a generation that is being built.
    Loaded,
}

/// What a batch's tables are written with, and what comes of it.
pub(super) struct Writer<'w> {
    pub plan: &'w Plan,
    pub schema: &'w str,
    pub way: Way,
    /// Of a generation that nobody reads yet.
    pub building: Option<&'w Building>,
    /// Events whose patches cannot be applied to the rows that are there: the transaction is not to be committed then.
    pub misapplied: Vec<(Place, Reason)>,
    /// What follows from the rows that were written.
    pub marks: Marks,
}

impl Writer<'_> {
    /// Writes a table's patches, which come sorted by key. Returns how many rows were written.
    ///
    /// # Errors
    /// What Postgres says; the transaction is then not to be committed.
    pub async fn table(
        &mut self,
        connection: &mut PgConnection,
        at: usize,
        rows: &[(Key, Patch)],
    ) -> Result<u64, StoreError> {
        let table = &self.plan.tables[at];
        let target = Target::new(self.plan, self.schema, at);
        let watch = Watch::of(self.plan, at);
        let mut written = 0;
        let is_shared = self.building.is_some_and(|building| building.share.is_shared());
        let mut loads = match (self.way, self.building) {
            (Way::Loaded, _) => true,
            (Way::Best, Some(building)) => building.is_new(at),
            _ => false,
        } && watch.is_idle()
            && table.joins.is_empty();
        for chunk in rows.chunks(if is_shared { SHARED_CHUNK } else { CHUNK }) {
            let begun = Instant::now();
            if loads {
                match target.load_new(connection, chunk).await? {
                    Loaded::Yes => {
                        written += chunk.len() as u64;
                        self.rest(begun).await;
                        continue;
                    }
                    Loaded::NotNew => {
                        loads = false;
                        self.building.into_iter().for_each(|building| building.met(at));
                    }
                    Loaded::Unapplied => {}
                }
            }
            let keys: Vec<&Key> = chunk.iter().map(|(key, _)| key).collect();
            let before = watch.before(&target, connection, &keys).await?;
            if !before.is_empty() {
                proof::step("looked").await;
            }
            let filled = match Blind::of(table, chunk).filter(|_| self.way != Way::Locked) {
                Some(form) => target.upsert(connection, &form, chunk).await?,
                None => target.patch_locked(connection, chunk, &mut self.misapplied).await?,
            };
            if filled == Filled::NotYet {
                let anew = chunk.iter().filter(|(_, patch)| refers_anew(table, patch)).map(|(key, _)| key);
                target.refill(connection, &anew.collect::<Vec<_>>()).await?;
            }
            watch.touched(table, chunk.iter().map(|(key, patch)| (key, patch)), &mut self.marks);
            watch.after(&target, connection, &keys, &before, &mut self.marks).await?;
            written += chunk.len() as u64;
            proof::failpoint(proof::BETWEEN_CHUNKS);
            self.rest(begun).await;
        }
        Ok(written)
    }

    /// Lets others have their share of the time.
    async fn rest(&self, begun: Instant) {
        if let Some(building) = self.building {
            tokio::time::sleep(building.share.rest(begun.elapsed())).await;
        }
    }
}

/// Whether the joined columns of a chunk's rows were written with the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    Yes,
    NotYet,
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
    /// Rows that say something about it say it with a version.
    Newest,
}

/// The one upsert that says what all patches of a chunk mean.
struct Blind {
    columns: Vec<(usize, Blindly)>,
    /// Version slots, each with a column that is under it.
    slots: Vec<(u16, usize)>,
    /// Presence bits that every row of the chunk ends.
    ended: u32,
}

impl Blind {
    fn of(table: &Table, chunk: &[(Key, Patch)]) -> Option<Blind> {
        let ended = chunk.first()?.1.presence.ended;
        if chunk.iter().any(|(_, patch)| patch.presence.ended != ended || !patch.tail.is_empty()) {
            return None;
        }
        let mut columns: Vec<(usize, Blindly)> = Vec::new();
        let mut slots: Vec<(u16, usize)> = Vec::new();
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
                Change::Newest { .. } if plain || all => Blindly::Newest,
                _ => return None,
            };
            if let (Blindly::Newest, Some(slot)) = (form, column.shape.version)
                && !slots.iter().any(|(known, _)| *known == slot)
            {
                slots.push((slot, at));
            }
            columns.push((at, form));
        }
        Some(Blind { columns, slots, ended })
    }
}

pub(super) fn change_to(patch: &Patch, column: usize) -> Option<&Change> {
    let at = patch.changes.binary_search_by_key(&column, |(c, _)| usize::from(*c)).ok()?;
    Some(&patch.changes[at].1)
}

pub(super) struct Target<'t> {
    pub plan: &'t Plan,
    pub schema: &'t str,
    /// Index into [`Plan::tables`].
    pub at: usize,
    pub table: &'t Table,
}

impl<'t> Target<'t> {
    pub fn new(plan: &'t Plan, schema: &'t str, at: usize) -> Target<'t> {
        Target { plan, schema, at, table: &plan.tables[at] }
    }
}

impl Target<'_> {
    pub(super) fn sql_type(&self, column: &Column) -> String {
        sql_type(self.schema, &self.table.name, column)
    }

    /// `unnest($1::text[], …) AS s(…)` over the key and the given columns.
    pub(super) fn unnest(&self, columns: &[&Column], more: &[(&str, &str)]) -> String {
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

    pub(super) fn bind_key<'k>(
        &self,
        arguments: &mut PgArguments,
        keys: impl Iterator<Item = &'k Key> + Clone,
    ) -> Result<(), sqlx::Error> {
        for (at, column) in self.table.key.iter().enumerate() {
            bind::add(arguments, &column.shape.type_, keys.clone().map(|key| Some(&key[at])))?;
        }
        Ok(())
    }

    pub(super) fn key_names(&self, prefix: &str) -> Vec<String> {
        self.table.key.iter().map(|column| format!("{prefix}{}", ident(&column.name))).collect()
    }

    pub(super) fn selected(&self, column: &Column) -> String {
        format!("s.{}::{}", ident(&column.name), self.sql_type(column))
    }

    /// The condition under which a row `t` is the one that `s` means.
    pub(super) fn same_key(&self) -> String {
        let same = |column: &Column| format!("t.{} = {}", ident(&column.name), self.selected(column));
        self.table.key.iter().map(same).collect::<Vec<_>>().join(" AND ")
    }

    async fn upsert(
        &self,
        connection: &mut PgConnection,
        form: &Blind,
        chunk: &[(Key, Patch)],
    ) -> Result<Filled, StoreError> {
        let columns: Vec<&Column> = form.columns.iter().map(|(at, _)| &self.table.columns[*at]).collect();
        let versions: Vec<String> = form.slots.iter().map(|(slot, _)| version_column(*slot)).collect();
        let mut more: Vec<(&str, &str)> = versions.iter().map(|name| (name.as_str(), "bytea[]")).collect();
        if self.table.presence {
            more.push((PRESENCE, "integer[]"));
        }
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
                (Blindly::Newest, _) => {
                    let version = ident(&version_column(column.shape.version.unwrap_or(0)));
                    let newer = match proof::sabotaged(Sabotage::Versions) {
                        true => format!("excluded.{version} IS NOT NULL"),
                        false => format!("excluded.{version} >= COALESCE(t.{version}, '')"),
                    };
                    format!("{name} = CASE WHEN {newer} THEN excluded.{name} ELSE t.{name} END")
                }
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
        for version in versions.iter().map(|name| ident(name)) {
            names.push(version.clone());
            selected.push(format!("s.{version}"));
            updates.push(format!("{version} = GREATEST(t.{version}, excluded.{version})"));
        }
        let fill = self.inline_fill(form);
        for (at, value) in fill.iter().flat_map(|fill| &fill.columns) {
            let name = ident(&self.table.columns[usize::from(*at)].name);
            updates.push(format!("{name} = excluded.{name}"));
            names.push(name);
            selected.push(value.clone());
        }
        if self.table.presence {
            names.push(PRESENCE.into());
            selected.push(format!("s.{}", ident(PRESENCE)));
            updates.push(format!("{PRESENCE} = (t.{PRESENCE} & ~{}) | excluded.{PRESENCE}", form.ended));
        }
        let open = match self.table.has_finals() {
            true => format!(" WHERE t.{PRESENCE} & {FINAL} = 0"),
            false => String::new(),
        };
        let action = match updates.is_empty() {
            true => "NOTHING".into(),
            false => format!("UPDATE SET {}{open}", updates.join(", ")),
        };
        let sql = format!(
            "INSERT INTO {} AS t ({}) SELECT {} FROM {}{} ON CONFLICT ({}) DO {action}",
            table_name(self.schema, self.table),
            names.join(", "),
            selected.join(", "),
            self.unnest(&columns, &more),
            fill.as_ref().map_or("", |fill| fill.joins.as_str()),
            self.key_names("").join(", "),
        );
        let mut arguments = PgArguments::default();
        self.bind_key(&mut arguments, chunk.iter().map(|(key, _)| key))?;
        for (at, _) in &form.columns {
            let type_ = &self.table.columns[*at].shape.type_;
            bind::add(&mut arguments, type_, chunk.iter().map(|(_, patch)| change_to(patch, *at).map(Change::value)))?;
        }
        for (_, at) in &form.slots {
            let version = |(_, patch): &(Key, Patch)| Some(change_to(patch, *at)?.version()?.as_bytes().to_vec());
            let versions: Vec<Option<Vec<u8>>> = chunk.iter().map(version).collect();
            arguments.add(versions).map_err(sqlx::Error::Encode)?;
        }
        if self.table.presence {
            let begun: Vec<i32> = chunk.iter().map(|(_, patch)| patch.presence.begun as i32).collect();
            arguments.add(begun).map_err(sqlx::Error::Encode)?;
        }
        sqlx::query_with(vouched(sql), arguments).execute(connection).await?;
        Ok(if fill.is_some() || self.table.joins.is_empty() { Filled::Yes } else { Filled::NotYet })
    }

    /// The joins, as part of an upsert that says of every row what it refers to.
    fn inline_fill(&self, form: &Blind) -> Option<Fill> {
        let joins = &self.table.joins;
        let is_said = |by: &RowRef| {
            let at = usize::from(by.at);
            by.of_key || self.table.columns[at].derived || form.columns.contains(&(at, Blindly::Set))
        };
        if joins.is_empty() || !joins.iter().flat_map(|join| &join.by).all(is_said) {
            return None;
        }
        Some(self.fill(&|by| self.selected(self.table.column(by))))
    }
}
