//! Working out all of an expression that the event decides, so that what is left reads the row alone.

use super::eval::{Env, eval};
use super::{Expr, Node};

impl Expr {
    /// The expression with everything of the event in it worked out. A field that is missing is an error only when the
    /// row needs it.
    pub fn bind(&self, env: &Env<'_, '_>) -> Expr {
        Expr { node: bind(&self.node, env), kind: self.kind, text: self.text.clone() }
    }
}

fn bind(node: &Node, env: &Env<'_, '_>) -> Node {
    if !node.any(&|node| matches!(node, Node::Row(_))) {
        return match eval(node, env) {
            Ok(value) => Node::Const(value),
            Err(failure) => Node::Fail(failure),
        };
    }
    let boxed = |node: &Node| Box::new(bind(node, env));
    let all = |nodes: &[Node]| nodes.iter().map(|node| bind(node, env)).collect();
    match node {
        Node::Not(a) => Node::Not(boxed(a)),
        Node::Negate(a) => Node::Negate(boxed(a)),
        Node::And(a, b) => Node::And(boxed(a), boxed(b)),
        Node::Or(a, b) => Node::Or(boxed(a), boxed(b)),
        Node::If(a, b, c) => Node::If(boxed(a), boxed(b), boxed(c)),
        Node::Compare(comparison, a, b) => Node::Compare(*comparison, boxed(a), boxed(b)),
        Node::Arithmetic(operator, a, b) => Node::Arithmetic(*operator, boxed(a), boxed(b)),
        Node::In(a, list) => Node::In(boxed(a), all(list)),
        Node::Call(function, arguments) => Node::Call(*function, all(arguments)),
        Node::Matches(a, regex) => Node::Matches(boxed(a), regex.clone()),
        Node::Extract(a, regex) => Node::Extract(boxed(a), regex.clone()),
        // The compiler lets no condition on elements read the row.
        leaf => leaf.clone(),
    }
}
