//! Joins and rollups the naive way: all of them worked out anew from all rows, until nothing changes any more.
//!
//! Of the store's way it shares the definition alone: no marks, no sums kept, no SQL.

use std::cmp::Ordering;
use std::collections::HashMap;

use rust_decimal::{Decimal, RoundingStrategy};

use crate::batch::Key;
use crate::patch::Row;
use crate::plan::derived::{Addend, Item, Join, Quotient, Rollup, What};
use crate::plan::expr::{Env, Expr, RowRef, RowView};
use crate::plan::{Plan, Table};
use crate::value::Value;

pub(super) type Rows = HashMap<Key, Row>;

/// Fills the columns that follow from other rows. Columns follow each other in no circle, so that it comes to an end.
///
/// # Errors
/// When an expression has no value.
pub(super) fn derive(plan: &Plan, tables: &mut [Rows]) -> Result<(), String> {
    if plan.edges.is_empty() {
        return Ok(());
    }
    loop {
        let mut changed = false;
        for at in 0..plan.tables.len() {
            for join in &plan.tables[at].joins {
                changed |= fill(plan, at, join, tables);
            }
            let mut counted: HashMap<Key, i64> = HashMap::new();
            for rollup in &plan.tables[at].rollups {
                changed |= aggregate(plan, at, rollup, tables, &mut counted)?;
            }
            if let Some(children) = plan.tables[at].children {
                for (key, row) in &mut tables[at] {
                    let count = Value::Int(counted.get(key).copied().unwrap_or(0));
                    changed |= replace(&mut row.values[usize::from(children)], count);
                }
            }
        }
        if !changed {
            return Ok(());
        }
    }
}

fn fill(plan: &Plan, at: usize, join: &Join, tables: &mut [Rows]) -> bool {
    let (table, other) = (&plan.tables[at], &plan.tables[join.table]);
    let mut rows = std::mem::take(&mut tables[at]);
    // A table may refer to itself.
    let copy = (join.table == at).then(|| rows.clone());
    let partners = copy.as_ref().unwrap_or(&tables[join.table]);
    let mut changed = false;
    for (key, row) in &mut rows {
        let referred: Key = join.by.iter().map(|by| table.value(*by, key, row).clone()).collect();
        let found = partners.get(&referred).filter(|partner| match join.keep {
            true => other.has_existed(partner),
            false => other.exists(partner),
        });
        for (column, from) in &join.fill {
            let value = match found {
                Some(partner) => other.value(*from, &referred, partner).clone(),
                None => Value::Null,
            };
            let value = if value.is_null() { table.shapes[usize::from(*column)].default.clone() } else { value };
            changed |= replace(&mut row.values[usize::from(*column)], value);
        }
    }
    tables[at] = rows;
    changed
}

fn replace(place: &mut Value, value: Value) -> bool {
    let changed = *place != value;
    *place = value;
    changed
}

/// A row that is aggregated.
#[derive(Clone, Copy)]
struct Child<'c> {
    table: &'c Table,
    key: &'c Key,
    row: &'c Row,
}

impl<'c> Child<'c> {
    fn eval(&self, expr: &Expr) -> Result<Value, String> {
        let view = RowView { key: self.key, values: &self.row.values };
        expr.eval(&Env::reader(view)).map_err(|failure| failure.message)
    }

    fn holds(&self, condition: &Option<Expr>) -> Result<bool, String> {
        let Some(condition) = condition else { return Ok(true) };
        let view = RowView { key: self.key, values: &self.row.values };
        condition.holds(&Env::reader(view)).map_err(|failure| failure.message)
    }

    fn value(&self, at: RowRef) -> &'c Value {
        self.table.value(at, self.key, self.row)
    }

    fn parent(&self, rollup: &Rollup) -> Key {
        rollup.by.iter().map(|by| self.value(*by).clone()).collect()
    }

    /// By columns, NULL the greatest, then by key.
    fn compare(&self, other: &Child<'_>, by: &[RowRef]) -> Ordering {
        let columns = by.iter().map(|at| order(self.value(*at), other.value(*at)));
        let keys = self.key.iter().zip(other.key).map(|(a, b)| order(a, b));
        columns.chain(keys).fold(Ordering::Equal, Ordering::then)
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a.is_null(), b.is_null()) {
        (false, false) => a.compare(b).unwrap_or(Ordering::Equal),
        (a, b) => a.cmp(&b),
    }
}

/// `counted` grows by the rows that belong to each key: those of all rollups together say whether a row is there.
fn aggregate(
    plan: &Plan,
    at: usize,
    rollup: &Rollup,
    tables: &mut [Rows],
    counted: &mut HashMap<Key, i64>,
) -> Result<bool, String> {
    let (parent, child) = (&plan.tables[at], &plan.tables[rollup.table]);
    let mut families: HashMap<Key, Vec<Child<'_>>> = HashMap::new();
    let children = tables[rollup.table].clone();
    for (key, row) in children.iter().filter(|(_, row)| child.exists(row)) {
        let one = Child { table: child, key, row };
        let belongs_to = one.parent(rollup);
        if belongs_to.iter().all(|part| !part.is_null()) && one.holds(&rollup.condition)? {
            families.entry(belongs_to).or_default().push(one);
        }
    }
    for (key, family) in &families {
        *counted.entry(key.clone()).or_default() += family.len() as i64;
        tables[at].entry(key.clone()).or_insert_with(|| Row::blank(&parent.shapes));
    }
    let mut changed = false;
    for (key, row) in &mut tables[at] {
        let family = families.get(key).map(Vec::as_slice).unwrap_or_default();
        let own = values(rollup, family)?.into_iter().filter(|(column, _)| parent.children != Some(*column));
        for (column, value) in own {
            let shape = &parent.shapes[usize::from(column)];
            let value = shape.type_.coerce(value)?;
            changed |= replace(&mut row.values[usize::from(column)], value);
        }
    }
    Ok(changed)
}

fn values(rollup: &Rollup, family: &[Child<'_>]) -> Result<Vec<(u16, Value)>, String> {
    let mut found: Vec<(u16, Value)> = Vec::new();
    for sum in &rollup.sums {
        let mut total = Decimal::ZERO;
        for child in only(family, &sum.condition)? {
            let one = match &sum.addend {
                Addend::One => Decimal::ONE,
                Addend::Value(expr) => child.eval(expr)?.as_decimal().unwrap_or_default(),
                Addend::Present(expr) => Decimal::from(i64::from(!child.eval(expr)?.is_null())),
                Addend::Holds(expr) => Decimal::from(i64::from(child.eval(expr)? == Value::Bool(true))),
            };
            total = total.checked_add(one).ok_or("a sum has more digits than a decimal holds")?;
        }
        found.push((sum.column, Value::Decimal(total)));
    }
    for quotient in &rollup.quotients {
        let sum_of = |at: u16| found.iter().find(|(column, _)| *column == at).and_then(|(_, v)| v.as_decimal());
        let (column, value) = match quotient {
            Quotient::Any { column, count } => (*column, Value::Bool(sum_of(*count) > Some(Decimal::ZERO))),
            Quotient::Average { column, sum, count, scale } => {
                let (sum, count) = (sum_of(*sum).unwrap_or_default(), sum_of(*count).unwrap_or_default());
                let mean = sum.checked_div(count).map(|mean| {
                    Value::Decimal(
                        mean.round_dp_with_strategy(u32::from(*scale), RoundingStrategy::MidpointNearestEven),
                    )
                });
                (*column, mean.unwrap_or(Value::Null))
            }
        };
        found.push((column, value));
    }
    for search in &rollup.searches {
        let mut family = only(family, &search.condition)?;
        let value = match &search.what {
            What::Min(expr) => extreme(&family, expr, Ordering::Less)?,
            What::Max(expr) => extreme(&family, expr, Ordering::Greater)?,
            What::CountDistinct(expr) => {
                let mut different = std::collections::HashSet::new();
                for child in &family {
                    different.insert(child.eval(expr)?);
                }
                different.remove(&Value::Null);
                Value::Int(different.len() as i64)
            }
            What::Newest { value, by } => {
                // NULL is never newer than anything.
                let newest = family.iter().max_by(|a, b| newer(a, b, by));
                newest.map_or(Ok(Value::Null), |child| child.eval(value))?
            }
            What::List { item, by, newest } => {
                match newest {
                    Some(_) => family.sort_by(|a, b| newer(b, a, by)),
                    None => family.sort_by(|a, b| a.compare(b, by)),
                }
                let items = family.iter().take(newest.map_or(usize::MAX, |newest| newest as usize));
                let items: Vec<String> = items.map(|child| json_item(child, item)).collect::<Result<_, _>>()?;
                Value::Json(format!("[{}]", items.join(",")).into())
            }
            What::Object { name, value } => {
                family.sort_by(|a, b| a.compare(b, &[]));
                let mut members: Vec<(String, String)> = Vec::new();
                for child in family.iter().filter(|child| !child.value(*name).is_null()) {
                    let (name, value) = (json(child.value(*name)), json(child.value(*value)));
                    members.retain(|(known, _)| *known != name);
                    members.push((name, value));
                }
                let members: Vec<String> = members.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                Value::Json(format!("{{{}}}", members.join(",")).into())
            }
        };
        found.push((search.column, value));
    }
    Ok(found)
}

fn only<'f>(family: &[Child<'f>], condition: &Option<Expr>) -> Result<Vec<Child<'f>>, String> {
    let mut found = Vec::new();
    for child in family {
        if child.holds(condition)? {
            found.push(*child);
        }
    }
    Ok(found)
}

fn extreme(family: &[Child<'_>], expr: &Expr, wanted: Ordering) -> Result<Value, String> {
    let mut best = Value::Null;
    for child in family {
        let value = child.eval(expr)?;
        if best.is_null() || (!value.is_null() && value.compare(&best) == Some(wanted)) {
            best = value;
        }
    }
    Ok(best)
}

/// By columns, NULL the least, then by key.
fn newer(a: &Child<'_>, b: &Child<'_>, by: &[RowRef]) -> Ordering {
    let columns = by.iter().map(|at| {
        let (a, b) = (a.value(*at), b.value(*at));
        match (a.is_null(), b.is_null()) {
            (false, false) => a.compare(b).unwrap_or(Ordering::Equal),
            (a, b) => b.cmp(&a),
        }
    });
    columns.fold(Ordering::Equal, Ordering::then).then(a.compare(b, &[]))
}

fn json_item(child: &Child<'_>, item: &Item) -> Result<String, String> {
    Ok(match item {
        Item::Value(expr) => json(&child.eval(expr)?),
        Item::Members(members) => {
            let members = members.iter().map(|(name, at)| {
                let name = serde_json::to_string(name).unwrap_or_default();
                format!("{name}:{}", json(child.value(*at)))
            });
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
    })
}

/// A value as Postgres puts it into JSON.
fn json(value: &Value) -> String {
    match value {
        Value::Time(_) => {
            let text = value.to_json_text();
            text.replace("Z\"", "+00:00\"")
        }
        value => value.to_json_text(),
    }
}
