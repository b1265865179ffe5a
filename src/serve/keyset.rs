//! Pages that are stable under writes: each begins behind the last row of the one before, wherever that is by now.
//!
//! The rows are put in a total order, by what is asked for and then by the key. `Link: <…>; rel="next"` (RFC 8288) has
//! the place of the page's last row in that order as the parameter [`PARAMETER`].

use std::collections::HashMap;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::query::{Condition, Field, Is, Item, Operator, Order, Query, Test};
use crate::store::read::Relation;

/// The values of a row that come next, in the order of the terms: a JSON list, base64url.
pub(super) const PARAMETER: &str = "projector.after";

/// A row of an answer, its values as they are written: numbers keep all their digits.
pub(super) type Row<'r> = HashMap<String, &'r RawValue>;

/// The last row of an answer.
pub(super) fn last(body: &str) -> Option<Row<'_>> {
    let rows: Vec<&RawValue> = serde_json::from_str(body).ok()?;
    serde_json::from_str(rows.last()?.get()).ok()
}

/// Takes the place out of a query string. The rest of it is the reader's.
pub(super) fn split(raw: &str) -> (String, Option<String>) {
    let is_place = |pair: &&str| pair.split('=').next() == Some(PARAMETER);
    let place = raw.split('&').find(is_place).and_then(|pair| pair.split_once('=')).map(|(_, place)| place.to_string());
    let rest: Vec<&str> = raw.split('&').filter(|pair| !is_place(pair)).collect();
    (rest.join("&"), place)
}

/// Puts the rows of a query that has a limit in a total order, if its relation has a key and shows it. Returns the
/// columns by which they are ordered then.
pub(super) fn order(query: &mut Query, relation: &Relation) -> Option<Vec<String>> {
    let plain = |order: &Order| order.of.is_none() && order.field.path.is_empty();
    let is_shown = |name: &String| {
        query.select.iter().any(|item| match item {
            Item::All => relation.column(name).is_some(),
            Item::Field(selected) => {
                let is_it = |field: &Field| field.column == *name && field.path.is_empty();
                selected.field.as_ref().is_some_and(is_it)
                    && selected.cast.is_none()
                    && selected.alias.as_ref().is_none_or(|alias| alias == name)
            }
            Item::Embed(_) => false,
        })
    };
    let aggregates = |item: &Item| match item {
        Item::Field(selected) => selected.aggregate.is_some(),
        // Its aggregates and its columns become the row's own.
        Item::Embed(embed) => embed.spread,
        Item::All => false,
    };
    let ordered: Vec<String> = query.order.iter().map(|order| order.field.column.clone()).collect();
    let missing: Vec<&String> = relation.key.iter().filter(|key| !ordered.contains(key)).collect();
    let can = query.limit.is_some()
        && !relation.key.is_empty()
        && query.order.iter().all(plain)
        && !query.select.iter().any(aggregates)
        && ordered.iter().chain(missing.iter().copied()).all(is_shown);
    if !can {
        return None;
    }
    let columns: Vec<String> = ordered.iter().chain(missing.iter().copied()).cloned().collect();
    query.order.extend(
        columns[ordered.len()..]
            .iter()
            .map(|key| Order { field: Field { column: key.clone(), path: Vec::new() }, ..Order::default() }),
    );
    Some(columns)
}

/// Lets a query begin behind a place.
///
/// # Errors
/// When that is no place in its order.
pub(super) fn begin_behind(query: &mut Query, place: &str) -> Result<(), Problem> {
    let values =
        URL_SAFE_NO_PAD.decode(place).ok().and_then(|bytes| serde_json::from_slice::<Vec<Box<RawValue>>>(&bytes).ok());
    let values = values.filter(|values| values.len() == query.order.len()).ok_or_else(no_place)?;
    let mut behind: Option<Condition> = None;
    for (order, value) in query.order.iter().zip(&values).rev() {
        let test = |test| Condition::Test(order.field.clone(), test);
        let nulls_last = !order.nulls_first.unwrap_or(order.descending);
        let operator = if order.descending { Operator::Less } else { Operator::Greater };
        let (mut later, equal) = match value_text(value) {
            None if nulls_last => (Vec::new(), test(Test::Is(Is::Null))),
            None => (vec![test(Test::Is(Is::NotNull))], test(Test::Is(Is::Null))),
            Some(text) => {
                let beyond = test(Test::Compare(operator, text.clone()));
                let nulls = nulls_last.then(|| test(Test::Is(Is::Null)));
                (std::iter::once(beyond).chain(nulls).collect(), test(Test::Compare(Operator::Equal, text)))
            }
        };
        later.extend(behind.take().map(|behind| Condition::All(vec![equal, behind])));
        behind = Some(if later.is_empty() { Condition::Any(vec![never(order)]) } else { Condition::Any(later) });
    }
    query.filters.extend(behind);
    Ok(())
}

/// A place that nothing can begin behind.
pub(super) fn no_place() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "PROJ400", format!("{PARAMETER} is no place in the order of this query"))
        .hint("follow the `Link` of an answer as it is, without a Range")
}

/// Holds for no row.
fn never(order: &Order) -> Condition {
    Condition::Test(order.field.clone(), Test::In(Vec::new()))
}

fn value_text(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        text if text.starts_with('"') => serde_json::from_str(text).ok(),
        other => Some(other.to_string()),
    }
}

/// The address of the page behind a row.
pub(super) fn next(path: &str, raw: &str, columns: &[String], last: &Row<'_>) -> Option<String> {
    let values: Vec<&str> =
        columns.iter().map(|column| last.get(column).map(|value| value.get())).collect::<Option<_>>()?;
    // What JSON shows otherwise than Postgres reads it is no place.
    if values.iter().any(|value| value.starts_with(['{', '['])) {
        return None;
    }
    let place = URL_SAFE_NO_PAD.encode(format!("[{}]", values.join(",")));
    let rest = raw.split('&').filter(|pair| !pair.is_empty() && pair.split('=').next() != Some("offset"));
    let rest: Vec<&str> = rest.collect();
    let and = if rest.is_empty() { "" } else { "&" };
    Some(format!("<{path}?{}{and}{PARAMETER}={place}>; rel=\"next\"", rest.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_as_a_condition() {
        let mut query = Query::parse("order=total.desc&limit=2").unwrap();
        let relation = Relation {
            key: vec!["id".into()],
            columns: ["id", "total"]
                .map(|name| crate::store::read::Column { name: name.into(), ..Default::default() })
                .into(),
            ..Relation::default()
        };
        let columns = order(&mut query, &relation).unwrap();
        assert_eq!(columns, ["total", "id"]);
        let link = next(
            "/orders",
            "order=total.desc&limit=2",
            &columns,
            &serde_json::from_str(r#"{"id":"b","total":7.500000000000000000001}"#).unwrap(),
        )
        .unwrap();
        let place = link.split(&format!("{PARAMETER}=")).nth(1).unwrap().split('>').next().unwrap();
        begin_behind(&mut query, place).unwrap();
        let field = |name: &str| Field { column: name.into(), path: Vec::new() };
        let compare = |name, operator, value: &str| Condition::Test(field(name), Test::Compare(operator, value.into()));
        let Some(Condition::Any(behind)) = query.filters.first() else { panic!("{query:?}") };
        assert_eq!(behind[0], compare("total", Operator::Less, "7.500000000000000000001"));
        let Condition::All(same) = &behind[1] else { panic!("{query:?}") };
        assert_eq!(same[0], compare("total", Operator::Equal, "7.500000000000000000001"));
        assert!(begin_behind(&mut query, "bm8").is_err());
    }
}
