//! Queries of a view in memory: what the endpoint would answer.

use std::cmp::Ordering;

use super::ReadRow;
use super::case::Asked;
use super::model::Model;
use crate::plan::types::{ColumnType, Scalar};
use crate::plan::{Plan, Table};
use crate::query::{Condition, Field, Is, Item, Operator, Order, Quantifier, Query, Selected, Test};
use crate::spec::diagnostic::Sink;
use crate::value::Value;
use crate::value::json::{json_items, json_value};

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
            sink.error("bad-query", &asked.get.span, unreadable.message, Some(unreadable.hint));
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
    let known = |field: &Field| type_of(table, plain(field)?).ok_or_else(|| unknown(table, &field.column));
    let mut kept = Vec::new();
    for row in rows {
        let mut holds = Some(true);
        for filter in &query.filters {
            holds = both(holds, passes(filter, &row, &known)?);
        }
        if holds == Some(true) {
            kept.push(row);
        }
    }
    let mut orders = Vec::new();
    for order in &query.order {
        match order.of {
            None => orders.push((order, known(&order.field)?)),
            Some(_) => return Err(LATER.into()),
        }
    }
    kept.sort_by(|a, b| {
        let ordered = orders.iter().map(|(order, type_)| compare_by(order, a, b, type_));
        ordered.fold(Ordering::Equal, Ordering::then)
    });
    let limit = query.limit.map_or(usize::MAX, |limit| limit as usize);
    let kept = kept.into_iter().skip(query.offset as usize).take(limit);
    let mut shown: Vec<(String, String)> = Vec::new();
    for item in &query.select {
        match item {
            Item::All if query.select.len() == 1 => return Ok(kept.collect()),
            Item::Field(Selected { field: Some(field), alias, cast: None, aggregate: None }) => {
                known(field)?;
                shown.push((alias.clone().unwrap_or_else(|| field.column.clone()), field.column.clone()));
            }
            _ => return Err(LATER.into()),
        }
    }
    Ok(kept.map(|row| shown.iter().map(|(name, column)| (name.clone(), row[column].clone())).collect()).collect())
}

const LATER: &str = "embedding, JSON paths, casts and aggregates are not asked here: ask them of a running endpoint";

fn plain(field: &Field) -> Result<&str, String> {
    if field.path.is_empty() { Ok(&field.column) } else { Err(LATER.into()) }
}

fn unknown(table: &Table, column: &str) -> String {
    format!("{} has no column `{column}`", table.name)
}

fn compare_by(order: &Order, a: &ReadRow, b: &ReadRow, type_: &ColumnType) -> Ordering {
    let (a, b) = (&a[&order.field.column], &b[&order.field.column]);
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
            let ordering = type_.compare(a, b);
            if order.descending { ordering.reverse() } else { ordering }
        }
    }
}

/// `AND` of SQL, where `None` is NULL.
fn both(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn not(a: Option<bool>) -> Option<bool> {
    a.map(|holds| !holds)
}

fn passes<'t>(
    condition: &Condition,
    row: &ReadRow,
    known: &impl Fn(&Field) -> Result<&'t ColumnType, String>,
) -> Result<Option<bool>, String> {
    match condition {
        Condition::All(parts) => {
            parts.iter().try_fold(Some(true), |holds, part| Ok(both(holds, passes(part, row, known)?)))
        }
        Condition::Any(parts) => {
            let none = parts
                .iter()
                .try_fold(Some(true), |none, part| Ok::<_, String>(both(none, not(passes(part, row, known)?))));
            Ok(not(none?))
        }
        Condition::Not(part) => Ok(not(passes(part, row, known)?)),
        Condition::Test(field, test) => holds(test, &row[plain(field)?], known(field)?),
    }
}

/// Whether an array has all of `{a,b}`.
fn contains(value: &Value, text: &str) -> Result<bool, String> {
    let items: Vec<Option<String>> = match value {
        Value::List(items) => items.iter().map(Value::to_sql_text).collect(),
        Value::Json(raw) => json_items(raw)?.iter().map(Value::to_sql_text).collect(),
        _ => return Err("the column holds no array".into()),
    };
    let wanted = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let wanted = wanted.filter(|wanted| !wanted.contains(['"', '{', '\\'])).ok_or("an array is written {a,b} here")?;
    let mut wanted = wanted.split(',').map(str::trim).filter(|item| !item.is_empty());
    Ok(wanted.all(|item| items.iter().flatten().any(|known| known == item)))
}

/// Whether a value passes a test; of NULL nobody knows, but with `is`.
fn holds(test: &Test, value: &Value, type_: &ColumnType) -> Result<Option<bool>, String> {
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
    let compared = |operator: Operator, text: &str| -> Result<bool, String> {
        let ordering = |text: &str| Ok::<_, String>(type_.compare(value, &read(text)?));
        Ok(match operator {
            Operator::Equal => ordering(text)?.is_eq(),
            Operator::NotEqual | Operator::IsDistinct => ordering(text)?.is_ne(),
            Operator::Greater => ordering(text)?.is_gt(),
            Operator::GreaterOrEqual => ordering(text)?.is_ge(),
            Operator::Less => ordering(text)?.is_lt(),
            Operator::LessOrEqual => ordering(text)?.is_le(),
            Operator::Like | Operator::ILike => {
                let parts: Vec<String> = text.split('%').map(regex::escape).collect();
                let flag = if operator == Operator::ILike { "(?is)" } else { "(?s)" };
                let regex = format!("{flag}^{}$", parts.join(".*").replace('_', "."));
                let regex = regex::Regex::new(&regex).map_err(|error| error.to_string())?;
                regex.is_match(&value.to_sql_text().unwrap_or_default())
            }
            _ => return Err("ranges, arrays and regular expressions are not asked here: ask a running endpoint".into()),
        })
    };
    Ok(match test {
        Test::Is(is) => Some(match is {
            Is::Null | Is::Unknown => value.is_null(),
            Is::NotNull => !value.is_null(),
            Is::True => *value == Value::Bool(true),
            Is::False => *value == Value::Bool(false),
        }),
        Test::Compare(Operator::IsDistinct, _) if value.is_null() => Some(true),
        _ if value.is_null() => None,
        Test::In(list) => {
            let list: Result<Vec<Value>, String> = list.iter().map(|text| read(text)).collect();
            Some(list?.contains(value))
        }
        Test::Compare(Operator::Contains, text) if type_.array => Some(contains(value, text)?),
        Test::Compare(operator, text) => Some(compared(*operator, text)?),
        Test::Quantified(operator, quantifier, texts) => {
            let each = texts.iter().map(|text| text.as_ref().map(|text| compared(*operator, text)).transpose());
            let each = each.collect::<Result<Vec<Option<bool>>, String>>()?;
            match quantifier {
                Quantifier::All => each.into_iter().fold(Some(true), both),
                Quantifier::Any => not(each.into_iter().map(not).fold(Some(true), both)),
            }
        }
        Test::Search(_) => return Err("full text is not searched here: ask a running endpoint".into()),
    })
}
