//! From text to typed nodes. CEL's own parser reads the syntax; names, functions and kinds are checked here.

use std::ops::Range;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr as Ast, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators as op,
};

use super::function::{BUCKETS, Entry, FUNCTIONS, Function};
use super::{Arithmetic, Comparison, DATA, Elements, Expr, KEY, MESSAGE, Meta, Node, ScopeId};
use crate::json_paths::Paths;
use crate::plan::types::Kind;
use crate::spec::KeyFormat;
use crate::spec::diagnostic::suggest;
use crate::value::{Value, parse_number};

/// Compiles the expressions of one source: the paths they name are collected in `scopes`.
pub struct Compiler<'p> {
    /// Paths by [`ScopeId`].
    pub scopes: &'p mut Vec<Paths>,
    /// Names of `for_each` elements that are visible, with their scopes.
    pub elements: Vec<(String, ScopeId)>,
    /// Named captures of the source's topic expression.
    pub captures: Vec<String>,
    /// How the source's record keys are read.
    pub key_format: KeyFormat,
    /// The source takes its events out of messages: `message` is a document of its own.
    pub splits: bool,
    /// What `row.` can read.
    pub row: &'p [RowColumn],
    /// Whether there is an event to read; a generated column has its row alone.
    pub event: bool,
}

/// A column as expressions read it. A generated one is inlined.
#[derive(Debug, Clone)]
pub struct RowColumn {
    pub name: String,
    pub(crate) node: Node,
    pub kind: Kind,
}

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misread {
    pub code: &'static str,
    pub message: String,
    pub help: Option<String>,
    /// Bytes of the expression's text.
    pub span: Range<usize>,
}

type Compiled = Result<(Node, Kind), Misread>;

const ROOTS: &[&str] = &["data", "message", "type", "id", "subject", "time", "headers", "record", "topic", "row"];
const RECORD: &[(&str, Meta, Kind)] = &[
    ("key", Meta::RecordKey, Kind::Text),
    ("topic", Meta::RecordTopic, Kind::Text),
    ("partition", Meta::RecordPartition, Kind::Number),
    ("offset", Meta::RecordOffset, Kind::Number),
    ("time", Meta::RecordTime, Kind::Time),
];

impl Compiler<'_> {
    /// Compiles one expression.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn compile(&mut self, text: &str) -> Result<Expr, Misread> {
        let parsed = cel::parser::Parser::default().parse_with_source_info(text);
        let (ast, info) = parsed.map_err(|errors| syntax_error(text, &errors))?;
        let mut pass = Pass { compiler: self, info: &info, text, in_round: false, in_elements: false };
        let (node, kind) = pass.node(&ast)?;
        Ok(Expr { node, kind, text: text.to_string() })
    }
}

fn syntax_error(text: &str, errors: &cel::ParseErrors) -> Misread {
    let (at, message) = match errors.errors.first() {
        Some(first) => ((first.pos.1.max(1) - 1) as usize, first.msg.as_str()),
        None => (0, "unreadable"),
    };
    let at = text.floor_char_boundary(at.min(text.len()));
    let brief = message.split(" expecting ").next().unwrap_or(message);
    let help = if text.trim().is_empty() {
        Some("an expression is needed, for example data.total".to_string())
    } else if text.matches('(').count() > text.matches(')').count() {
        Some("a bracket is left open; inside { … } an expression with a comma must be quoted".to_string())
    } else {
        None
    };
    Misread {
        code: "bad-expression",
        message: format!("not an expression: {brief}"),
        help,
        span: at..text.len().max(at + 1),
    }
}

struct Pass<'c, 'p> {
    compiler: &'c mut Compiler<'p>,
    info: &'c SourceInfo,
    text: &'c str,
    in_round: bool,
    /// Inside the condition of `exists` or `all`.
    in_elements: bool,
}

impl Pass<'_, '_> {
    fn span(&self, ast: &IdedExpr) -> Range<usize> {
        // The parser places a selection at its dot.
        if let Ast::Select(SelectExpr { operand, field, .. }) = &ast.expr {
            let start = self.span(operand);
            let dotted = start.end..start.end + 1 + field.len();
            let whole = self.text.get(dotted.clone()).is_some_and(|text| text == format!(".{field}"));
            return if whole { start.start..dotted.end } else { start };
        }
        match self.info.offset_for(ast.id) {
            Some((start, stop)) => {
                let start = (start as usize).min(self.text.len());
                start..(stop as usize + 1).clamp(start, self.text.len().max(start))
            }
            None => 0..self.text.len(),
        }
    }

    fn wrong(&self, ast: &IdedExpr, code: &'static str, message: impl Into<String>, help: Option<String>) -> Misread {
        Misread { code, message: message.into(), help, span: self.span(ast) }
    }

    fn node(&mut self, ast: &IdedExpr) -> Compiled {
        match &ast.expr {
            Ast::Literal(literal) => self.literal(ast, literal),
            Ast::Ident(_) => self.path(ast),
            Ast::Select(select) if select.test => self.presence(ast, select),
            Ast::Select(_) => self.path(ast),
            Ast::Call(call) => self.call(ast, call),
            Ast::List(_) => Err(self.wrong(ast, "bad-expression", "a list stands only after `in`", None)),
            Ast::Comprehension(comprehension) => self.elements(ast, comprehension),
            _ => Err(self.wrong(ast, "bad-expression", "this part of CEL has no meaning here", None)),
        }
    }

    fn literal(&self, ast: &IdedExpr, literal: &LiteralValue) -> Compiled {
        Ok(match literal {
            LiteralValue::Boolean(b) => (Node::Const(Value::Bool(*b.inner())), Kind::Bool),
            LiteralValue::Int(n) => (Node::Const(Value::Int(*n.inner())), Kind::Number),
            LiteralValue::String(s) => (Node::Const(Value::text(s.inner())), Kind::Text),
            LiteralValue::Null => (Node::Const(Value::Null), Kind::Null),
            // The parser has made it a binary float; the exact digits are in the text.
            LiteralValue::Double(_) | LiteralValue::UInt(_) => {
                let written = self.text[self.span(ast)].trim_end_matches(['u', 'U']);
                let negative = matches!(literal, LiteralValue::Double(d) if d.inner().is_sign_negative());
                let sign = if negative && !written.starts_with('-') { "-" } else { "" };
                match parse_number(&format!("{sign}{written}")) {
                    Some(number) => (Node::Const(number), Kind::Number),
                    None => {
                        return Err(self.wrong(ast, "bad-expression", format!("`{written}` is not a number"), None));
                    }
                }
            }
            LiteralValue::Bytes(_) => {
                return Err(self.wrong(ast, "bad-expression", "byte strings have no meaning here", None));
            }
        })
    }

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

    fn path(&mut self, ast: &IdedExpr) -> Compiled {
        let Some(names) = self.names(ast) else {
            return Err(self.wrong(ast, "bad-expression", "fields are read from names only", None));
        };
        let whole = names.join(".");
        let below = &names[1..];
        if names[0] == "row" {
            return self.row(ast, below);
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
    fn elements(&mut self, ast: &IdedExpr, comprehension: &ComprehensionExpr) -> Compiled {
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

    fn slot(&mut self, scope: ScopeId, path: &[String], name: String) -> (Node, Kind) {
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
                format!("a text in an expression keeps its own quotes: \"'{name}'\"; a literal to be set belongs under `const`")
            })
        });
        self.wrong(ast, "unknown-name", format!("`{name}` is not a name that expressions can read"), help)
    }

    fn presence(&mut self, ast: &IdedExpr, select: &SelectExpr) -> Compiled {
        let operand = SelectExpr { test: false, ..select.clone() };
        let inner = IdedExpr { id: ast.id, expr: Ast::Select(operand) };
        self.presence_of(ast, &inner)
    }

    fn presence_of(&mut self, ast: &IdedExpr, path: &IdedExpr) -> Compiled {
        match self.path(path)?.0 {
            Node::Path { scope, slot, .. } => Ok((Node::Has { scope, slot }, Kind::Bool)),
            Node::Header { name, .. } => Ok((Node::HasHeader(name), Kind::Bool)),
            _ => Err(self.wrong(ast, "bad-expression", "has() asks for a field of data, headers or an element", None)),
        }
    }

    fn call(&mut self, ast: &IdedExpr, call: &CallExpr) -> Compiled {
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
    fn of_kind(&mut self, ast: &IdedExpr, wanted: Kind) -> Result<Box<Node>, Misread> {
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
