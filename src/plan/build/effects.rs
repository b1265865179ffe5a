//! What a handler does to columns.

use super::Build;
use super::handler::HandlerScope;
use crate::plan::expr::{Expr as Compiled, Node};
use crate::plan::types::{ColumnType, Kind, Scalar};
use crate::plan::{Effect, Fold, Table};
use crate::spec::{self, Expr, ExprText, Literal, Located, Name, Named};

impl HandlerScope<'_, '_> {
    pub fn effects(
        &mut self,
        handler: &spec::Handler,
        table: &spec::Table,
        source: &str,
        plan: &mut Table,
    ) -> Vec<Effect> {
        let mut effects: Vec<Effect> = Vec::new();
        let words: [(Fold, &Named<Expr>); 7] = [
            (Fold::Set, &handler.set),
            (Fold::SetIfPresent, &handler.set_if_present),
            (Fold::Add, &handler.add),
            (Fold::Max, &handler.max),
            (Fold::Min, &handler.min),
            (Fold::Merge, &handler.merge),
            (Fold::Remove, &handler.remove),
        ];
        for (fold, columns) in words {
            for (name, written) in columns {
                let Some(column) = self.column(name, table, plan, &effects) else { continue };
                let type_ = &plan.columns[usize::from(column)].shape.type_;
                if !self.build.check_fold(fold, name, type_) {
                    continue;
                }
                let compiled = match fold {
                    Fold::Merge => self.object(written, name),
                    Fold::Remove => self.compile(written),
                    _ => self.value(written, type_, name),
                };
                let Some(expr) = compiled else { continue };
                if fold == Fold::Add && expr.drops_out() {
                    let message = "where a field is missing the whole sum is NULL, and nothing is added";
                    let help = "say what stands for it: coalesce(opt(…), 0)".to_string();
                    self.build.sink.warning("null-sum", &written.span, message, Some(help));
                }
                effects.push(Effect { column, fold, expr, record: Vec::new(), line: self.build.line(&name.span) });
            }
        }
        self.constants(handler, table, plan, &mut effects);
        self.pushes(handler, table, plan, &mut effects);
        if let Some(spread) = &handler.spread {
            self.spread(spread, table, source, plan, &mut effects);
        }
        effects.sort_by_key(|effect| effect.column);
        effects
    }

    fn constants(&mut self, handler: &spec::Handler, table: &spec::Table, plan: &Table, effects: &mut Vec<Effect>) {
        for (name, literal) in &handler.const_ {
            let Some(column) = self.column(name, table, plan, effects) else { continue };
            let target = &plan.columns[usize::from(column)];
            let value = self.build.literal(&target.shape.type_, literal);
            if value.is_null() && target.not_null {
                let message = format!("`{}` is not_null", name.value);
                self.build.error("wrong-value", &literal.span, message, None);
            }
            let expr = Compiled { text: literal.value.0.clone(), ..Compiled::constant(value) };
            let line = self.build.line(&name.span);
            effects.push(Effect { column, fold: Fold::Set, expr, record: Vec::new(), line });
        }
    }

    fn pushes(&mut self, handler: &spec::Handler, table: &spec::Table, plan: &mut Table, effects: &mut Vec<Effect>) {
        for (name, push) in &handler.push {
            let Some(column) = self.column(name, table, plan, effects) else { continue };
            self.build.check_fold(Fold::Push, name, &plan.columns[usize::from(column)].shape.type_);
            self.build.record_shape(name, push, &mut plan.columns[usize::from(column)]);
            let mut record = Vec::new();
            for (field, expr) in &push.of {
                let Some(compiled) = self.compile(expr) else { continue };
                if compiled.reads_row() {
                    let message = "a record is made of the event alone";
                    self.build.error("push-of-row", &expr.span, message, Some("read the event, or an element of it"));
                }
                record.push((field.value.clone(), compiled));
            }
            let line = self.build.line(&name.span);
            let expr = Compiled::constant(crate::value::Value::Null);
            effects.push(Effect { column, fold: Fold::Push, expr, record, line });
        }
    }

    /// An expression that can be an object.
    fn object(&mut self, expr: &Expr, column: &str) -> Option<Compiled> {
        let compiled = self.compile(expr)?;
        if !matches!(compiled.kind, Kind::Any | Kind::Null) {
            let message = format!("an object is merged into `{column}`, this is {}", compiled.kind.describe());
            self.build.error(
                "wrong-kind",
                &expr.span,
                message,
                Some("for example `merge: { attributes: data.changes }`"),
            );
            return None;
        }
        Some(compiled)
    }

    /// One effect for every column that has no other filling here and is not another source's.
    fn spread(
        &mut self,
        spread: &spec::Spread,
        table: &spec::Table,
        source: &str,
        plan: &Table,
        effects: &mut Vec<Effect>,
    ) {
        let Some(from) = self.compile(&spread.from) else { return };
        if !matches!(from.node, Node::Path { .. } | Node::Opt { .. }) {
            let help = "spread: { from: data.after }";
            self.build.error("wrong-kind", &spread.from.span, "spread needs a field that is an object", Some(help));
            return;
        }
        let path = spread.from.value.0.trim();
        let path = path.strip_prefix("opt(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(path);
        let renamed: Vec<&Name> = spread.rename.values().collect();
        for name in spread.except.iter().chain(renamed) {
            if !table.columns.contains_key(name) {
                self.build.unknown_column(name, table);
            }
        }
        let others = written_by_others(table, source);
        for (at, column) in plan.columns.iter().enumerate() {
            let taken = effects.iter().any(|effect| usize::from(effect.column) == at);
            let left_out = spread.except.iter().any(|name| name.value == column.name);
            let declared = table.columns.contains_key(column.name.as_str());
            if taken || left_out || !declared || column.derived || others.contains(&column.name) {
                continue;
            }
            let renamed = spread.rename.iter().find(|(_, to)| to.value == column.name);
            let member = renamed.map_or(column.name.as_str(), |(member, _)| member.as_str());
            let text = format!("opt({path}['{}'])", member.replace('\\', "\\\\").replace('\'', "\\'"));
            let expr = Located { value: ExprText(text), span: spread.from.span.clone(), quoted: false };
            let Some(expr) = self.compile(&expr) else { continue };
            let line = self.build.line(&spread.from.span);
            effects.push(Effect { column: at as u16, fold: Fold::Spread, expr, record: Vec::new(), line });
        }
    }

    fn column(&self, name: &Name, table: &spec::Table, plan: &Table, earlier: &[Effect]) -> Option<u16> {
        if table.key.contains_key(name) {
            let message = format!("`{}` is part of the key; its value comes from there", name.value);
            self.build.error("key-set", &name.span, message, Some("leave it out here"));
            return None;
        }
        if table.columns.get(name).is_some_and(|column| column.0.generated.is_some()) {
            let message = format!("`{}` is generated from other columns", name.value);
            self.build.error("generated-set", &name.span, message, Some("leave it out here"));
            return None;
        }
        let found = plan.columns.iter().position(|column| column.name == name.value);
        if found.is_some_and(|at| plan.columns[at].derived) {
            let message = format!("`{}` is filled by a join or a rollup", name.value);
            self.build.error("generated-set", &name.span, message, Some("leave it out here"));
            return None;
        }
        let Some(at) = found.filter(|_| table.columns.contains_key(name)) else {
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

impl Build<'_> {
    fn check_fold(&self, fold: Fold, name: &Name, type_: &ColumnType) -> bool {
        let wrong = |what: &str, help: &str| {
            self.error("wrong-fold", &name.span, format!("`{}` is {type_}{what}", name.value), Some(help));
            false
        };
        match fold {
            Fold::Add if !type_.is_number() => {
                wrong("; only integers and numeric can be added to, exactly", "give the column such a type")
            }
            Fold::Max | Fold::Min if !type_.is_ordered() => wrong(
                ", which has no order that everyone agrees on",
                "text, numbers, dates, timestamps and enum(…) have one",
            ),
            Fold::Merge if *type_ != ColumnType::scalar(Scalar::Jsonb) => {
                wrong("; objects are merged into jsonb", "give the column the type jsonb")
            }
            Fold::Push | Fold::Remove if *type_ != ColumnType::scalar(Scalar::Jsonb) => {
                wrong("; an array of records is jsonb", "give the column the type jsonb")
            }
            _ => true,
        }
    }
}

/// Columns that handlers of other sources name.
fn written_by_others(table: &spec::Table, source: &str) -> Vec<String> {
    fn names<T>(columns: &Named<T>) -> impl Iterator<Item = String> + '_ {
        columns.keys().map(|name| name.value.clone())
    }
    let others = table.handlers.iter().filter(|(name, _)| name.value != source);
    let handlers = others.flat_map(|(_, types)| types.values()).flat_map(|many| many.iter());
    handlers
        .flat_map(|handler| {
            let expressions = [
                &handler.set,
                &handler.set_if_present,
                &handler.add,
                &handler.max,
                &handler.min,
                &handler.merge,
                &handler.remove,
            ];
            let literals: &Named<Located<Literal>> = &handler.const_;
            expressions
                .into_iter()
                .flat_map(names)
                .chain(names(literals))
                .chain(names(&handler.push))
                .collect::<Vec<_>>()
        })
        .collect()
}
