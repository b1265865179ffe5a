//! Queries of a view in memory: what the endpoint would answer.

use std::cmp::Ordering;

use super::ReadRow;
use super::case::Asked;
use super::model::Model;
use crate::plan::types::{ColumnType, Scalar};
use crate::plan::{Plan, Table};
use crate::query::{Comparison, Filter, Is, Order, Query, Test};
use crate::spec::diagnostic::Sink;
use crate::value::Value;
use crate::value::json::json_value;

/// What a query answers that is not golden.
///
/// # Errors
/// When the rows cannot be read, or the query cannot be answered here.
pub fn compare(plan: &Plan, model: &Model, asked: &Asked, now: i64, sink: &Sink) -> Result<Vec<String>, String> {
    let (view, text) = asked.get.split_once('?').unwrap_or((&asked.get.value, ""));
    let found = plan.tables.iter().position(|table| table.served && table.name == view.trim_start_matches('/'));
    let Some(at) = found else {
        sink.error("unknown-table", &asked.get.span, format!("there is no view `{view}`"), None);
        return Ok(Vec::new());
    };
    let query = match Query::parse(text) {
        Ok(query) => query,
        Err(unreadable) => {
            sink.error("bad-query", &asked.get.span, unreadable.message, Some(unreadable.hint.into()));
            return Ok(Vec::new());
        }
    };
    let table = &plan.tables[at];
    let answer = answer(table, &query, model.visible_rows(plan, at, now)?)?;
    let sorted = |mut row: ReadRow| {
        row.sort_keys();
        super::show(&row)
    };
    let answer: Vec<String> = answer.into_iter().map(sorted).collect();
    let expected: Vec<String> = asked
        .rows
        .iter()
        .map(|row| {
            let columns = row.iter().map(|(name, literal)| {
                let value = json_value(&literal.value.0).and_then(|value| match type_of(table, name) {
                    Some(type_) => type_.coerce(value),
                    None => Err(format!("{} has no column `{}`", table.name, name.value)),
                });
                let value = value.unwrap_or_else(|message| {
                    sink.error("wrong-value", &literal.span, message, None);
                    Value::Null
                });
                (name.value.clone(), value)
            });
            sorted(columns.collect())
        })
        .collect();
    let mut differences = Vec::new();
    if answer != expected {
        differences.push(format!("  {} answers:", asked.get.value));
        differences
            .extend(answer.iter().filter(|row| !expected.contains(row)).map(|row| format!("    unexpected: {row}")));
        differences
            .extend(expected.iter().filter(|row| !answer.contains(row)).map(|row| format!("    missing: {row}")));
        if differences.len() == 1 {
            differences.push(format!("    the same rows in another order: {}", answer.join(" ")));
        }
    }
    Ok(differences)
}

fn type_of<'t>(table: &'t Table, column: &str) -> Option<&'t ColumnType> {
    let stored = table.key.iter().chain(&table.columns).filter(|c| !c.hidden).map(|c| (&c.name, &c.shape.type_));
    let generated = table.generated.iter().filter(|c| !c.hidden).map(|c| (&c.name, &c.type_));
    stored.chain(generated).find(|(name, _)| *name == column).map(|(_, type_)| type_)
}

fn answer(table: &Table, query: &Query, rows: Vec<ReadRow>) -> Result<Vec<ReadRow>, String> {
    let known = |column: &str| type_of(table, column).ok_or_else(|| format!("{} has no column `{column}`", table.name));
    let mut kept = Vec::new();
    for row in rows {
        let mut holds = true;
        for filter in &query.filters {
            holds = holds && passes(filter, &row, known(&filter.column)?)?;
        }
        if holds {
            kept.push(row);
        }
    }
    for order in &query.order {
        known(&order.column)?;
    }
    kept.sort_by(|a, b| {
        let orders = query.order.iter().map(|order| compare_by(order, a, b, type_of(table, &order.column)));
        orders.fold(Ordering::Equal, Ordering::then)
    });
    let limit = query.limit.map_or(usize::MAX, |limit| limit as usize);
    let kept = kept.into_iter().skip(query.offset as usize).take(limit);
    for column in &query.select {
        known(column)?;
    }
    Ok(match query.select.is_empty() {
        true => kept.collect(),
        false => kept.map(|row| query.select.iter().map(|c| (c.clone(), row[c].clone())).collect()).collect(),
    })
}

fn compare_by(order: &Order, a: &ReadRow, b: &ReadRow, type_: Option<&ColumnType>) -> Ordering {
    let (a, b) = (&a[&order.column], &b[&order.column]);
    let nulls_first = order.nulls_first.unwrap_or(order.descending);
    match (a.is_null(), b.is_null()) {
        (true, true) => Ordering::Equal,
        (a_null, b_null) if a_null || b_null => {
            if a_null == nulls_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        _ => {
            let ordering = type_.map_or(Ordering::Equal, |type_| type_.compare(a, b));
            if order.descending { ordering.reverse() } else { ordering }
        }
    }
}

/// NULL passes no test but `is`, negated or not.
fn passes(filter: &Filter, row: &ReadRow, type_: &ColumnType) -> Result<bool, String> {
    let value = &row[&filter.column];
    let read = |text: &str| {
        let json = match type_.scalar {
            _ if type_.array => return Err("arrays are not compared here".to_string()),
            Scalar::Bool | Scalar::Int2 | Scalar::Int4 | Scalar::Int8 | Scalar::Numeric(_) | Scalar::Float8 => {
                json_value(text)?
            }
            _ => Value::text(text),
        };
        type_.coerce(json)
    };
    let holds = match &filter.test {
        Test::Is(is) => Some(match is {
            Is::Null | Is::Unknown => value.is_null(),
            Is::NotNull => !value.is_null(),
            Is::True => *value == Value::Bool(true),
            Is::False => *value == Value::Bool(false),
        }),
        _ if value.is_null() => None,
        Test::In(list) => {
            let list: Result<Vec<Value>, String> = list.iter().map(|text| read(text)).collect();
            Some(list?.contains(value))
        }
        Test::Compare(comparison, text) => {
            let ordering = type_.compare(value, &read(text)?);
            Some(match comparison {
                Comparison::Equal => ordering.is_eq(),
                Comparison::NotEqual => ordering.is_ne(),
                Comparison::Greater => ordering.is_gt(),
                Comparison::GreaterOrEqual => ordering.is_ge(),
                Comparison::Less => ordering.is_lt(),
                Comparison::LessOrEqual => ordering.is_le(),
            })
        }
        Test::Like { pattern, ignore_case } => {
            let parts: Vec<String> = pattern.split(['*', '%']).map(regex::escape).collect();
            let flag = if *ignore_case { "(?is)" } else { "(?s)" };
            let regex = format!("{flag}^{}$", parts.join(".*").replace('_', "."));
            let regex = regex::Regex::new(&regex).map_err(|error| error.to_string())?;
            Some(regex.is_match(&value.to_sql_text().unwrap_or_default()))
        }
    };
    Ok(holds.is_some_and(|holds| holds != filter.negated))
}
