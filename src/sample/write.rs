//! A projection to start from, written from a sample.

use std::fmt::Write as _;

use comfy_table::Table;
use indexmap::IndexMap;

use super::{Sample, TypeSample, yaml_text};

/// The event types and fields of a sample, for a person.
pub fn table(sample: &Sample) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["event type", "events", "field", "missing", "null", "looks like", "example"]);
    for (type_, seen) in &sample.types {
        let name = sample.short(type_);
        if seen.fields.is_empty() {
            table.add_row([name, &seen.events.to_string(), "", "", "", "", ""]);
        }
        for (at, (path, field)) in seen.fields.iter().enumerate() {
            let percent = |part: usize| match part * 100 / seen.events.max(1) {
                0 if part == 0 => String::new(),
                percent => format!("{percent} %"),
            };
            table.add_row([
                if at == 0 { name.to_string() } else { String::new() },
                if at == 0 { seen.events.to_string() } else { String::new() },
                path.clone(),
                percent(seen.events - field.seen.min(seen.events)),
                percent(field.nulls),
                field.describe(),
                field.example.clone(),
            ]);
        }
    }
    table.to_string()
}

/// A column and how often each type fills it.
struct Column {
    path: String,
    type_: String,
}

/// The projection and its first golden test, as YAML.
pub fn projection(name: &str, topic: &str, sample: &Sample) -> (String, String) {
    let columns = columns(sample);
    let key = sample.key_field.clone();
    let key_column = key.as_deref().map_or_else(|| "id".to_string(), column_name);
    let mut yaml = format!(
        "# yaml-language-server: $schema=projection.schema.json\n\
         # Written from {} messages of {topic}. Check what the comments ask, then: projector test\n\
         projection: {name}\ndescription: TODO what a reader finds in a row\n\nsources:\n  events:\n    topic: {}\n",
        sample.messages,
        yaml_text(topic)
    );
    if let Some(type_) = &sample.type_from {
        let _ = writeln!(yaml, "    format: json");
        let quoted = if type_.starts_with('\'') { format!("\"{type_}\"") } else { type_.clone() };
        let _ = writeln!(yaml, "    type: {quoted}");
    }
    if !sample.type_prefix.is_empty() {
        let _ = writeln!(yaml, "    type_prefix: {}", sample.type_prefix);
    }
    match &key {
        Some(key) => {
            let _ = writeln!(
                yaml,
                "    # Does the producer keep these in one partition? It is what the proof of order rests on.\n    ordered_by: data.{key}"
            );
            let _ = write!(yaml, "\nkey:\n  {key_column}: data.{key}\n");
        }
        None => {
            yaml += "\nkey:\n  # No field is in every event and looks like an id: what is one row of the view?\n  id: record.key\n"
        }
    }
    yaml += "columns:\n";
    for (column, seen) in &columns {
        let _ = writeln!(yaml, "  {column}: {}", seen.type_);
    }
    if columns.is_empty() {
        yaml += "  events: { type: bigint, default: 0 }\n";
    }
    yaml += "handlers:\n  events:\n";
    let first = first_type(sample);
    for (type_, seen) in &sample.types {
        handler(&mut yaml, sample, type_, seen, &columns, first == Some(type_.as_str()));
    }
    (yaml, test(name, sample))
}

fn handler(
    yaml: &mut String,
    sample: &Sample,
    type_: &str,
    seen: &TypeSample,
    columns: &IndexMap<String, Column>,
    first: bool,
) {
    let _ = writeln!(yaml, "    {}:", yaml_text(sample.short(type_)));
    if looks_like_an_end(type_) {
        *yaml += "      # The name says that something ends: does the row?\n      delete: true\n";
        return;
    }
    if first && sample.types.len() > 1 {
        *yaml += "      create: true   # until this event a row is not seen\n";
    }
    let mine = |(_, column): &(&String, &Column)| seen.fields.contains_key(&column.path);
    let mut set: Vec<String> = Vec::new();
    let mut present: Vec<String> = Vec::new();
    for (name, column) in columns.iter().filter(mine) {
        let field = &seen.fields[&column.path];
        let path = path_expression(&column.path);
        match (field.seen == seen.events, first) {
            (true, _) => set.push(format!("        {name}: {path}\n")),
            (false, true) => set.push(format!("        {name}: opt({path})   # missing in some events\n")),
            (false, false) => present.push(format!("        {name}: {path}\n")),
        }
    }
    for (word, lines) in [("set", &set), ("set_if_present", &present)] {
        if !lines.is_empty() {
            let _ = write!(yaml, "      {word}:\n{}", lines.concat());
        }
    }
    if set.is_empty() && present.is_empty() {
        *yaml +=
            "      ignore: TODO nothing but its key is in it. A change of state? Then const, with a column for it\n";
    }
}

fn looks_like_an_end(type_: &str) -> bool {
    let lower = type_.to_ascii_lowercase();
    ["deleted", "removed", "erased", "deregistered"].iter().any(|word| lower.ends_with(word))
}

/// The type that seems to bring a row into being: by its name, else the one with the most fields.
fn first_type(sample: &Sample) -> Option<&str> {
    const BEGINNINGS: &[&str] =
        &["created", "registered", "placed", "opened", "started", "added", "issued", "submitted", "requested"];
    let begins = |type_: &&String| BEGINNINGS.iter().any(|word| type_.to_ascii_lowercase().ends_with(word));
    // Of several with as many fields, the one seen first.
    let most = sample.types.iter().rev().max_by_key(|(_, seen)| seen.fields.len()).map(|(type_, _)| type_);
    sample.types.keys().find(begins).or(most).map(String::as_str)
}

/// The columns of all fields but the key and the type, by name.
fn columns(sample: &Sample) -> IndexMap<String, Column> {
    let mut columns: IndexMap<String, Column> = IndexMap::new();
    let type_field = sample.type_from.as_deref().and_then(|expr| expr.strip_prefix("data."));
    let mut paths: Vec<&String> = sample.types.values().flat_map(|seen| seen.fields.keys()).collect();
    let mut known = std::collections::HashSet::new();
    paths.retain(|path| known.insert(*path));
    for path in paths {
        if sample.key_field.as_ref() == Some(path) || type_field == Some(path.as_str()) || path.is_empty() {
            continue;
        }
        let mut names = path.rsplit('.');
        let short = match (names.next().unwrap_or(path), names.next()) {
            // Of an order's `id` one wants to know that it is the order's.
            (last @ ("id" | "name" | "type" | "code" | "value" | "number" | "at"), Some(parent)) => {
                column_name(&format!("{parent}_{last}"))
            }
            (last, _) => column_name(last),
        };
        let taken = columns.contains_key(&short) || sample.key_field.as_deref().map(column_name) == Some(short.clone());
        let name = if taken { column_name(path) } else { short };
        let seen: Vec<_> = sample.types.values().filter_map(|seen| seen.fields.get(path)).collect();
        let types: std::collections::BTreeSet<&str> = seen.iter().map(|field| field.column_type()).collect();
        let type_ = match types.iter().copied().collect::<Vec<_>>()[..] {
            [one] => one,
            ["integer", "numeric"] | ["bigint", "numeric"] => "numeric",
            ["bigint", "integer"] => "bigint",
            _ => "jsonb",
        };
        let labels = seen.iter().find_map(|field| field.labels());
        let hint = match (type_, labels) {
            ("numeric", _) => "numeric   # money? then say its digits: \"numeric(12,2)\"".to_string(),
            ("text", Some(labels)) => format!("text   # or \"enum({})\"", labels.join(", ")),
            ("jsonb", _) => "jsonb   # a list? `for_each` makes a row of each element".to_string(),
            (type_, _) => type_.to_string(),
        };
        columns.insert(name, Column { path: path.clone(), type_: hint });
    }
    columns
}

/// A path as an expression: names that are no identifiers in brackets.
fn path_expression(path: &str) -> String {
    path.split('.').fold("data".to_string(), |text, name| {
        let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if plain { format!("{text}.{name}") } else { format!("{text}['{name}']") }
    })
}

/// `customerId` and `customer-id` as `customer_id`.
fn column_name(path: &str) -> String {
    let mut name = String::new();
    let mut lower_before = false;
    for c in path.chars() {
        if c.is_ascii_uppercase() && lower_before {
            name.push('_');
        }
        lower_before = c.is_ascii_lowercase() || c.is_ascii_digit();
        name.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("n_{name}") } else { name }
}

/// One case with the first event of each type; its rows are filled in by `--bless`.
fn test(name: &str, sample: &Sample) -> String {
    let mut yaml = String::from(
        "# The first event of each type that was seen. Check the rows; then add the cases that you would lose sleep over.\n\
         cases:\n  - name: one event of each type\n    events:\n",
    );
    for (type_, seen) in &sample.types {
        let Some(example) = &seen.example else { continue };
        let tree = crate::value::json::Tree::parse(example.payload.as_deref().unwrap_or_default())
            .unwrap_or(crate::value::json::Tree::empty());
        let mut parts = Vec::new();
        let data = if sample.cloud_events {
            parts.push(format!("type: {}", yaml_text(sample.short(type_))));
            for attribute in ["time", "subject"] {
                if let Some(value) = tree.get(attribute) {
                    parts.push(format!("{attribute}: {}", value.to_text()));
                }
            }
            tree.get("data").map(|data| data.to_text())
        } else {
            example.payload.clone()
        };
        if let Some(key) = &example.key {
            parts.push(format!("key: {}", crate::value::json::quoted(key)));
        }
        parts.extend(data.map(|data| format!("data: {data}")));
        let _ = writeln!(yaml, "      - {{ {} }}", parts.join(", "));
    }
    let _ = write!(yaml, "    rows:\n      {name}: []\n");
    yaml
}
