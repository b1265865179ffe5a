//! JSON texts as values, and as trees that can be merged and compared.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Value, canonical_number, parse_number, show};

/// A raw JSON text as a value; objects and arrays stay text.
///
/// # Errors
/// When a number is beyond any column or a string is not valid.
pub fn json_value(raw: &str) -> Result<Value, String> {
    match raw.as_bytes().first() {
        Some(b'"') => {
            let inner = &raw[1..raw.len() - 1];
            if !inner.contains('\\') {
                return Ok(Value::text(inner));
            }
            let text: String = serde_json::from_str(raw).map_err(|e| format!("{} is not a string: {e}", show(raw)))?;
            Ok(Value::text(&text))
        }
        Some(b'{' | b'[') => Ok(Value::Json(raw.into())),
        Some(b't') => Ok(Value::Bool(true)),
        Some(b'f') => Ok(Value::Bool(false)),
        Some(b'n') => Ok(Value::Null),
        _ => parse_number(raw).ok_or_else(|| format!("the number {} is beyond what a column can hold", show(raw))),
    }
}

/// The elements of a raw JSON array.
///
/// # Errors
/// When the text is no array, or an element is no value.
pub fn json_items(raw: &str) -> Result<Vec<Value>, String> {
    let items: Vec<&RawValue> =
        serde_json::from_str(raw).map_err(|_| format!("a list is needed, this is {}", show(raw)))?;
    items.into_iter().map(|item| json_value(item.get())).collect()
}

/// Whether Postgres' jsonb takes the text and keeps all of it: no NUL, no repeated key, bounded depth.
pub fn check_json(text: &str) -> Result<(), String> {
    serde_json::from_str::<Storable>(text).map(|_| ()).map_err(|e| format!("{} cannot be stored: {e}", show(text)))
}

struct Storable;

impl<'de> Deserialize<'de> for Storable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Storable, D::Error> {
        deserializer.deserialize_any(StorableVisitor)
    }
}

struct StorableVisitor;

impl<'de> Visitor<'de> for StorableVisitor {
    type Value = Storable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Storable, E> {
        Ok(Storable)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Storable, E> {
        Ok(Storable)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Storable, E> {
        Ok(Storable)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Storable, E> {
        Ok(Storable)
    }

    fn visit_unit<E>(self) -> Result<Storable, E> {
        Ok(Storable)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Storable, E> {
        if text.contains('\0') { Err(E::custom("a string has a NUL character")) } else { Ok(Storable) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Storable, A::Error> {
        while seq.next_element::<Storable>()?.is_some() {}
        Ok(Storable)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Storable, A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Storable>()?;
            if key.contains('\0') {
                return Err(de::Error::custom("a key has a NUL character"));
            }
            if seen.contains(&key) {
                return Err(de::Error::custom(format!("the key {} stands twice", show(&key))));
            }
            seen.insert(key);
        }
        Ok(Storable)
    }
}

/// A JSON document whose objects are taken apart; everything else keeps the text it arrived in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    Leaf(String),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    pub fn empty() -> Tree {
        Tree::Object(Vec::new())
    }

    /// Reads a text that is known to be JSON.
    ///
    /// # Errors
    /// When it is none after all.
    pub fn parse(text: &str) -> Result<Tree, String> {
        let text = text.trim();
        if !text.starts_with('{') {
            return Ok(Tree::Leaf(text.to_string()));
        }
        let members: Members<'_> =
            serde_json::from_str(text).map_err(|e| format!("{} is not an object: {e}", show(text)))?;
        let members: Result<Vec<(String, Tree)>, String> =
            members.0.into_iter().map(|(name, raw)| Ok((name, Tree::parse(raw.get())?))).collect();
        Ok(Tree::Object(members?))
    }

    pub fn to_text(&self) -> String {
        match self {
            Tree::Leaf(text) => text.clone(),
            Tree::Object(members) => {
                let members: Vec<String> =
                    members.iter().map(|(name, tree)| format!("{}:{}", quoted(name), tree.to_text())).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    pub fn get(&self, name: &str) -> Option<&Tree> {
        match self {
            Tree::Leaf(_) => None,
            Tree::Object(members) => members.iter().find(|(other, _)| other == name).map(|(_, tree)| tree),
        }
    }
}

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

/// One text for all that mean the same: no white space, keys sorted by bytes, numbers and strings spelt in one way.
///
/// # Errors
/// When the text is no JSON.
pub fn canonical(text: &str) -> Result<String, String> {
    Ok(match Tree::parse(text)? {
        Tree::Object(mut members) => {
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            let members: Result<Vec<String>, String> = members
                .iter()
                .map(|(name, tree)| Ok(format!("{}:{}", quoted(name), canonical(&tree.to_text())?)))
                .collect();
            format!("{{{}}}", members?.join(","))
        }
        Tree::Leaf(text) if text.starts_with('[') => {
            let items: Vec<&RawValue> =
                serde_json::from_str(&text).map_err(|e| format!("{} is not a list: {e}", show(&text)))?;
            let items: Result<Vec<String>, String> = items.iter().map(|item| canonical(item.get())).collect();
            format!("[{}]", items?.join(","))
        }
        Tree::Leaf(text) => canonical_number(json_value(&text)?).to_json_text(),
    })
}

/// Whether two JSON texts mean the same.
pub fn same(a: &str, b: &str) -> bool {
    matches!((canonical(a), canonical(b)), (Ok(a), Ok(b)) if a == b)
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'a>, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members: Vec<(String, &'de RawValue)> = Vec::new();
                while let Some((name, raw)) = map.next_entry::<String, &'de RawValue>()? {
                    members.retain(|(other, _)| *other != name);
                    members.push((name, raw));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}
