//! Which row is meant.

use super::RowName;
use crate::batch::Key;
use crate::plan::types::Kind;
use crate::plan::{Column, Plan, Table};
use crate::store::shown::ShownRow;
use crate::value::json::json_value;
use crate::value::{Value, parse_number};

/// A row of a served table.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Index into [`Plan::tables`].
    pub table: usize,
    pub key: Key,
}

impl Question {
    /// Reads the name of a view and the key of a row: the parts of the key, with commas between.
    ///
    /// # Errors
    /// That there is no such view, or cannot be such a key.
    pub fn of(plan: &Plan, view: &str, key: &str) -> Result<Question, String> {
        let found = plan.tables.iter().position(|table| table.served && table.name == view);
        let Some(table) = found else {
            let views: Vec<&str> = plan.tables.iter().filter(|t| t.served).map(|t| t.name.as_str()).collect();
            return Err(format!(
                "`{view}` is no view; the views of `{}` are {}. Say which of them the key is of",
                plan.name,
                views.join(", ")
            ));
        };
        Ok(Question { table, key: read_key(&plan.tables[table], key)? })
    }

    /// The row of a view that has this key. `None` if there is no such view, or its key is of another type.
    pub fn of_row(plan: &Plan, view: &str, row: &ShownRow) -> Option<Question> {
        let table = plan.tables.iter().position(|table| table.served && table.name == view)?;
        let part = |column: &Column| column.shape.type_.coerce(json_value(row.get(&column.name)?).ok()?).ok();
        let key = plan.tables[table].key.iter().map(part).collect::<Option<Key>>()?;
        Some(Question { table, key })
    }
}

fn read_key(table: &Table, text: &str) -> Result<Key, String> {
    // The last part, or the only one, may have commas in it.
    let parts: Vec<&str> = text.splitn(table.key.len(), ',').collect();
    if parts.len() < table.key.len() {
        let columns: Vec<&str> = table.key.iter().map(|column| column.name.as_str()).collect();
        return Err(format!(
            "`{text}` is no whole key of {}: say {}, with commas between",
            table.name,
            columns.join(", ")
        ));
    }
    table.key.iter().zip(parts).map(|(column, part)| read_part(column, part)).collect()
}

fn read_part(column: &Column, text: &str) -> Result<Value, String> {
    let type_ = &column.shape.type_;
    let value = match type_.kind() {
        Kind::Number => parse_number(text),
        Kind::Bool => text.parse().ok().map(Value::Bool),
        _ => Some(Value::text(text)),
    };
    let read = value.ok_or_else(|| format!("`{text}` is no {type_}")).and_then(|value| type_.coerce(value));
    read.map_err(|why| format!("the key column `{}`: {why}", column.name))
}

impl RowName {
    pub(super) fn of(table: &Table, key: &Key) -> RowName {
        let parts: Vec<String> = key.iter().map(|part| part.to_sql_text().unwrap_or_default()).collect();
        RowName { table: table.name.clone(), key: parts.join(",") }
    }
}
