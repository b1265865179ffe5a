//! Arrays of records: what `push` and `remove` do, by the records' ids.
//!
//! Without a limit, what was said last about an id stands. With a limit nothing can be removed, and of two records with
//! one id the greater stands, so that the array is the greatest of all that was ever pushed, in whatever order.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::value::json::{Tree, canonical, json_value, quoted};
use crate::value::{Value, canonical_number};

/// How the records of a column are told apart and sorted.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordShape {
    /// The field that holds a record's id.
    pub id: String,
    /// The fields that sort the records, before their ids do.
    pub by: Vec<String>,
    /// Of more records than this, only the greatest are kept.
    pub limit: Option<u32>,
}

/// What happens to the records of one column, by id; `None` removes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records(BTreeMap<String, Option<String>>);

impl Records {
    /// Puts a record in, given by its fields.
    ///
    /// # Errors
    /// When it has no id.
    pub fn push(fields: &[(&str, Value)], shape: &RecordShape) -> Result<Records, String> {
        let id = fields.iter().find(|(name, _)| *name == shape.id).map_or(&Value::Null, |(_, value)| value);
        let id = id_text(id)?;
        let fields: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}:{}", quoted(name), field_text(value))).collect();
        Ok(Records(BTreeMap::from([(id, Some(format!("{{{}}}", fields.join(","))))])))
    }

    /// Takes a record out.
    ///
    /// # Errors
    /// When the id is NULL.
    pub fn remove(id: &Value) -> Result<Records, String> {
        Ok(Records(BTreeMap::from([(id_text(id)?, None)])))
    }

    pub fn then(mut self, next: Records, shape: &RecordShape) -> Records {
        for (id, record) in next.0 {
            self.put(id, record, shape);
        }
        self.cut(shape)
    }

    fn put(&mut self, id: String, record: Option<String>, shape: &RecordShape) {
        if shape.limit.is_some()
            && let (Some(Some(old)), Some(new)) = (self.0.get(&id), &record)
            && shape.compare(old, new).is_ge()
        {
            return;
        }
        self.0.insert(id, record);
    }

    fn cut(mut self, shape: &RecordShape) -> Records {
        let Some(limit) = shape.limit.map(|limit| limit as usize).filter(|limit| self.0.len() > *limit) else {
            return self;
        };
        let mut sorted = self.sorted(shape);
        let kept = sorted.split_off(sorted.len() - limit);
        let kept: Vec<String> = kept.into_iter().map(|(id, _)| id.clone()).collect();
        self.0.retain(|id, _| kept.contains(id));
        self
    }

    fn sorted(&self, shape: &RecordShape) -> Vec<(&String, &String)> {
        let mut records: Vec<(&String, &String)> =
            self.0.iter().filter_map(|(id, record)| Some((id, record.as_ref()?))).collect();
        records.sort_by(|a, b| shape.compare(a.1, b.1));
        records
    }

    /// The array afterwards. NULL counts as an empty one.
    ///
    /// # Errors
    /// When what stands there is no array of records with ids.
    pub fn apply(&self, array: &Value, shape: &RecordShape) -> Result<Value, String> {
        let mut all = Records::default();
        if let Value::Json(text) = array {
            let items: Vec<&RawValue> =
                serde_json::from_str(text).map_err(|error| format!("the column holds no array of records: {error}"))?;
            for item in items {
                let id = field(item.get(), &shape.id);
                all.0.insert(id_text(&id)?, Some(item.get().to_string()));
            }
        }
        let all = all.then(self.clone(), shape);
        let records: Vec<&str> = all.sorted(shape).into_iter().map(|(_, record)| record.as_str()).collect();
        Ok(Value::Json(format!("[{}]", records.join(",")).into()))
    }

    pub fn heap_bytes(&self) -> usize {
        self.0.iter().map(|(id, record)| 96 + id.len() + record.as_ref().map_or(0, String::len)).sum()
    }
}

impl RecordShape {
    fn compare(&self, a: &str, b: &str) -> Ordering {
        let by = self.by.iter().chain([&self.id]);
        let fields = by.map(|name| compare(&field(a, name), &field(b, name)));
        fields.fold(Ordering::Equal, Ordering::then).then_with(|| canonical(a).cmp(&canonical(b)))
    }
}

/// Kinds in a fixed order, NULL last.
fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Bool(_) => 0,
        Value::Int(_) | Value::Decimal(_) | Value::Digits(_) | Value::Float(_) => 1,
        Value::Text(_) => 2,
        Value::Null => 4,
        _ => 3,
    };
    rank(a).cmp(&rank(b)).then_with(|| a.compare(b).unwrap_or_else(|| a.to_json_text().cmp(&b.to_json_text())))
}

fn field(record: &str, name: &str) -> Value {
    let tree = Tree::parse(record).unwrap_or(Tree::empty());
    tree.get(name).and_then(|tree| json_value(&tree.to_text()).ok()).unwrap_or(Value::Null)
}

fn id_text(id: &Value) -> Result<String, String> {
    match id {
        Value::Null => Err("the record's id is NULL".into()),
        id => Ok(field_text(id)),
    }
}

/// As JSON; instants always with six digits after the second, so that their texts sort as they do.
fn field_text(value: &Value) -> String {
    match value {
        Value::Time(micros) => match jiff::Timestamp::from_microsecond(*micros) {
            Ok(time) => format!("\"{time:.6}\""),
            Err(_) => value.to_json_text(),
        },
        value => canonical_number(value.clone()).to_json_text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: i64, at: i64) -> Vec<(&'static str, Value)> {
        vec![("id", Value::Int(id)), ("at", Value::Time(at))]
    }

    fn shape(limit: Option<u32>) -> RecordShape {
        RecordShape { id: "id".into(), by: vec!["at".into()], limit }
    }

    #[test]
    fn records_are_sorted_replaced_and_removed() {
        let shape = shape(None);
        let mut array = Value::Null;
        for (id, at) in [(1, 1_000_000), (2, 500_000), (10, 0), (2, 2_000_000)] {
            array = Records::push(&record(id, at), &shape).unwrap().apply(&array, &shape).unwrap();
        }
        array = Records::remove(&Value::Int(10)).unwrap().apply(&array, &shape).unwrap();
        let expected = r#"[{"id":1,"at":"1970-01-01T00:00:01.000000Z"},{"id":2,"at":"1970-01-01T00:00:02.000000Z"}]"#;
        assert_eq!(array.to_json_text(), expected);
        assert_eq!(Records::remove(&Value::Int(9)).unwrap().apply(&Value::Null, &shape).unwrap().to_json_text(), "[]");
        assert!(Records::remove(&Value::Null).is_err());
    }

    #[test]
    fn a_limit_keeps_the_greatest_whatever_the_order() {
        let shape = shape(Some(2));
        let pushes: Vec<Records> = [(1, 10), (2, 20), (3, 30), (1, 40), (3, 5)]
            .iter()
            .map(|(id, at)| Records::push(&record(*id, *at), &shape).unwrap())
            .collect();
        let result = |order: &[usize]| {
            let fold = |array: Value, at: &usize| pushes[*at].apply(&array, &shape).unwrap();
            order.iter().fold(Value::Null, fold).to_json_text()
        };
        let straight = result(&[0, 1, 2, 3, 4]);
        assert!(straight.contains("\"id\":1") && straight.contains("\"id\":3"), "{straight}");
        for order in [[4, 3, 2, 1, 0], [3, 0, 4, 2, 1], [1, 4, 0, 3, 2]] {
            assert_eq!(result(&order), straight);
        }
    }
}
