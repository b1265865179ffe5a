//! What names read: fields of the event, of its record, of an element, of the row.

use super::*;

impl Pass<'_, '_> {
    /// The names of `a.b['c']`, outermost first, with the node of the first.
    fn names(&self, ast: &IdedExpr) -> Option<Vec<String>> {
        match &ast.expr {
            Ast::Ident(name) => Some(vec![name.clone()]),
            Ast::Select(SelectExpr { operand, field, test: false }) => {
                let mut names = self.names(operand)?;
                names.push(field.clone());
                Some(names)
            }
            Ast::Call(CallExpr { func_name, target: None, args }) if func_name == op::INDEX => {
                let Ast::Literal(LiteralValue::String(field)) = &args[1].expr else { return None };
                let mut names = self.names(&args[0])?;
                names.push(field.inner().to_string());
                Some(names)
            }
            _ => None,
        }
    }

    pub(super) fn path(&mut self, ast: &IdedExpr) -> Compiled {
        let Some(names) = self.names(ast) else {
            return Err(self.wrong(ast, "bad-expression", "fields are read from names only", None));
        };
        let whole = names.join(".");
        let below = &names[1..];
        if names[0] == "row" {
            return self.row(ast, below);
        }
        if self.compiler.bare && below.is_empty() {
            return self.row(ast, &names);
        }
        if !self.compiler.event {
            let message = format!("`{}` is not to be had here: there is a row and no event", names[0]);
            return Err(self.wrong(ast, "unknown-name", message, Some("read columns: row.NAME".into())));
        }
        match names[0].as_str() {
            "message" if self.compiler.splits => Ok(self.slot(MESSAGE, below, whole)),
            "message" => Ok(self.slot(DATA, below, whole)),
            "data" => Ok(self.slot(DATA, below, whole)),
            "type" if below.is_empty() => Ok((Node::Meta(Meta::Type), Kind::Text)),
            "id" if below.is_empty() => Ok((Node::Meta(Meta::Id), Kind::Text)),
            "subject" if below.is_empty() => Ok((Node::Meta(Meta::Subject), Kind::Text)),
            "time" if below.is_empty() => Ok((Node::Meta(Meta::Time), Kind::Time)),
            "headers" if below.len() == 1 => Ok((Node::Header { name: below[0].clone(), required: true }, Kind::Text)),
            "topic" if below.len() == 1 => {
                if !self.compiler.captures.contains(&below[0]) {
                    let help = suggest(&below[0], self.compiler.captures.iter().map(String::as_str))
                        .unwrap_or_else(|| "name a group in the source's `topics`: (?<name>…)".into());
                    let message = format!("the source's topics have no capture `{}`", below[0]);
                    return Err(self.wrong(ast, "unknown-name", message, Some(help)));
                }
                Ok((Node::Capture(below[0].clone()), Kind::Text))
            }
            "record" if !below.is_empty() => self.record(ast, below, whole),
            first => match self.compiler.elements.iter().find(|(name, _)| name == first) {
                Some((_, scope)) => Ok(self.slot(*scope, below, whole)),
                None => Err(self.unknown(ast, first)),
            },
        }
    }

    fn row(&mut self, ast: &IdedExpr, below: &[String]) -> Compiled {
        let [name] = below else {
            let help = Some("row.NAME, with the name of a column".to_string());
            return Err(self.wrong(ast, "unknown-name", "of a row its columns are read", help));
        };
        if self.in_elements {
            let message = "a condition on the elements of a list cannot read the row";
            return Err(self.wrong(ast, "unknown-name", message, None));
        }
        if self.compiler.row.is_empty() {
            return Err(self.wrong(ast, "unknown-name", "there is no row to read here", None));
        }
        match self.compiler.row.iter().find(|column| column.name == *name) {
            Some(column) => Ok((column.node.clone(), column.kind)),
            None => {
                let help = suggest(name, self.compiler.row.iter().map(|column| column.name.as_str()));
                Err(self.wrong(ast, "unknown-column", format!("the row has no column `{name}`"), help))
            }
        }
    }

    /// `list.exists(x, condition)` and `list.all(x, condition)`, which the parser has taken apart already.
    pub(super) fn elements(&mut self, ast: &IdedExpr, comprehension: &ComprehensionExpr) -> Compiled {
        let other = |pass: &Self| {
            let message = "of CEL's macros has, exists and all have a meaning here";
            pass.wrong(ast, "unknown-function", message, None)
        };
        let Ast::Literal(LiteralValue::Boolean(start)) = &comprehension.accu_init.expr else { return Err(other(self)) };
        let every = *start.inner();
        let Ast::Call(step) = &comprehension.loop_step.expr else { return Err(other(self)) };
        let operator = if every { op::LOGICAL_AND } else { op::LOGICAL_OR };
        let [_, condition] = &step.args[..] else { return Err(other(self)) };
        if step.func_name != operator || !matches!(comprehension.result.expr, Ast::Ident(_)) {
            return Err(other(self));
        }
        let (list, _) = self.node(&comprehension.iter_range)?;
        if !matches!(list, Node::Path { .. } | Node::Opt { .. }) {
            let message = "a field of the event that is a list is needed here";
            return Err(self.wrong(&comprehension.iter_range, "wrong-kind", message, None));
        }
        let scope = self.compiler.scopes.len();
        self.compiler.scopes.push(Paths::default());
        self.compiler.elements.push((comprehension.iter_var.clone(), scope));
        let outside = std::mem::replace(&mut self.in_elements, true);
        let condition = self.of_kind(condition, Kind::Bool);
        self.in_elements = outside;
        self.compiler.elements.pop();
        let condition = *condition?;
        let paths = std::sync::Arc::new(self.compiler.scopes[scope].clone());
        Ok((Node::Elements(Box::new(Elements { list, every, scope, paths, condition })), Kind::Bool))
    }

    pub(super) fn slot(&mut self, scope: ScopeId, path: &[String], name: String) -> (Node, Kind) {
        let slot = self.compiler.scopes[scope].slot(path);
        (Node::Path { scope, slot, name }, Kind::Any)
    }

    fn record(&mut self, ast: &IdedExpr, below: &[String], whole: String) -> Compiled {
        match self.compiler.key_format {
            KeyFormat::Json if below[0] == "key" => return Ok(self.slot(KEY, &below[1..], whole)),
            KeyFormat::Bytes if below == ["key"] => return Ok((Node::Meta(Meta::RecordKeyBytes), Kind::Text)),
            KeyFormat::None if below[0] == "key" => {
                let message = "the source says `key_format: none`: there is no key to read";
                return Err(self.wrong(ast, "unknown-name", message, None));
            }
            _ => {}
        }
        match RECORD.iter().find(|(name, ..)| *name == below[0]) {
            Some((_, meta, kind)) if below.len() == 1 => Ok((Node::Meta(*meta), *kind)),
            Some(_) => {
                let help = (below[0] == "key").then(|| "say `key_format: json` in the source".to_string());
                Err(self.wrong(ast, "unknown-name", format!("`{whole}` has no fields to read"), help))
            }
            None => {
                let known = RECORD.iter().map(|(name, ..)| *name);
                Err(self.wrong(
                    ast,
                    "unknown-name",
                    format!("a record has no `{}`", below[0]),
                    suggest(&below[0], known),
                ))
            }
        }
    }

    fn unknown(&self, ast: &IdedExpr, name: &str) -> Misread {
        let known = ROOTS.iter().copied().chain(self.compiler.elements.iter().map(|(name, _)| name.as_str()));
        let help = suggest(name, known).or_else(|| {
            let alone = self.text.trim() == name;
            alone.then(|| {
                format!(
                    "a field of the event is data.{name}; a text keeps its own quotes: \"'{name}'\"; a literal to be set \
                     belongs under `const`"
                )
            })
        });
        self.wrong(ast, "unknown-name", format!("`{name}` is not a name that expressions can read"), help)
    }

    pub(super) fn presence(&mut self, ast: &IdedExpr, select: &SelectExpr) -> Compiled {
        let operand = SelectExpr { test: false, ..select.clone() };
        let inner = IdedExpr { id: ast.id, expr: Ast::Select(operand) };
        self.presence_of(ast, &inner)
    }

    pub(super) fn presence_of(&mut self, ast: &IdedExpr, path: &IdedExpr) -> Compiled {
        match self.path(path)?.0 {
            Node::Path { scope, slot, .. } => Ok((Node::Has { scope, slot }, Kind::Bool)),
            Node::Header { name, .. } => Ok((Node::HasHeader(name), Kind::Bool)),
            _ => Err(self.wrong(ast, "bad-expression", "has() asks for a field of data, headers or an element", None)),
        }
    }
}
