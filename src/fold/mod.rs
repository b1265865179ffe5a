//! From events to patches: pure, the same for a live lane, a rebuild, a golden test.

mod identity;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::batch::Key;
use crate::event::Event;
use crate::json_paths::Slots;
use crate::patch::{BoundEffect, Change, OnRow, Origin, Patch, Records, Reset, Step, change_of};
use crate::plan::expr::{Env, Expr, FIRST_ELEMENT, Failure};
use crate::plan::{Effect, Fold, ForEach, Handler, Plan, Source, Table};
use crate::value::{Value, show};
use crate::version::Version;

pub use identity::{Identity, identity};

/// What an event does to one row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowPatch {
    /// Index into [`Plan::tables`].
    pub table: usize,
    pub key: Key,
    pub patch: Patch,
}

pub type RowPatches = SmallVec<[RowPatch; 2]>;

/// Why an event cannot be applied, and which line of the projection says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({at})")]
pub struct Unapplied {
    pub code: &'static str,
    pub message: String,
    /// File, line and what the line does.
    pub at: String,
}

/// The patches that an event makes, in the order of the handlers. Empty when no handler takes it.
///
/// # Errors
/// The first handler that cannot take the event, and why. No patch of the event is to be used then.
pub fn fold(plan: &Plan, source: usize, event: &Event<'_>) -> Result<RowPatches, Unapplied> {
    let mut patches = RowPatches::new();
    let source = &plan.sources[source];
    for (table_at, handler_at) in source.routes.handlers(&event.type_).iter() {
        let table = &plan.tables[*table_at];
        let handler = &table.handlers[*handler_at];
        let scene = Scene { plan, source, table_at: *table_at, table, handler, event };
        scene.rows(&handler.for_each, &mut Vec::new(), &mut patches)?;
    }
    Ok(patches)
}

/// The rows that an event would touch, as far as that can be worked out. Whether it can be applied is not looked at.
pub fn rows(plan: &Plan, source: usize, event: &Event<'_>) -> Vec<(usize, Key)> {
    let mut found = Vec::new();
    let source = &plan.sources[source];
    for (table_at, handler_at) in source.routes.handlers(&event.type_).iter() {
        let table = &plan.tables[*table_at];
        let handler = &table.handlers[*handler_at];
        let scene = Scene { plan, source, table_at: *table_at, table, handler, event };
        scene.keys(&handler.for_each, &mut Vec::new(), &mut found);
    }
    found
}

struct Scene<'s, 'a> {
    plan: &'s Plan,
    source: &'s Source,
    table_at: usize,
    table: &'s Table,
    handler: &'s Handler,
    event: &'s Event<'a>,
}

impl<'a> Scene<'_, 'a> {
    fn unapplied(&self, failure: Failure, line: usize, doing: &str) -> Unapplied {
        Unapplied { code: failure.code, message: failure.message, at: format!("{}, {doing}", self.at(line)) }
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}, {} for {}", self.plan.path, self.table.name, self.event.type_)
    }

    /// One row for each element of the innermost list; without lists, one row.
    fn rows(
        &self,
        nested: &[ForEach],
        elements: &mut Vec<Slots<'a>>,
        patches: &mut RowPatches,
    ) -> Result<(), Unapplied> {
        let Some((for_each, inner)) = nested.split_first() else {
            patches.extend(self.row(elements)?);
            return Ok(());
        };
        let raw = for_each.list.raw(&Env::event(self.event, elements));
        if raw.is_none_or(|raw| raw == "null") && for_each.list.is_optional() {
            return Ok(());
        }
        for item in self.elements(raw, &for_each.list.text)? {
            self.enter(for_each, item, elements).map_err(|failure| {
                let message = format!("an element of {} is not readable: {}", for_each.list.text, failure.message);
                self.unapplied(Failure::wrong(message), self.handler.line, "for_each")
            })?;
            self.rows(inner, elements, patches)?;
        }
        Ok(())
    }

    /// Makes an element of a list readable.
    fn enter(&self, for_each: &ForEach, item: &'a str, elements: &mut Vec<Slots<'a>>) -> Result<(), Failure> {
        // Scopes of elements are numbered across the source; this handler reads its own alone.
        let at = for_each.scope - FIRST_ELEMENT;
        if elements.len() <= at {
            elements.resize(at + 1, Slots::new());
        }
        let read = self.source.scopes[for_each.scope].read(item);
        elements[at] = read.map_err(|error| Failure::wrong(error.to_string()))?;
        Ok(())
    }

    /// The keys of the rows that [`Scene::rows`] makes patches for, where they can be worked out.
    fn keys(&self, nested: &[ForEach], elements: &mut Vec<Slots<'a>>, found: &mut Vec<(usize, Key)>) {
        let Some((for_each, inner)) = nested.split_first() else {
            let env = Env::event(self.event, elements);
            let of_event = |when: &&Expr| !self.handler.on_row || !when.reads_row();
            let passed_over =
                self.handler.when.as_ref().filter(of_event).is_some_and(|when| when.holds(&env) == Ok(false));
            if let (false, Ok(key)) = (passed_over, self.key(&env)) {
                found.push((self.table_at, key));
            }
            return;
        };
        let raw = for_each.list.raw(&Env::event(self.event, elements));
        for item in self.elements(raw, &for_each.list.text).unwrap_or_default() {
            if self.enter(for_each, item, elements).is_ok() {
                self.keys(inner, elements, found);
            }
        }
    }

    fn elements(&self, raw: Option<&'a str>, list: &str) -> Result<Vec<&'a str>, Unapplied> {
        let wrong = |failure: Failure| self.unapplied(failure, self.handler.line, "for_each");
        let Some(raw) = raw else {
            return Err(wrong(Failure { code: "missing-field", message: format!("`{list}` is missing") }));
        };
        let items: Vec<&serde_json::value::RawValue> = serde_json::from_str(raw)
            .map_err(|_| wrong(Failure::wrong(format!("{list} is not a list: {}", show(raw)))))?;
        Ok(items.into_iter().map(|item| item.get()).collect())
    }

    fn row(&self, elements: &[Slots<'a>]) -> Result<Option<RowPatch>, Unapplied> {
        let env = Env::event(self.event, elements);
        let handler = self.handler;
        if let Some(when) = handler.when.as_ref().filter(|when| !handler.on_row || !when.reads_row())
            && !when.holds(&env).map_err(|f| self.unapplied(f, handler.line, "when"))?
        {
            return Ok(None);
        }
        let of_event = |condition: &Expr| !handler.on_row || !condition.reads_row();
        for (name, condition) in handler.require.iter().filter(|(_, condition)| of_event(condition)) {
            if !condition.holds(&env).map_err(|f| self.unapplied(f, handler.line, "require"))? {
                let message = format!("the requirement `{name}` does not hold: {}", condition.text);
                return Err(self.unapplied(Failure { code: "requirement", message }, handler.line, "require"));
            }
        }
        self.not_forgotten()?;
        let key = self.key(&env)?;
        let version = self.version(&env)?;
        let mut changes = Vec::with_capacity(handler.effects.len());
        for effect in handler.effects.iter().filter(|effect| !handler.on_row || !effect.expr.reads_row()) {
            if let Some(change) = self.change(effect, &env, &version)? {
                changes.push((effect.column, change));
            }
        }
        let patch = match handler.on_row {
            false => Patch { presence: handler.presence, changes, tail: Vec::new() },
            true => Patch { tail: vec![self.on_row(&env, changes, version)], ..Patch::default() },
        };
        Ok(Some(RowPatch { table: self.table_at, key, patch }))
    }

    /// Of an event older than rows are remembered for, nobody knows whether its row has ended since.
    fn not_forgotten(&self) -> Result<(), Unapplied> {
        let (Some(forget), Some(time), Some(clock)) = (self.table.forget, self.event.time, self.event.clock) else {
            return Ok(());
        };
        let remembered = "ended rows are remembered: nobody knows whether its row has ended since";
        let horizon = identity::horizon(time, clock, forget.after, remembered);
        horizon.map(drop).map_err(|f| self.unapplied(f, self.handler.line, "forget_deleted_after"))
    }

    /// What can only be worked out when the row is there.
    fn on_row(&self, env: &Env<'_, 'a>, changes: Vec<(u16, Change)>, version: Option<Version>) -> Step {
        let handler = self.handler;
        let reading = |expr: &&Expr| expr.reads_row();
        let bound = |effect: &Effect| BoundEffect {
            column: effect.column,
            fold: effect.fold,
            expr: effect.expr.bind(env),
            not_null: self.must_be_filled(effect),
            version: version.clone(),
        };
        let require = handler.require.iter().filter(|(_, condition)| condition.reads_row());
        Step::OnRow(Arc::new(OnRow {
            reset: Reset {
                clock: self.event.clock,
                expire: self.table.expire,
                forget: self.table.forget.map(|forget| (forget.column, self.table.alive.clone())),
            },
            when: handler.when.as_ref().filter(reading).map(|when| when.bind(env)),
            require: require.map(|(name, condition)| (name.clone(), condition.bind(env))).collect(),
            presence: handler.presence,
            changes,
            effects: handler.effects.iter().filter(|effect| effect.expr.reads_row()).map(bound).collect(),
            origin: Origin { place: self.event.record.place(), index: self.event.index, at: handler.origin.clone() },
        }))
    }

    fn key(&self, env: &Env<'_, 'a>) -> Result<Key, Unapplied> {
        let mut key = Key::new();
        for (column, expr) in self.table.key.iter().zip(&self.handler.key) {
            let value = expr.eval(env).and_then(|value| column.shape.type_.coerce(value).map_err(Failure::wrong));
            let value = value.map_err(|f| self.unapplied(f, self.handler.line, &format!("key `{}`", column.name)))?;
            if value.is_null() {
                let failure = Failure { code: "null-key", message: format!("`{}` is NULL, a key never is", expr.text) };
                return Err(self.unapplied(failure, self.handler.line, &format!("key `{}`", column.name)));
            }
            key.push(value);
        }
        Ok(key)
    }

    fn version(&self, env: &Env<'_, 'a>) -> Result<Option<Version>, Unapplied> {
        if self.handler.version.is_empty() {
            return Ok(None);
        }
        let parts: Result<SmallVec<[Value; 2]>, Failure> =
            self.handler.version.iter().map(|part| part.eval(env)).collect();
        let record = self.event.record;
        let version = parts.and_then(|parts| {
            Version::new(&parts, record.topic, record.partition, record.offset, self.event.index)
                .map_err(|message| Failure { code: "bad-version", message })
        });
        version.map(Some).map_err(|f| self.unapplied(f, self.handler.line, "latest"))
    }

    fn must_be_filled(&self, effect: &Effect) -> bool {
        self.table.columns[usize::from(effect.column)].not_null && !self.handler.deletes()
    }

    fn change(
        &self,
        effect: &Effect,
        env: &Env<'_, 'a>,
        version: &Option<Version>,
    ) -> Result<Option<Change>, Unapplied> {
        let column = &self.table.columns[usize::from(effect.column)];
        let wrong = |f| self.unapplied(f, effect.line, &format!("{} `{}`", effect.fold.word(), column.name));
        if effect.fold == Fold::Push {
            return self.push(effect, env).map(Some).map_err(wrong);
        }
        let value = match effect.fold {
            Fold::SetIfPresent => effect.expr.eval_if_present(env),
            _ => effect.expr.eval(env).map(Some),
        };
        let Some(value) = value.map_err(wrong)? else { return Ok(None) };
        change_of(effect.fold, value, &column.shape, self.must_be_filled(effect), version).map_err(wrong)
    }

    fn push(&self, effect: &Effect, env: &Env<'_, 'a>) -> Result<Change, Failure> {
        let Some(shape) = &self.table.columns[usize::from(effect.column)].shape.records else {
            return Err(Failure::wrong("the column has no records".into()));
        };
        let fields: Result<Vec<(&str, Value)>, Failure> =
            effect.record.iter().map(|(name, expr)| Ok((name.as_str(), expr.eval(env)?))).collect();
        Records::push(&fields?, shape).map(Change::Records).map_err(Failure::wrong)
    }
}
