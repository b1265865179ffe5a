//! What a table's handlers do to its columns, looked at together.

use super::Build;
use crate::plan::{Existence, Fold, Handler, Table};
use crate::spec;

impl Build<'_> {
    /// A column is summed, or compared, or set: what has no one meaning together is refused.
    pub(super) fn check_folds(&self, table: &spec::Table, plan: &Table, owners: &Owners) {
        for (at, column) in plan.columns.iter().enumerate() {
            let Some((name, _)) = table.columns.iter().find(|(name, _)| name.value == column.name) else { continue };
            let writers = || plan.handlers.iter().filter(|handler| !handler.deletes());
            let effects = || writers().flat_map(|h| &h.effects).filter(|e| usize::from(e.column) == at);
            let has = |fold: Fold| effects().any(|effect| effect.fold == fold);
            let ways: Vec<&str> = [
                ("add", has(Fold::Add)),
                ("max", has(Fold::Max)),
                ("min", has(Fold::Min)),
                ("merge", has(Fold::Merge)),
                ("push", has(Fold::Push) || has(Fold::Remove)),
            ]
            .into_iter()
            .filter_map(|(word, is)| is.then_some(word))
            .collect();
            if ways.len() > 1 {
                let message = format!("`{}` is folded by {}", column.name, ways.join(" and by "));
                self.error("mixed-folds", &name.span, message, Some("give each a column of its own"));
            }
            let limit = column.shape.records.as_ref().and_then(|records| records.limit);
            if let (Some(_), Some(effect)) = (limit, effects().find(|effect| effect.fold != Fold::Push)) {
                let message = format!(
                    "`{}` keeps only some of its records, so that nothing can be taken out of it (line {})",
                    column.name, effect.line
                );
                self.error("limited-remove", &name.span, message, Some("leave out the limit"));
            }
            if has(Fold::Remove) && column.shape.records.is_none() {
                let message = format!("nothing is ever pushed to `{}`", column.name);
                self.error("no-record-id", &name.span, message, Some("`push` says what the records' id is"));
            }
            let sources = owners.of(at);
            let sets = effects().any(|effect| effect.fold.sets() || effect.fold == Fold::Merge);
            let versioned = writers().any(|handler| {
                !handler.version.is_empty() && handler.effects.iter().any(|e| usize::from(e.column) == at)
            });
            if sources.len() > 1 && sets && !versioned {
                let message = format!(
                    "`{}` is set by two sources ({}): the later to be read wins",
                    column.name,
                    sources.join(", ")
                );
                let help = "let each source have a column of its own, or put both under `latest`".to_string();
                self.sink.warning("two-owners", &name.span, message, Some(help));
            }
            let deleted = owners.deletes(plan).any(|(_, source)| sources.contains(source));
            if sources.len() > 1 && has(Fold::Add) && deleted {
                let message = format!(
                    "`{}` is added to by several sources, one of which deletes: its part cannot be taken out",
                    column.name
                );
                self.error("shared-sum", &name.span, message, Some("let each source add to a column of its own"));
            }
            if sources.is_empty() && !column.derived && !self.sink.has_errors() {
                let message = format!("nothing fills the column `{}`", column.name);
                self.sink.warning("unfilled-column", &name.span, message, None);
            }
        }
    }

    /// A visible row's not_null column is filled by construction, so that no event can find it otherwise.
    pub(super) fn check_not_null(&self, table: &spec::Table, plan: &Table, owners: &Owners) {
        for (at, column) in plan.columns.iter().enumerate().filter(|(_, c)| c.not_null && c.shape.default.is_null()) {
            let Some((name, _)) = table.columns.iter().find(|(name, _)| name.value == column.name) else { continue };
            let begins = |handler: &&Handler| match handler.existence {
                Existence::Leaves => !plan.presence,
                Existence::Begins => true,
                Existence::Ends | Existence::EndsForGood => false,
            };
            let fills = |handler: &Handler| {
                let always = |fold: Fold| !matches!(fold, Fold::SetIfPresent | Fold::Merge);
                handler.effects.iter().any(|e| usize::from(e.column) == at && always(e.fold))
            };
            if let Some(handler) = plan.handlers.iter().filter(begins).find(|handler| !fills(handler)) {
                let message = format!(
                    "`{}` is not_null, but the handler on line {} makes a row without it",
                    column.name, handler.line
                );
                self.error(
                    "unfilled-not-null",
                    &name.span,
                    message,
                    Some("set it there, or give the column a `default`"),
                );
            } else if owners.creators > 1 && owners.deletes(plan).next().is_some() {
                let message = format!(
                    "`{}` is not_null, but a source that deletes would clear it while another keeps the row",
                    column.name
                );
                self.error("unfilled-not-null", &name.span, message, Some("give the column a `default`"));
            }
        }
    }
}

/// Which sources write which column of a table.
#[derive(Default)]
pub(super) struct Owners {
    /// (column, source) pairs.
    pub columns: Vec<(usize, String)>,
    /// (handler, source) pairs.
    pub handlers: Vec<(usize, String)>,
    /// How many sources bring rows into being.
    pub creators: usize,
}

impl Owners {
    pub fn of(&self, column: usize) -> Vec<String> {
        let mut sources: Vec<String> =
            self.columns.iter().filter(|(at, _)| *at == column).map(|(_, source)| source.clone()).collect();
        sources.sort();
        sources.dedup();
        sources
    }

    /// The columns that a source writes.
    pub fn of_source(&self, source: &str) -> Vec<usize> {
        let mut columns: Vec<usize> =
            self.columns.iter().filter(|(_, other)| other == source).map(|(at, _)| *at).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The handlers that delete, and not for good, with their sources.
    pub fn deletes<'o>(&'o self, plan: &'o Table) -> impl Iterator<Item = &'o (usize, String)> {
        self.handlers.iter().filter(|(id, _)| plan.handlers[*id].existence == Existence::Ends)
    }
}
