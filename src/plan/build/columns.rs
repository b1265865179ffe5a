//! Columns as declared: types, defaults, keys.

use super::{Build, LONGEST_NAME};
use crate::patch::ColumnShape;
use crate::plan::Column;
use crate::plan::types::{ColumnType, Scalar};
use crate::spec::diagnostic::suggest;
use crate::spec::{self, Literal, Located, Name};
use crate::value::Value;
use crate::value::json::json_value;

impl Build<'_> {
    pub(super) fn key_columns(&self, table: &spec::Table) -> Vec<Column> {
        let declared = |name: &Name| match table.columns.get(name) {
            Some(column) => {
                for (word, given) in [
                    ("default", column.0.default.is_some()),
                    ("hidden", column.0.hidden),
                    ("generated", column.0.generated.is_some()),
                ] {
                    if given {
                        let message = format!("the key column `{}` cannot have `{word}`", name.value);
                        self.error("bad-key", &column.0.type_.span, message, None);
                    }
                }
                self.column(name, &column.0)
            }
            None => Column {
                name: name.value.clone(),
                shape: ColumnShape::plain(ColumnType::scalar(Scalar::Text), Value::Null),
                not_null: true,
                hidden: false,
                derived: false,
                kept: false,
                description: None,
            },
        };
        table
            .key
            .keys()
            .map(|name| {
                self.identifier(name, "column", LONGEST_NAME);
                let column = declared(name);
                if !column.shape.type_.is_key() {
                    let message = format!("{} cannot be part of a key", column.shape.type_);
                    let help = "keys are text, integers, numeric, uuid, date, timestamptz, bool or enum";
                    self.error("bad-key", &name.span, message, Some(help));
                }
                column
            })
            .collect()
    }

    pub(super) fn column(&self, name: &Name, column: &spec::Column) -> Column {
        self.identifier(name, "column", LONGEST_NAME);
        let type_ = match ColumnType::parse(&column.type_.value) {
            // Where YAML has split a type at its comma, that is told.
            _ if column.type_.is_empty() && self.sink.has("yaml-trap") => None,
            _ if column.type_.is_empty() => {
                let help = "for example `type: text`";
                self.error("bad-type", &name.span, format!("the column `{}` has no type", name.value), Some(help));
                None
            }
            Ok(type_) => Some(type_),
            Err((message, help)) => {
                self.error("bad-type", &column.type_.span, message, help.as_deref());
                None
            }
        };
        let default = match (&column.default, &type_) {
            (Some(default), Some(type_)) => self.literal(type_, default),
            _ => Value::Null,
        };
        Column {
            name: name.value.clone(),
            shape: ColumnShape::plain(type_.unwrap_or(ColumnType::scalar(Scalar::Jsonb)), default),
            not_null: column.not_null,
            hidden: column.hidden,
            derived: false,
            kept: false,
            description: column.description.clone(),
        }
    }

    /// A literal in the form its column stores.
    pub(super) fn literal(&self, type_: &ColumnType, literal: &Located<Literal>) -> Value {
        match json_value(&literal.value.0).and_then(|value| type_.coerce(value)) {
            Ok(value) => value,
            Err(message) => {
                self.error("wrong-value", &literal.span, message, None);
                Value::Null
            }
        }
    }

    pub(super) fn unknown_column(&self, name: &Name, table: &spec::Table) {
        let known = table.columns.keys().chain(table.key.keys()).map(|n| n.as_str());
        let help = suggest(name, known).unwrap_or_else(|| "declare it under `columns`".into());
        self.error("unknown-column", &name.span, format!("the table has no column `{}`", name.value), Some(&help));
    }
}
