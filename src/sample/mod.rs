//! What a sample of messages looks like: the event types, their fields, the kinds of values, what is missing how often.
//! No I/O.

mod field;
mod write;

use indexmap::IndexMap;

use crate::value::json::{Tree, quoted};
use field::Field;

pub use write::{projection, table};

/// A message as it was read from a topic or a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub topic: Option<String>,
    pub key: Option<String>,
    /// Nothing: a tombstone.
    pub payload: Option<String>,
    pub headers: Vec<(String, String)>,
    /// Line of the file, or the place in the topic, for messages.
    pub line: usize,
}

/// Reads a file of messages, one a line: a payload, or `{"topic": …, "key": …, "value": …}` around it.
///
/// # Errors
/// The line that is no JSON.
pub fn messages(text: &str) -> Result<Vec<Message>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_str::<serde::de::IgnoredAny>(line)
                .map_err(|e| format!("line {}: no JSON: {e}", at + 1))?;
            let tree = Tree::parse(line).map_err(|e| format!("line {}: {e}", at + 1))?;
            let text = |name: &str| tree.get(name).and_then(|tree| field::string(&tree.to_text()));
            let around = match &tree {
                Tree::Object(members) => {
                    let known = |name: &str| matches!(name, "topic" | "key" | "value");
                    members.iter().all(|(name, _)| known(name))
                        && (tree.get("key").is_some() || tree.get("topic").is_some())
                }
                Tree::Leaf(_) => false,
            };
            let payload = match around {
                true => tree.get("value").map(Tree::to_text).filter(|value| value != "null"),
                false => Some(line.to_string()),
            };
            let (topic, key) = if around { (text("topic"), text("key")) } else { (None, None) };
            Ok(Message { topic, key, payload, headers: Vec::new(), line: at + 1 })
        })
        .collect()
}

/// What the messages of one topic have in common.
#[derive(Debug, Default)]
pub struct Sample {
    pub messages: usize,
    /// Messages that are no JSON object, and tombstones.
    pub unreadable: usize,
    pub cloud_events: bool,
    /// Where plain JSON says its type: an expression.
    pub type_from: Option<String>,
    /// What all types begin with.
    pub type_prefix: String,
    /// The field that equals the record key.
    pub key_field: Option<String>,
    pub types: IndexMap<String, TypeSample>,
}

#[derive(Debug, Default)]
pub struct TypeSample {
    pub events: usize,
    /// By path below `data`.
    pub fields: IndexMap<String, Field>,
    /// The first message of the type.
    pub example: Option<Message>,
}

/// Fields in which plain JSON often says its type.
const TYPE_FIELDS: &[&str] = &["type", "eventType", "event_type", "event", "eventName", "kind", "action", "op"];
/// More types than this are no types.
const MOST_TYPES: usize = 40;

impl Sample {
    pub fn of(messages: &[Message]) -> Sample {
        let mut sample = Sample { messages: messages.len(), ..Sample::default() };
        let trees: Vec<(&Message, Tree)> = messages
            .iter()
            .filter_map(|message| Some((message, Tree::parse(message.payload.as_ref()?).ok()?)))
            .filter(|(_, tree)| matches!(tree, Tree::Object(_)))
            .collect();
        sample.unreadable = messages.len() - trees.len();
        let is_cloud_event = |tree: &Tree| tree.get("specversion").is_some() && tree.get("type").is_some();
        sample.cloud_events = !trees.is_empty() && trees.iter().all(|(_, tree)| is_cloud_event(tree));
        if !sample.cloud_events {
            sample.type_from = Some(type_from(&trees));
        }
        for (message, tree) in &trees {
            let type_ = sample.type_of(tree);
            let data = if sample.cloud_events { tree.get("data") } else { Some(tree) };
            let of_type = sample.types.entry(type_).or_default();
            of_type.events += 1;
            of_type.example.get_or_insert_with(|| (*message).clone());
            if let Some(data) = data {
                walk(data, &mut Vec::new(), &mut |path, leaf| {
                    of_type.fields.entry(path.join(".")).or_default().see(leaf);
                });
            }
        }
        sample.key_field = sample.key_field(&trees);
        sample.type_prefix = common_prefix(sample.types.keys());
        sample
    }

    fn type_of(&self, tree: &Tree) -> String {
        let field = match &self.type_from {
            None => "type",
            Some(expr) => expr.strip_prefix("data.").unwrap_or(""),
        };
        tree.get(field).and_then(|tree| field::string(&tree.to_text())).unwrap_or_else(|| "Changed".into())
    }

    /// The field whose value is the record key in every message that has one; else one that looks like an id.
    fn key_field(&self, trees: &[(&Message, Tree)]) -> Option<String> {
        let everywhere = |path: &&String| self.types.values().all(|of_type| of_type.fields.contains_key(*path));
        let candidates: Vec<&String> = self.types.values().flat_map(|t| t.fields.keys()).filter(everywhere).collect();
        let keyed: Vec<&(&Message, Tree)> = trees.iter().filter(|(message, _)| message.key.is_some()).collect();
        let value_of = |tree: &Tree, path: &str| {
            let data = if self.cloud_events { tree.get("data") } else { Some(tree) };
            path.split('.').try_fold(data?, |tree, name| tree.get(name)).map(Tree::to_text)
        };
        let equals_key = |path: &&&String| {
            !keyed.is_empty()
                && keyed.iter().all(|(message, tree)| {
                    value_of(tree, path).and_then(|text| field::string(&text).or(Some(text))) == message.key
                })
        };
        let looks_like_one = |path: &&&String| {
            let name = path.rsplit('.').next().unwrap_or(path);
            name == "id" || name.ends_with("_id") || name.ends_with("Id")
        };
        // What is another in every message is the id of the event, not of what it is about.
        let repeats = |path: &&&String| {
            let values: Vec<Option<String>> = trees.iter().map(|(_, tree)| value_of(tree, path)).collect();
            let distinct: std::collections::HashSet<&Option<String>> = values.iter().collect();
            distinct.len() < values.len()
        };
        let like_one = || candidates.iter().filter(looks_like_one);
        candidates
            .iter()
            .find(equals_key)
            .or_else(|| candidates.iter().find(|path| path.as_str() == "id"))
            .or_else(|| like_one().find(repeats))
            .or_else(|| like_one().next())
            .map(|path| path.to_string())
    }

    /// The type without what all of them begin with.
    pub fn short<'t>(&self, type_: &'t str) -> &'t str {
        type_.strip_prefix(&self.type_prefix).unwrap_or(type_)
    }
}

fn type_from(trees: &[(&Message, Tree)]) -> String {
    let values = |name: &str| -> Option<std::collections::BTreeSet<String>> {
        trees.iter().map(|(_, tree)| field::string(&tree.get(name)?.to_text())).collect()
    };
    let is_type = |name: &&&str| {
        values(name).is_some_and(|values| !values.is_empty() && values.len() <= MOST_TYPES.min(trees.len()))
    };
    match TYPE_FIELDS.iter().find(is_type) {
        Some(name) => format!("data.{name}"),
        None => "'Changed'".into(),
    }
}

/// Every field that is no object, with its path.
fn walk(tree: &Tree, path: &mut Vec<String>, see: &mut dyn FnMut(&[String], &str)) {
    const DEEPEST: usize = 4;
    match tree {
        Tree::Object(members) if !members.is_empty() && path.len() < DEEPEST => {
            for (name, member) in members {
                path.push(name.clone());
                walk(member, path, see);
                path.pop();
            }
        }
        leaf => see(path, &leaf.to_text()),
    }
}

/// What all types begin with, up to a dot or a slash; of a single one, the part before its last word.
fn common_prefix<'t>(mut types: impl Iterator<Item = &'t String>) -> String {
    let Some(first) = types.next() else { return String::new() };
    let mut prefix = first.as_str();
    for type_ in types {
        let same = prefix.bytes().zip(type_.bytes()).take_while(|(a, b)| a == b).count();
        prefix = &prefix[..prefix.floor_char_boundary(same)];
    }
    let end = prefix.rfind(['.', '/']).map_or(0, |at| at + 1);
    prefix[..end].to_string()
}

/// A text for YAML's flow style, quoted where it has to be.
fn yaml_text(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if plain { text.to_string() } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_keys_and_prefixes_are_found() {
        let text = r#"
{"key":"o1","value":{"specversion":"1.0","id":"1","source":"/s","type":"com.acme.Placed","data":{"order":{"id":"o1"},"total":12.50,"at":"2026-01-01T00:00:00Z"}}}
{"key":"o1","value":{"specversion":"1.0","id":"2","source":"/s","type":"com.acme.Cancelled","data":{"order":{"id":"o1"},"why":null}}}
"#;
        let sample = Sample::of(&messages(text).unwrap());
        assert!(sample.cloud_events);
        assert_eq!(sample.type_prefix, "com.acme.");
        assert_eq!(sample.key_field.as_deref(), Some("order.id"));
        assert_eq!(sample.types["com.acme.Placed"].fields["total"].column_type(), "numeric");
        assert_eq!(sample.types["com.acme.Placed"].fields["at"].column_type(), "timestamptz");
    }

    #[test]
    fn tombstones_are_no_payloads() {
        let text = "{\"topic\":\"t\",\"key\":\"a\",\"value\":null}\n{\"topic\":\"t\",\"key\":\"a\"}\n{\"key\":\"a\",\"n\":1}\n";
        let payloads: Vec<Option<String>> =
            messages(text).unwrap().into_iter().map(|message| message.payload).collect();
        assert_eq!(payloads, [None, None, Some("{\"key\":\"a\",\"n\":1}".to_string())]);
    }

    #[test]
    fn the_id_of_the_event_is_not_the_key() {
        let text = "{\"orderRef_id\":\"A\",\"event_id\":\"e1\"}\n{\"event_id\":\"e2\",\"orderRef_id\":\"A\"}\n";
        assert_eq!(Sample::of(&messages(text).unwrap()).key_field.as_deref(), Some("orderRef_id"));
        let text = "{\"event_id\":\"e1\",\"orderRef_id\":\"A\"}\n{\"event_id\":\"e2\",\"orderRef_id\":\"A\"}\n";
        assert_eq!(Sample::of(&messages(text).unwrap()).key_field.as_deref(), Some("orderRef_id"));
    }

    #[test]
    fn plain_json_says_its_type_somewhere_or_nowhere() {
        let sample = Sample::of(&messages("{\"kind\":\"a\",\"id\":1}\n{\"kind\":\"b\",\"id\":2}\n").unwrap());
        assert_eq!(sample.type_from.as_deref(), Some("data.kind"));
        assert_eq!(sample.key_field.as_deref(), Some("id"));
        let sample = Sample::of(&messages("{\"n\":1}\n").unwrap());
        assert_eq!(sample.type_from.as_deref(), Some("'Changed'"));
        assert!(messages("{\"n\":").unwrap_err().contains("line 1"));
    }
}
