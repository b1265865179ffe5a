//! `latest`: which columns have versions, and which of them share one.

use std::sync::Arc;

use super::Build;
use super::checks::Owners;
use crate::patch::{ColumnShape, RecordShape};
use crate::plan::expr::{Expr, Function, Node, ScopeId};
use crate::plan::types::{ColumnType, Kind, Scalar};
use crate::plan::{Column, Fold, Handler, Table};
use crate::spec;
use crate::value::Value;

/// The name of the column that says whether the source of a bit is present, under `latest`.
pub(super) fn alive_column(bit: usize) -> Column {
    state_column(format!("projector_alive_{bit}"), Scalar::Bool)
}

/// The column that says when a row that has ended is forgotten.
pub(super) fn forget_column() -> Column {
    state_column("projector_forget_at".into(), Scalar::Timestamptz)
}

pub(super) fn state_column(name: String, scalar: Scalar) -> Column {
    Column {
        name,
        shape: ColumnShape::plain(ColumnType::scalar(scalar), Value::Null),
        not_null: false,
        hidden: true,
        derived: false,
        kept: false,
        description: None,
    }
}

impl Build<'_> {
    /// A column is always or never under `latest`; so is a delete over it.
    pub(super) fn check_latest(&self, table: &spec::Table, plan: &Table, owners: &Owners) {
        for (at, column) in plan.columns.iter().enumerate() {
            let Some((name, _)) = table.columns.iter().find(|(name, _)| name.value == column.name) else { continue };
            let writers = || {
                let writes = |handler: &&Handler| {
                    !handler.deletes() && handler.effects.iter().any(|e| usize::from(e.column) == at)
                };
                owners.handlers.iter().map(|(id, _)| &plan.handlers[*id]).filter(writes)
            };
            let with = writers().find(|handler| !handler.version.is_empty());
            let without = writers().find(|handler| handler.version.is_empty());
            if let (Some(with), Some(without)) = (with, without) {
                let message = format!(
                    "`{}` is under `latest` on line {} and not on line {}",
                    column.name, with.line, without.line
                );
                self.error("mixed-latest", &name.span, message, Some("a column is always or never under `latest`"));
                continue;
            }
            for (id, source) in owners.deletes(plan) {
                let delete = &plan.handlers[*id];
                if !owners.of(at).contains(source) {
                    continue;
                }
                if delete.version.is_empty() && with.is_some() {
                    let message = format!(
                        "`{}` is under `latest`, the delete on line {} is not: nobody knows which is newer",
                        column.name, delete.line
                    );
                    let help = "give the delete a `latest` of its own, or make it `delete: final`";
                    self.error("delete-without-latest", &name.span, message, Some(help));
                } else if !delete.version.is_empty() && with.is_none() && without.is_some() {
                    let message = format!(
                        "the delete on line {} is under `latest`, `{}` of the same source is not",
                        delete.line, column.name
                    );
                    let help = "put its handlers under `latest` too, or the column into a table of its own";
                    self.error("mixed-latest", &name.span, message, Some(help));
                }
            }
        }
    }

    /// A field that anywhere in the table fills a column of instants or days is compared as one, in every version.
    ///
    /// What is compared for one column has to be of one kind: an instant is never newer or older than a text.
    pub(super) fn settle_versions(&self, table: &spec::Table, plan: &mut Table) {
        let mut times: Vec<(usize, ScopeId, usize, Function)> = Vec::new();
        for handler in &plan.handlers {
            for effect in handler.effects.iter().filter(|effect| effect.fold.sets()) {
                let function = match plan.columns[usize::from(effect.column)].shape.type_.kind() {
                    Kind::Time => Function::Timestamp,
                    Kind::Date => Function::ParseDate,
                    _ => continue,
                };
                if let Node::Path { scope, slot, .. } = effect.expr.node {
                    times.push((handler.source, scope, slot, function));
                }
            }
        }
        for handler in &mut plan.handlers {
            for part in &mut handler.version {
                let Node::Path { scope, slot, .. } = part.node else { continue };
                let known = times.iter().find(|(source, s, x, _)| (*source, *s, *x) == (handler.source, scope, slot));
                if let Some((.., function)) = known {
                    let kind = if *function == Function::Timestamp { Kind::Time } else { Kind::Date };
                    let node = Node::Call(*function, vec![part.node.clone()]);
                    *part = Expr { node, kind, text: part.text.clone() };
                }
            }
        }
        for (at, column) in plan.columns.iter().enumerate() {
            let Some((name, _)) = table.columns.iter().find(|(name, _)| name.value == column.name) else { continue };
            let writes = |handler: &&Handler| handler.effects.iter().any(|effect| usize::from(effect.column) == at);
            let mut versioned = plan.handlers.iter().filter(writes).filter(|handler| !handler.version.is_empty());
            let Some(first) = versioned.next() else { continue };
            if let Some(other) = versioned.find(|other| !comparable(first, other)) {
                let message = format!(
                    "the versions of `{}` on lines {} and {} do not compare: one has an instant or a day where the other has none",
                    column.name, first.line, other.line
                );
                let help = "make both instants: timestamp(…)".to_string();
                self.error("mixed-versions", &name.span, message, Some(&help));
                return;
            }
        }
    }

    /// Gives each column under `latest` its version slot. Columns that the same handlers always write together share one.
    pub(super) fn version_slots(&self, plan: &mut Table) {
        let mut known: Vec<Vec<usize>> = Vec::new();
        for at in 0..plan.columns.len() {
            let writes = |(id, handler): (usize, &Handler)| {
                let effect = handler.effects.iter().find(|effect| usize::from(effect.column) == at)?;
                (!handler.version.is_empty()).then_some((id, effect.fold))
            };
            let writers: Vec<(usize, Fold)> = plan.handlers.iter().enumerate().filter_map(writes).collect();
            if writers.is_empty() {
                continue;
            }
            if writers.iter().any(|(_, fold)| *fold == Fold::Merge) {
                let members = state_column(format!("projector_members_{at}"), Scalar::Jsonb);
                plan.columns[at].shape.members = Some(plan.columns.len() as u16);
                plan.columns.push(members);
                continue;
            }
            let always = writers.iter().all(|(_, fold)| *fold == Fold::Set);
            let ids: Vec<usize> = writers.into_iter().map(|(id, _)| id).collect();
            let shared = always.then(|| known.iter().position(|other| *other == ids)).flatten();
            let slot = shared.unwrap_or(known.len());
            if shared.is_none() {
                // What is not always written is never found again.
                known.push(if always { ids } else { Vec::new() });
            }
            plan.columns[at].shape.version = Some(slot as u16);
        }
        plan.version_slots = known.len() as u16;
    }

    /// How the records of a column are told apart; all that push to it say the same.
    pub(super) fn record_shape(&self, name: &spec::Name, push: &spec::Push, column: &mut Column) {
        let known = |field: &spec::Name| push.of.contains_key(field);
        for field in push.by.iter().chain([&push.id]).filter(|field| !field.is_empty() && !known(field)) {
            let message = format!("the record has no field `{}`", field.value);
            let help = crate::spec::diagnostic::suggest(field, push.of.keys().map(|name| name.as_str()));
            self.error("unknown-column", &field.span, message, help.as_deref());
        }
        if push.id.is_empty() {
            let help = "id: the name of the field that tells records apart";
            self.error("no-record-id", &name.span, "the records have no id", Some(help));
        }
        if let Some(limit) = push.limit.as_ref().filter(|limit| limit.value == 0) {
            self.error("wrong-value", &limit.span, "a limit of 0 keeps nothing", None);
        }
        if !matches!(&column.shape.default, Value::Null) && column.shape.default.kind() != "a list" {
            let message = format!("`{}` is an array of records, its default is none", name.value);
            self.error("wrong-value", &name.span, message, Some("`default: []`"));
        }
        let shape = RecordShape {
            id: push.id.value.clone(),
            by: push.by.iter().map(|field| field.value.clone()).collect(),
            limit: push.limit.as_ref().map(|limit| limit.value),
        };
        match &column.shape.records {
            Some(other) if **other != shape => {
                let message = format!("`{}` is pushed to in two ways", name.value);
                let help = "every push to a column has the same `id`, `by` and `limit`";
                self.error("mixed-push", &name.span, message, Some(help));
            }
            _ => column.shape.records = Some(Arc::new(shape)),
        }
    }
}

/// Whether the parts of two versions are times of one kind in the same places.
fn comparable(one: &Handler, other: &Handler) -> bool {
    let time = |kind: Kind| if matches!(kind, Kind::Time | Kind::Date) { Some(kind) } else { None };
    one.version.len() == other.version.len()
        && one.version.iter().zip(&other.version).all(|(a, b)| time(a.kind) == time(b.kind))
}
