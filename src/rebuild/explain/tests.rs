//! Which rows a row follows from, how keys are read, and how rows are told.

use rust_decimal::Decimal;

use super::Question;
use super::changes::{changes, differences};
use super::follow::ways;
use crate::batch::Key;
use crate::golden::ReadRow;
use crate::plan::{Plan, compile};
use crate::spec::diagnostic::SourceFile;
use crate::store::shown::ShownRow;
use crate::value::Value;

fn plan(text: &str) -> Plan {
    let (plan, found) = compile(&SourceFile::new("made.yaml", text));
    plan.unwrap_or_else(|| panic!("{found:?}"))
}

/// Orders copy a name, customers count orders.
const SHOP: &str = "
projection: shop
serve: [orders, customers]
sources: { people: { topic: people, ordered_by: data.id }, shop: { topic: orders, ordered_by: data.id } }
tables:
  orders:
    key: { order_id: data.id }
    columns: { customer: text }
    join: { table: customers, by: customer, fill: { customer_name: name } }
    handlers: { shop: { Placed: { create: true, set: { customer: data.customer } } } }
  customers:
    key: { customer: data.id }
    columns: { name: text }
    rollups: { table: orders, by: customer, fill: { order_count: { count: true } } }
    handlers: { people: { Named: { create: true, set: { name: data.name } } } }
";

#[test]
fn a_row_follows_from_what_its_columns_are_made_of() {
    let plan = plan(SHOP);
    let over = |view: &str| -> Vec<String> {
        let table = plan.tables.iter().position(|table| table.name == view).unwrap();
        let (ways, notes) = ways(&plan, table, &Key::from_iter([Value::text("x")]));
        assert_eq!(notes, Vec::<String>::new());
        ways.iter().map(|way| plan.tables[way.table].name.clone()).collect()
    };
    assert_eq!(over("orders"), ["orders", "customers"], "what customers count is not copied");
    assert_eq!(over("customers"), ["customers", "orders"], "the name that orders copy is not counted");
}

const STOCK: &str = "
projection: stock
sources: { s: { topic: t, ordered_by: data.depot } }
key: { depot: data.depot, day: data.day, number: data.number }
columns: { day: date, number: bigint, pieces: bigint }
handlers: { s: { Counted: { set: { pieces: data.pieces } } } }
";

#[test]
fn keys_are_read_by_the_types_of_their_columns() {
    let key = Question::of(&plan(STOCK), "stock", "north,2026-11-21,7").unwrap().key;
    assert_eq!(key.to_vec(), [Value::text("north"), Value::Date(20_778), Value::Int(7)]);
}

#[test]
fn what_cannot_be_meant_is_told() {
    let plan = plan(STOCK);
    for (view, key, told) in [
        ("stocks", "a", "are stock. Say which of them the key is of"),
        ("stock", "north,2026-11-21", "say depot, day, number"),
        ("stock", "north,yesterday,7", "the key column `day`"),
        ("stock", "north,2026-11-21,x", "`x` is no bigint"),
    ] {
        let error = Question::of(&plan, view, key).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
}

const ORDERS: &str = "
projection: orders
sources: { s: { topic: t, ordered_by: data.id } }
key: { id: data.id }
columns: { total: \"numeric(10,2)\", state: text, paid_at: timestamptz }
handlers: { s: { Placed: { set: { total: data.total, state: data.state, paid_at: data.paid_at } } } }
";

fn order(total: Value) -> ReadRow {
    let (id, state, paid_at) = (Value::text("o1"), Value::text("open"), Value::Time(0));
    let columns = [("id", id), ("total", total), ("state", state), ("paid_at", paid_at)];
    columns.map(|(name, value)| (name.to_string(), value)).into_iter().collect()
}

fn served(total: &str) -> ShownRow {
    let (id, state, paid_at) = ("\"o1\"", "\"open\"", "\"1970-01-01T00:00:00+00:00\"");
    let columns = [("id", id), ("total", total), ("state", state), ("paid_at", paid_at)];
    columns.map(|(name, value)| (name.to_string(), value.to_string())).into_iter().collect()
}

#[test]
fn changes_are_told_as_postgres_shows_them() {
    let plan = plan(ORDERS);
    let (one, two) = (order(Value::Int(10)), order(Value::Decimal(Decimal::new(125, 1))));
    let told = |before: Option<&ReadRow>, after: Option<&ReadRow>| -> Vec<String> {
        let changes = changes(&plan.tables[0], before, after).into_iter();
        changes.map(|changed| format!("{} {} {}", changed.column, changed.before, changed.after)).collect()
    };
    assert_eq!(told(Some(&one), Some(&two)), ["total 10.00 12.50"]);
    let first = ["total null 10.00", "state null \"open\"", "paid_at null \"1970-01-01T00:00:00Z\""];
    assert_eq!(told(None, Some(&one)), first);
    assert!(told(Some(&one), None).is_empty());
}

#[test]
fn what_is_served_is_compared_by_its_meaning() {
    let plan = plan(ORDERS);
    let log = order(Value::Int(10));
    let differ = |log: Option<&ReadRow>, total: &str| -> Vec<String> {
        let differences = differences(&plan.tables[0], log, Some(&served(total))).into_iter();
        differences.map(|one| format!("{} {} {}", one.column, one.log, one.served)).collect()
    };
    assert_eq!(differ(Some(&log), "10.00"), Vec::<String>::new());
    assert_eq!(differ(Some(&log), "99.00"), ["total 10.00 99.00"]);
    assert_eq!(differ(None, "10.00").len(), 4);
}
