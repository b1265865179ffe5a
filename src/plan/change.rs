//! What is different in a definition, and what that takes.

use serde_json::{Map, Value};

/// One difference between two definitions.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Where it is: the words that lead there.
    pub path: Vec<String>,
    /// What was there; `None` if nothing was.
    pub old: Option<Value>,
    pub new: Option<Value>,
}

/// What it takes to make the rows and views those of the new definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// No row is another: views, comments and indexes are.
    InPlace,
    /// Past events make other rows.
    Rebuild,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.join(".");
        match (&self.old, &self.new) {
            (None, Some(new)) => write!(f, "+ {path}: {new}"),
            (Some(old), None) => write!(f, "- {path}: {old}"),
            (Some(old), Some(new)) => write!(f, "~ {path}: {old} -> {new}"),
            (None, None) => write!(f, "{path}"),
        }
    }
}

/// The differences between two definitions as [`super::Plan::definition`] has them.
pub fn changes(old: &str, new: &str) -> Vec<Change> {
    let mut found = Vec::new();
    compare(&mut Vec::new(), &value_of(old), &value_of(new), &mut found);
    found
}

fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// Whether what both have stands in the same order: bits and slots of rows are given out by it.
fn same_order(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let common = before.keys().filter(|name| after.contains_key(*name));
            common.clone().eq(after.keys().filter(|name| before.contains_key(*name)))
                && common.into_iter().all(|name| same_order(&before[name], &after[name]))
        }
        (Value::Array(before), Value::Array(after)) => before.iter().zip(after).all(|(old, new)| same_order(old, new)),
        _ => true,
    }
}

fn compare(path: &mut Vec<String>, old: &Value, new: &Value, found: &mut Vec<Change>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(before), Value::Object(after)) => {
            let missing = |entries: &Map<String, Value>, name: &str| !entries.contains_key(name);
            for (name, value) in before {
                path.push(name.clone());
                match after.get(name) {
                    Some(other) => compare(path, value, other, found),
                    None => found.push(Change { path: path.clone(), old: Some(value.clone()), new: None }),
                }
                path.pop();
            }
            for (name, value) in after.iter().filter(|(name, _)| missing(before, name)) {
                path.push(name.clone());
                found.push(Change { path: path.clone(), old: None, new: Some(value.clone()) });
                path.pop();
            }
        }
        // The parts of what is built as one, by their names.
        (Value::Array(before), Value::Array(after)) if path.is_empty() => {
            compare(path, &by_name(before), &by_name(after), found);
        }
        _ => found.push(Change { path: path.clone(), old: Some(old.clone()), new: Some(new.clone()) }),
    }
}

fn by_name(parts: &[Value]) -> Value {
    let named = parts.iter().map(|part| (part["projection"].as_str().unwrap_or_default().to_string(), part.clone()));
    Value::Object(named.collect())
}

/// What it takes to get from one definition to another.
pub fn need(old: &str, new: &str) -> Need {
    let changes = changes(old, new);
    let is_alone = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object());
    // A projection that begins to share a file, or ends to, is another one.
    let same_form = is_alone(old) == is_alone(new);
    match changes.as_slice() {
        [] => Need::Nothing,
        changes
            if same_form
                && same_order(&value_of(old), &value_of(new))
                && changes.iter().all(|change| in_place(change, old, new, is_alone(old))) =>
        {
            Need::InPlace
        }
        _ => Need::Rebuild,
    }
}

/// Whether no row is another for it: it is worked out when readers look.
fn in_place(change: &Change, old: &str, new: &str, alone: bool) -> bool {
    let path: Vec<&str> = change.path.iter().map(String::as_str).collect();
    let in_part = if alone { path.as_slice() } else { path.get(1..).unwrap_or_default() };
    let in_table = match in_part {
        ["tables", _, rest @ ..] => rest,
        rest => rest,
    };
    match in_table {
        ["description" | "sql"] => in_table.len() == in_part.len(),
        ["indexes" | "show", ..] => true,
        ["flags", ..] => {
            !handlers_read_rows(change, in_table.len(), old) && !handlers_read_rows(change, in_table.len(), new)
        }
        ["columns", _, "description" | "hidden"] => true,
        ["columns", _, ..] => {
            // A column that is generated, before and after.
            let column = &change.path[..change.path.len() - (in_table.len() - 2)];
            let generated = |definition: &str| {
                let definition = value_of(definition);
                let root = if definition.is_array() { by_name(definition.as_array()?) } else { definition };
                let column = column.iter().try_fold(&root, |value, name| value.get(name))?;
                Some(column.get("generated").is_some())
            };
            let read = |definition| handlers_read_rows(change, in_table.len(), definition);
            generated(old) != Some(false) && generated(new) != Some(false) && !read(old) && !read(new)
        }
        _ => false,
    }
}

/// Whether handlers of the table that a change is in read its rows, and with them perhaps what is generated.
fn handlers_read_rows(change: &Change, in_table: usize, definition: &str) -> bool {
    let definition = value_of(definition);
    let root = definition.as_array().map_or(definition.clone(), |parts| by_name(parts));
    let table = change.path[..change.path.len() - in_table].iter().try_fold(&root, |value, name| value.get(name));
    table.and_then(|table| table.get("handlers")).is_some_and(|handlers| handlers.to_string().contains("row."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"projection":"a","columns":{"n":{"type":"bigint"},"g":{"type":"bool","generated":"row.n > 1"}},
        "handlers":{"s":{"A":{"add":{"n":"1"}}}}}"#;

    fn changed(from: &str, to: &str) -> Need {
        assert!(OLD.contains(from));
        need(OLD, &OLD.replace(from, to))
    }

    #[test]
    fn what_readers_work_out_needs_no_rebuild() {
        assert_eq!(need(OLD, OLD), Need::Nothing);
        assert_eq!(changed("row.n > 1", "row.n > 2"), Need::InPlace);
        assert_eq!(changed(r#""type":"bigint""#, r#""type":"bigint","description":"how many""#), Need::InPlace);
        assert_eq!(changed(r#","g":{"type":"bool","generated":"row.n > 1"}"#, ""), Need::InPlace);
        assert_eq!(
            changed(r#""projection":"a""#, r#""projection":"a","indexes":[["n"]],"show":"row.n > 0""#),
            Need::InPlace
        );
    }

    #[test]
    fn what_events_make_does() {
        assert_eq!(changed(r#""add":{"n":"1"}"#, r#""add":{"n":"2"}"#), Need::Rebuild);
        assert_eq!(changed("bigint", "integer"), Need::Rebuild);
        assert_eq!(changed(r#","generated":"row.n > 1""#, ""), Need::Rebuild);
        // Handlers may read what is generated.
        let reading = OLD.replace(r#""add":{"n":"1"}"#, r#""when":"row.g","add":{"n":"1"}"#);
        assert_eq!(need(&reading, &reading.replace("row.n > 1", "row.n > 2")), Need::Rebuild);
        // The order of sources is that of bits in the rows.
        let two = OLD.replace(r#""handlers":{"s""#, r#""handlers":{"r":{"B":{"create":true}},"s""#);
        let turned = r#"{"projection":"a","columns":{"n":{"type":"bigint"},"g":{"type":"bool","generated":"row.n > 1"}},
            "show":"row.n > 0","handlers":{"s":{"A":{"add":{"n":"1"}}},"r":{"B":{"create":true}}}}"#;
        assert_eq!(need(&two, turned), Need::Rebuild);
        // A column of that name is no description.
        assert_eq!(changed(r#""n":{"type""#, r#""description":{"type":"text"},"n":{"type""#), Need::Rebuild);
        assert_eq!(need(OLD, &format!("[{OLD}]")), Need::Rebuild);
    }
}
