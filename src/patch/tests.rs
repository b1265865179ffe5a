//! The laws of patches, on random ones.

use proptest::prelude::*;

use super::*;
use crate::plan::types::ColumnType;

/// What may happen to a column is fixed by the plan: sums with sets, extremes with sets, or sets alone.
const COLUMNS: &[(&str, u8)] =
    &[("text", 0), ("bigint", 1), ("numeric(20,2)", 1), ("integer", 2), ("text", 3), ("enum(a, b, c)", 2)];

fn shapes() -> Vec<ColumnShape> {
    COLUMNS.iter().map(|(type_, _)| ColumnShape::plain(ColumnType::parse(type_).unwrap(), Value::Null)).collect()
}

fn value(column: usize) -> BoxedStrategy<Value> {
    match COLUMNS[column].0 {
        "text" => "[a-cZé]{0,3}".prop_map(|text| Value::text(&text)).boxed(),
        "enum(a, b, c)" => prop_oneof!["a", "b", "c"].prop_map(|text| Value::text(&text)).boxed(),
        _ => (-1000i64..1000).prop_map(Value::Int).boxed(),
    }
}

fn change(column: usize) -> BoxedStrategy<Change> {
    let set = prop_oneof![4 => value(column), 1 => Just(Value::Null)].prop_map(Change::Set);
    let other = value(column).prop_map(move |value| match COLUMNS[column].1 {
        1 => Change::Add(value),
        2 => Change::Max(value),
        3 => Change::Min(value),
        _ => Change::Set(value),
    });
    prop_oneof![1 => set, 2 => other].boxed()
}

fn patch() -> impl Strategy<Value = Patch> {
    let columns: Vec<_> = (0..COLUMNS.len()).map(|column| proptest::option::of(change(column))).collect();
    (columns, 0u32..8, 0u32..8).prop_map(|(changes, begun, ended)| Patch {
        presence: Presence { begun: begun & !ended, ended },
        changes: changes.into_iter().enumerate().filter_map(|(at, change)| Some((at as u16, change?))).collect(),
        tail: Vec::new(),
    })
}

fn then(mut a: Patch, b: &Patch) -> Patch {
    a.then(b.clone(), &shapes()).unwrap();
    a
}

fn applied(row: &Row, patch: &Patch) -> Row {
    let mut row = row.clone();
    patch.apply(&[], &mut row, &shapes()).unwrap();
    row
}

proptest! {
    #[test]
    fn composing_is_associative(a in patch(), b in patch(), c in patch()) {
        let left = then(then(a.clone(), &b), &c);
        let right = then(a, &then(b, &c));
        prop_assert_eq!(left, right);
    }

    #[test]
    fn the_empty_patch_is_the_identity(a in patch()) {
        prop_assert_eq!(then(Patch::default(), &a), a.clone());
        prop_assert_eq!(then(a.clone(), &Patch::default()), a);
    }

    #[test]
    fn applying_the_composition_is_applying_one_after_the_other(start in patch(), a in patch(), b in patch()) {
        let row = applied(&Row::blank(&shapes()), &start);
        prop_assert_eq!(applied(&row, &then(a.clone(), &b)), applied(&applied(&row, &a), &b));
    }
}

#[test]
fn a_sum_that_leaves_its_type_is_told() {
    let shapes = [ColumnShape::plain(ColumnType::parse("smallint").unwrap(), Value::Null)];
    let patch = |change| Patch { changes: vec![(0, change)], ..Patch::default() };
    let mut first = patch(Change::Set(Value::Int(32_000)));
    assert_eq!(first.then(patch(Change::Add(Value::Int(1_000))), &shapes).unwrap_err().column, Some(0));
}
