//! Reads just the named paths out of a JSON text, as raw slices, in one pass that checks the whole document.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

/// Raw JSON texts by slot; `None` is a path that the document does not have.
pub type Slots<'a> = SmallVec<[Option<&'a str>; 12]>;

/// The paths wanted from one kind of document. Each has a slot, numbered from 0.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    root: Step,
    names: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Step {
    slot: Option<usize>,
    children: Vec<(String, Step)>,
}

impl Paths {
    /// The slot of a path; the same path has the same slot. The empty path is the document itself.
    pub fn slot(&mut self, path: &[String]) -> usize {
        let mut step = &mut self.root;
        for name in path {
            let at = match step.children.iter().position(|(child, _)| child == name) {
                Some(at) => at,
                None => {
                    step.children.push((name.clone(), Step::default()));
                    step.children.len() - 1
                }
            };
            step = &mut step.children[at].1;
        }
        *step.slot.get_or_insert_with(|| {
            self.names.push(path.join("."));
            self.names.len() - 1
        })
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Slots for these paths, all of them missing.
    pub fn missing<'a>(&self) -> Slots<'a> {
        smallvec::smallvec![None; self.names.len()]
    }

    /// A seed that fills `slots` while another deserializer is at the document.
    pub fn seed<'p, 's, 'a>(
        &'p self,
        slots: &'s mut Slots<'a>,
    ) -> impl DeserializeSeed<'a, Value = ()> + use<'p, 's, 'a> {
        StepSeed { step: &self.root, slots }
    }

    /// Reads a whole document.
    ///
    /// # Errors
    /// When the text is no JSON, or a wanted key stands twice.
    pub fn read<'a>(&self, text: &'a str) -> Result<Slots<'a>, serde_json::Error> {
        let mut slots = self.missing();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        self.seed(&mut slots).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(slots)
    }
}

struct StepSeed<'p, 's, 'a> {
    step: &'p Step,
    slots: &'s mut Slots<'a>,
}

impl<'a> DeserializeSeed<'a> for StepSeed<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        let Some(slot) = self.step.slot else { return deserializer.deserialize_any(self) };
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        self.slots[slot] = Some(raw);
        if !self.step.children.is_empty() && raw.starts_with('{') {
            let mut inner = serde_json::Deserializer::from_str(raw);
            Deserializer::deserialize_any(&mut inner, self).map_err(de::Error::custom)?;
        }
        Ok(())
    }
}

impl<'a> Visitor<'a> for StepSeed<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen: SmallVec<[usize; 16]> = SmallVec::new();
        while let Some(wanted) = map.next_key_seed(KeySeed(&self.step.children))? {
            let Some(at) = wanted else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let (name, step) = &self.step.children[at];
            if seen.contains(&at) {
                return Err(de::Error::custom(format_args!("the key `{name}` stands twice in one object")));
            }
            seen.push(at);
            map.next_value_seed(StepSeed { step, slots: self.slots })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Which of the wanted children a key is, without keeping the key.
struct KeySeed<'p>(&'p [(String, Step)]);

impl<'a> DeserializeSeed<'a> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|(name, _)| name == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(wanted: &[&str]) -> Paths {
        let mut paths = Paths::default();
        for path in wanted {
            let path: Vec<String> = path.split('.').map(String::from).collect();
            paths.slot(&path);
        }
        paths
    }

    #[test]
    fn reads_only_what_is_named() {
        let wanted = paths(&["a", "b.c", "b.d", "x.y"]);
        let slots = wanted.read(r#"{"z":[1,{"a":0}],"b":{"c":"t","e":{}},"a":{"q":1},"x":7}"#).unwrap();
        assert_eq!(slots.as_slice(), [Some(r#"{"q":1}"#), Some(r#""t""#), None, None]);
    }

    #[test]
    fn a_path_and_one_below_it() {
        let wanted = paths(&["b", "b.c"]);
        assert_eq!(wanted.read(r#"{"b":{"c":1}}"#).unwrap().as_slice(), [Some(r#"{"c":1}"#), Some("1")]);
        assert_eq!(wanted.read(r#"{"b":null}"#).unwrap().as_slice(), [Some("null"), None]);
    }

    #[test]
    fn refuses_what_is_ambiguous_or_broken() {
        let wanted = paths(&["a"]);
        assert!(wanted.read(r#"{"a":1,"a":2}"#).unwrap_err().to_string().contains("stands twice"));
        assert!(wanted.read(r#"{"a":1} tail"#).is_err());
        assert!(wanted.read(r#"{"a":1"#).is_err());
        assert!(wanted.read(&format!(r#"{{"deep":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000))).is_ok());
    }
}
