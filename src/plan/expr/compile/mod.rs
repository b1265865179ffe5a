//! From text to typed nodes. CEL's own parser reads the syntax; names, functions and kinds are checked here.

mod calls;
mod names;

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
    /// Bare names are the row's columns: what a rollup says of another table's rows.
    pub bare: bool,
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
}
