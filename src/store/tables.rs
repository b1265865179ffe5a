//! The tables and views of a generation: names and DDL.

use crate::plan::types::{ColumnType, Scalar};
use crate::plan::{Column, Plan, Table};

use super::sql::{ident, literal};

/// Which sources are present in a row, one bit each; only in tables whose rows begin or end.
pub const PRESENCE: &str = "projector_present";

/// The schema that holds a generation's tables.
pub fn schema_name(projection: &str, number: i32) -> String {
    format!("{projection}@{number}")
}

/// A table's qualified name.
pub fn table_name(schema: &str, table: &Table) -> String {
    format!("{}.{}", ident(schema), ident(&table.name))
}

/// The SQL type of a column in the schema of its generation.
pub fn sql_type(schema: &str, table: &str, column: &Column) -> String {
    let type_ = &column.shape.type_;
    let scalar = match &type_.scalar {
        Scalar::Enum(_) => enum_name(schema, table, &column.name),
        Scalar::ExistingEnum(name) => name.split('.').map(ident).collect::<Vec<_>>().join("."),
        scalar => ColumnType::scalar(scalar.clone()).to_string(),
    };
    format!("{scalar}{}", if type_.array { "[]" } else { "" })
}

fn enum_name(schema: &str, table: &str, column: &str) -> String {
    format!("{}.{}", ident(schema), ident(&format!("{table}.{column}")))
}

/// The statements that make a generation's schema and tables.
pub fn create_statements(plan: &Plan, schema: &str) -> Vec<String> {
    let mut statements = vec![format!("CREATE SCHEMA {}", ident(schema))];
    let columns = || plan.tables.iter().flat_map(|t| t.key.iter().chain(&t.columns).map(move |c| (t, c)));
    if columns().any(|(_, column)| column.shape.type_.scalar == Scalar::Citext) {
        statements.push("CREATE EXTENSION IF NOT EXISTS citext SCHEMA public".into());
    }
    for (table, column) in columns() {
        if let Scalar::Enum(labels) = &column.shape.type_.scalar {
            let labels: Vec<String> = labels.iter().map(|label| literal(label)).collect();
            let name = enum_name(schema, &table.name, &column.name);
            statements.push(format!("CREATE TYPE {name} AS ENUM ({})", labels.join(", ")));
        }
    }
    for table in &plan.tables {
        statements.push(create_table(schema, table));
        for index in &table.indexes {
            let columns: Vec<String> = index.iter().map(|column| ident(column)).collect();
            statements.push(format!("CREATE INDEX ON {} ({})", table_name(schema, table), columns.join(", ")));
        }
    }
    statements
}

fn create_table(schema: &str, table: &Table) -> String {
    let mut lines: Vec<String> = Vec::new();
    for column in &table.key {
        lines.push(format!("{} NOT NULL", column_definition(schema, table, column)));
    }
    for column in &table.columns {
        let default = match column.shape.default.to_sql_text() {
            Some(default) => format!(" DEFAULT {}::{}", literal(&default), sql_type(schema, &table.name, column)),
            None => String::new(),
        };
        lines.push(format!("{}{default}", column_definition(schema, table, column)));
    }
    if table.presence {
        lines.push(format!("{PRESENCE} integer NOT NULL DEFAULT 0"));
    }
    let key: Vec<String> = table.key.iter().map(|column| ident(&column.name)).collect();
    lines.push(format!("PRIMARY KEY ({})", key.join(", ")));
    let storage = table.fillfactor.map(|percent| format!(" WITH (fillfactor = {percent})")).unwrap_or_default();
    format!("CREATE TABLE {} ({}){storage}", table_name(schema, table), lines.join(", "))
}

fn column_definition(schema: &str, table: &Table, column: &Column) -> String {
    let type_ = &column.shape.type_;
    let collation = if type_.scalar == Scalar::Text { " COLLATE \"C\"" } else { "" };
    format!("{} {}{collation}", ident(&column.name), sql_type(schema, &table.name, column))
}

/// The statements that make a served table visible to readers.
pub fn view_statements(plan: &Plan, table: &Table, schema: &str, served_schema: &str) -> Vec<String> {
    let view = format!("{}.{}", ident(served_schema), ident(&table.name));
    let columns: Vec<&Column> = table.key.iter().chain(table.columns.iter().filter(|c| !c.hidden)).collect();
    let names: Vec<String> = columns.iter().map(|column| ident(&column.name)).collect();
    let visible = if table.presence { format!(" WHERE {PRESENCE} <> 0") } else { String::new() };
    let from = table_name(schema, table);
    let mut statements = vec![format!("CREATE VIEW {view} AS SELECT {} FROM {from}{visible}", names.join(", "))];
    if let Some(description) = &plan.description {
        statements.push(format!("COMMENT ON VIEW {view} IS {}", literal(description)));
    }
    for column in columns {
        if let Some(description) = &column.description {
            let target = format!("{view}.{}", ident(&column.name));
            statements.push(format!("COMMENT ON COLUMN {target} IS {}", literal(description)));
        }
    }
    statements
}
