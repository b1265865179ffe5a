//! The events that made rows of two generations different.

use serde_json::{Value as Json, json};

use super::explained::{SHOP, happens, message, shop};
use super::generations::says;
use super::world::{Daemon, Message, World};

const WALLETS: &str = "
projection: wallets
sources: { bank: { topic: TOPIC(bank), ordered_by: data.id } }
key: { id: data.id }
columns: { balance: \"numeric(24,2)\", last: text }
handlers:
  bank:
    Paid: { add: { balance: decimal(data.amount) }, set: { last: data.by } }
    Refunded: { add: { balance: -decimal(data.amount) }, set: { last: data.by } }
    Gifted: { ignore: nobody counted gifts }
";

/// Refunds are not taken off any more, and gifts are counted.
fn changed() -> String {
    let without = WALLETS.replace("Refunded: { add: { balance: -decimal(data.amount) }, set:", "Refunded: { set:");
    without.replace("{ ignore: nobody counted gifts }", "{ add: { balance: decimal(data.amount) } }")
}

fn booked(type_: &str, id: &str, amount: &str) -> Message {
    message(type_, id, json!({ "amount": amount, "by": "ann" }))
}

/// A daemon that has built a generation beside the live one.
fn built(name: &str, messages: &[Message]) -> (World, Daemon) {
    let world = World::new(name);
    world.create_topic("bank", 1, &[]);
    world.projection("wallets.yaml", WALLETS);
    world.send("bank", messages);
    let daemon = world.start(&[]);
    world.applied("wallets", "bank");
    world.projection("wallets.yaml", &changed());
    build(&world, 2);
    (world, daemon)
}

fn build(world: &World, number: i32) {
    says(world, &["apply", "--manual"]);
    let ready = format!("SELECT 1 AS n FROM projector.generations WHERE number = {number} AND ready_at IS NOT NULL");
    world.wait("it to catch up", || match world.try_query(&ready) {
        Ok(rows) if !rows.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn diff(world: &World, arguments: &[&str]) -> Json {
    let output = world.command(&[&["diff"], arguments, &["--format", "json"]].concat()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The offset, type, and what it did in either generation.
fn told(event: &Json) -> String {
    let side = |effect: &Json| match effect.as_object() {
        None => "nothing".to_string(),
        Some(effect) => {
            let mut text: Vec<String> =
                ["appears", "vanishes"].iter().filter(|word| effect[**word] == true).map(ToString::to_string).collect();
            let changes = effect["changes"].as_array().unwrap().iter();
            text.extend(
                changes.map(|c| format!("{} {} -> {}", c["column"].as_str().unwrap(), c["before"], c["after"])),
            );
            text.join(", ")
        }
    };
    let offset = event["place"].as_str().unwrap().split('@').nth(1).unwrap();
    format!("{offset} {}: {} | {}", event["type"].as_str().unwrap(), side(&event["old"]), side(&event["new"]))
}

#[test]
fn events_that_did_something_else_are_told() {
    let mut events = vec![
        booked("Paid", "w1", "12345678901234567890.10"),
        booked("Refunded", "w1", "4.10"),
        booked("Paid", "w1", "5.00"),
        booked("Refunded", "w1", "1"),
        booked("Gifted", "w3", "3.50"),
        booked("Paid", "w4", "1"),
        booked("Paid", "w2", "100"),
    ];
    events.extend((0..8).map(|_| booked("Refunded", "w2", "1")));
    let (world, _daemon) = built("effects", &events);
    let found = diff(&world, &["wallets"]);
    let samples = found["views"][0]["samples"].as_array().unwrap();
    assert_eq!((samples.len(), &found["notes"]), (3, &json!([])), "{found}");
    let of =
        |at: usize| -> Vec<String> { samples[at]["events"]["differ"].as_array().unwrap().iter().map(told).collect() };
    let counts =
        |at: usize| [&samples[at]["events"]["more"], &samples[at]["events"]["same"]].map(|n| n.as_i64().unwrap());
    assert_eq!((of(0).len(), counts(0)), (2, [0, 2]), "{found}");
    assert!(of(0)[1].starts_with("3 Refunded: "), "{found}");
    assert_eq!((of(1).len(), counts(1)), (5, [3, 1]), "{found}");
    assert_eq!(of(1)[0], "7 Refunded: balance 100.0 -> 99.0 | ");
    assert_eq!(of(2), ["4 Gifted: nothing | appears, balance null -> 3.5"]);
    for sample in samples {
        assert_eq!(sample["events"]["notes"], json!([]), "{found}");
    }

    let text = says(&world, &["diff", "wallets"]);
    let place = format!("{}/0@", world.topic("bank"));
    for line in [
        "~ wallets id \"w1\"\n    balance: 12345678901234567890.00 -> 12345678901234567895.10\n",
        "\n        balance: 12345678901234567890.10 -> 12345678901234567886.00 in 1, unchanged in 2\n",
        "\n    2 events did the same in both\n",
        "\n    3 more events did something else, and 1 the same in both\n",
        "+ wallets {\"id\":\"w3\",\"balance\":3.50,\"last\":null}\n",
        "  Gifted\n        the row appears in 2 alone\n        balance: unchanged in 1, null -> 3.50 in 2\n",
        &format!("\n    {place}1  "),
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }

    let without = diff(&world, &["wallets", "--no-events"]);
    assert_eq!(without["views"][0]["samples"][0]["events"], json!(null), "{without}");
    // The comparison stands without the log.
    let command = &mut world.command(&["diff", "wallets"]);
    let output = command.env("PROJECTOR__KAFKA__BROKERS", "127.0.0.1:1").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("balance differs in 2 rows"), "{text}");
    assert!(text.contains("note: the events that made the difference are not told: "), "{text}");
}

#[test]
fn what_somebody_changed_by_hand_is_not_blamed_on_events() {
    let (world, _daemon) = built("blamed", &[booked("Paid", "w1", "7")]);
    world.execute("UPDATE \"wallets@2\".wallets SET balance = 8");
    let text = says(&world, &["diff", "wallets"]);
    let told = "    1 event did the same in both, and none did anything else\n    note: the row that generation 2 has is not what the log gives\n";
    assert!(text.contains(told), "{text}");
}

#[test]
fn events_of_other_rows_are_told() {
    let (world, _daemon) = shop("othersrows");
    world.projection(
        "shop.yaml",
        &SHOP.replace("Repriced: { set: { total: data.total } }", "Repriced: { ignore: never mind }"),
    );
    build(&world, 2);
    happens(&world, "orders", &[message("Placed", "o3", json!({ "customer": "c1", "total": 1 }))]);
    let found = diff(&world, &["shop"]);
    let of = |view: usize| &found["views"][view]["samples"][0]["events"];
    assert_eq!(found["views"][0]["view"], "customers", "{found}");
    let [customer, order] = [of(0), of(1)];
    assert_eq!(told(&customer["differ"][0]), "2 Repriced: spent 30 -> 35 | nothing", "{found}");
    assert_eq!(customer["differ"][0]["others"], json!([{ "table": "orders", "key": "o1" }]), "{found}");
    assert_eq!(customer["differ"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(told(&order["differ"][0]), "2 Repriced: total 10 -> 15 | nothing", "{found}");
    assert_eq!(order["differ"][0]["others"], json!([]), "{found}");
}
