//! A deserializer over [`Node`] that does not stop at the first mistake.
//!
//! Whatever is wrong with a node is told to the sink with its place; a harmless stand-in is handed on, so that the
//! whole file is looked at in one go. The structs it fills therefore give every field a default.

use std::fmt;

use serde::de::value::U64Deserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::diagnostic::{Sink, suggest};
use super::traps;
use super::yaml::{Kind, Node};

/// Names that the types in [`super::shape`] hand to `deserialize_newtype_struct` to ask for more than serde's model has.
pub const LOCATED: &str = "$located";
pub const MANY: &str = "$many";
pub const SHORT: &str = "$short";
pub const JSON: &str = "$json";

#[derive(Clone, Copy)]
pub struct Recovering<'a> {
    pub node: &'a Node,
    pub sink: &'a Sink,
}

/// Only for programming errors: what is wrong with a file goes to the sink.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error(message.to_string())
    }
}

impl<'a> Recovering<'a> {
    fn at(self, node: &'a Node) -> Recovering<'a> {
        Recovering { node, ..self }
    }

    fn wrong(&self, expected: &str) {
        self.sink.error(
            "wrong-shape",
            &self.node.span,
            format!("{expected} is needed here, this is {}", self.node.describe()),
            None,
        );
    }

    fn scalar(&self, expected: &str) -> &'a str {
        match &self.node.kind {
            Kind::Scalar { .. } if self.node.is_null() => "",
            Kind::Scalar { text, .. } => text,
            _ => {
                self.wrong(expected);
                ""
            }
        }
    }

    fn entries(&self) -> &'a [(Node, Node)] {
        match &self.node.kind {
            Kind::Map(entries) => entries,
            _ => {
                if !self.node.is_null() {
                    self.wrong("a map");
                }
                &[]
            }
        }
    }

    /// The entries without those that a flow map has split at a comma; these are told.
    fn whole_entries(&self) -> Vec<&'a (Node, Node)> {
        let entries = self.entries();
        let mut kept = Vec::with_capacity(entries.len());
        let mut swallowed = false;
        for (at, entry) in entries.iter().enumerate() {
            if let Some(line) = traps::split_call(entries, at) {
                let help = Some(format!("quote it: {line}"));
                self.sink.error("yaml-trap", &entry.1.span, "YAML splits this at the comma", help);
                swallowed = true;
            } else if !swallowed || !entry.1.is_null() {
                kept.push(entry);
            }
        }
        kept
    }

    /// The entries whose keys are among the known ones; the others are told.
    fn known_entries(&self, known: &'static [&'static str]) -> Vec<&'a (Node, Node)> {
        let mut kept = Vec::new();
        for entry in self.whole_entries() {
            match &entry.0.kind {
                Kind::Scalar { text, .. } if known.contains(&text.as_str()) => kept.push(entry),
                Kind::Scalar { text, .. } => {
                    let help = suggest(text, known.iter().copied())
                        .unwrap_or_else(|| format!("known here: {}", known.join(", ")));
                    self.sink.error("unknown-key", &entry.0.span, format!("`{text}` means nothing here"), Some(help));
                }
                _ => self.at(&entry.0).wrong("a name"),
            }
        }
        kept
    }

    fn number<T: std::str::FromStr + Default>(&self, expected: &str) -> T {
        let text = self.scalar(expected);
        text.replace('_', "").parse().unwrap_or_else(|_| {
            self.sink.error("wrong-shape", &self.node.span, format!("`{text}` is not {expected}"), None);
            T::default()
        })
    }
}

impl<'de> de::Deserializer<'de> for Recovering<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.kind {
            Kind::Scalar { text, .. } => visitor.visit_borrowed_str(text),
            Kind::Map(_) => self.deserialize_map(visitor),
            Kind::Seq(_) => self.deserialize_seq(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.scalar("true or false");
        if !matches!(text, "true" | "false") && matches!(self.node.kind, Kind::Scalar { .. }) {
            self.sink.error("wrong-shape", &self.node.span, format!("`{text}` is neither true nor false"), None);
        }
        visitor.visit_bool(text == "true")
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.number("a whole number"))
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u32(self.number("a whole number"))
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u16(self.number("a whole number"))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Some(meant) = traps::tagged_expression(self.node) {
            let help = Some(format!("YAML takes the `!` for a tag; quote the expression: \"{meant}\""));
            // An empty node stands where the next one begins; the tag is before it.
            let tag = self.node.tag.as_deref().unwrap_or_default();
            let at = self.sink.file.text[..self.node.span.start].rfind(tag);
            let span = at.map_or(self.node.span.clone(), |at| at..at + meant.len());
            self.sink.error("yaml-trap", &span, "a leading `!` does not reach us", help);
            // What is told once is not told again as an expression that is missing.
            return visitor.visit_borrowed_str("true");
        }
        visitor.visit_borrowed_str(self.scalar("a single value"))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() && self.node.tag.is_none() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        match name {
            LOCATED => {
                let quoted = matches!(self.node.kind, Kind::Scalar { quoted: true, .. });
                let marks = [self.node.span.start as u64, self.node.span.end as u64, u64::from(quoted)];
                visitor.visit_seq(Located { marks, at: 0, inner: self })
            }
            MANY => match &self.node.kind {
                Kind::Seq(items) => visitor.visit_seq(Items { items: items.iter(), inner: self }),
                _ if self.node.is_null() => visitor.visit_seq(Items { items: [].iter(), inner: self }),
                _ => visitor.visit_seq(Items { items: std::slice::from_ref(self.node).iter(), inner: self }),
            },
            SHORT => match &self.node.kind {
                Kind::Scalar { .. } => {
                    visitor.visit_seq(Items { items: std::slice::from_ref(self.node).iter(), inner: self })
                }
                _ => visitor.visit_newtype_struct(self),
            },
            JSON => visitor.visit_str(&self.node.to_json()),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.kind {
            Kind::Seq(items) => visitor.visit_seq(Items { items: items.iter(), inner: self }),
            _ => {
                if !self.node.is_null() {
                    self.wrong("a list");
                }
                visitor.visit_seq(Items { items: [].iter(), inner: self })
            }
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let kept = self.whole_entries();
        visitor.visit_map(Entries { entries: kept.into_iter(), value: None, inner: self })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let entries = self.known_entries(fields);
        visitor.visit_map(Entries { entries: entries.into_iter(), value: None, inner: self })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let text = self.scalar("a single word");
        let known = variants.iter().find(|variant| **variant == text);
        if known.is_none() && matches!(self.node.kind, Kind::Scalar { .. }) {
            let help = suggest(text, variants.iter().copied());
            let message = format!("`{text}` is none of {}", variants.join(", "));
            self.sink.error("unknown-word", &self.node.span, message, help);
        }
        let variant: &'static str = known.copied().unwrap_or(variants[0]);
        visitor.visit_enum(IntoDeserializer::<Error>::into_deserializer(variant))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.scalar("a name"))
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct ignored_any
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    inner: Recovering<'a>,
}

impl<'a> de::SeqAccess<'a> for Items<'a> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.items.next().map(|node| seed.deserialize(self.inner.at(node))).transpose()
    }
}

struct Entries<'a> {
    entries: std::vec::IntoIter<&'a (Node, Node)>,
    value: Option<&'a Node>,
    inner: Recovering<'a>,
}

impl<'a> de::MapAccess<'a> for Entries<'a> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(self.inner.at(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let value = self.value.take().ok_or_else(|| Error("a value was asked for before its key".into()))?;
        seed.deserialize(self.inner.at(value))
    }
}

/// Start, end, quoted, then the value itself.
struct Located<'a> {
    marks: [u64; 3],
    at: usize,
    inner: Recovering<'a>,
}

impl<'a> de::SeqAccess<'a> for Located<'a> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let at = self.at;
        self.at += 1;
        match self.marks.get(at) {
            Some(mark) => seed.deserialize(U64Deserializer::<Error>::new(*mark)).map(Some),
            None if at == self.marks.len() => seed.deserialize(self.inner).map(Some),
            None => Ok(None),
        }
    }
}
