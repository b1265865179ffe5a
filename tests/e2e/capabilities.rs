//! What the language can do beside plain columns, through the built binary: repeats, expiry, split messages, rows that are
//! read, SQL files, search, unlogged tables.

use serde_json::{Value, json};

use super::world::{Dice, Message, World};

fn event(id: &str, type_: &str, time: &str, data: &Value) -> Vec<u8> {
    json!({ "specversion": "1.0", "id": id, "source": "/t", "type": type_, "time": time, "data": data })
        .to_string()
        .into_bytes()
}

fn message(partition: i32, key: &str, payload: Vec<u8>) -> Message {
    Message { partition, key: key.into(), payload }
}

const PAYMENTS: &str = "
projection: payments
errors: { default: halt }
sources:
  events:
    topic: TOPIC(events)
    dedupe: { window: PT1H }
key: { account: data.account }
columns: { n: { type: bigint, default: 0 }, sum: \"numeric(14,2)\" }
handlers: { events: { Paid: { add: { n: 1, sum: data.amount } } } }
";

/// Thousands of payments, a third of them sent again: at once, a little later, in another batch, after a restart.
fn repeats_count_once(sabotage: &str) -> Result<(), String> {
    const EVENTS: u64 = 4_000;
    let world = World::new("repeats");
    world.create_topic("events", 3, &[]);
    world.projection("payments.yaml", PAYMENTS);
    let mut dice = Dice(5);
    let mut messages: Vec<Message> = Vec::new();
    let mut sum = 0;
    for n in 0..EVENTS {
        let (account, cents) = (dice.roll(40), dice.roll(10_000));
        sum += cents;
        let data = json!({ "account": format!("a{account}"), "amount": cents as f64 / 100.0 });
        let time = format!("2026-01-01T00:{:02}:{:02}Z", n / 100 % 60, n % 60);
        let sent = message((account % 3) as i32, "k", event(&n.to_string(), "Paid", &time, &data));
        let again = dice.roll(3) == 0;
        if again {
            let late = messages.len() - (dice.roll(200) as usize).min(messages.len());
            // Never before its original: what comes first is the original.
            let at = late.max(messages.len());
            messages.insert(at, Message { partition: sent.partition, key: "k".into(), payload: sent.payload.clone() });
        }
        messages.push(sent);
    }
    let (first, second) = messages.split_at(messages.len() / 2);
    world.send("events", first);
    let daemon = world.start(&[("PROJECTOR_SABOTAGE", sabotage)]);
    world.try_applied("payments", "events")?;
    daemon.stop();
    // A new process remembers nothing: what was counted before is in Postgres alone.
    let old: Vec<Message> = first.iter().step_by(7).map(|m| message(m.partition, "k", m.payload.clone())).collect();
    world.send("events", &old);
    world.send("events", second);
    let _daemon = world.start(&[("PROJECTOR_SABOTAGE", sabotage), ("PROJECTOR__FOLD__LANES", "3")]);
    world.try_applied("payments", "events")?;
    let found = world.query("SELECT sum(n)::bigint AS n, (sum(sum) * 100)::bigint AS cents FROM views.payments");
    let expected = format!("{{\"n\":{EVENTS},\"cents\":{sum}}}");
    if found == [expected.clone()] { Ok(()) } else { Err(format!("{found:?}, expected {expected}")) }
}

#[test]
fn repeated_events_count_once() {
    repeats_count_once("").unwrap();
    assert!(repeats_count_once("dedupe").is_err());
}

#[test]
fn an_event_older_than_its_window_is_not_counted_in_silence() {
    let world = World::new("window");
    world.create_topic("events", 1, &[]);
    world.projection("payments.yaml", PAYMENTS);
    let paid = |id: &str, time: &str| message(0, "k", event(id, "Paid", time, &json!({ "account": "a", "amount": 1 })));
    world.send(
        "events",
        &[paid("1", "2026-01-01T12:00:00Z"), paid("2", "2026-01-01T11:30:00Z"), paid("3", "2026-01-01T10:00:00Z")],
    );
    let _daemon = world.start(&[]);
    let halt = world.halted("payments");
    assert!(halt.contains("older-than-window") && halt.contains("\"offset\":2"), "{halt}");
    assert_eq!(world.query("SELECT n FROM views.payments"), [r#"{"n":2}"#]);
}

const SESSIONS: &str = "
projection: sessions
sources: { events: { topic: TOPIC(events), ordered_by: data.id } }
key: { id: data.id }
columns: { who: text, n: { type: bigint, default: 0 }, until: timestamptz }
expire: until
handlers:
  events:
    Started: { create: true, set: { who: data.who, until: \"time + duration('PT30M')\" }, add: { n: 1 } }
    Seen: { max: { until: \"time + duration('PT30M')\" }, add: { n: 1 } }
";

#[test]
fn expired_rows_are_not_seen_start_from_nothing_and_are_swept() {
    let world = World::new("expiry");
    world.create_topic("events", 2, &[]);
    world.projection("sessions.yaml", SESSIONS);
    let at = |type_: &str, id: &str, time: &str, partition: i32| {
        message(partition, id, event("1", type_, time, &json!({ "id": id, "who": "ada" })))
    };
    world.send(
        "events",
        &[
            // Expired long ago, for every partition: swept.
            at("Started", "old", "2020-01-01T00:00:00Z", 0),
            at("Seen", "old", "2020-01-01T00:10:00Z", 0),
            // Expires in the far future: seen.
            at("Started", "young", "2090-01-01T00:00:00Z", 1),
            at("Seen", "young", "2090-01-01T00:10:00Z", 1),
            at("Seen", "young", "2090-01-01T00:20:00Z", 1),
            // Its own partition has passed it: the next event finds an empty row, which no event has begun.
            at("Started", "again", "2089-01-01T00:00:00Z", 0),
            at("Started", "other", "2090-01-01T00:00:00Z", 0),
            at("Seen", "again", "2090-01-01T00:01:00Z", 0),
            at("Started", "again", "2090-01-01T00:02:00Z", 0),
        ],
    );
    let _daemon = world.start(&[("PROJECTOR__FOLD__SWEEP_S", "1")]);
    world.applied("sessions", "events");
    assert_eq!(
        world.query("SELECT id, who, n FROM views.sessions ORDER BY id"),
        [
            r#"{"id":"again","who":"ada","n":2}"#,
            r#"{"id":"other","who":"ada","n":1}"#,
            r#"{"id":"young","who":"ada","n":3}"#
        ]
    );
    world.wait("the sweep", || match world.query("SELECT id FROM \"sessions@1\".sessions ORDER BY id") {
        rows if rows.len() == 3 => Ok(()),
        rows => Err(format!("{rows:?}")),
    });
}

#[test]
fn ended_rows_are_remembered_for_a_while_and_then_swept() {
    let world = World::new("forget");
    world.create_topic("events", 1, &[]);
    world.projection(
        "people.yaml",
        "
projection: people
errors: { default: halt }
sources: { events: { topic: TOPIC(events), ordered_by: data.id } }
key: { id: data.id }
columns: { name: text }
forget_deleted_after: P1D
handlers:
  events:
    Came: { create: true, latest: data.v, set: { name: data.name } }
    Went: { delete: true, latest: data.v }
",
    );
    let of = |type_: &str, id: &str, v: i64, time: &str| {
        message(0, id, event("1", type_, time, &json!({ "id": id, "v": v, "name": format!("{id}{v}") })))
    };
    world.send(
        "events",
        &[
            of("Came", "a", 1, "2026-01-01T00:00:00Z"),
            of("Went", "a", 5, "2026-01-01T00:00:00Z"),
            of("Came", "b", 1, "2026-01-01T00:00:00Z"),
            of("Came", "a", 3, "2026-01-01T01:00:00Z"),
        ],
    );
    let _daemon = world.start(&[("PROJECTOR__FOLD__SWEEP_S", "1")]);
    world.applied("people", "events");
    assert_eq!(
        world.query("SELECT * FROM views.people"),
        [r#"{"id":"b","name":"b1"}"#],
        "what is late does not bring back"
    );
    world.send("events", &[of("Came", "c", 1, "2026-01-03T00:00:00Z"), of("Went", "c", 2, "2026-01-03T00:00:00Z")]);
    world.wait("the sweep", || match world.query("SELECT id FROM \"people@1\".people ORDER BY id") {
        rows if rows == [r#"{"id":"b"}"#, r#"{"id":"c"}"#] => Ok(()),
        rows => Err(format!("{rows:?}")),
    });
    world.send("events", &[of("Came", "b", 9, "2026-01-01T23:00:00Z")]);
    let halt = world.halted("people");
    assert!(halt.contains("older-than-window") && halt.contains("\"offset\":6"), "{halt}");
}

#[test]
fn a_split_message_is_many_events_and_one_atom() {
    let world = World::new("split");
    world.create_topic("events", 1, &[]);
    world.projection(
        "parts.yaml",
        "
projection: parts
errors: { default: halt }
sources: { events: { topic: TOPIC(events), format: json, split: message.parts, type: data.kind } }
key: { id: data.id }
columns: { n: \"numeric(6,2)\", sender: text, index: bigint }
handlers: { events: { a: { add: { n: data.n }, set: { sender: message.sender } }, b: { add: { n: data.n } } } }
",
    );
    let send = |text: &str| world.send("events", &[message(0, "k", text.as_bytes().to_vec())]);
    send(
        r#"{"sender":"s1","parts":[{"kind":"a","id":"x","n":1},{"kind":"b","id":"x","n":2},{"kind":"zzz","id":"x"}]}"#,
    );
    send(r#"{"sender":"s2","parts":[]}"#);
    send(r#"{"sender":"s3","parts":[{"kind":"a","id":"y","n":1},{"kind":"b","id":"y","n":"two"}]}"#);
    let _daemon = world.start(&[]);
    let halt = world.halted("parts");
    assert!(halt.contains("wrong-value") && halt.contains("\"offset\":2"), "{halt}");
    assert_eq!(world.query("SELECT id, n, sender FROM views.parts"), [r#"{"id":"x","n":3.00,"sender":"s1"}"#]);
    let (_, status) = world.output(&["status", "--format", "json"]);
    assert!(status.contains(r#""unhandled":[{"source":"events","type":"zzz","events":1}]"#), "{status}");
}

#[test]
fn an_event_that_its_row_refuses_is_told_with_its_place() {
    let world = World::new("rowread");
    world.create_topic("events", 1, &[]);
    world.projection(
        "stock.yaml",
        "
projection: stock
errors: { default: halt }
sources: { events: { topic: TOPIC(events), ordered_by: data.id } }
key: { id: data.id }
columns: { left: { type: bigint, default: 0 }, sold: { type: bigint, default: 0 } }
handlers:
  events:
    Came: { add: { left: data.n } }
    Sold:
      require: { there is enough: \"row.left >= data.n\" }
      add: { left: \"-data.n\", sold: data.n }
",
    );
    let of =
        |type_: &str, n: i64| message(0, "x", event("1", type_, "2026-01-01T00:00:00Z", &json!({ "id": "x", "n": n })));
    let mut messages: Vec<Message> = vec![of("Came", 100)];
    messages.extend((0..30).map(|_| of("Sold", 3)));
    messages.push(of("Sold", 11));
    messages.push(of("Sold", 1));
    world.send("events", &messages);
    let _daemon = world.start(&[]);
    let halt = world.halted("stock");
    assert!(
        halt.contains("requirement") && halt.contains("there is enough") && halt.contains("\"offset\":31"),
        "{halt}"
    );
    assert_eq!(world.query("SELECT * FROM views.stock"), [r#"{"id":"x","left":10,"sold":90}"#]);
}

#[test]
fn a_sql_file_makes_views_and_goes_with_them() {
    let world = World::new("companion");
    world.create_topic("events", 1, &[]);
    world.projection("payments.yaml", PAYMENTS);
    let sql = world.projections().join("payments.sql");
    std::fs::write(&sql, "CREATE VIEW rich AS SELECT * FROM payments WHERE sum > 10;\nCREATE VIEW richest AS SELECT * FROM rich ORDER BY sum DESC LIMIT 1;\n").unwrap();
    world.apply();
    assert!(world.query("SELECT * FROM views.richest").is_empty());
    std::fs::write(&sql, "CREATE VIEW rich AS\nSELECT nothing FROM payments;\n").unwrap();
    let (code, text) = world.output(&["apply", "--recreate", "payments"]);
    assert!(code == 64 && text.contains("payments.sql:2:") && text.contains("nothing"), "{code} {text}");
    assert!(world.query("SELECT * FROM views.richest").is_empty(), "nothing has changed");
    std::fs::write(&sql, "COMMIT;\n").unwrap();
    let (code, text) = world.output(&["apply", "--recreate", "payments"]);
    assert!(code == 64 && text.contains("payments.sql:1:") && text.contains("BEGIN and COMMIT"), "{code} {text}");
    std::fs::write(&sql, "CREATE VIEW poor AS SELECT * FROM payments WHERE sum < 1;\n").unwrap();
    let (code, text) = world.output(&["apply", "--recreate", "payments"]);
    assert_eq!(code, 0, "{text}");
    assert!(world.query("SELECT * FROM views.poor").is_empty());
    assert!(world.try_query("SELECT * FROM views.richest").is_err());
    std::fs::remove_file(&sql).unwrap();
    let (code, text) = world.output(&["apply"]);
    assert!(code == 0 && text.contains("changed in place"), "no row is another: {text}");
    assert!(world.try_query("SELECT * FROM views.poor").is_err());
    std::fs::write(&sql, "CREATE VIEW poor AS SELECT nothing FROM payments;\n").unwrap();
    let (code, text) = world.output(&["apply"]);
    assert!(code == 64 && text.contains("payments.sql:1:"), "{text}");
    assert_eq!(world.query("SELECT count(*)::text AS n FROM projector.generations"), ["{\"n\":\"2\"}"]);
}

#[test]
fn search_is_served_by_its_index() {
    let world = World::new("search");
    world.create_topic("events", 1, &[]);
    for (name, method) in [("words", "fts"), ("parts", "trigram")] {
        let text = format!(
            "
projection: {name}
sources: {{ events: {{ topic: TOPIC(events) }} }}
key: {{ id: data.id }}
columns: {{ title: text, body: text }}
search: {{ columns: [title, body], method: {method} }}
handlers: {{ events: {{ Written: {{ set: {{ title: data.title, body: opt(data.body) }} }} }} }}
"
        );
        world.projection(&format!("{name}.yaml"), &text);
    }
    let written = |id: i64, title: &str| {
        message(0, "k", event("1", "Written", "2026-01-01T00:00:00Z", &json!({ "id": id.to_string(), "title": title })))
    };
    let mut messages: Vec<Message> = (0..2_000).map(|id| written(id, &format!("note number {id}"))).collect();
    messages.push(written(9_999, "the contract with Ada"));
    world.send("events", &messages);
    let _daemon = world.start(&[]);
    world.applied("words", "events");
    world.applied("parts", "events");
    world.execute("ANALYZE");
    let words = "SELECT id FROM views.words WHERE search @@ to_tsquery('simple', 'contract & ada')";
    let parts = "SELECT id FROM views.parts WHERE title ILIKE '%ontrac%'";
    for sql in [words, parts] {
        assert_eq!(world.query(sql), [r#"{"id":"9999"}"#], "{sql}");
        world.execute(&format!("CREATE OR REPLACE FUNCTION explained() RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN SET LOCAL enable_seqscan = off; RETURN QUERY EXECUTE 'EXPLAIN ' || {}; END $$", quote(sql)));
        let plan = world.query("SELECT string_agg(e, ' ') AS plan FROM explained() AS e");
        assert!(plan[0].contains("Bitmap Index Scan"), "{sql}: {plan:?}");
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[test]
fn unlogged_tables_that_postgres_emptied_are_noticed() {
    let world = World::new("unlogged");
    world.create_topic("events", 1, &[]);
    world.projection("payments.yaml", &PAYMENTS.replace("key: {", "unlogged: true\nkey: {"));
    let paid =
        |id: &str| message(0, "k", event(id, "Paid", "2026-01-01T12:00:00Z", &json!({ "account": "a", "amount": 1 })));
    world.send("events", &[paid("1")]);
    let daemon = world.start(&[]);
    world.applied("payments", "events");
    // What a crash of Postgres does to unlogged tables.
    world.execute("TRUNCATE \"payments@1\".payments, \"payments@1\".projector_witness");
    world.send("events", &[paid("2")]);
    let halt = world.halted("payments");
    assert!(halt.contains("emptied the unlogged tables") && halt.contains("--recreate payments"), "{halt}");
    daemon.stop();
    // A daemon that starts says so without any event.
    world.execute("DELETE FROM projector.halts");
    let daemon = world.start(&[]);
    world.halted("payments");
    daemon.stop();
    let (code, text) = world.output(&["apply", "--recreate", "payments"]);
    assert_eq!(code, 0, "{text}");
    let _daemon = world.start(&[]);
    world.applied("payments", "events");
    assert_eq!(world.query("SELECT n FROM views.payments"), [r#"{"n":2}"#]);
}
