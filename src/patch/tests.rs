//! The laws of patches, on random ones.

use proptest::prelude::*;

use super::*;
use crate::plan::Fold;
use crate::plan::expr::{Comparison, Expr, Node, RowRef};
use crate::plan::types::{ColumnType, Kind};

/// What may happen to a column is fixed by the plan.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Set,
    Add,
    Max,
    Min,
    /// Under `latest`; columns of one slot are always written together, by versions of one event.
    Newest(u16),
    Merge,
    MergeByVersion,
    Push,
    PushLimited,
    /// The state of the column before it.
    State,
}

const COLUMNS: &[(&str, Way)] = &[
    ("text", Way::Set),
    ("bigint", Way::Add),
    ("numeric(20,2)", Way::Add),
    ("integer", Way::Max),
    ("text", Way::Min),
    ("enum(a, b, c)", Way::Max),
    ("text", Way::Newest(0)),
    ("bigint", Way::Newest(1)),
    ("jsonb", Way::Merge),
    ("jsonb", Way::MergeByVersion),
    ("jsonb", Way::State),
    ("jsonb", Way::Push),
    ("jsonb", Way::PushLimited),
];

fn shapes() -> Vec<ColumnShape> {
    let records = |limit| Some(Arc::new(RecordShape { id: "id".into(), by: vec!["at".into()], limit }));
    let shape = |(at, (type_, way)): (usize, &(&str, Way))| {
        let mut shape = ColumnShape::plain(ColumnType::parse(type_).unwrap(), Value::Null);
        match way {
            Way::Newest(slot) => shape.version = Some(*slot),
            Way::MergeByVersion => shape.members = Some(at as u16 + 1),
            Way::Push => shape.records = records(None),
            Way::PushLimited => shape.records = records(Some(2)),
            _ => {}
        }
        shape
    };
    COLUMNS.iter().enumerate().map(shape).collect()
}

fn value(column: usize) -> BoxedStrategy<Value> {
    match COLUMNS[column].0 {
        "text" => "[a-cZé]{0,3}".prop_map(|text| Value::text(&text)).boxed(),
        "enum(a, b, c)" => prop_oneof!["a", "b", "c"].prop_map(|text| Value::text(&text)).boxed(),
        _ => (-1000i64..1000).prop_map(Value::Int).boxed(),
    }
}

fn version() -> impl Strategy<Value = Version> {
    // Few versions, and places that are never the same: no two events are.
    (0i64..4, 0i64..1_000_000).prop_map(|(n, offset)| Version::new(&[Value::Int(n)], "t", 0, offset, 0).unwrap())
}

fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just("null"), Just("1"), Just("[1]"), Just("{}"), Just("{\"x\":2}"), Just("{\"x\":null}")];
    prop::collection::btree_map("[ab]", leaf, 0..3).prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(name, leaf)| format!("\"{name}\":{leaf}")).collect();
        Value::Json(format!("{{{}}}", members.join(",")).into())
    })
}

fn records(limit: Option<u32>) -> BoxedStrategy<Change> {
    let shape = RecordShape { id: "id".into(), by: vec!["at".into()], limit };
    let push = (0i64..4, 0i64..5).prop_map(move |(id, at)| {
        let fields = [("id", Value::Int(id)), ("at", Value::Int(at))];
        Change::Records(Records::push(&fields, &shape).unwrap())
    });
    let remove = (0i64..4).prop_map(|id| Change::Records(Records::remove(&Value::Int(id)).unwrap()));
    if limit.is_some() { push.boxed() } else { prop_oneof![2 => push, 1 => remove].boxed() }
}

fn change(column: usize) -> BoxedStrategy<Option<Change>> {
    let set = || prop_oneof![4 => value(column), 1 => Just(Value::Null)].prop_map(Change::Set);
    let some = |other: BoxedStrategy<Change>| prop_oneof![1 => set().boxed(), 2 => other].boxed();
    let change = match COLUMNS[column].1 {
        Way::Set => set().boxed(),
        Way::Add => some(value(column).prop_map(Change::Add).boxed()),
        Way::Max => some(value(column).prop_map(Change::Max).boxed()),
        Way::Min => some(value(column).prop_map(Change::Min).boxed()),
        Way::Newest(_) => {
            (version(), value(column)).prop_map(|(version, value)| Change::Newest { version, value }).boxed()
        }
        Way::Merge => {
            let merge = object().prop_map(|object| Change::Merge(Merge::of_patch(&object, None).unwrap()));
            let set = prop_oneof![object(), Just(Value::Null)].prop_map(Change::Set);
            prop_oneof![1 => set.boxed(), 2 => merge.boxed()].boxed()
        }
        Way::MergeByVersion => (version(), object(), any::<bool>())
            .prop_map(|(version, object, whole)| match whole {
                true => Change::Merge(Merge::of_value(&object, Some(version))),
                false => Change::Merge(Merge::of_patch(&object, Some(version)).unwrap()),
            })
            .boxed(),
        Way::Push => records(None),
        Way::PushLimited => records(Some(2)),
        Way::State => return Just(None).boxed(),
    };
    proptest::option::of(change).boxed()
}

fn closed() -> impl Strategy<Value = Patch> {
    let columns: Vec<_> = (0..COLUMNS.len()).map(change).collect();
    (columns, 0u32..8, 0u32..8, 0u8..20).prop_map(|(changes, begun, ended, last)| {
        if last == 0 {
            let clear = |at: usize| (at as u16, Change::Set(Value::Null));
            let presence = Presence { begun: FINAL, ended: FINAL - 1 };
            return Patch { presence, changes: (0..COLUMNS.len()).map(clear).collect(), tail: Vec::new() };
        }
        Patch {
            presence: Presence { begun: begun & !ended, ended },
            changes: changes.into_iter().enumerate().filter_map(|(at, change)| Some((at as u16, change?))).collect(),
            tail: Vec::new(),
        }
    })
}

/// An event that counts up, unless there is enough, and takes a note of what the row was.
fn on_row() -> impl Strategy<Value = Patch> {
    (1i64..50, 0i64..1_000_000, any::<bool>()).prop_map(|(enough, offset, conditional)| {
        let count = || Node::Row(RowRef { of_key: false, at: 1 });
        let constant = |n: i64| Node::Const(Value::Int(n));
        let expr = |node: Node, kind: Kind| Expr { node, kind, text: String::new() };
        let or_zero = Node::Call(crate::plan::expr::Function::Coalesce, vec![count(), constant(0)]);
        let less = Node::Compare(Comparison::Less, Box::new(or_zero.clone()), Box::new(constant(enough)));
        let effect = |column: u16, fold: Fold, node: Node| BoundEffect {
            column,
            fold,
            expr: expr(node, Kind::Number),
            not_null: false,
            version: None,
        };
        let step = OnRow {
            reset: Reset::default(),
            when: conditional.then(|| expr(less, Kind::Bool)),
            require: Vec::new(),
            presence: Presence { begun: 1, ended: 2 },
            changes: vec![(1, Change::Add(Value::Int(1)))],
            effects: vec![effect(3, Fold::Set, or_zero.clone()), effect(2, Fold::Add, or_zero)],
            origin: Origin { place: Place { topic: "t".into(), partition: 0, offset }, index: 0, at: "".into() },
        };
        Patch { tail: vec![Step::OnRow(Arc::new(step))], ..Patch::default() }
    })
}

fn patch() -> impl Strategy<Value = Patch> {
    prop::collection::vec(prop_oneof![3 => closed().boxed(), 1 => on_row().boxed()], 1..4).prop_map(|patches| {
        let mut all = Patch::default();
        for patch in patches {
            all.then(patch, &shapes()).unwrap();
        }
        all
    })
}

fn then(mut a: Patch, b: &Patch) -> Patch {
    a.then(b.clone(), &shapes()).unwrap();
    a
}

fn applied(row: &Row, patch: &Patch) -> Row {
    let mut row = row.clone();
    patch.apply(&[], &mut row, &shapes()).unwrap();
    if row.present & FINAL != 0 {
        // Nobody asks any more how new the columns of a row were that has ended for good.
        row.versions.fill(None);
    }
    row
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

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

    /// What is under `latest`, limited or an extreme does not ask in which order it was said.
    #[test]
    fn what_commutes_commutes(a in closed(), b in closed()) {
        let free = |patch: &Patch| {
            let free = |way: Way| matches!(way, Way::Newest(_) | Way::MergeByVersion | Way::PushLimited);
            let of = |(column, _): &&(u16, Change)| free(COLUMNS[usize::from(*column)].1);
            let fold = |(_, change): &&(u16, Change)| matches!(change, Change::Max(_) | Change::Min(_) | Change::Add(_));
            let kept = |entry: &&(u16, Change)| (of(entry) && !matches!(entry.1, Change::Set(_))) || fold(entry);
            let changes = patch.changes.iter().filter(kept).cloned().collect();
            Patch { changes, ..Patch::default() }
        };
        let (a, b) = (free(&a), free(&b));
        let blank = Row::blank(&shapes());
        prop_assert_eq!(applied(&applied(&blank, &a), &b), applied(&applied(&blank, &b), &a));
    }
}

#[test]
fn a_sum_that_leaves_its_type_is_told() {
    let shapes = [ColumnShape::plain(ColumnType::parse("smallint").unwrap(), Value::Null)];
    let patch = |change| Patch { changes: vec![(0, change)], ..Patch::default() };
    let mut first = patch(Change::Set(Value::Int(32_000)));
    assert_eq!(first.then(patch(Change::Add(Value::Int(1_000))), &shapes).unwrap_err().column, Some(0));
}

#[test]
fn nothing_brings_back_what_ended_for_good() {
    let ended = Patch { presence: Presence { begun: FINAL, ended: FINAL - 1 }, ..Patch::default() };
    let again = Patch {
        presence: Presence { begun: 1, ended: 0 },
        changes: vec![(0, Change::Set(Value::text("back")))],
        tail: Vec::new(),
    };
    let row = applied(&applied(&Row::blank(&shapes()), &ended), &again);
    assert_eq!((row.present, row.values[0].clone()), (FINAL, Value::Null));
    assert_eq!(then(ended.clone(), &again), ended);
}
