//! Expressions: CEL's syntax, compiled once to typed nodes over path slots, with exact decimals and SQL's NULLs.
//!
//! The syntax is <https://github.com/google/cel-spec>; where the meaning differs (decimals, NULL) the reference in
//! docs/projections.md says so.

mod compile;
mod eval;
mod function;

pub use compile::{Compiler, Misread};
pub use eval::{Env, Failure};
pub use function::{FUNCTIONS, Function, LATER};

use super::types::Kind;
use crate::value::Value;

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Expr {
    pub(crate) node: Node,
    pub kind: Kind,
    /// The expression as written, for messages.
    pub text: String,
}

/// Which document a path is read from: the event's data, its key, or the element of a `for_each`.
pub type ScopeId = usize;
pub const DATA: ScopeId = 0;
pub const KEY: ScopeId = 1;
pub const FIRST_ELEMENT: ScopeId = 2;

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
