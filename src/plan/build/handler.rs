//! Handlers: patterns, keys, effects.

use std::collections::HashMap;

use super::table::Owners;
use super::{Build, source};
use crate::json_paths::Paths;
use crate::patch::Presence;
use crate::plan::expr::{Compiler, Expr as Compiled, Node};
use crate::plan::types::{ColumnType, Kind};
use crate::plan::{Effect, Fold, ForEach, Handler, HandlerIds, Patterns, Routes, Source, Table};
use crate::spec::diagnostic::suggest;
use crate::spec::{self, Expr, Name, Named};

impl Build<'_> {
    /// Compiles a table's handlers into `plan`, and routes the sources' events to them.
    pub(super) fn handlers(
        &self,
        table: usize,
        written: &spec::Table,
        plan: &mut Table,
        sources: &mut [Source],
    ) -> Owners {
        let all = || written.handlers.values().flat_map(|types| types.values()).flat_map(|many| many.iter());
        let any_create = all().any(|handler| handler.create);
        plan.presence = any_create || all().any(|handler| handler.delete.is_some());
        let mut owners = Owners::default();
        for (bit, (source_name, types)) in written.handlers.iter().enumerate() {
            let known = sources.iter().position(|source| source.name == source_name.value);
            let Some(source) = known.map(|at| &mut sources[at]) else {
                let help = suggest(source_name, sources.iter().map(|s| s.name.as_str()));
                let message = format!("there is no source `{}`", source_name.value);
                self.error("unknown-source", &source_name.span, message, help.as_deref());
                continue;
            };
            let mut patterns: HashMap<String, HandlerIds> = HashMap::new();
            let mut creates = false;
            for (pattern, handlers) in types {
                let mut ids = Vec::new();
                for handler in handlers.iter() {
                    let presence = Presences { stored: plan.presence, any_create, bit: 1 << bit.min(30) };
                    let compiled = self.handler(&pattern.span, handler, written, plan, source, presence);
                    creates = creates || compiled.presence.begun != 0;
                    let columns = compiled.effects.iter().map(|e| (usize::from(e.column), source.name.clone()));
                    owners.columns.extend(columns);
                    if compiled.presence.ended != 0 {
                        owners.deletes.push(source.name.clone());
                    }
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
            owners.creators += usize::from(creates);
            self.clear_on_delete(plan, source_name, &owners, 1 << bit.min(30));
            route(&mut source.routes, patterns);
        }
        owners
    }

    fn pattern(&self, place: &Name, alternative: &str) {
        let star = alternative.find('*');
        if alternative.is_empty() || star.is_some_and(|at| at + 1 != alternative.len()) {
            let message = format!("`{alternative}` is not a pattern of event types");
            self.error("bad-pattern", &place.span, message, Some("`A`, `A | B`, `Prefix*` or `\"*\"`"));
        }
    }

    /// A `delete` sets the columns of its source back to what they are before anything was said.
    fn clear_on_delete(&self, plan: &mut Table, source: &Name, owners: &Owners, bit: u32) {
        let owned: Vec<usize> =
            (0..plan.columns.len()).filter(|at| owners.columns.contains(&(*at, source.value.clone()))).collect();
        let Table { columns, handlers, .. } = plan;
        for handler in handlers.iter_mut().filter(|handler| handler.presence.ended & bit != 0) {
            let line = handler.line;
            let clear = |at: &usize| {
                let default = columns[*at].shape.default.clone();
                let expr = Compiled { text: default.to_json_text(), node: Node::Const(default), kind: Kind::Any };
                Effect { column: *at as u16, fold: Fold::Set, expr, line }
            };
            handler.effects = owned.iter().map(clear).collect();
        }
    }

    fn handler(
        &self,
        place: &std::ops::Range<usize>,
        handler: &spec::Handler,
        written: &spec::Table,
        plan: &Table,
        source: &mut Source,
        presence: Presences,
    ) -> Handler {
        self.refuse_later(&[
            ("latest", &handler.latest),
            ("push", &handler.push),
            ("remove", &handler.remove),
            ("merge", &handler.merge),
            ("spread", &handler.spread),
            ("ignore", &handler.ignore),
        ]);
        let captures = source::capture_names(&source.topics);
        let mut scope = HandlerScope {
            build: *self,
            compiler: Compiler {
                scopes: &mut source.scopes,
                elements: vec![],
                captures,
                key_format: source.key_format,
            },
        };
        let for_each = scope.for_each(handler);
        let key = scope.key(place, handler, written, plan);
        let when = handler.when.as_ref().and_then(|expr| scope.condition(expr));
        let require = handler
            .require
            .iter()
            .filter_map(|(name, expr)| Some((name.value.clone(), scope.condition(expr)?)))
            .collect();
        let deletes = self.deletes(handler);
        let effects = scope.effects(handler, written, plan);
        if let (true, Some(effect)) = (deletes, effects.first()) {
            let message = format!("a delete changes no column, `{}` does", effect.fold.word());
            self.error("delete-and-set", place, message, Some("a delete clears its source's columns by itself"));
        }
        if deletes && handler.create {
            self.error("delete-and-set", place, "a handler creates or deletes, not both", None);
        }
        Handler {
            line: self.line(place),
            key,
            when,
            require,
            for_each,
            presence: presence.of(handler.create, deletes),
            effects,
        }
    }

    fn deletes(&self, handler: &spec::Handler) -> bool {
        let Some(delete) = &handler.delete else { return false };
        match delete.as_str() {
            "true" => true,
            "false" => false,
            "final" => {
                self.error(
                    "not-yet",
                    &delete.span,
                    "`delete: final` is part of the language but not of this release",
                    None,
                );
                true
            }
            other => {
                self.error(
                    "unknown-word",
                    &delete.span,
                    format!("`{other}` is not a way to delete"),
                    Some("true or final"),
                );
                true
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Presences {
    stored: bool,
    any_create: bool,
    bit: u32,
}

impl Presences {
    /// In a table without any `create`, every handler that does not delete brings the row into being.
    fn of(self, create: bool, delete: bool) -> Presence {
        match (self.stored, delete) {
            (false, _) => Presence::default(),
            (true, true) => Presence { begun: 0, ended: self.bit },
            (true, false) if create || !self.any_create => Presence { begun: self.bit, ended: 0 },
            (true, false) => Presence::default(),
        }
    }
}

struct HandlerScope<'b, 'p> {
    build: Build<'b>,
    compiler: Compiler<'p>,
}

impl HandlerScope<'_, '_> {
    fn compile(&mut self, expr: &Expr) -> Option<Compiled> {
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

    fn for_each(&mut self, handler: &spec::Handler) -> Option<ForEach> {
        let (name, expr) = handler.for_each.first()?;
        if let Some((second, _)) = handler.for_each.get_index(1) {
            let message = "nested for_each is part of the language but not of this release";
            self.build.error("not-yet", &second.span, message, None);
        }
        self.build.identifier(name, "for_each element", super::LONGEST_NAME);
        let list = self.compile(expr)?;
        if !matches!(list.node, Node::Path { .. } | Node::Opt { .. }) {
            let help = "for_each: { line: data.lines }";
            self.build.error("wrong-kind", &expr.span, "for_each needs a field that is a list", Some(help));
        }
        let scope = self.compiler.scopes.len();
        self.compiler.scopes.push(Paths::default());
        self.compiler.elements.push((name.value.clone(), scope));
        Some(ForEach { list, scope })
    }

    fn key(
        &mut self,
        place: &std::ops::Range<usize>,
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
            if let Some(value) = self.value(expr, &column.shape.type_, &column.name) {
                compiled.push(value);
            }
        }
        compiled
    }

    /// An expression whose value can fill a column.
    fn value(&mut self, expr: &Expr, type_: &ColumnType, column: &str) -> Option<Compiled> {
        let compiled = self.compile(expr)?;
        if !type_.accepts(compiled.kind) {
            let message = format!("`{column}` is {type_}, this is {}", compiled.kind.describe());
            let help =
                (compiled.kind == Kind::Number && type_.accepts(Kind::Text)).then_some("string(…) makes it a text");
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

    fn effects(&mut self, handler: &spec::Handler, table: &spec::Table, plan: &Table) -> Vec<Effect> {
        let mut effects: Vec<Effect> = Vec::new();
        let words: [(Fold, &Named<Expr>); 5] = [
            (Fold::Set, &handler.set),
            (Fold::SetIfPresent, &handler.set_if_present),
            (Fold::Add, &handler.add),
            (Fold::Max, &handler.max),
            (Fold::Min, &handler.min),
        ];
        for (fold, columns) in words {
            for (name, expr) in columns {
                let Some(column) = self.column(name, table, plan, &effects) else { continue };
                let type_ = &plan.columns[usize::from(column)].shape.type_;
                if fold == Fold::Add && !type_.is_number() {
                    let message =
                        format!("`{}` is {type_}; only integers and numeric can be added to, exactly", name.value);
                    self.build.error("wrong-fold", &name.span, message, None);
                }
                if matches!(fold, Fold::Max | Fold::Min) && !type_.is_ordered() {
                    let message = format!("`{}` is {type_}, which has no order that everyone agrees on", name.value);
                    self.build.error("wrong-fold", &name.span, message, None);
                }
                let Some(expr) = self.value(expr, type_, name) else { continue };
                effects.push(Effect { column, fold, expr, line: self.build.line(&name.span) });
            }
        }
        for (name, literal) in &handler.const_ {
            let Some(column) = self.column(name, table, plan, &effects) else { continue };
            let target = &plan.columns[usize::from(column)];
            let value = self.build.literal(&target.shape.type_, literal);
            if value.is_null() && target.not_null {
                let message = format!("`{}` is not_null", name.value);
                self.build.error("wrong-value", &literal.span, message, None);
            }
            let expr = Compiled { text: literal.value.0.clone(), node: Node::Const(value), kind: Kind::Any };
            effects.push(Effect { column, fold: Fold::Set, expr, line: self.build.line(&name.span) });
        }
        effects.sort_by_key(|effect| effect.column);
        effects
    }

    fn column(&self, name: &Name, table: &spec::Table, plan: &Table, earlier: &[Effect]) -> Option<u16> {
        if table.key.contains_key(name) {
            let message = format!("`{}` is part of the key; its value comes from there", name.value);
            self.build.error("key-set", &name.span, message, Some("leave it out here"));
            return None;
        }
        let Some(at) = plan.columns.iter().position(|column| column.name == name.value) else {
            self.build.unknown_column(name, table);
            return None;
        };
        if earlier.iter().any(|effect| usize::from(effect.column) == at) {
            let message = format!("this handler changes `{}` twice", name.value);
            self.build.error("duplicate-column", &name.span, message, Some("keep one of them"));
            return None;
        }
        Some(at as u16)
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
