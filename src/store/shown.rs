//! Rows as readers see them.

use indexmap::IndexMap;
use serde_json::value::RawValue;

use crate::value::json::same;

/// The JSON text of each column, as Postgres writes it: numbers with all their digits.
pub type ShownRow = IndexMap<String, String>;

/// Reads what `to_jsonb` or `row_to_json` gives for a row.
pub fn shown(text: Option<&str>) -> Option<ShownRow> {
    let columns: IndexMap<String, Box<RawValue>> = serde_json::from_str(text?).ok()?;
    Some(columns.into_iter().map(|(name, value)| (name, value.get().to_string())).collect())
}

/// The columns that both rows have, with other values: the name, and the value in either.
pub fn differing<'r>(old: &'r ShownRow, new: &'r ShownRow) -> impl Iterator<Item = (&'r str, &'r str, &'r str)> {
    let pairs = old.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str(), new.get(name)?.as_str())));
    pairs.filter(|(_, value, other)| !same(value, other))
}

#[cfg(test)]
mod tests {
    use super::{differing, shown};

    #[test]
    fn only_what_both_have_can_differ() {
        let row = |text| shown(Some(text)).unwrap();
        let (old, new) = (row(r#"{"a":1,"b":1.0,"c":"x","d":2}"#), row(r#"{"a":2,"b":1.00,"c":"y","e":2}"#));
        assert_eq!(differing(&old, &new).collect::<Vec<_>>(), [("a", "1", "2"), ("c", "\"x\"", "\"y\"")]);
    }

    #[test]
    fn no_digit_is_lost() {
        let row = shown(Some(r#"{"k":"a","n":12345678901234567890.10,"j":{"x": 1.50}}"#)).unwrap();
        let columns: Vec<(&str, &str)> = row.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(columns, [("k", "\"a\""), ("n", "12345678901234567890.10"), ("j", "{\"x\": 1.50}")]);
        assert_eq!(shown(None), None);
    }
}
