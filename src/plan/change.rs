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
    compare(&mut Vec::new(), &read(old), &read(new), &mut found);
    found
}

/// A definition; of what is built as one, its parts by their names.
fn read(text: &str) -> Value {
    match serde_json::from_str(text).unwrap_or(Value::Null) {
        Value::Array(parts) => {
            let name = |part: &Value| part["projection"].as_str().unwrap_or_default().to_string();
            Value::Object(parts.into_iter().map(|part| (name(&part), part)).collect())
        }
        alone => alone,
    }
}

/// Whether a definition is of a projection by itself.
fn is_alone(definition: &Value) -> bool {
    definition.get("projection").is_some_and(Value::is_string)
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
        _ => found.push(Change { path: path.clone(), old: Some(old.clone()), new: Some(new.clone()) }),
    }
}

/// What it takes to get from one definition to another.
pub fn need(old: &str, new: &str) -> Need {
    let (old, new) = (read(old), read(new));
    let mut changes = Vec::new();
    compare(&mut Vec::new(), &old, &new, &mut changes);
    // A projection that begins to share a file, or ends to, is another one.
    let same_form = is_alone(&old) == is_alone(&new) && same_order(&old, &new);
    match changes.as_slice() {
        [] => Need::Nothing,
        changes if same_form && changes.iter().all(|change| in_place(change, &old, &new)) => Need::InPlace,
        _ => Need::Rebuild,
    }
}

/// Whether no row is another for it: it is worked out when readers look.
fn in_place(change: &Change, old: &Value, new: &Value) -> bool {
    let path: Vec<&str> = change.path.iter().map(String::as_str).collect();
    let in_part = if is_alone(old) { path.as_slice() } else { path.get(1..).unwrap_or_default() };
    let in_table = match in_part {
        ["tables", _, rest @ ..] => rest,
        rest => rest,
    };
    let table = &path[..path.len() - in_table.len()];
    let unread = || !handlers_read_rows(old, table) && !handlers_read_rows(new, table);
    match in_table {
        ["description" | "sql"] => in_table.len() == in_part.len(),
        ["indexes" | "show", ..] => true,
        ["flags", ..] => unread(),
        ["columns", _, "description" | "hidden"] => true,
        ["columns", _, ..] => {
            // A column that is generated, before and after, or was not or is not there.
            let column = &path[..table.len() + 2];
            let generated = |definition| at(definition, column).is_none_or(|column| column.get("generated").is_some());
            generated(old) && generated(new) && unread()
        }
        _ => false,
    }
}

fn at<'d>(definition: &'d Value, path: &[&str]) -> Option<&'d Value> {
    path.iter().try_fold(definition, |value, name| value.get(name))
}

/// Whether handlers of a table read its rows, and with them perhaps what is generated.
fn handlers_read_rows(definition: &Value, table: &[&str]) -> bool {
    let handlers = at(definition, table).and_then(|table| table.get("handlers"));
    handlers.is_some_and(|handlers| handlers.to_string().contains("row."))
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
