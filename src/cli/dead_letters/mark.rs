//! A payload with the place marked that an error is about.

use regex::Regex;
use serde_json::Value as Json;

use super::text_or_hex;

/// The payload, readable, with an arrow at what the message is about: where JSON breaks, or at the fields that the
/// message and the line of the projection that it names read.
pub fn marked(payload: Option<&[u8]>, message: &str) -> String {
    let Some(payload) = payload else { return "  (no payload)".into() };
    let Ok(text) = std::str::from_utf8(payload) else {
        let wrong = std::str::from_utf8(payload).map_or_else(|error| error.valid_up_to(), |_| 0);
        let good = text_or_hex(&payload[..wrong]);
        return format!(
            "  {good}\n  {}^ the byte 0x{:02x} is no UTF-8",
            " ".repeat(good.chars().count()),
            payload[wrong]
        );
    };
    match serde_json::from_str::<Json>(text) {
        Ok(whole) => {
            let named = has_named(&whole, message);
            let paths = if named { Vec::new() } else { paths(message) };
            let mut lines = Lines { paths, message: if named { message } else { "" }, text: String::new() };
            let (root, at) = match whole.get("data") {
                Some(_) if whole.get("specversion").is_some() => (&whole, Vec::new()),
                _ => (&whole, vec!["data".to_string()]),
            };
            lines.value(root, at, 1, "", "");
            lines.text.trim_end().to_string()
        }
        Err(error) => broken(text, &error),
    }
}

/// Whether a message quotes a value, as messages do.
fn quotes(message: &str, value: &Json) -> bool {
    let long_enough = value.to_string().len() > 1;
    long_enough && message.contains(&format!("`{}`", value.to_string().escape_debug()))
}

/// Whether a message quotes a value that is in the payload.
fn has_named(value: &Json, message: &str) -> bool {
    match value {
        Json::Object(members) => members.values().any(|inner| has_named(inner, message)),
        Json::Array(items) => items.iter().any(|inner| has_named(inner, message)),
        plain => quotes(message, plain),
    }
}

/// Where a text stops being JSON.
fn broken(text: &str, error: &serde_json::Error) -> String {
    const BEFORE: usize = 60;
    const AFTER: usize = 20;
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let characters: Vec<char> = line.chars().collect();
    let at = error.column().saturating_sub(1).min(characters.len());
    let from = at.saturating_sub(BEFORE);
    let shown: String = characters[from..characters.len().min(at + AFTER)].iter().collect();
    let what = error.to_string();
    let what = what.split(" at line").next().unwrap_or_default();
    format!("  {shown}\n  {}^ {what}", " ".repeat(at - from))
}

/// The fields that a message is about: those it names, and those of the line of the projection file that it names.
fn paths(message: &str) -> Vec<Vec<String>> {
    let mut texts = vec![message.to_string()];
    let place = Regex::new(r"([^\s(]+\.ya?ml):(\d+)").ok();
    if let Some(found) = place.as_ref().and_then(|place| place.captures(message)) {
        let line = found[2].parse::<usize>().unwrap_or(1);
        let file = std::fs::read_to_string(&found[1]).unwrap_or_default();
        texts.extend(file.lines().nth(line.saturating_sub(1)).map(String::from));
    }
    let Ok(path) = Regex::new(r"\bdata(?:\.[A-Za-z_][A-Za-z0-9_]*)+") else { return Vec::new() };
    let mut found: Vec<Vec<String>> = Vec::new();
    // What the message itself names says more than what its line reads.
    for text in texts {
        found.extend(path.find_iter(&text).map(|path| path.as_str().split('.').map(String::from).collect()));
        if !found.is_empty() {
            break;
        }
    }
    found
}

struct Lines<'m> {
    paths: Vec<Vec<String>>,
    /// Values that it quotes are marked.
    message: &'m str,
    text: String,
}

impl Lines<'_> {
    /// Writes a value at a path, over as many lines as it takes.
    fn value(&mut self, value: &Json, at: Vec<String>, depth: usize, name: &str, comma: &str) {
        let indent = "  ".repeat(depth);
        let label = if name.is_empty() { String::new() } else { format!("{}: ", Json::from(name)) };
        let here = self.paths.contains(&at) || quotes(self.message, value);
        let arrow = if here { "      <-- here" } else { "" };
        match value {
            Json::Object(members) if !members.is_empty() => {
                let missing: Vec<&str> = self.missing(&at, members);
                let hint = match missing.is_empty() {
                    true => arrow.to_string(),
                    false => format!("      <-- no `{}` in here", missing.join("`, `")),
                };
                self.text += &format!("{indent}{label}{{{hint}\n");
                for (index, (member, inner)) in members.iter().enumerate() {
                    let comma = if index + 1 < members.len() { "," } else { "" };
                    let mut inner_at = at.clone();
                    inner_at.push(member.clone());
                    self.value(inner, inner_at, depth + 1, member, comma);
                }
                self.text += &format!("{indent}}}{comma}\n");
            }
            Json::Array(items) if !items.is_empty() && items.iter().any(|item| item.is_object() || item.is_array()) => {
                self.text += &format!("{indent}{label}[{arrow}\n");
                for (index, item) in items.iter().enumerate() {
                    let comma = if index + 1 < items.len() { "," } else { "" };
                    let mut inner_at = at.clone();
                    inner_at.push(index.to_string());
                    self.value(item, inner_at, depth + 1, "", comma);
                }
                self.text += &format!("{indent}]{comma}\n");
            }
            plain => self.text += &format!("{indent}{label}{plain}{comma}{arrow}\n"),
        }
    }

    /// Members of the object at a path that the message is about and that are not there.
    fn missing<'m>(&'m self, at: &[String], members: &serde_json::Map<String, Json>) -> Vec<&'m str> {
        let mut found: Vec<&str> = Vec::new();
        for path in self.paths.iter().filter(|path| path.len() > at.len() && path.starts_with(at)) {
            let next = path[at.len()].as_str();
            let of_envelope = at.is_empty();
            if !of_envelope && !members.contains_key(next) && !found.contains(&next) {
                found.push(next);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::marked;

    #[test]
    fn fields_are_marked_where_they_are_or_should_be() {
        let payload = br#"{"specversion":"1.0","id":"1","data":{"id":"p1","amount":"12,50"}}"#;
        let shown = marked(Some(payload), "`data.amount` is no number");
        assert!(shown.contains("\"amount\": \"12,50\"      <-- here"), "{shown}");
        let shown = marked(Some(payload), "`data.currency` is missing");
        assert!(shown.contains("\"data\": {      <-- no `currency` in here"), "{shown}");
        let shown = marked(Some(br#"{"amount": 1}"#), "`data.amount` is odd");
        assert!(shown.contains("\"amount\": 1      <-- here"), "{shown}");
    }

    #[test]
    fn a_value_that_the_message_quotes_is_marked() {
        let payload = br#"{"specversion":"1.0","data":{"id":"p1","sum":"12,50"}}"#;
        let shown = marked(Some(payload), "`\\\"12,50\\\"` (a text) cannot be compared with `data.id`");
        assert!(shown.contains("\"sum\": \"12,50\"      <-- here"), "{shown}");
        assert!(!shown.contains("\"id\": \"p1\"      <--"), "{shown}");
    }

    #[test]
    fn broken_json_is_marked_where_it_breaks() {
        let shown = marked(Some(br#"{"a": 1, "b" 2}"#), "whatever");
        assert_eq!(shown, "  {\"a\": 1, \"b\" 2}\n               ^ expected `:`");
        let shown = marked(Some(b"{\"a\xff\"}"), "whatever");
        assert_eq!(shown, "  {\"a\n     ^ the byte 0xff is no UTF-8");
        assert_eq!(marked(None, "whatever"), "  (no payload)");
    }
}
