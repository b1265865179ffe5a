//! Answers as they are written: numbers with all their digits, and keys in their order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::asked::{Item, Level};
use super::relations::Relations;

pub enum Json {
    /// As it is written.
    Scalar(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// An object's keys, in their order and as often as they are there.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(All)
    }
}

impl Json {
    pub fn read(text: &str) -> Option<Json> {
        let text = text.trim();
        match text.chars().next()? {
            '[' => {
                let items: Vec<Box<RawValue>> = serde_json::from_str(text).ok()?;
                items.iter().map(|item| Json::read(item.get())).collect::<Option<_>>().map(Json::Array)
            }
            '{' => {
                let pairs: Pairs = serde_json::from_str(text).ok()?;
                let pairs = pairs.0.into_iter().map(|(key, value)| Some((key, Json::read(value.get())?)));
                pairs.collect::<Option<_>>().map(Json::Object)
            }
            _ => serde_json::from_str::<&RawValue>(text).ok().map(|raw| Json::Scalar(raw.get().into())),
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Scalar(text) => f.write_str(text),
            Json::Array(items) => {
                f.write_str("[")?;
                items
                    .iter()
                    .enumerate()
                    .try_for_each(|(at, item)| write!(f, "{}{item}", if at > 0 { "," } else { "" }))?;
                f.write_str("]")
            }
            Json::Object(pairs) => {
                f.write_str("{")?;
                pairs
                    .iter()
                    .enumerate()
                    .try_for_each(|(at, (key, value))| write!(f, "{}{key:?}:{value}", if at > 0 { "," } else { "" }))?;
                f.write_str("}")
            }
        }
    }
}

/// The code of a refusal.
pub fn code(body: &str) -> Option<String> {
    serde_json::from_str::<serde_json::Value>(body).ok()?.get("code")?.as_str().map(Into::into)
}

/// What of a value has no order of its own.
pub enum Shape {
    Value,
    One(Vec<Shape>),
    Many(Vec<Shape>, bool),
    /// Of a column that is an array: what it is made of, and whether that is in order.
    Column(Box<Shape>, bool),
}

impl Shape {
    /// Of each column of a level's rows.
    pub fn of(level: &Level, relations: &Relations) -> Vec<Shape> {
        let (mut shapes, mut after) = (Vec::new(), Vec::new());
        for item in &level.items {
            match item {
                Item::All => shapes.extend(relations.tables[level.table].columns.iter().map(|_| Shape::Value)),
                Item::Count { .. } | Item::Field { .. } => shapes.push(Shape::Value),
                Item::Embed(embed) => {
                    let inside = Shape::of(&embed.level, relations);
                    let is_ordered = !embed.level.order.is_empty();
                    match (embed.is_spread, embed.link.is_to_one) {
                        _ if inside.is_empty() => {}
                        (true, true) => after.extend(inside),
                        (true, false) => {
                            after.extend(inside.into_iter().map(|shape| Shape::Column(shape.into(), is_ordered)));
                        }
                        (false, true) => after.push(Shape::One(inside)),
                        (false, false) => after.push(Shape::Many(inside, is_ordered)),
                    }
                }
            }
        }
        shapes.append(&mut after);
        // What is grouped by is in order, and its keys are in another.
        if level.is_grouped() { shapes.iter().map(|_| Shape::Value).collect() } else { shapes }
    }

    fn settle(&self, json: Json) -> Json {
        match (self, json) {
            (Shape::One(shapes), Json::Object(pairs)) => object(pairs, shapes),
            (Shape::Many(shapes, is_ordered), Json::Array(rows)) => {
                let row = |row| match row {
                    Json::Object(pairs) => object(pairs, shapes),
                    other => other,
                };
                sorted(rows.into_iter().map(row).collect(), *is_ordered)
            }
            (Shape::Column(shape, is_ordered), Json::Array(items)) => {
                sorted(items.into_iter().map(|item| shape.settle(item)).collect(), *is_ordered)
            }
            (_, json) => json,
        }
    }
}

fn object(pairs: Vec<(String, Json)>, shapes: &[Shape]) -> Json {
    let settle = |(at, (key, value)): (usize, (String, Json))| match shapes.get(at) {
        Some(shape) => (key, shape.settle(value)),
        None => (key, value),
    };
    Json::Object(pairs.into_iter().enumerate().map(settle).collect())
}

fn sorted(mut items: Vec<Json>, is_ordered: bool) -> Json {
    if !is_ordered {
        items.sort_by_cached_key(Json::to_string);
    }
    Json::Array(items)
}

/// A row as text, the same for rows that are the same.
pub fn settled(row: Json, shapes: &[Shape]) -> String {
    match row {
        Json::Object(pairs) => object(pairs, shapes).to_string(),
        other => other.to_string(),
    }
}
