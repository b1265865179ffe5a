//! Expressions over a row, as Postgres works them out when the row is read.
//!
//! They mean what [`crate::plan::expr`] makes of them: equality is null-safe, text compares by bytes, a division is exact to
//! 28 digits before it is rounded half to even. What has no such form is refused when the projection is compiled.

use super::sql::{ident, literal};
use crate::plan::expr::{Arithmetic, Comparison, Expr, Function, Node, RowRef};
use crate::plan::types::{ColumnType, Kind, Scalar};
use crate::plan::{Column, Table};
use crate::value::Value;

/// A compiled expression over the columns of a table, as SQL.
pub fn row_sql(expr: &Expr, table: &Table) -> String {
    row_sql_of(expr, table, "")
}

/// The same, of columns with a prefix such as `c.`.
pub fn row_sql_of(expr: &Expr, table: &Table, prefix: &str) -> String {
    Writer { table, prefix }.node(&expr.node).0
}

struct Writer<'t> {
    table: &'t Table,
    prefix: &'t str,
}

impl Writer<'_> {
    /// The SQL of a node and the kind of its value.
    fn node(&self, node: &Node) -> (String, Kind) {
        match node {
            Node::Const(value) => constant(value),
            Node::Row(RowRef { of_key, at }) => {
                let columns: &[Column] = if *of_key { &self.table.key } else { &self.table.columns };
                column(&columns[usize::from(*at)], self.prefix)
            }
            Node::Not(a) => (format!("(NOT {})", self.sql(a)), Kind::Bool),
            Node::Negate(a) => (format!("(- {})", self.sql(a)), Kind::Number),
            Node::And(a, b) => (format!("({} AND {})", self.sql(a), self.sql(b)), Kind::Bool),
            Node::Or(a, b) => (format!("({} OR {})", self.sql(a), self.sql(b)), Kind::Bool),
            Node::If(condition, yes, no) => {
                let ((yes, kind), (no, other)) = (self.node(yes), self.node(no));
                let sql = format!("(CASE WHEN {} THEN {yes} ELSE {no} END)", self.sql(condition));
                (sql, if kind == Kind::Null { other } else { kind })
            }
            Node::Compare(comparison, a, b) => {
                let operator = match comparison {
                    Comparison::Equal => "IS NOT DISTINCT FROM",
                    Comparison::NotEqual => "IS DISTINCT FROM",
                    Comparison::Less => "<",
                    Comparison::LessOrEqual => "<=",
                    Comparison::Greater => ">",
                    Comparison::GreaterOrEqual => ">=",
                };
                (format!("({} {operator} {})", self.sql(a), self.sql(b)), Kind::Bool)
            }
            Node::In(item, list) => {
                let item = self.sql(item);
                let equal: Vec<String> =
                    list.iter().map(|other| format!("{item} IS NOT DISTINCT FROM {}", self.sql(other))).collect();
                (if equal.is_empty() { "false".into() } else { format!("({})", equal.join(" OR ")) }, Kind::Bool)
            }
            Node::Arithmetic(operator, a, b) => self.arithmetic(*operator, a, b),
            Node::Call(function, arguments) => self.call(*function, arguments),
            // Nothing else gets past the compiler.
            _ => ("NULL".into(), Kind::Null),
        }
    }

    fn sql(&self, node: &Node) -> String {
        self.node(node).0
    }

    fn arithmetic(&self, operator: Arithmetic, a: &Node, b: &Node) -> (String, Kind) {
        let ((a, kind), (b, other)) = (self.node(a), self.node(b));
        let (operator, kind) = match (operator, kind, other) {
            (Arithmetic::Add, Kind::Text, _) | (Arithmetic::Add, _, Kind::Text) => ("||", Kind::Text),
            (Arithmetic::Add, Kind::Duration, kind) => ("+", kind),
            (Arithmetic::Add, kind, _) => ("+", kind),
            (Arithmetic::Subtract, Kind::Time, Kind::Time) => ("-", Kind::Duration),
            (Arithmetic::Subtract, kind, _) => ("-", kind),
            (Arithmetic::Multiply, ..) => ("*", Kind::Number),
            (Arithmetic::Divide, ..) => {
                return (format!("(({a} * 1.{}) / NULLIF({b}, 0))", "0".repeat(28)), Kind::Number);
            }
            (Arithmetic::Modulo, ..) => return (format!("({a} % NULLIF({b}, 0))"), Kind::Number),
        };
        (format!("({a} {operator} {b})"), kind)
    }

    fn call(&self, function: Function, arguments: &[Node]) -> (String, Kind) {
        let all: Vec<(String, Kind)> = arguments.iter().map(|argument| self.node(argument)).collect();
        let sql = |at: usize| all.get(at).map_or("NULL", |(sql, _)| sql.as_str());
        match function {
            Function::Coalesce => {
                let list: Vec<&str> = all.iter().map(|(sql, _)| sql.as_str()).collect();
                let kind = all.iter().map(|(_, kind)| *kind).find(|kind| *kind != Kind::Null).unwrap_or(Kind::Null);
                (format!("COALESCE({})", list.join(", ")), kind)
            }
            Function::Size => {
                let size = match all.first().map(|(_, kind)| *kind) {
                    Some(Kind::List) => format!("COALESCE(cardinality({0}), NULL)", sql(0)),
                    Some(Kind::Text) => format!("char_length({})", sql(0)),
                    _ => format!("(CASE WHEN jsonb_typeof({0}) = 'array' THEN jsonb_array_length({0}) END)", sql(0)),
                };
                (format!("{size}::numeric"), Kind::Number)
            }
            Function::StartsWith => (format!("starts_with({}, {})", sql(0), sql(1)), Kind::Bool),
            Function::EndsWith => (format!("(right({}, char_length({1})) = {1})", sql(0), sql(1)), Kind::Bool),
            Function::Contains => (format!("(strpos({}, {}) > 0)", sql(0), sql(1)), Kind::Bool),
            Function::LowerAscii => (format!("lower({})", sql(0)), Kind::Text),
            Function::UpperAscii => (format!("upper({})", sql(0)), Kind::Text),
            Function::Replace => (format!("replace({}, {}, {})", sql(0), sql(1), sql(2)), Kind::Text),
            Function::Round => (format!("projector.round_half_even({}, {}::integer)", sql(0), sql(1)), Kind::Number),
            Function::Abs => (format!("abs({})", sql(0)), Kind::Number),
            Function::Bucket => {
                let zone = all.get(2).map_or("'UTC'", |(zone, _)| zone.as_str());
                (format!("date_trunc({}, {}, {zone})", sql(1), sql(0)), Kind::Time)
            }
            Function::Date => {
                let zone = all.get(1).map_or("'UTC'", |(zone, _)| zone.as_str());
                (format!("({} AT TIME ZONE {zone})::date", sql(0)), Kind::Date)
            }
            _ => ("NULL".into(), Kind::Null),
        }
    }
}

/// A column in the form in which expressions see it: whole and fractional numbers alike, text by bytes.
fn column(column: &Column, prefix: &str) -> (String, Kind) {
    let type_: &ColumnType = &column.shape.type_;
    let name = format!("{prefix}{}", ident(&column.name));
    let kind = type_.kind();
    let sql = match (&type_.scalar, type_.array) {
        (_, true) | (Scalar::Jsonb, _) => name,
        (Scalar::Int2 | Scalar::Int4 | Scalar::Int8 | Scalar::Numeric(_), _) => format!("{name}::numeric"),
        _ if kind == Kind::Text => format!("({name}::text COLLATE \"C\")"),
        _ => name,
    };
    (sql, kind)
}

fn constant(value: &Value) -> (String, Kind) {
    let text = value.to_sql_text().unwrap_or_default();
    match value {
        Value::Null => ("NULL".into(), Kind::Null),
        Value::Bool(b) => (b.to_string(), Kind::Bool),
        Value::Int(_) | Value::Decimal(_) | Value::Digits(_) => (format!("{}::numeric", literal(&text)), Kind::Number),
        Value::Float(_) => (format!("{}::double precision", literal(&text)), Kind::Number),
        Value::Text(_) => (format!("({}::text COLLATE \"C\")", literal(&text)), Kind::Text),
        Value::Time(_) => (format!("{}::timestamptz", literal(&text)), Kind::Time),
        Value::Date(_) => (format!("{}::date", literal(&text)), Kind::Date),
        Value::Duration(micros) => (format!("make_interval(secs => {micros}::numeric / 1000000)"), Kind::Duration),
        Value::Json(_) | Value::List(_) => (format!("{}::jsonb", literal(&value.to_json_text())), Kind::Any),
    }
}
