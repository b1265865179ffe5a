//! What the values of one field look like.

use std::collections::BTreeSet;

use crate::value::{parse_date, parse_time};

/// Counts of what was seen in a field.
#[derive(Debug, Default)]
pub struct Field {
    pub seen: usize,
    pub nulls: usize,
    bools: usize,
    integers: usize,
    decimals: usize,
    times: usize,
    dates: usize,
    uuids: usize,
    texts: usize,
    lists: usize,
    objects: usize,
    /// Distinct texts, as long as they are few.
    texts_seen: BTreeSet<String>,
    large: bool,
    pub example: String,
}

/// More distinct texts than this are no labels.
const MOST_LABELS: usize = 8;

impl Field {
    /// Takes a value in, as JSON text.
    pub fn see(&mut self, leaf: &str) {
        self.seen += 1;
        if self.example.is_empty() && leaf != "null" {
            self.example = leaf.chars().take(40).collect();
        }
        let count = match leaf.as_bytes().first() {
            Some(b'n') => &mut self.nulls,
            Some(b't' | b'f') => &mut self.bools,
            Some(b'[') => &mut self.lists,
            Some(b'{') => &mut self.objects,
            Some(b'"') => {
                let text = string(leaf).unwrap_or_default();
                if self.texts_seen.len() <= MOST_LABELS {
                    self.texts_seen.insert(text.clone());
                }
                match () {
                    () if parse_time(&text).is_some() => &mut self.times,
                    () if parse_date(&text).is_some() => &mut self.dates,
                    () if text.len() == 36 && uuid::Uuid::try_parse(&text).is_ok() => &mut self.uuids,
                    () => &mut self.texts,
                }
            }
            _ if leaf.contains(['.', 'e', 'E']) => &mut self.decimals,
            _ => {
                self.large = self.large || leaf.parse::<i32>().is_err();
                &mut self.integers
            }
        };
        *count += 1;
    }

    /// The type of a column that holds all that was seen.
    pub fn column_type(&self) -> &'static str {
        let kinds = [
            (self.bools, "bool"),
            (self.times, "timestamptz"),
            (self.dates, "date"),
            (self.uuids, "uuid"),
            (self.texts, "text"),
            (self.lists, "jsonb"),
            (self.objects, "jsonb"),
        ];
        let mut found: Vec<&str> = kinds.iter().filter(|(count, _)| *count > 0).map(|(_, type_)| *type_).collect();
        if self.decimals > 0 {
            found.push("numeric");
        } else if self.integers > 0 {
            found.push(if self.large { "bigint" } else { "integer" });
        }
        found.dedup();
        match found[..] {
            [] => "text",
            [one] => one,
            _ if self.lists + self.objects + self.bools + self.integers + self.decimals == 0 => "text",
            _ => "jsonb",
        }
    }

    /// The labels of a text that looks like a state: few, and each seen again.
    pub fn labels(&self) -> Option<Vec<&str>> {
        let few = !self.texts_seen.is_empty() && self.texts_seen.len() <= MOST_LABELS;
        let again = self.texts >= self.texts_seen.len() * 4;
        let words = |text: &String| !text.is_empty() && text.len() < 30 && !text.contains([',', '(', ')', '\'', '"']);
        let is_state = few && again && self.texts + self.nulls == self.seen && self.texts_seen.iter().all(words);
        is_state.then(|| self.texts_seen.iter().map(String::as_str).collect())
    }

    /// What was seen, in words.
    pub fn describe(&self) -> String {
        match self.labels() {
            Some(labels) => format!("text: {}", labels.join(", ")),
            None => self.column_type().to_string(),
        }
    }
}

/// The text of a JSON string.
pub fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Field {
        let mut field = Field::default();
        values.iter().for_each(|value| field.see(value));
        field
    }

    #[test]
    fn types_are_guessed_from_all_that_was_seen() {
        assert_eq!(of(&["1", "2"]).column_type(), "integer");
        assert_eq!(of(&["1", "3000000000"]).column_type(), "bigint");
        assert_eq!(of(&["1", "2.5"]).column_type(), "numeric");
        assert_eq!(of(&["\"2026-01-01\""]).column_type(), "date");
        assert_eq!(of(&["\"2026-01-01\"", "\"soon\""]).column_type(), "text");
        assert_eq!(of(&["1", "\"a\""]).column_type(), "jsonb");
        assert_eq!(of(&["null"]).column_type(), "text");
        assert_eq!(of(&["[1]"]).column_type(), "jsonb");
        assert_eq!(
            of(&["\"a\"", "\"b\"", "\"a\"", "\"b\"", "\"a\"", "\"a\"", "\"a\"", "\"b\""]).labels(),
            Some(vec!["a", "b"])
        );
        assert_eq!(of(&["\"a\"", "\"b\""]).labels(), None);
    }
}
