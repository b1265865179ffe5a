//! Rows explained: the events that made them, what each changed, through joins and rollups, and what people decided.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::generations::{says, send, until_counted, world};
use super::world::{Daemon, Message, World, event};

pub const SHOP: &str = "
projection: shop
serve: [orders, customers]
sources:
  orders: { topic: TOPIC(orders), ordered_by: data.id }
  people: { topic: TOPIC(people), ordered_by: data.id }
tables:
  orders:
    key: { order_id: data.id }
    columns: { customer: text, total: bigint }
    join: { table: customers, by: customer, fill: { customer_name: name } }
    handlers:
      orders:
        Placed: { create: true, set: { customer: data.customer, total: data.total } }
        Moved: { set: { customer: data.customer } }
        Repriced: { set: { total: data.total } }
  customers:
    key: { customer: data.id }
    columns: { name: text }
    rollups: { table: orders, by: customer, fill: { order_count: { count: true }, spent: { sum: total } } }
    handlers:
      people:
        Registered: { create: true, set: { name: data.name } }
        Renamed: { set: { name: data.name } }
";

pub fn message(type_: &str, id: &str, mut data: Json) -> Message {
    data["id"] = json!(id);
    Message { partition: 0, key: id.into(), payload: event(type_, data) }
}

/// Sends, and lets the clock go on: what comes next has a later time.
pub fn happens(world: &World, topic: &str, messages: &[Message]) {
    world.send(topic, messages);
    std::thread::sleep(Duration::from_millis(10));
}

/// Waits until all that was sent is applied, and has followed.
fn caught_up(world: &World) {
    for topic in ["people", "orders"] {
        world.applied("shop", topic);
    }
    let marks = "SELECT count(*) AS n FROM \"shop@1\".projector_marks";
    world.wait("all to be followed", || match &world.query(marks)[..] {
        [none] if none == "{\"n\":0}" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// A customer who is renamed, and two orders, one of which goes to somebody else.
pub fn shop(name: &str) -> (World, Daemon) {
    let world = World::new(name);
    for topic in ["orders", "people"] {
        world.create_topic(topic, 1, &[]);
    }
    world.projection("shop.yaml", SHOP);
    let placed = |id: &str, total: i64| message("Placed", id, json!({ "customer": "c1", "total": total }));
    happens(&world, "people", &[message("Registered", "c1", json!({ "name": "Ada" }))]);
    happens(&world, "orders", &[placed("o1", 10), placed("o2", 20)]);
    happens(&world, "people", &[message("Renamed", "c1", json!({ "name": "Ada L." }))]);
    let repriced = message("Repriced", "o1", json!({ "total": 15 }));
    happens(&world, "orders", &[repriced, message("Moved", "o2", json!({ "customer": "c2" }))]);
    let daemon = world.start(&[]);
    caught_up(&world);
    (world, daemon)
}

fn explain(world: &World, row: &[&str]) -> Json {
    let mut arguments = vec!["explain"];
    arguments.extend(row);
    arguments.extend(["--format", "json"]);
    let output = world.command(&arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A step in a line, with the topic by its short name.
fn line(world: &World, step: &Json) -> String {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_string();
    let place = text(&step["place"]);
    let place = place.strip_prefix(&format!("{}.", world.name)).unwrap();
    let mut line = format!("{place} {}", text(&step["type"]));
    assert!(step["time"].as_str().unwrap().ends_with('Z'), "{step}");
    for other in step["others"].as_array().unwrap() {
        line += &format!(" ({} {})", text(&other["table"]), text(&other["key"]));
    }
    assert_eq!(step["direct"], json!(step["others"].as_array().unwrap().is_empty()), "{step}");
    for word in ["appears", "vanishes"].into_iter().filter(|word| step[*word] == true) {
        line += &format!(" {word}");
    }
    if let Some(decided) = step["decision"].as_object() {
        line += &format!(" {} by {}: {}", text(&decided["decision"]), text(&decided["who"]), text(&decided["reason"]));
    }
    for change in step["changes"].as_array().unwrap() {
        line += &format!(", {} {} -> {}", text(&change["column"]), change["before"], change["after"]);
    }
    line
}

fn steps(world: &World, explained: &Json) -> Vec<String> {
    explained["steps"].as_array().unwrap().iter().map(|step| line(world, step)).collect()
}

#[test]
fn events_are_told_through_joins_and_rollups() {
    let (world, _daemon) = shop("explained");
    let order = explain(&world, &["orders", "o1"]);
    let told = [
        "orders/0@0 Placed appears, customer null -> \"c1\", total null -> 10, customer_name null -> \"Ada\"",
        "people/0@1 Renamed (customers c1), customer_name \"Ada\" -> \"Ada L.\"",
        "orders/0@2 Repriced, total 10 -> 15",
    ];
    assert_eq!(steps(&world, &order), told, "{order}");
    let columns = json!({ "order_id": "o1", "customer": "c1", "total": 15, "customer_name": "Ada L." });
    assert_eq!(order["columns"], columns);
    assert_eq!(order["row"], json!({ "table": "orders", "key": "o1" }));

    // An order that has gone to somebody else is told of for as long as it was there.
    let customer = explain(&world, &["customers", "c1"]);
    let told = [
        "people/0@0 Registered appears, name null -> \"Ada\", order_count null -> 0, spent null -> 0",
        "orders/0@0 Placed (orders o1), order_count 0 -> 1, spent 0 -> 10",
        "orders/0@1 Placed (orders o2), order_count 1 -> 2, spent 10 -> 30",
        "people/0@1 Renamed, name \"Ada\" -> \"Ada L.\"",
        "orders/0@2 Repriced (orders o1), spent 30 -> 35",
        "orders/0@3 Moved (orders o2), order_count 2 -> 1, spent 35 -> 15",
    ];
    assert_eq!(steps(&world, &customer), told, "{customer}");
    for explained in [&order, &customer] {
        assert_eq!(explained["served_differs"], false, "{explained}");
        assert_eq!((&explained["parked"], &explained["notes"]), (&json!([]), &json!([])), "{explained}");
    }

    let nobody = explain(&world, &["orders", "o7"]);
    assert_eq!((&nobody["columns"], &nobody["steps"]), (&json!(null), &json!([])));
    assert_eq!(nobody["served_differs"], false, "{nobody}");
    let (code, text) = world.output(&["explain", "shop", "o1"]);
    assert!(code == 64 && text.contains("`shop` is no view; the views of `shop` are orders, customers"), "{text}");
}

#[test]
fn what_people_decided_is_told_with_the_reason() {
    let (world, _daemon) = shop("decided");
    let bad = |id: &str| message("Repriced", id, json!({ "total": "much" }));
    happens(&world, "orders", &[bad("o1"), bad("o2")]);
    caught_up(&world);
    let place = |offset: i64| format!("{}/0@{offset}", world.topic("orders"));
    for row in [["orders", "o1"], ["customers", "c1"]] {
        let explained = explain(&world, &row);
        let parked = &explained["parked"][0];
        assert_eq!((&parked["place"], &parked["code"]), (&json!(place(4)), &json!("wrong-value")), "{explained}");
        assert_eq!(parked["rows"], json!([{ "table": "orders", "key": "o1" }]), "{explained}");
        assert_eq!(explained["served_differs"], false, "{explained}");
    }

    says(&world, &["dead-letters", "discard", &place(4), "--reason", "no number", "--by", "ada"]);
    let file = world.projections().join("fixed.json");
    std::fs::write(&file, message("Repriced", "o2", json!({ "total": 25 })).payload).unwrap();
    let file = file.to_str().unwrap();
    says(&world, &["dead-letters", "correct", &place(5), "--payload", file, "--reason", "a typo", "--by", "bo"]);
    let last = |view: &str, key: &str| {
        let explained = explain(&world, &[view, key]);
        assert_eq!((&explained["served_differs"], &explained["parked"]), (&json!(false), &json!([])), "{explained}");
        steps(&world, &explained).pop().unwrap()
    };
    assert_eq!(last("orders", "o1"), "orders/0@4 Repriced discarded by ada: no number");
    assert_eq!(last("orders", "o2"), "orders/0@5 Repriced corrected by bo: a typo, total 20 -> 25");
    let (code, text) = world.output(&["explain", "orders", "o1"]);
    let told = "   (customers c1)\n    customer_name: \"Ada\" -> \"Ada L.\"\n";
    assert!(code == 0 && text.contains(told) && text.contains("\n    discarded by ada: no number\n"), "{text}");
}

#[test]
fn a_row_that_somebody_changed_is_told() {
    let (world, _daemon) = shop("handmade");
    world.execute("UPDATE \"shop@1\".orders SET total = 99 WHERE order_id = 'o1'");
    let explained = explain(&world, &["orders", "o1"]);
    assert_eq!(explained["served_differs"], true, "{explained}");
    assert_eq!(explained["differences"], json!([{ "column": "total", "log": 15, "served": 99 }]), "{explained}");
    let text = says(&world, &["explain", "orders", "o1"]);
    let told = "the served row differs: see projector verify\n    total: 15 by the log, 99 served\n";
    assert!(text.contains(told), "{text}");
    world.execute("DELETE FROM \"shop@1\".orders WHERE order_id = 'o1'");
    assert_eq!(explain(&world, &["orders", "o1"])["served_differs"], true);
}

#[test]
fn a_row_among_many_partitions_is_found() {
    let world = world("among");
    send(&world, 0..500);
    let _daemon = world.start(&[]);
    until_counted(&world, 500);
    let explained = explain(&world, &["orders", "o17"]);
    // Of 500 orders on four partitions: the fifth of the second.
    assert_eq!(steps(&world, &explained), ["shop/1@4 Placed appears, total null -> 1"], "{explained}");
    assert_eq!(explained["served_differs"], false, "{explained}");
}
