//! What bad input gets: a clear error with its place, nothing lost, nothing half-written, and the others go on.

use serde_json::json;

use super::world::{Message, World, event};

pub const STRICT: &str = "
projection: strict
errors: { default: halt }
sources: { events: { topic: TOPIC(events) } }
tables:
  strict:
    key: { k: data.k }
    columns:
      amount: \"numeric(12,2)\"
      at: timestamptz
      note: text
      extra: jsonb
      total: { type: \"numeric(6,2)\", default: 0 }
      n: { type: smallint, default: 0 }
    handlers:
      events:
        Paid:
          set_if_present: { amount: data.amount, at: data.at, note: data.note, extra: data.extra }
          add: { n: 1 }
        Both:
          - set: { total: data.start }
          - add: { total: data.more }
        Lines:
          for_each: { line: data.lines }
          key: { k: line.k }
          add: { total: line.amount }
";

const EASY: &str = "
projection: easy
sources: { events: { topic: TOPIC(events), format: json, type: \"'Any'\" } }
key: { place: string(record.offset) }
columns: { n: { type: bigint, default: 0 } }
handlers: { events: { \"*\": { add: { n: 1 } } } }
";

fn message(payload: &[u8]) -> Message {
    Message { partition: 0, key: "k".into(), payload: payload.to_vec() }
}

fn paid(data: &str) -> Vec<u8> {
    format!(r#"{{"specversion":"1.0","id":"1","source":"/t","type":"Paid","data":{data}}}"#).into_bytes()
}

/// A good event, the bad one, a good one: the first is applied, the projection stands still at the second.
fn stands_still(name: &str, bad: &[u8], expected: &[&str]) {
    let world = World::new(name);
    world.create_topic("events", 1, &[]);
    world.projection("strict.yaml", STRICT);
    let good = paid(r#"{"k":"before","amount":1.50}"#);
    world.send("events", &[message(&good), message(bad), message(&good)]);
    let mut daemon = world.start(&[]);
    let halt = world.halted("strict");
    for part in expected.iter().chain(&["\"offset\":1", "\"partition\":0"]) {
        assert!(halt.contains(part), "{name}: {part} is not in {halt}");
    }
    assert_eq!(
        world.query("SELECT k, amount, n FROM views.strict"),
        [r#"{"k":"before","amount":1.50,"n":1}"#],
        "{name}"
    );
    assert_eq!(world.query("SELECT next_offset FROM projector.checkpoints"), [r#"{"next_offset":1}"#], "{name}");
    assert!(daemon.is_running(), "{name}: one projection's trouble is not the daemon's");
    assert!(daemon.log().contains("strict.1 stands still"), "{name}: {}", daemon.log());
}

#[test]
fn bytes_that_are_no_event() {
    stands_still("utf8", b"\xff\xfe{}", &["undecodable", "UTF-8"]);
    stands_still("json", b"{\"specversion\":", &["undecodable", "not a CloudEvent"]);
    let deep = format!(r#"{{"k":"x","extra":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    stands_still("deep", &paid(&deep), &["wrong-value", "cannot be stored"]);
    stands_still("twice", &paid(r#"{"k":"x","k":"y"}"#), &["undecodable", "stands twice"]);
}

#[test]
fn values_that_fit_no_column() {
    let digits = format!(r#"{{"k":"x","amount":{}}}"#, "9".repeat(60));
    stands_still("digits", &paid(&digits), &["wrong-value", "too many digits"]);
    stands_still("year", &paid(r#"{"k":"x","at":"12000-01-01T00:00:00Z"}"#), &["wrong-value", "12000"]);
    stands_still("nul", &paid(r#"{"k":"x","note":"a\u0000b"}"#), &["wrong-value", "NUL"]);
    stands_still("kind", &paid(r#"{"k":"x","note":7}"#), &["wrong-value", "does not fit text"]);
    stands_still("nokey", &paid(r#"{"amount":1}"#), &["missing-field", "data.k"]);
}

/// The second half of an event leaves the column's type when it meets the first: nothing of the event may stay.
fn half_an_event(sabotage: &str) -> Result<(), String> {
    let world = World::new("half");
    world.create_topic("events", 1, &[]);
    world.projection("strict.yaml", STRICT);
    let good = event("Lines", json!({ "lines": [{ "k": "one", "amount": 1 }] }));
    let bad = event("Both", json!({ "k": "one", "start": 9_000, "more": 5_000 }));
    world.send("events", &[message(&good), message(&bad)]);
    let _daemon = world.start(&[("PROJECTOR_SABOTAGE", sabotage)]);
    world.halted("strict");
    let rows = world.query("SELECT k, total FROM views.strict ORDER BY k");
    if rows == [r#"{"k":"one","total":1.00}"#] { Ok(()) } else { Err(format!("{rows:?}")) }
}

#[test]
fn an_event_is_an_atom() {
    half_an_event("").unwrap();
    assert!(half_an_event("refold").is_err());
}

/// Only Postgres can know this one: the sum leaves the column in the table.
#[test]
fn what_postgres_refuses_is_found_among_many() {
    let world = World::new("refused");
    world.create_topic("events", 1, &[]);
    world.projection("strict.yaml", STRICT);
    let line = |amount: i64| message(&event("Lines", json!({ "lines": [{ "k": "sum", "amount": amount }] })));
    let mut messages: Vec<Message> = (0..500).map(|_| line(10)).collect();
    messages.push(line(6_000));
    messages.extend((0..100).map(|_| line(1)));
    world.send("events", &messages);
    let _daemon = world.start(&[]);
    let halt = world.halted("strict");
    assert!(halt.contains("\"offset\":500"), "{halt}");
    assert_eq!(world.query("SELECT k, total FROM views.strict"), [r#"{"k":"sum","total":5000.00}"#]);
}

#[test]
fn the_others_go_on_and_a_restart_goes_on_after_the_cure() {
    let world = World::new("others");
    world.create_topic("events", 1, &[]);
    world.projection("strict.yaml", STRICT);
    world.projection("easy.yaml", EASY);
    let messages: Vec<Message> =
        [paid(r#"{"k":"x","amount":1.005}"#), paid(r#"{"k":"y"}"#)].iter().map(|payload| message(payload)).collect();
    world.send("events", &messages);
    let daemon = world.start(&[]);
    world.halted("strict");
    world.applied("easy", "events");
    assert_eq!(world.query("SELECT count(*) AS n FROM views.easy"), [r#"{"n":2}"#]);
    let (_, status) = world.output(&["status", "--format", "json"]);
    assert!(status.contains(r#""state":"halted""#) && status.contains("digits would be lost"), "{status}");
    drop(daemon);
    world.projection("strict.yaml", &STRICT.replace("numeric(12,2)", "numeric(12,3)"));
    let daemon = world.start_applied(&[]);
    world.wait("the warning", || match daemon.log() {
        log if log.contains("`strict` differs from the catalog's") => Ok(()),
        log => Err(log),
    });
    // What is built passes what the live one stands before.
    let (code, text) = world.output(&["apply"]);
    assert!(code == 0 && text.contains("strict: generation 2 is built"), "{text}");
    world.applied("strict", "events");
    drop(daemon);
    world.projection("strict.yaml", STRICT);
    let (code, text) = world.output(&["apply"]);
    assert!(code == 64 && text.contains("a newer definition was applied after this one"), "{text}");
}

#[test]
fn a_twenty_megabyte_message_is_applied() {
    let world = World::new("large");
    world.create_topic("events", 1, &[("max.message.bytes", "25000000")]);
    world.projection("strict.yaml", STRICT);
    let note = "x".repeat(20_000_000);
    world.send("events", &[message(&paid(&format!(r#"{{"k":"x","note":"{note}"}}"#))), message(&paid(r#"{"k":"y"}"#))]);
    let _daemon = world.start(&[]);
    world.applied("strict", "events");
    let rows = world.query("SELECT k, length(note) AS n FROM views.strict ORDER BY k");
    assert_eq!(rows, [r#"{"k":"x","n":20000000}"#, r#"{"k":"y","n":null}"#]);
}
