//! From events to patches: pure, the same for a live lane, a rebuild, a golden test.

use smallvec::SmallVec;

use crate::batch::Key;
use crate::event::Event;
use crate::json_paths::Slots;
use crate::patch::{Change, Patch};
use crate::plan::expr::{Env, Failure};
use crate::plan::{Effect, Fold, Handler, Plan, Table};
use crate::value::Value;

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
        let scene = Scene { plan, table, handler, event };
        match &handler.for_each {
            None => patches.extend(scene.row(*table_at, &[])?),
            Some(for_each) => {
                let raw = for_each.list.raw(&Env { event, elements: &[] });
                if raw.is_none_or(|raw| raw == "null") && for_each.list.is_optional() {
                    continue;
                }
                let items = scene.elements(raw, &for_each.list.text)?;
                let paths = &source.scopes[for_each.scope];
                // Scopes of elements are numbered across the source; this handler reads its own alone.
                let before = for_each.scope - crate::plan::expr::FIRST_ELEMENT;
                let mut elements: Vec<Slots<'_>> = vec![Slots::new(); before + 1];
                for item in items {
                    elements[before] = paths.read(item).map_err(|e| {
                        scene.unapplied(
                            Failure::wrong(format!("an element of {} is not readable: {e}", for_each.list.text)),
                            handler.line,
                            "for_each",
                        )
                    })?;
                    patches.extend(scene.row(*table_at, &elements)?);
                }
            }
        }
    }
    Ok(patches)
}

struct Scene<'s, 'a> {
    plan: &'s Plan,
    table: &'s Table,
    handler: &'s Handler,
    event: &'s Event<'a>,
}

impl<'a> Scene<'_, 'a> {
    fn unapplied(&self, failure: Failure, line: usize, doing: &str) -> Unapplied {
        Unapplied {
            code: failure.code,
            message: failure.message,
            at: format!("{}:{line}, {doing} of {} for {}", self.plan.path, self.table.name, self.event.type_),
        }
    }

    fn elements(&self, raw: Option<&'a str>, list: &str) -> Result<Vec<&'a str>, Unapplied> {
        let wrong = |message: String| self.unapplied(Failure::wrong(message), self.handler.line, "for_each");
        let Some(raw) = raw else {
            let failure = Failure { code: "missing-field", message: format!("`{list}` is missing") };
            return Err(self.unapplied(failure, self.handler.line, "for_each"));
        };
        let items: Vec<&serde_json::value::RawValue> = serde_json::from_str(raw)
            .map_err(|_| wrong(format!("{list} is not a list: {}", crate::plan::types::show(raw))))?;
        Ok(items.into_iter().map(|item| item.get()).collect())
    }

    fn row(&self, table_at: usize, elements: &[Slots<'a>]) -> Result<Option<RowPatch>, Unapplied> {
        let env = Env { event: self.event, elements };
        let handler = self.handler;
        if let Some(when) = &handler.when
            && !when.holds(&env).map_err(|f| self.unapplied(f, handler.line, "when"))?
        {
            return Ok(None);
        }
        for (name, condition) in &handler.require {
            if !condition.holds(&env).map_err(|f| self.unapplied(f, handler.line, "require"))? {
                let message = format!("the requirement `{name}` does not hold: {}", condition.text);
                return Err(self.unapplied(Failure { code: "requirement", message }, handler.line, "require"));
            }
        }
        let key = self.key(&env)?;
        let mut changes = Vec::with_capacity(handler.effects.len());
        for effect in &handler.effects {
            if let Some(change) = self.change(effect, &env)? {
                changes.push((effect.column, change));
            }
        }
        Ok(Some(RowPatch { table: table_at, key, patch: Patch { presence: handler.presence, changes } }))
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

    fn change(&self, effect: &Effect, env: &Env<'_, 'a>) -> Result<Option<Change>, Unapplied> {
        let column = &self.table.columns[usize::from(effect.column)];
        let value = match effect.fold {
            Fold::SetIfPresent => effect.expr.eval_if_present(env),
            _ => effect.expr.eval(env).map(Some),
        };
        let doing = || format!("{} `{}`", effect.fold.word(), column.name);
        let value = value.map_err(|f| self.unapplied(f, effect.line, &doing()))?;
        let Some(value) = value else { return Ok(None) };
        let value =
            column.shape.type_.coerce(value).map_err(|m| self.unapplied(Failure::wrong(m), effect.line, &doing()))?;
        let sets = matches!(effect.fold, Fold::Set | Fold::SetIfPresent);
        if value.is_null() && column.not_null && sets && self.handler.presence.ended == 0 {
            let message = format!("`{}` is NULL, the column is not_null", effect.expr.text);
            return Err(self.unapplied(Failure { code: "not-null", message }, effect.line, &doing()));
        }
        Ok(match (effect.fold, value) {
            (Fold::Set | Fold::SetIfPresent, value) => Some(Change::Set(value)),
            (_, Value::Null) => None,
            (Fold::Add, value) => Some(Change::Add(value)),
            (Fold::Max, value) => Some(Change::Max(value)),
            (Fold::Min, value) => Some(Change::Min(value)),
        })
    }
}
