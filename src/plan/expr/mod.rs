//! Expressions: CEL's syntax, compiled once to typed nodes over path slots, with exact decimals and SQL's NULLs.
//!
//! The syntax is <https://github.com/google/cel-spec>; where the meaning differs (decimals, NULL) the reference in
//! docs/projections.md says so.

mod bind;
mod compile;
mod eval;
mod function;

use std::sync::Arc;

pub use compile::{Compiler, Misread, RowColumn};
pub use eval::{Env, Failure, RowView};
pub use function::{FUNCTIONS, Function, duration};

use super::types::Kind;
use crate::json_paths::Paths;
use crate::value::Value;

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Expr {
    pub(crate) node: Node,
    pub kind: Kind,
    /// The expression as written, for messages.
    pub text: String,
}

/// Which document a path is read from: the event's data, its key, the message that a `split` took it from, or the
/// element of a `for_each`.
pub type ScopeId = usize;
pub const DATA: ScopeId = 0;
pub const KEY: ScopeId = 1;
pub const MESSAGE: ScopeId = 2;
pub const FIRST_ELEMENT: ScopeId = 3;

#[derive(Debug, Clone)]
pub(crate) enum Node {
    Const(Value),
    Path {
        scope: ScopeId,
        slot: usize,
        name: String,
    },
    /// `opt(path)`: NULL when missing.
    Opt {
        scope: ScopeId,
        slot: usize,
    },
    Has {
        scope: ScopeId,
        slot: usize,
    },
    Meta(Meta),
    Header {
        name: String,
        required: bool,
    },
    HasHeader(String),
    Capture(String),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    If(Box<Node>, Box<Node>, Box<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    In(Box<Node>, Vec<Node>),
    Call(Function, Vec<Node>),
    Matches(Box<Node>, regex::Regex),
    /// The first group of the expression, or all of it where it has none; NULL when it does not match.
    Extract(Box<Node>, regex::Regex),
    /// Whether the condition holds for one (or, for every) element of a list.
    Elements(Box<Elements>),
    /// A column of the row as it was before the event.
    Row(RowRef),
    /// What could not be read of the event; an error only when it is needed.
    Fail(Failure),
}

#[derive(Debug, Clone)]
pub(crate) struct Elements {
    pub list: Node,
    pub every: bool,
    /// Where the condition finds the element, and what it reads of it.
    pub scope: ScopeId,
    pub paths: Arc<Paths>,
    pub condition: Node,
}

/// A column of the table, or one of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRef {
    pub of_key: bool,
    pub at: u16,
}

impl Node {
    /// The nodes right below this one.
    fn below(&self) -> Vec<&Node> {
        match self {
            Node::Not(a) | Node::Negate(a) | Node::Matches(a, _) | Node::Extract(a, _) => vec![a],
            Node::And(a, b) | Node::Or(a, b) | Node::Compare(_, a, b) | Node::Arithmetic(_, a, b) => vec![a, b],
            Node::If(a, b, c) => vec![a, b, c],
            Node::In(a, list) => std::iter::once(&**a).chain(list).collect(),
            Node::Call(_, arguments) => arguments.iter().collect(),
            Node::Elements(elements) => vec![&elements.list, &elements.condition],
            _ => Vec::new(),
        }
    }

    /// Whether any node of the tree is such a one.
    pub(crate) fn any(&self, test: &dyn Fn(&Node) -> bool) -> bool {
        test(self) || self.below().into_iter().any(|node| node.any(test))
    }

    /// The columns of the row that are read.
    pub(crate) fn row_columns(&self, found: &mut Vec<u16>) {
        let mut all = Vec::new();
        self.row_refs(&mut all);
        found.extend(all.iter().filter(|column| !column.of_key).map(|column| column.at));
    }

    /// The same, those of the key too.
    pub(crate) fn row_refs(&self, found: &mut Vec<RowRef>) {
        match self {
            Node::Row(column) => found.push(*column),
            node => node.below().into_iter().for_each(|node| node.row_refs(found)),
        }
    }
}

impl Expr {
    /// Whether the expression reads the row.
    pub fn reads_row(&self) -> bool {
        self.node.any(&|node| matches!(node, Node::Row(_)))
    }

    /// Whether a field that may be missing stands in arithmetic, whose result is NULL then.
    pub fn drops_out(&self) -> bool {
        let open = |node: &Node| matches!(node, Node::Opt { .. } | Node::Header { required: false, .. });
        self.node.any(&|node| matches!(node, Node::Arithmetic(..)) && node.below().into_iter().any(open))
    }

    /// Whether the expression reads the event's time, or the record's where the event has none.
    pub fn reads_time(&self) -> bool {
        self.node.any(&|node| matches!(node, Node::Meta(Meta::Time)))
    }

    /// The first part of it that Postgres cannot work out with the same meaning.
    pub fn not_in_sql(&self) -> Option<String> {
        let found = std::cell::RefCell::new(None);
        self.node.any(&|node| {
            let word = match node {
                Node::Matches(..) => Some("matches"),
                Node::Extract(..) => Some("extract"),
                Node::Elements(_) => Some("exists"),
                Node::Call(function, _) if !function.is_in_sql() => Some(function.name()),
                _ => None,
            };
            *found.borrow_mut() = word.map(String::from);
            word.is_some()
        });
        found.into_inner()
    }

    /// The event's time and so many microseconds more.
    pub fn time_plus(micros: i64) -> Expr {
        let (time, more) = (Node::Meta(Meta::Time), Node::Const(Value::Duration(micros)));
        let node = Node::Arithmetic(Arithmetic::Add, Box::new(time), Box::new(more));
        Expr { node, kind: Kind::Time, text: "time".into() }
    }

    pub fn constant(value: Value) -> Expr {
        Expr { text: value.to_json_text(), node: Node::Const(value), kind: Kind::Any }
    }
}

/// What an event says about itself and where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meta {
    Type,
    Id,
    Subject,
    Time,
    RecordKey,
    /// The key as lower-case hexadecimal text.
    RecordKeyBytes,
    RecordTopic,
    RecordPartition,
    RecordOffset,
    RecordTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[cfg(test)]
mod tests;
