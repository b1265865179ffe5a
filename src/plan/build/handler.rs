//! Handlers: patterns, keys, conditions, existence. What they do to columns is in [`super::effects`].

use std::collections::HashMap;
use std::ops::Range;

use super::checks::Owners;
use super::versions::alive_column;
use super::{Build, source};
use crate::json_paths::Paths;
use crate::patch::{EVER, FINAL, Presence};
use crate::plan::expr::{Compiler, Expr as Compiled, Node, RowColumn};
use crate::plan::types::{ColumnType, Kind};
use crate::plan::{Column, Effect, Existence, Fold, ForEach, Handler, HandlerIds, Patterns, Routes, Source, Table};
use crate::spec::diagnostic::suggest;
use crate::spec::{self, Expr, Format, Located, Name};
use crate::value::Value;

/// What the handlers of one table and source have in common.
struct Common<'c> {
    source: usize,
    written: &'c spec::Table,
    row: &'c [RowColumn],
    source_name: &'c str,
    /// Whether rows of the table come into being by `create` alone.
    any_create: bool,
    bit: usize,
    /// The column that says whether the source is present, when its deletes are under `latest`.
    alive: Option<u16>,
}

impl Build<'_> {
    /// Compiles a table's handlers into `plan`, and routes the sources' events to them.
    pub(super) fn handlers(
        &self,
        table: usize,
        written: &spec::Table,
        row: &[RowColumn],
        plan: &mut Table,
        sources: &mut [Source],
    ) -> Owners {
        let all = || written.handlers.values().flat_map(|types| types.values()).flat_map(|many| many.iter());
        let any_create = all().any(|handler| handler.create);
        // A rollup may make the row before any event does.
        plan.presence = any_create || all().any(|handler| handler.delete.is_some());
        plan.presence |= !plan.rollups.is_empty() && plan.children.is_none();
        let declared = plan.columns.len() - usize::from(plan.forget.is_some());
        let mut owners = Owners::default();
        for (bit, (source_name, types)) in written.handlers.iter().enumerate() {
            let known = sources.iter().position(|source| source.name == source_name.value);
            let Some((source_at, source)) = known.map(|at| (at, &mut sources[at])) else {
                let help = suggest(source_name, sources.iter().map(|s| s.name.as_str()));
                let message = format!("there is no source `{}`", source_name.value);
                self.error("unknown-source", &source_name.span, message, help.as_deref());
                continue;
            };
            let deletes_by_version = |handler: &&Located<spec::Handler>| ends(handler) && !handler.latest.is_nothing();
            let alive = types.values().flat_map(|many| many.iter()).find(deletes_by_version).map(|_| {
                plan.columns.push(alive_column(bit));
                plan.columns.len() as u16 - 1
            });
            plan.alive.extend(alive);
            let common =
                Common { source: source_at, written, row, source_name: &source_name.value, any_create, bit, alive };
            let mut patterns: HashMap<String, HandlerIds> = HashMap::new();
            let first = plan.handlers.len();
            for (pattern, handlers) in types {
                let mut ids = Vec::new();
                for handler in handlers.iter() {
                    if let Some(reason) = &handler.ignore {
                        self.ignore(reason, handler, handlers.len());
                        continue;
                    }
                    let place = match handlers.len() {
                        1 => pattern.span.clone(),
                        _ => self.first_line(&handler.span),
                    };
                    let compiled = self.handler(&place, handler, &common, plan, source);
                    ids.push((table, plan.handlers.len()));
                    plan.handlers.push(compiled);
                }
                for alternative in pattern.split('|').map(str::trim) {
                    self.pattern(pattern, alternative);
                    if patterns.insert(alternative.to_string(), ids.clone()).is_some() {
                        let message = format!("`{alternative}` has handlers twice in this table");
                        self.error("duplicate-type", &pattern.span, message, Some("make them one list of handlers"));
                    }
                }
            }
            let compiled = || plan.handlers[first..].iter();
            owners.creators += usize::from(compiled().any(|handler| handler.existence == Existence::Begins));
            owners.handlers.extend((first..plan.handlers.len()).map(|id| (id, source_name.value.clone())));
            let written = compiled().filter(|handler| !handler.deletes()).flat_map(|handler| &handler.effects);
            let columns = written.map(|effect| usize::from(effect.column)).filter(|at| *at < declared);
            owners.columns.extend(columns.map(|at| (at, source_name.value.clone())));
            self.clear_on_delete(plan, first, &owners.of_source(source_name));
            route(&mut source.routes, patterns);
        }
        owners
    }

    fn ignore(&self, reason: &Name, handler: &spec::Handler, of: usize) {
        if reason.trim().is_empty() || matches!(reason.as_str(), "true" | "yes") {
            let help = "for example `ignore: views of an order change nothing here`";
            self.error("no-reason", &reason.span, "ignoring a type needs a reason in words", Some(help));
        }
        let alone = spec::Handler { ignore: handler.ignore.clone(), ..spec::Handler::default() };
        let same = serde_json::to_value(handler).ok() == serde_json::to_value(&alone).ok();
        if !same || of > 1 {
            let help = "leave out the one or the other";
            self.error("ignore-and-more", &reason.span, "a type is ignored or handled, not both", Some(help));
        }
    }

    fn pattern(&self, place: &Name, alternative: &str) {
        let star = alternative.find('*');
        if alternative.is_empty() || star.is_some_and(|at| at + 1 != alternative.len()) {
            let message = format!("`{alternative}` is not a pattern of event types");
            self.error("bad-pattern", &place.span, message, Some("`A`, `A | B`, `Prefix*` or `\"*\"`"));
        }
    }

    /// A `delete` sets the columns of its source back to what they are before anything was said.
    fn clear_on_delete(&self, plan: &mut Table, first: usize, owned: &[usize]) {
        let Table { columns, handlers, .. } = plan;
        for handler in handlers[first..].iter_mut().filter(|handler| handler.existence == Existence::Ends) {
            let cleared = cleared(columns, owned.iter().copied().filter(|at| !columns[*at].kept), handler.line);
            handler.effects.splice(0..0, cleared);
            handler.effects.sort_by_key(|effect| effect.column);
        }
    }

    /// An end for good sets all columns back, those of state included.
    pub(super) fn clear_for_good(&self, plan: &mut Table) {
        let Table { columns, handlers, .. } = plan;
        for handler in handlers.iter_mut().filter(|handler| handler.existence == Existence::EndsForGood) {
            let own = (0..columns.len()).filter(|at| !columns[*at].derived);
            handler.effects = cleared(columns, own, handler.line).collect();
        }
    }

    fn handler(
        &self,
        place: &Range<usize>,
        handler: &spec::Handler,
        common: &Common<'_>,
        plan: &mut Table,
        source: &mut Source,
    ) -> Handler {
        let captures = source::capture_names(&source.topics);
        let splits = source.split.is_some();
        let mut scope = HandlerScope {
            build: *self,
            compiler: Compiler {
                scopes: &mut source.scopes,
                elements: vec![],
                captures,
                key_format: source.key_format,
                splits,
                row: &[],
                event: true,
                bare: false,
            },
        };
        let for_each = scope.for_each(handler);
        let key = scope.key(place, handler, common.written, plan);
        let version = scope.version(handler);
        // Conditions and values may read the row; the key says which row that is.
        scope.compiler.row = common.row;
        let when = handler.when.as_ref().and_then(|expr| scope.condition(expr));
        let require: Vec<(String, Compiled)> = handler
            .require
            .iter()
            .filter_map(|(name, expr)| Some((name.value.clone(), scope.condition(expr)?)))
            .collect();
        let existence = self.existence(place, handler, common);
        let mut effects = scope.effects(handler, common.written, common.source_name, plan);
        if let (true, Some(effect)) = (ends(handler), effects.first()) {
            let message = format!("a delete changes no column, `{}` does", effect.fold.word());
            self.error("delete-and-set", place, message, Some("a delete clears its source's columns by itself"));
        }
        if !version.is_empty()
            && let Some(effect) = effects.iter().find(|effect| !effect.fold.sets() && effect.fold != Fold::Merge)
        {
            let word = effect.fold.word();
            let message = format!("`{word}` does not go with `latest`: nothing of it can be overwritten");
            let help = format!("put the `{word}` into a handler beside this one: a list of two handlers");
            self.error("latest-with", place, message, Some(&help));
        }
        self.check_presence_version(place, handler, common, existence);
        self.check_time(place, source, &key, &version);
        let presence = match existence {
            Existence::EndsForGood => Presence { begun: FINAL, ended: FINAL - 1 },
            _ if !plan.presence || common.alive.is_some() => Presence::default(),
            Existence::Begins => Presence { begun: 1 << common.bit | EVER, ended: 0 },
            Existence::Ends => Presence { begun: 0, ended: 1 << common.bit },
            Existence::Leaves => Presence::default(),
        };
        if let (Some(column), Existence::Begins | Existence::Ends) = (common.alive, existence) {
            effects.push(Effect {
                column,
                fold: Fold::Set,
                expr: Compiled::constant(Value::Bool(existence == Existence::Begins)),
                record: Vec::new(),
                line: self.line(place),
            });
        }
        if let (Some(forget), Existence::Begins | Existence::Ends) = (plan.forget, existence) {
            let expr = if existence == Existence::Ends {
                Compiled::time_plus(forget.after)
            } else {
                Compiled::constant(Value::Null)
            };
            let line = self.line(place);
            effects.push(Effect { column: forget.column, fold: Fold::Set, expr, record: Vec::new(), line });
        }
        let on_row = common.written.expire.is_some()
            || plan.forget.is_some()
            || when.iter().any(Compiled::reads_row)
            || require.iter().any(|(_, condition)| condition.reads_row())
            || effects.iter().any(|effect| effect.expr.reads_row());
        Handler {
            source: common.source,
            line: self.line(place),
            origin: format!("{}:{}, {}", self.sink.file.path_at(place.start), self.line(place), plan.name).into(),
            key,
            when,
            require,
            for_each,
            existence,
            presence,
            version,
            effects,
            on_row,
        }
    }

    fn existence(&self, place: &Range<usize>, handler: &spec::Handler, common: &Common<'_>) -> Existence {
        if let Some(delete) =
            handler.delete.as_ref().filter(|word| !matches!(word.as_str(), "true" | "false" | "final"))
        {
            let message = format!("`{}` is not a way to delete", delete.value);
            self.error("unknown-word", &delete.span, message, Some("true or final"));
        }
        if ends(handler) && handler.create {
            self.error("delete-and-set", place, "a handler creates or deletes, not both", None);
        }
        let is_final = handler.delete.as_ref().is_some_and(|word| word.as_str() == "final");
        if is_final && !handler.latest.is_nothing() {
            let help = "leave `latest` out";
            self.error("latest-with", place, "an end for good wins whatever its version", Some(help));
        }
        match ends(handler) {
            true if is_final => Existence::EndsForGood,
            true => Existence::Ends,
            false if handler.create => Existence::Begins,
            // Beside deletes under `latest`, what has no version cannot say whether the source is there.
            false if common.any_create || (common.alive.is_some() && handler.latest.is_nothing()) => Existence::Leaves,
            false => Existence::Begins,
        }
    }

    /// Plain JSON has no time of its own: `time` is when Kafka's record was made, which a copy of the topic may change.
    fn check_time(&self, place: &Range<usize>, source: &Source, key: &[Compiled], version: &[Compiled]) {
        let decides = [("the key", key), ("`latest`", version)];
        let reads = |(_, exprs): &(&str, &[Compiled])| exprs.iter().any(Compiled::reads_time);
        let Some((what, _)) = decides.into_iter().find(reads).filter(|_| source.format == Format::Json) else { return };
        let message = format!("{what} is decided by the time of the record, for plain JSON has no time of its own");
        let help = "read the time from the data, for example timestamp(data.at)".to_string();
        self.sink.warning("record-time", place, message, Some(help));
    }

    fn check_presence_version(
        &self,
        place: &Range<usize>,
        handler: &spec::Handler,
        common: &Common<'_>,
        existence: Existence,
    ) {
        let about = matches!(existence, Existence::Begins | Existence::Ends);
        if common.alive.is_some() && about && handler.latest.is_nothing() {
            let word = if handler.create { "create" } else { "delete" };
            let message = format!("a delete of this source is under `latest`, this {word} is not");
            self.error("mixed-latest", place, message, Some("give it a `latest` too"));
        }
    }
}

/// Effects that set columns back to their defaults.
fn cleared(columns: &[Column], which: impl Iterator<Item = usize>, line: usize) -> impl Iterator<Item = Effect> {
    which.map(move |at| Effect {
        column: at as u16,
        fold: Fold::Set,
        expr: Compiled::constant(columns[at].shape.default.clone()),
        record: Vec::new(),
        line,
    })
}

fn ends(handler: &spec::Handler) -> bool {
    handler.delete.as_ref().is_some_and(|word| word.as_str() != "false")
}

pub(super) struct HandlerScope<'b, 'p> {
    pub build: Build<'b>,
    pub compiler: Compiler<'p>,
}

impl HandlerScope<'_, '_> {
    pub fn compile(&mut self, expr: &Expr) -> Option<Compiled> {
        match self.compiler.compile(&expr.value.0) {
            Ok(compiled) => Some(compiled),
            Err(misread) => {
                self.build.misread(expr, misread);
                None
            }
        }
    }

    fn condition(&mut self, expr: &Expr) -> Option<Compiled> {
        let compiled = self.compile(expr)?;
        if matches!(compiled.kind, Kind::Bool | Kind::Any | Kind::Null) {
            return Some(compiled);
        }
        let message = format!("a condition is needed, this is {}", compiled.kind.describe());
        self.build.error("wrong-kind", &expr.span, message, None);
        None
    }

    fn for_each(&mut self, handler: &spec::Handler) -> Vec<ForEach> {
        let mut nested = Vec::new();
        for level in handler.for_each.iter() {
            if let Some((second, _)) = level.get_index(1) {
                let help = "one inside the other is a list: [{ line: data.lines }, { tax: line.taxes }]";
                self.build.error("two-elements", &second.span, "for_each takes one list at a time", Some(help));
            }
            let Some((name, expr)) = level.first() else { continue };
            self.build.identifier(name, "for_each element", super::LONGEST_NAME);
            let Some(list) = self.compile(expr) else { continue };
            if !matches!(list.node, Node::Path { .. } | Node::Opt { .. }) {
                let help = "for_each: { line: data.lines }";
                self.build.error("wrong-kind", &expr.span, "for_each needs a field that is a list", Some(help));
            }
            let scope = self.compiler.scopes.len();
            self.compiler.scopes.push(Paths::default());
            self.compiler.elements.push((name.value.clone(), scope));
            nested.push(ForEach { list, scope });
        }
        nested
    }

    fn key(
        &mut self,
        place: &Range<usize>,
        handler: &spec::Handler,
        table: &spec::Table,
        plan: &Table,
    ) -> Vec<Compiled> {
        for name in handler.key.keys().filter(|name| !table.key.contains_key(*name)) {
            let help = suggest(name, table.key.keys().map(|n| n.as_str()));
            let message = format!("`{}` is not part of the table's key", name.value);
            self.build.error("unknown-column", &name.span, message, help.as_deref());
        }
        let mut compiled = Vec::new();
        for ((name, expr), column) in table.key.iter().zip(&plan.key) {
            let expr = handler.key.get(name).unwrap_or(expr);
            if expr.value.0.is_empty() {
                let message = format!("nothing fills the key column `{}` here", name.value);
                let help = format!("key: {{ {}: data.{} }}", name.value, name.value);
                self.build.error("no-key", place, message, Some(&help));
                continue;
            }
            if let Some(value) = self.fitting(expr, &column.shape.type_, &column.name, Some(table)) {
                compiled.push(value);
            }
        }
        compiled
    }

    fn version(&mut self, handler: &spec::Handler) -> Vec<Compiled> {
        let mut parts = Vec::new();
        for expr in handler.latest.iter() {
            let Some(compiled) = self.compile(expr) else { continue };
            let ordered = matches!(compiled.kind, Kind::Any | Kind::Number | Kind::Text | Kind::Time | Kind::Date);
            if !ordered {
                let message = format!("{} cannot be a version", compiled.kind.describe());
                let help = "a number, a timestamp, a date or a text; several make a tuple: [a, b]";
                self.build.error("wrong-kind", &expr.span, message, Some(help));
            }
            parts.push(compiled);
        }
        parts
    }

    /// An expression whose value can fill a column.
    pub fn value(&mut self, expr: &Expr, type_: &ColumnType, column: &str) -> Option<Compiled> {
        self.fitting(expr, type_, column, None)
    }

    /// The same; of a column of the key the table says whether it was declared.
    fn fitting(
        &mut self,
        expr: &Expr,
        type_: &ColumnType,
        column: &str,
        table: Option<&spec::Table>,
    ) -> Option<Compiled> {
        let compiled = self.compile(expr)?;
        if !type_.accepts(compiled.kind) {
            let message = format!("`{column}` is {type_}, this is {}", compiled.kind.describe());
            let is_key = table.is_some_and(|table| !table.columns.contains_key(column));
            let help = match compiled.kind {
                _ if is_key => Some("a key column is text unless `columns` says its type"),
                Kind::Number if type_.accepts(Kind::Text) => Some("string(…) makes it a text"),
                Kind::Text if type_.accepts(Kind::Number) => Some("decimal(…) makes it a number"),
                _ => None,
            };
            self.build.error("wrong-kind", &expr.span, message, help);
            return None;
        }
        if let Node::Const(value) = &compiled.node
            && let Err(message) = type_.coerce(value.clone())
        {
            self.build.error("wrong-value", &expr.span, message, None);
            return None;
        }
        Some(compiled)
    }
}

/// Adds a table's patterns to a source's routes.
fn route(routes: &mut Routes, written: HashMap<String, HandlerIds>) {
    let mut patterns = Patterns::default();
    let mut exact = Vec::new();
    for (pattern, handlers) in written {
        match pattern.strip_suffix('*') {
            Some(prefix) => patterns.0.push((prefix.to_string(), handlers)),
            None => exact.push((pattern, handlers)),
        }
    }
    patterns.0.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then(a.cmp(b)));
    // A type that an earlier table names exactly may match a pattern of this one, and the other way round.
    for (type_, handlers) in routes.exact.iter_mut() {
        if !exact.iter().any(|(other, _)| other == type_) {
            handlers.extend(patterns.best(type_));
        }
    }
    for (type_, handlers) in exact {
        let earlier = routes.patterns.iter().flat_map(|patterns| patterns.best(&type_)).copied().collect();
        routes.exact.entry(type_).or_insert(earlier).extend(handlers);
    }
    routes.patterns.push(patterns);
}
