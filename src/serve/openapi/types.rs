//! Types of Postgres in JSON Schema 2020-12, and conditions on them for examples.

use serde_json::{Map, Value as Json, json};

use crate::store::read::Column;

/// Types that JSON shows as text. Times without a zone and intervals are not in the formats that JSON Schema knows.
const TEXTS: [&str; 46] = [
    "text",
    "character varying",
    "character",
    "bpchar",
    "\"char\"",
    "name",
    "citext",
    "xml",
    "bit",
    "\"bit\"",
    "bit varying",
    "timestamp without time zone",
    "time without time zone",
    "time with time zone",
    "interval",
    "money",
    "oid",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "tsvector",
    "tsquery",
    "point",
    "line",
    "lseg",
    "box",
    "path",
    "polygon",
    "circle",
    "pg_lsn",
    "regclass",
    "ltree",
    "int4range",
    "int8range",
    "numrange",
    "tsrange",
    "tstzrange",
    "daterange",
    "int4multirange",
    "int8multirange",
    "nummultirange",
    "tsmultirange",
    "tstzmultirange",
    "datemultirange",
    "jsonpath",
];

/// What the values of a column are in JSON: the schema of its property.
pub(super) fn property(column: &Column, is_nullable: bool) -> Map<String, Json> {
    let mut property = match column.type_.strip_suffix("[]") {
        Some(element) => array(element),
        None if column.labels.is_empty() => scalar(&column.type_),
        None => as_map(json!({ "type": "string", "enum": column.labels })),
    };
    if is_nullable {
        admit_null(&mut property);
    }
    property.insert("x-type".into(), column.told_type.clone().into());
    if let Some(comment) = &column.comment {
        property.insert("description".into(), comment.clone().into());
    }
    property
}

/// Elements may always be null. Arrays may have more dimensions than their type says, and these would not fit.
fn array(element: &str) -> Map<String, Json> {
    let mut items = scalar(element);
    admit_null(&mut items);
    as_map(json!({ "type": "array", "items": items }))
}

/// A type that is not known here may be shown as anything: there are composite ones, and ones with casts to JSON.
fn scalar(type_: &str) -> Map<String, Json> {
    as_map(match type_ {
        "boolean" => json!({ "type": "boolean" }),
        "smallint" => json!({ "type": "integer", "format": "int16" }),
        "integer" => json!({ "type": "integer", "format": "int32" }),
        "bigint" => json!({ "type": "integer", "format": "int64" }),
        "numeric" => number(None),
        "real" => number(Some("float")),
        "double precision" => number(Some("double")),
        "timestamp with time zone" => json!({ "type": "string", "format": "date-time" }),
        "date" => json!({ "type": "string", "format": "date" }),
        "uuid" => json!({ "type": "string", "format": "uuid" }),
        "bytea" => json!({ "type": "string", "pattern": r"^\\x([0-9a-f]{2})*$" }),
        text if TEXTS.contains(&text) => json!({ "type": "string" }),
        _ => json!({}),
    })
}

/// JSON has no numbers for these three, and has them as text.
fn number(format: Option<&str>) -> Json {
    let mut number = json!({ "type": ["number", "string"], "pattern": "^(NaN|-?Infinity)$" });
    if let Some(format) = format {
        number["format"] = format.into();
    }
    number
}

fn admit_null(property: &mut Map<String, Json>) {
    match property.get_mut("type") {
        Some(Json::Array(types)) => types.push("null".into()),
        Some(type_) => *type_ = json!([type_, "null"]),
        None => {}
    }
    if let Some(Json::Array(labels)) = property.get_mut("enum") {
        labels.push(Json::Null);
    }
}

fn as_map(object: Json) -> Map<String, Json> {
    match object {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}

/// Conditions on a column as its parameter has them, each with another operator.
pub(super) fn conditions(column: &Column, is_nullable: bool) -> Vec<String> {
    let mut conditions = match column.labels.as_slice() {
        [] => of_type(column),
        [one] => vec![format!("eq.{one}")],
        [one, other, ..] => vec![format!("eq.{one}"), format!("in.({},{})", element(one), element(other))],
    };
    // Of a type that is not known, nothing else can be said for certain.
    if is_nullable || conditions.is_empty() {
        conditions.push("not.is.null".into());
    }
    conditions
}

fn of_type(column: &Column) -> Vec<String> {
    let told: &[&str] = match column.type_.as_str() {
        "smallint[]" | "integer[]" | "bigint[]" | "numeric[]" | "real[]" | "double precision[]" => {
            &["cs.{1,2}", "ov.{1,2}"]
        }
        "text[]" | "character varying[]" | "citext[]" => &["cs.{a,b}", "ov.{a,b}"],
        "boolean" => &["is.true", "eq.false"],
        "smallint" | "integer" | "bigint" => &["eq.42", "gte.42", "in.(1,2,3)"],
        "numeric" | "real" | "double precision" => &["gte.9.99", "lt.100"],
        "timestamp with time zone" => &["gte.2026-01-31T00:00:00Z", "lt.2026-02-01T00:00:00Z"],
        "timestamp without time zone" => &["gte.2026-01-31T00:00:00", "lt.2026-02-01T00:00:00"],
        "date" => &["eq.2026-01-31", "gte.2026-01-01"],
        "interval" => &["gt.1 day"],
        "time without time zone" => &["gte.08:30"],
        "uuid" => &["eq.00000000-0000-4000-8000-000000000000"],
        "jsonb" => &[r#"cs.{"key":1}"#],
        "inet" | "cidr" => &["eq.10.0.0.1"],
        "int4range" | "int8range" | "numrange" => &["ov.[1,10)"],
        "daterange" => &["ov.[2026-01-01,2026-02-01)"],
        "tsvector" => &["wfts.some words"],
        "text" | "character varying" | "citext" | "character" | "bpchar" | "name" => {
            &["eq.text", "ilike.*text*", "in.(a,b)"]
        }
        _ => &[],
    };
    told.iter().map(ToString::to_string).collect()
}

/// A text as an element of a list.
fn element(text: &str) -> String {
    let is_plain = !text.is_empty() && !text.contains([',', '(', ')', '"', '\\', ' ']);
    if is_plain { text.into() } else { quoted(text) }
}

/// A text in quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(type_: &str, labels: &[&str]) -> Column {
        let labels = labels.iter().map(ToString::to_string).collect();
        Column { type_: type_.into(), told_type: "told".into(), labels, ..Column::default() }
    }

    #[test]
    fn types_are_told_in_json_schema() {
        let told = |type_: &str, is_nullable| Json::Object(property(&column(type_, &[]), is_nullable));
        assert_eq!(told("bigint", false), json!({ "type": "integer", "format": "int64", "x-type": "told" }));
        let number = json!({ "type": ["number", "string", "null"], "pattern": "^(NaN|-?Infinity)$", "x-type": "told" });
        assert_eq!(told("numeric", true), number);
        assert_eq!(told("jsonb", true), json!({ "x-type": "told" }));
        let items = json!({ "type": ["string", "null"], "format": "uuid" });
        assert_eq!(told("uuid[]", true), json!({ "type": ["array", "null"], "items": items, "x-type": "told" }));
        assert_eq!(told("a_row[]", false), json!({ "type": "array", "items": {}, "x-type": "told" }));
        let mood = Json::Object(property(&column("mood", &["a", "b"]), true));
        assert_eq!(mood, json!({ "type": ["string", "null"], "enum": ["a", "b", null], "x-type": "told" }));
    }

    #[test]
    fn conditions_fit_the_type() {
        assert_eq!(conditions(&column("bigint", &[]), false)[0], "eq.42");
        assert_eq!(conditions(&column("hstore", &[]), false), ["not.is.null"]);
        let labels = conditions(&column("mood", &["so, so", "a\"b"]), true);
        assert_eq!(labels, ["eq.so, so", r#"in.("so, so","a\"b")"#, "not.is.null"]);
    }
}
