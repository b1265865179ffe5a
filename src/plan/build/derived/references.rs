//! What refers to whose key, and what may not be mixed.

use std::ops::Range;

use super::child::Child;
use super::{Shape, Written, name_of};
use crate::plan::Table;
use crate::plan::build::Build;
use crate::plan::derived::{Addend, Join, Sum};
use crate::plan::expr::RowRef;
use crate::spec::diagnostic::suggest;
use crate::spec::{Name, OnDelete};

impl Build<'_> {
    /// Resolves what refers to whose key.
    pub(super) fn check_keys(&self, written: &Written, shapes: &[Shape]) {
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
    pub(in crate::plan::build) fn refer(&self, written: &Written, shapes: &mut [Shape]) {
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
    pub(in crate::plan::build) fn check_derived(&self, written: &Written, tables: &[Table]) {
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
            for join in table.join.iter().filter(|join| join.on_delete == OnDelete::Keep) {
                let other = written.get(&join.table).and_then(|other| other.forget_deleted_after.as_ref());
                if let Some(forget) = other {
                    let message = format!("a row of `{}` that is forgotten cannot be kept here", join.table.value);
                    let help =
                        format!("leave out `on_delete: keep`, or `forget_deleted_after: {}` there", forget.value);
                    self.error("bad-expire", &join.table.span, message, Some(&help));
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
