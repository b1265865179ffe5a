//! Whether the rows of a table depend on the order in which partitions happen to be read.
//!
//! Events of one partition come in order; events of two come in any. So every pair of handlers that meets in a row has
//! to commute there, unless the two take their events for the row from one partition: one source of one topic, and keys
//! that contain what the source is `ordered_by`. What can be shown to commute is proved; the rest is named, with the
//! handlers and the reason. The rules are those of conflict-free replicated data types
//! (<https://inria.hal.science/inria-00555588>): sums, extremes, last-writer-wins by version, an end for good.

use super::Build;
use crate::plan::expr::{DATA, Expr as Compiled, KEY, Node};
use crate::plan::{Effect, Existence, Fold, Handler, Source, Table, Topics};
use crate::spec::{self, Name};

/// Two handlers that do not commute, and what they disagree on.
struct Conflict {
    what: String,
    lines: (usize, usize),
}

struct Meeting<'m> {
    sources: &'m [Source],
    table: &'m Table,
}

impl Build<'_> {
    pub(super) fn check_order(&self, name: &Name, written: &spec::Table, plan: &mut Table, sources: &[Source]) {
        let meeting = Meeting { sources, table: plan };
        let clashes = |source: usize| !meeting.conflicts(|a, b| a.source == source && b.source == source).is_empty();
        let ordered_sources = (0..sources.len()).filter(|source| clashes(*source)).collect();
        let conflicts = meeting.conflicts(|one, other| !meeting.in_order(one, other));
        let help = meeting.help(conflicts.first());
        plan.order_free = conflicts.is_empty();
        plan.ordered_sources = ordered_sources;
        // What is broken anyway has no order worth talking of.
        let Some(first) = conflicts.first().filter(|_| !self.sink.has_errors()) else { return };
        const SHOWN: usize = 3;
        let mut reasons: Vec<String> = conflicts.iter().take(SHOWN).map(Conflict::to_string).collect();
        if conflicts.len() > SHOWN {
            reasons.push(format!("and {} more", conflicts.len() - SHOWN));
        }
        let types = || written.handlers.values().flat_map(|types| types.iter());
        let lists = types().flat_map(|(_, handlers)| handlers.iter()).map(|handler| self.first_line(&handler.span));
        let mut places = types().map(|(pattern, _)| pattern.span.clone()).chain(lists);
        let place = places.find(|span| self.line(span) == first.lines.0);
        let message = format!(
            "the rows of `{}` depend on the order in which partitions are read: {}",
            name.value,
            reasons.join("; ")
        );
        self.sink.warning("order-dependent", &place.unwrap_or(name.span.clone()), message, Some(help));
    }
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.lines {
            (a, b) if a == b => write!(f, "{} (two events of line {a})", self.what),
            (a, b) => write!(f, "{} (lines {a} and {b})", self.what),
        }
    }
}

impl Meeting<'_> {
    /// What does not commute, among the handlers that can meet out of order.
    fn conflicts(&self, can_meet: impl Fn(&Handler, &Handler) -> bool) -> Vec<Conflict> {
        let mut found: Vec<Conflict> = Vec::new();
        let handlers = &self.table.handlers;
        let pairs = (0..handlers.len()).flat_map(|a| (a..handlers.len()).map(move |b| (a, b)));
        let pairs = pairs.map(|(a, b)| (&handlers[a], &handlers[b]));
        for (one, other) in pairs.filter(|(one, other)| can_meet(one, other)) {
            let lines = (one.line, other.line);
            for what in self.disagreements(one, other) {
                if !found.iter().any(|known| known.what == what) {
                    found.push(Conflict { what, lines });
                }
            }
        }
        found
    }

    /// Whether a row's events of both handlers come from one partition.
    fn in_order(&self, one: &Handler, other: &Handler) -> bool {
        let source = &self.sources[one.source];
        if one.source != other.source || matches!(source.topics, Topics::Matching(_)) {
            return false;
        }
        let inherits = |handler: &Handler| {
            handler.key.iter().any(|part| match &source.ordered_by {
                Some(field) => same(part, field),
                None => part.text.trim() == "record.key",
            })
        };
        inherits(one) && inherits(other)
    }

    fn disagreements(&self, one: &Handler, other: &Handler) -> Vec<String> {
        let mut found = Vec::new();
        if [one, other].iter().any(|handler| handler.existence == Existence::EndsForGood) {
            return found;
        }
        if self.table.expire.is_some() {
            found.push("rows expire by the time of each partition".into());
        }
        if self.table.forget.is_some() {
            found.push("ended rows are forgotten by the time of each partition".into());
        }
        let begins_and_ends = one.presence.begun & other.presence.ended | one.presence.ended & other.presence.begun;
        if begins_and_ends != 0 {
            found.push("the row is begun and ended without a version".into());
        }
        for (reader, writer) in [(one, other), (other, one)] {
            for column in reader.reads() {
                if writer.effects.iter().any(|effect| effect.column == column) {
                    let name = &self.table.columns[usize::from(column)].name;
                    found.push(format!("`row.{name}` is read, and changed by other events"));
                }
            }
        }
        for effect in &one.effects {
            let same_column = |other: &&Effect| other.column == effect.column;
            let Some(theirs) = other.effects.iter().find(same_column) else { continue };
            if let Some(what) = self.clash((one, effect), (other, theirs)) {
                found.push(what);
            }
        }
        found
    }

    /// Why two effects on one column do not commute.
    fn clash(&self, (one, a): (&Handler, &Effect), (other, b): (&Handler, &Effect)) -> Option<String> {
        if !one.version.is_empty() && !other.version.is_empty() {
            return None;
        }
        let column = &self.table.columns[usize::from(a.column)];
        let name = &column.name;
        let limited = column.shape.records.as_ref().is_some_and(|records| records.limit.is_some());
        match (a.fold, b.fold) {
            (Fold::Add, Fold::Add) | (Fold::Max, Fold::Max) | (Fold::Min, Fold::Min) => None,
            (Fold::Push, Fold::Push) if limited => None,
            (Fold::Push | Fold::Remove, Fold::Push | Fold::Remove) => {
                Some(format!("of two records of `{name}` with one id the later stands"))
            }
            (x, y) if x.sets() && y.sets() && constant(a).is_some() && constant(a) == constant(b) => None,
            (x, y) if x.sets() && y.sets() => Some(format!("`{name}` is set, and the later stands")),
            (Fold::Merge, Fold::Merge) => Some(format!("`{name}` is merged into, and the later stands")),
            _ => Some(format!("`{name}` is set, and folded into before or after")),
        }
    }

    /// What would cure the first conflict.
    fn help(&self, conflict: Option<&Conflict>) -> String {
        let of_line = |line: usize| self.table.handlers.iter().find(|handler| handler.line == line);
        let both = conflict.and_then(|conflict| of_line(conflict.lines.0).zip(of_line(conflict.lines.1)));
        if let Some((one, other)) = both.filter(|(one, other)| one.source == other.source) {
            let source = &self.sources[one.source];
            if let Some(field) = &source.ordered_by {
                return format!(
                    "the source `{}` is ordered by `{}`, which is not part of the key; use `latest`, or a key that contains it",
                    source.name, field.text
                );
            }
            let mut parts = one.key.iter().chain(&other.key);
            if let Some(key) = parts.find(|part| matches!(part.node, Node::Path { scope: DATA | KEY, .. })) {
                return format!(
                    "if the producer keeps these in one partition, say so in the source `{}`: `ordered_by: {}`; else use `latest`",
                    source.name, key.text
                );
            }
        }
        "`latest` makes the newest win whatever came first; sums, max and min need no order; a column of its own for each \
         source keeps them apart"
            .into()
    }
}

/// Whether two expressions are written alike; `data.id` and `data['id']` read the same slot.
fn same(a: &Compiled, b: &Compiled) -> bool {
    match (&a.node, &b.node) {
        (Node::Path { scope: s, slot: x, .. }, Node::Path { scope: t, slot: y, .. }) => s == t && x == y,
        _ => a.text.trim() == b.text.trim(),
    }
}

fn constant(effect: &Effect) -> Option<&crate::value::Value> {
    match &effect.expr.node {
        Node::Const(value) => Some(value),
        _ => None,
    }
}

impl Handler {
    /// The columns of the row that the handler reads.
    pub(crate) fn reads(&self) -> Vec<u16> {
        let conditions = self.when.iter().chain(self.require.iter().map(|(_, condition)| condition));
        let mut columns = Vec::new();
        for expr in conditions.chain(self.effects.iter().map(|effect| &effect.expr)) {
            expr.node.row_columns(&mut columns);
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

/// Whether a second delivery of any event of the source, however late, changes nothing in this table.
pub(super) fn stands_repeats(table: &Table, source: usize) -> bool {
    let of_source = || table.handlers.iter().filter(|handler| handler.source == source);
    let ends = of_source().any(|handler| handler.presence.ended != 0 && handler.existence == Existence::Ends);
    of_source().all(|handler| {
        let harmless = |effect: &Effect| match effect.fold {
            Fold::Max | Fold::Min => true,
            Fold::Push => {
                let records = &table.columns[usize::from(effect.column)].shape.records;
                records.as_ref().is_some_and(|records| records.limit.is_some())
            }
            Fold::Add | Fold::Remove => false,
            _ => !handler.version.is_empty(),
        };
        let presence = handler.presence.begun == 0 || !ends;
        handler.existence == Existence::EndsForGood
            || (!handler.on_row && presence && handler.presence.ended == 0 && handler.effects.iter().all(harmless))
    })
}
