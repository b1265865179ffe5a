//! Merging into a JSON document, as RFC 7396 has it, in a form that composes.
//!
//! Two merge patches have no one patch that does what they do in a row: `{"a":1}` and then `{"a":{"b":2}}` makes a new
//! object at `a`, while `{"a":{"b":2}}` alone keeps what was in it. So a merge is kept as the list of what it does at
//! each path, in order; whatever a later entry overwrites is dropped. Under `latest` every entry has a version, the
//! entries are kept beside the document, and the document is what they make in the order of their versions: the same
//! whatever order they came in.

use serde_json::value::RawValue;

use crate::value::Value;
use crate::value::json::{Tree, quoted};
use crate::version::Version;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merge {
    /// In the order in which they take effect.
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    path: Vec<String>,
    version: Option<Version>,
    leaf: Leaf,
}

#[derive(Debug, Clone, PartialEq)]
enum Leaf {
    /// This JSON text stands there.
    Value(String),
    /// Nothing stands there.
    Nothing,
    /// An object stands there: the one that is, else an empty one.
    Object,
}

impl Merge {
    /// A merge patch.
    ///
    /// # Errors
    /// When it is no object.
    pub fn of_patch(patch: &Value, version: Option<Version>) -> Result<Merge, String> {
        let Value::Json(text) = patch else { return Err(format!("an object is merged, this is {}", patch.kind())) };
        let tree = Tree::parse(text)?;
        if matches!(tree, Tree::Leaf(_)) {
            return Err(format!("an object is merged, this is {}", patch.kind()));
        }
        let mut merge = Merge::default();
        merge.flatten(&tree, &mut Vec::new(), &version);
        Ok(merge)
    }

    /// The whole document set; NULL leaves none.
    pub fn of_value(value: &Value, version: Option<Version>) -> Merge {
        let leaf = match value {
            Value::Null => Leaf::Nothing,
            value => Leaf::Value(value.to_json_text()),
        };
        Merge { entries: vec![Entry { path: Vec::new(), version, leaf }] }
    }

    fn flatten(&mut self, tree: &Tree, path: &mut Vec<String>, version: &Option<Version>) {
        let leaf = match tree {
            Tree::Leaf(text) if text == "null" => Leaf::Nothing,
            Tree::Leaf(text) => Leaf::Value(text.clone()),
            Tree::Object(_) => Leaf::Object,
        };
        self.entries.push(Entry { path: path.clone(), version: version.clone(), leaf });
        if let Tree::Object(members) = tree {
            for (name, member) in members {
                path.push(name.clone());
                self.flatten(member, path, version);
                path.pop();
            }
        }
    }

    /// Both, this one first; with versions, in the order of the versions.
    pub fn then(mut self, next: Merge) -> Merge {
        self.entries.extend(next.entries);
        self.entries.sort_by(|a, b| a.version.cmp(&b.version));
        let mut kept: Vec<Entry> = Vec::with_capacity(self.entries.len());
        for entry in self.entries.into_iter().rev() {
            if !kept.iter().any(|later| later.overwrites(&entry)) {
                kept.push(entry);
            }
        }
        kept.reverse();
        Merge { entries: kept }
    }

    /// What the document is afterwards.
    ///
    /// # Errors
    /// When what stands there is no JSON.
    pub fn apply(&self, document: &Value) -> Result<Value, String> {
        let mut tree = match document {
            Value::Null => None,
            value => Some(Tree::parse(&value.to_json_text())?),
        };
        for entry in &self.entries {
            entry.apply(&entry.path, &mut tree)?;
        }
        Ok(tree.map_or(Value::Null, |tree| Value::Json(tree.to_text().into())))
    }

    /// The entries as JSON, to be kept beside the document.
    pub fn to_value(&self) -> Value {
        let entries: Vec<String> = self
            .entries
            .iter()
            .map(|entry| {
                let path: Vec<String> = entry.path.iter().map(|name| quoted(name)).collect();
                let version = entry.version.as_ref().map(|v| hex::encode(v.as_bytes())).unwrap_or_default();
                let leaf = match &entry.leaf {
                    Leaf::Value(text) => format!("{{\"value\":{text}}}"),
                    Leaf::Nothing => "\"nothing\"".into(),
                    Leaf::Object => "\"object\"".into(),
                };
                format!("[[{}],\"{version}\",{leaf}]", path.join(","))
            })
            .collect();
        Value::Json(format!("[{}]", entries.join(",")).into())
    }

    /// Reads what [`Merge::to_value`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_value(value: &Value) -> Result<Merge, String> {
        let Value::Json(text) = value else { return Ok(Merge::default()) };
        let wrong = |error: &dyn std::fmt::Display| format!("the versions of a document are unreadable: {error}");
        let entries: Vec<(Vec<String>, String, &RawValue)> = serde_json::from_str(text).map_err(|e| wrong(&e))?;
        let entry = |(path, version, leaf): (Vec<String>, String, &RawValue)| {
            let leaf = match Tree::parse(leaf.get())? {
                Tree::Leaf(text) if text == "\"nothing\"" => Leaf::Nothing,
                Tree::Leaf(_) => Leaf::Object,
                object => Leaf::Value(object.get("value").map(Tree::to_text).unwrap_or_default()),
            };
            let bytes = hex::decode(&version).map_err(|e| wrong(&e))?;
            Ok(Entry { path, version: Some(Version::from_bytes(&bytes)), leaf })
        };
        Ok(Merge { entries: entries.into_iter().map(entry).collect::<Result<_, String>>()? })
    }

    pub fn heap_bytes(&self) -> usize {
        let entry = |entry: &Entry| {
            let value = if let Leaf::Value(text) = &entry.leaf { text.len() } else { 0 };
            size_of::<Entry>() + value + entry.path.iter().map(|name| name.len() + 24).sum::<usize>()
        };
        self.entries.iter().map(entry).sum()
    }
}

impl Entry {
    /// Whether nothing is left of an earlier entry after this one.
    fn overwrites(&self, earlier: &Entry) -> bool {
        match self.leaf {
            Leaf::Object => self.path == earlier.path && earlier.leaf == Leaf::Object,
            _ => earlier.path.starts_with(&self.path),
        }
    }

    fn apply(&self, path: &[String], tree: &mut Option<Tree>) -> Result<(), String> {
        let Some((first, rest)) = path.split_first() else {
            match &self.leaf {
                Leaf::Value(text) => *tree = Some(Tree::parse(text)?),
                Leaf::Nothing => *tree = None,
                Leaf::Object if matches!(tree, Some(Tree::Object(_))) => {}
                Leaf::Object => *tree = Some(Tree::empty()),
            }
            return Ok(());
        };
        if !matches!(tree, Some(Tree::Object(_))) {
            if self.leaf == Leaf::Nothing {
                return Ok(());
            }
            *tree = Some(Tree::empty());
        }
        let Some(Tree::Object(members)) = tree else { return Ok(()) };
        let at = members.iter().position(|(name, _)| name == first);
        let mut member = at.map(|at| std::mem::replace(&mut members[at].1, Tree::empty()));
        self.apply(rest, &mut member)?;
        match (at, member) {
            (Some(at), Some(member)) => members[at].1 = member,
            (Some(at), None) => drop(members.remove(at)),
            (None, Some(member)) => members.push((first.clone(), member)),
            (None, None) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::Json(text.into())
    }

    fn merged(document: &str, patches: &[&str]) -> String {
        let start = Merge::default();
        let merge = patches.iter().fold(start, |merge, patch| merge.then(Merge::of_patch(&json(patch), None).unwrap()));
        merge.apply(&json(document)).unwrap().to_json_text()
    }

    /// The examples of RFC 7396, appendix A, whose patch is an object.
    #[test]
    fn the_examples_of_the_rfc() {
        for (document, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r#"[1,2]"#, r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(merged(document, &[patch]), result, "{document} {patch}");
        }
    }

    #[test]
    fn two_in_a_row_are_not_one_merge_patch() {
        assert_eq!(merged(r#"{"a":{"c":3}}"#, &[r#"{"a":1}"#, r#"{"a":{"b":2}}"#]), r#"{"a":{"b":2}}"#);
        assert_eq!(merged(r#"{"a":{"c":3}}"#, &[r#"{"a":null}"#, r#"{"a":{"b":2}}"#]), r#"{"a":{"b":2}}"#);
        assert_eq!(merged(r#"{"a":{"c":3}}"#, &[r#"{"a":{"b":2}}"#, r#"{"a":{"b":null}}"#]), r#"{"a":{"c":3}}"#);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(Merge::of_patch(&json("[1]"), None).unwrap_err().contains("a list"));
        assert!(Merge::of_patch(&Value::Int(1), None).unwrap_err().contains("a number"));
    }

    #[test]
    fn entries_survive_being_written_down() {
        let version = Version::new(&[Value::Int(3)], "t", 0, 1, 0).unwrap();
        let merge = Merge::of_patch(&json(r#"{"a":{"b":1.50},"c":null,"d":{}}"#), Some(version)).unwrap();
        assert_eq!(Merge::from_value(&merge.to_value()), Ok(merge));
    }
}
