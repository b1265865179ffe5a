//! The four places where YAML swallows part of an expression, recognised and spelt out as they should be.

use super::yaml::{Kind, Node};

/// Help for a YAML syntax error, when it is one of the known traps: a conditional written without quotes.
pub fn syntax_help(text: &str, at: usize) -> Option<String> {
    let at = text.floor_char_boundary(at.min(text.len()));
    let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let line = text[start..].lines().next()?;
    let (name, expression) = line.trim_start().split_once(": ")?;
    let conditional = expression.contains(" ? ") && expression.contains(" : ");
    conditional.then(|| format!("YAML takes the `:` for itself; quote the whole expression: {name}: \"{expression}\""))
}

/// An unclosed bracket in the value and its closing half as the next key: a flow map was split at a comma.
/// Returns the line as it should be.
pub fn split_call(entries: &[(Node, Node)], at: usize) -> Option<String> {
    let scalar = |node: &Node| match &node.kind {
        Kind::Scalar { text, .. } => Some(text.clone()),
        _ => None,
    };
    let name = scalar(&entries[at].0)?;
    let mut whole = scalar(&entries[at].1)?;
    if balance(&whole) <= 0 {
        return None;
    }
    for (key, value) in &entries[at + 1..] {
        if balance(&whole) <= 0 {
            break;
        }
        if !value.is_null() {
            return None;
        }
        whole = format!("{whole}, {}", scalar(key)?);
    }
    (balance(&whole) == 0).then(|| format!("{name}: \"{whole}\""))
}

/// How many brackets are left open.
pub fn balance(text: &str) -> i32 {
    text.chars()
        .map(|c| match c {
            '(' | '[' => 1,
            ')' | ']' => -1,
            _ => 0,
        })
        .sum()
}

/// `when: !has(x)` is read as a tag on nothing; this is the expression that was meant.
pub fn tagged_expression(node: &Node) -> Option<String> {
    let tag = node.tag.as_ref()?;
    let rest = match &node.kind {
        Kind::Scalar { text, .. } => text.as_str(),
        _ => "",
    };
    let separator = if rest.is_empty() { "" } else { " " };
    tag.starts_with('!').then(|| format!("{tag}{separator}{rest}"))
}
