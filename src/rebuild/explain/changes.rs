//! Rows as readers see them, side by side.

use indexmap::IndexMap;
use rust_decimal::Decimal;
use serde_json::value::RawValue;

use super::{Changed, Difference};
use crate::golden::ReadRow;
use crate::plan::Table;
use crate::plan::types::{ColumnType, Digits, Scalar};
use crate::store::shown::ShownRow;
use crate::value::Value;
use crate::value::json::{json_value, quoted, same};

/// The columns that readers see, with their types; the key's first.
fn columns(table: &Table) -> impl Iterator<Item = (&str, &ColumnType)> {
    let key = table.key.iter().map(|column| (column.name.as_str(), &column.shape.type_));
    key.chain(columns_beside_key(table))
}

fn columns_beside_key(table: &Table) -> impl Iterator<Item = (&str, &ColumnType)> {
    let stored = table.columns.iter().filter(|column| !column.hidden);
    let stored = stored.map(|column| (column.name.as_str(), &column.shape.type_));
    let generated = table.generated.iter().filter(|column| !column.hidden);
    stored.chain(generated.map(|column| (column.name.as_str(), &column.type_)))
}

/// The names of the columns that readers see beside the key.
pub fn visible_columns(table: &Table) -> impl Iterator<Item = &str> {
    columns_beside_key(table).map(|(name, _)| name)
}

/// A column of a row; NULL where there is no row.
fn value<'r>(row: Option<&'r ReadRow>, name: &str) -> &'r Value {
    row.and_then(|row| row.get(name)).unwrap_or(&Value::Null)
}

/// A value as Postgres shows it, with all digits after the point that its type has.
fn shown(type_: &ColumnType, value: &Value) -> Box<RawValue> {
    let text = match (&type_.scalar, value) {
        (Scalar::Numeric(Some(digits)), Value::Int(n)) if !type_.array => with_digits(Decimal::from(*n), *digits),
        (Scalar::Numeric(Some(digits)), Value::Decimal(d)) if !type_.array => with_digits(*d, *digits),
        (_, value) => value.to_json_text(),
    };
    raw(text)
}

fn with_digits(number: Decimal, digits: Digits) -> String {
    format!("{number:.*}", usize::from(digits.scale))
}

fn raw(text: String) -> Box<RawValue> {
    // What is no JSON is shown as the text that it is.
    let as_text = |_| RawValue::from_string(quoted(&text)).unwrap_or_else(|_| RawValue::NULL.to_owned());
    RawValue::from_string(text.clone()).unwrap_or_else(as_text)
}

/// A whole row.
pub fn shown_row(table: &Table, row: &ReadRow) -> IndexMap<String, Box<RawValue>> {
    columns(table).map(|(name, type_)| (name.to_string(), shown(type_, value(Some(row), name)))).collect()
}

/// The columns that an event has changed. Of a row that has gone nothing more is said.
pub fn changes(table: &Table, before: Option<&ReadRow>, after: Option<&ReadRow>) -> Vec<Changed> {
    if after.is_none() {
        return Vec::new();
    }
    let differ = columns_beside_key(table).filter(|(name, _)| value(before, name) != value(after, name));
    let changed = differ.map(|(name, type_)| Changed {
        column: name.to_string(),
        before: shown(type_, value(before, name)),
        after: shown(type_, value(after, name)),
    });
    changed.collect()
}

/// The columns that are served otherwise than the log has them.
pub fn differences(table: &Table, log: Option<&ReadRow>, served: Option<&ShownRow>) -> Vec<Difference> {
    let differ = columns(table).filter_map(|(name, type_)| {
        let ours = value(log, name);
        let theirs = served.and_then(|row| row.get(name)).map_or("null", String::as_str);
        let read = json_value(theirs).and_then(|theirs| type_.coerce(theirs));
        let equal = read.map_or_else(|_| same(theirs, &ours.to_json_text()), |theirs| theirs == *ours);
        (!equal).then(|| Difference {
            column: name.to_string(),
            log: shown(type_, ours),
            served: raw(theirs.to_string()),
        })
    });
    differ.collect()
}
