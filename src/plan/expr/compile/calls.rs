//! Operators and functions: their kinds, and what can be told of their arguments before any event.

use super::*;

impl Pass<'_, '_> {
    pub(super) fn call(&mut self, ast: &IdedExpr, call: &CallExpr) -> Compiled {
        if call.func_name == op::INDEX {
            return self.path(ast);
        }
        let arguments: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        match call.func_name.as_str() {
            op::LOGICAL_AND | op::LOGICAL_OR => {
                let a = self.of_kind(arguments[0], Kind::Bool)?;
                let b = self.of_kind(arguments[1], Kind::Bool)?;
                let and = call.func_name == op::LOGICAL_AND;
                Ok((if and { Node::And(a, b) } else { Node::Or(a, b) }, Kind::Bool))
            }
            op::LOGICAL_NOT => Ok((Node::Not(self.of_kind(arguments[0], Kind::Bool)?), Kind::Bool)),
            op::NEGATE => Ok((Node::Negate(self.of_kind(arguments[0], Kind::Number)?), Kind::Number)),
            op::CONDITIONAL => {
                let condition = self.of_kind(arguments[0], Kind::Bool)?;
                let (yes, yes_kind) = self.node(arguments[1])?;
                let (no, no_kind) = self.node(arguments[2])?;
                let kind = if yes_kind == Kind::Null { no_kind } else { yes_kind };
                let kind = if no_kind == kind || no_kind == Kind::Null { kind } else { Kind::Any };
                Ok((Node::If(condition, Box::new(yes), Box::new(no)), kind))
            }
            op::IN => {
                let (item, _) = self.node(arguments[0])?;
                let Ast::List(list) = &arguments[1].expr else {
                    let message = "`in` needs a list: x in ['a', 'b']";
                    return Err(self.wrong(arguments[1], "bad-expression", message, None));
                };
                let items: Result<Vec<Node>, Misread> =
                    list.elements.iter().map(|element| self.node(element).map(|(node, _)| node)).collect();
                Ok((Node::In(Box::new(item), items?), Kind::Bool))
            }
            name => {
                if let Some(comparison) = comparison(name) {
                    return self.comparison(ast, comparison, &arguments);
                }
                if let Some(operator) = arithmetic(name) {
                    return self.arithmetic(ast, operator, &arguments);
                }
                self.function(ast, name, &arguments)
            }
        }
    }

    /// A node whose value can be of the kind.
    pub(super) fn of_kind(&mut self, ast: &IdedExpr, wanted: Kind) -> Result<Box<Node>, Misread> {
        let (node, kind) = self.node(ast)?;
        if kind == wanted || matches!(kind, Kind::Any | Kind::Null) {
            return Ok(Box::new(node));
        }
        let message = format!("{} is needed here, this is {}", wanted.describe(), kind.describe());
        Err(self.wrong(ast, "wrong-kind", message, None))
    }

    fn comparison(&mut self, ast: &IdedExpr, comparison: Comparison, arguments: &[&IdedExpr]) -> Compiled {
        let (a, a_kind) = self.node(arguments[0])?;
        let (b, b_kind) = self.node(arguments[1])?;
        let open = |kind| matches!(kind, Kind::Any | Kind::Null);
        if a_kind != b_kind && !open(a_kind) && !open(b_kind) {
            let message = format!("{} never compares with {}", a_kind.describe(), b_kind.describe());
            let help = matches!((a_kind, b_kind), (Kind::Time, Kind::Text) | (Kind::Text, Kind::Time))
                .then(|| "make the text an instant: timestamp(…)".to_string());
            return Err(self.wrong(ast, "wrong-kind", message, help));
        }
        Ok((Node::Compare(comparison, Box::new(a), Box::new(b)), Kind::Bool))
    }

    fn arithmetic(&mut self, ast: &IdedExpr, operator: Arithmetic, arguments: &[&IdedExpr]) -> Compiled {
        if operator == Arithmetic::Divide && !self.in_round {
            let help = Some(format!("say to how many digits: round({}, 2)", self.text));
            return Err(self.wrong(ast, "bare-division", "a division has no exact result", help));
        }
        let (a, a_kind) = self.node(arguments[0])?;
        let (b, b_kind) = self.node(arguments[1])?;
        let open = |kind| matches!(kind, Kind::Any | Kind::Null);
        let of_time = |kind| matches!(kind, Kind::Time | Kind::Duration);
        if of_time(a_kind) || of_time(b_kind) {
            let node = Node::Arithmetic(operator, Box::new(a), Box::new(b));
            return match (operator, a_kind, b_kind) {
                (Arithmetic::Add | Arithmetic::Subtract, Kind::Time, Kind::Duration) => Ok((node, Kind::Time)),
                (Arithmetic::Add, Kind::Duration, Kind::Time) => Ok((node, Kind::Time)),
                (Arithmetic::Subtract, Kind::Time, Kind::Time) => Ok((node, Kind::Duration)),
                (Arithmetic::Add | Arithmetic::Subtract, Kind::Duration, Kind::Duration) => Ok((node, Kind::Duration)),
                _ => {
                    let help =
                        "an instant and a duration: time + duration('PT30M'), timestamp(data.at) - duration('P1D')";
                    let message = format!("{} and {} have no such result", a_kind.describe(), b_kind.describe());
                    Err(self.wrong(ast, "wrong-kind", message, Some(help.into())))
                }
            };
        }
        let text = operator == Arithmetic::Add && (a_kind == Kind::Text || b_kind == Kind::Text);
        let wanted = if text { Kind::Text } else { Kind::Number };
        for (argument, kind) in arguments.iter().zip([a_kind, b_kind]) {
            if !open(kind) && kind != wanted {
                let message = format!("{} is needed here, this is {}", wanted.describe(), kind.describe());
                return Err(self.wrong(argument, "wrong-kind", message, None));
            }
        }
        let unknown = operator == Arithmetic::Add && open(a_kind) && open(b_kind);
        Ok((Node::Arithmetic(operator, Box::new(a), Box::new(b)), if unknown { Kind::Any } else { wanted }))
    }

    fn function(&mut self, ast: &IdedExpr, name: &str, arguments: &[&IdedExpr]) -> Compiled {
        match (name, arguments) {
            ("opt", [path]) => {
                return Ok(match self.path(path)? {
                    (Node::Path { scope, slot, .. }, kind) => (Node::Opt { scope, slot }, kind),
                    (Node::Header { name, .. }, kind) => (Node::Header { name, required: false }, kind),
                    other => other,
                });
            }
            ("has", [path]) => return self.presence_of(ast, path),
            ("matches" | "extract", [text, pattern]) => {
                let text = self.of_kind(text, Kind::Text)?;
                let Ast::Literal(LiteralValue::String(literal)) = &pattern.expr else {
                    let message = format!("the pattern of {name}() is a literal");
                    return Err(self.wrong(pattern, "bad-expression", message, None));
                };
                let regex = regex::Regex::new(literal.inner()).map_err(|e| {
                    self.wrong(pattern, "bad-expression", format!("not a regular expression: {e}"), None)
                })?;
                return Ok(match name {
                    "matches" => (Node::Matches(text, regex), Kind::Bool),
                    _ => (Node::Extract(text, regex), Kind::Text),
                });
            }
            _ => {}
        }
        let Some(entry) = FUNCTIONS.iter().find(|entry| entry.name == name) else {
            let special = ["opt", "has", "matches", "extract", "exists", "all"];
            let known = FUNCTIONS.iter().map(|entry| entry.name).chain(special);
            return Err(self.wrong(
                ast,
                "unknown-function",
                format!("there is no function `{name}`"),
                suggest(name, known),
            ));
        };
        if !entry.arguments.contains(&arguments.len()) {
            let message = format!("`{name}` does not take {} arguments", arguments.len());
            return Err(self.wrong(ast, "wrong-arguments", message, Some(entry.signature.to_string())));
        }
        let outer = self.in_round;
        self.in_round = outer || entry.function == Function::Round;
        let compiled: Result<Vec<(Node, Kind)>, Misread> = arguments.iter().map(|a| self.node(a)).collect();
        self.in_round = outer;
        let compiled = compiled?;
        self.check_literals(ast, entry, &compiled)?;
        let kind = match entry.function {
            Function::Coalesce => common_kind(compiled.iter().map(|(_, kind)| *kind)),
            _ => entry.result,
        };
        let nodes: Vec<Node> = compiled.into_iter().map(|(node, _)| node).collect();
        Ok((self.folded(ast, entry, nodes)?, kind))
    }

    /// A call whose arguments are all literals is worked out here and now; one that cannot be is told here and now.
    fn folded(&self, ast: &IdedExpr, entry: &Entry, nodes: Vec<Node>) -> Result<Node, Misread> {
        let literal = |node: &Node| if let Node::Const(value) = node { Some(value.clone()) } else { None };
        let Some(values) = nodes.iter().map(literal).collect::<Option<Vec<Value>>>() else {
            return Ok(Node::Call(entry.function, nodes));
        };
        let value = entry.function.call(&values);
        value
            .map(Node::Const)
            .map_err(|message| self.wrong(ast, "wrong-arguments", message, Some(entry.signature.to_string())))
    }

    /// Mistakes in literal arguments are told when the file is checked, not when the first event arrives.
    fn check_literals(&self, ast: &IdedExpr, entry: &Entry, arguments: &[(Node, Kind)]) -> Result<(), Misread> {
        let literal = |at: usize| match arguments.get(at) {
            Some((Node::Const(Value::Text(text)), _)) => Some(text.as_str()),
            _ => None,
        };
        let (unit, zone) = match entry.function {
            Function::Bucket => (literal(1), literal(2)),
            Function::Date => (None, literal(1)),
            _ => (None, None),
        };
        if let Some(unit) = unit.filter(|unit| !BUCKETS.contains(unit)) {
            let help = suggest(unit, BUCKETS.iter().copied());
            let message = format!("`{unit}` is none of {}", BUCKETS.join(", "));
            return Err(self.wrong(ast, "wrong-arguments", message, help));
        }
        if let Some(zone) = zone.filter(|zone| jiff::tz::TimeZone::get(zone).is_err()) {
            let help = Some("for example Europe/Berlin".to_string());
            return Err(self.wrong(ast, "wrong-arguments", format!("`{zone}` is not a time zone"), help));
        }
        Ok(())
    }
}

fn common_kind(kinds: impl Iterator<Item = Kind>) -> Kind {
    kinds.filter(|kind| *kind != Kind::Null).reduce(|a, b| if a == b { a } else { Kind::Any }).unwrap_or(Kind::Null)
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        op::EQUALS => Comparison::Equal,
        op::NOT_EQUALS => Comparison::NotEqual,
        op::LESS => Comparison::Less,
        op::LESS_EQUALS => Comparison::LessOrEqual,
        op::GREATER => Comparison::Greater,
        op::GREATER_EQUALS => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn arithmetic(name: &str) -> Option<Arithmetic> {
    Some(match name {
        op::ADD => Arithmetic::Add,
        op::SUBSTRACT => Arithmetic::Subtract,
        op::MULTIPLY => Arithmetic::Multiply,
        op::DIVIDE => Arithmetic::Divide,
        op::MODULO => Arithmetic::Modulo,
        _ => return None,
    })
}
