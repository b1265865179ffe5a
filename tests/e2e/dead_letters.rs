//! What becomes of parked events: readers are told, people settle them, poison is found, other tools see them.

use std::io::{Read, Write};
use std::net::TcpStream;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};
use serde_json::{Value as Json, json};

use super::world::{Daemon, Message, World, event, free_port};

const PAYMENTS: &str = "
projection: payments
sources: { events: { topic: TOPIC(events), ordered_by: data.id } }
errors: { ERRORS }
key: { id: data.id }
columns: { amount: \"numeric(10,2)\", note: text }
handlers: { events: { Paid: { set: { amount: data.amount, note: opt(data.note) } }, Bad*: { require: { never: 'false' } } } }
";

fn world(name: &str, errors: &str) -> World {
    let world = World::new(name);
    world.create_topic("events", 1, &[]);
    world.projection("payments.yaml", &PAYMENTS.replace("ERRORS", errors));
    world
}

fn message(key: &str, payload: Vec<u8>) -> Message {
    Message { partition: 0, key: key.into(), payload }
}

fn paid(id: &str, amount: Json) -> Message {
    message(id, event("Paid", json!({ "id": id, "amount": amount })))
}

fn parked(world: &World) -> Vec<Json> {
    let sql = "SELECT \"offset\", code, waits FROM projector.dead_letters ORDER BY id";
    world.query(sql).iter().map(|row| serde_json::from_str(row).unwrap()).collect()
}

fn poison(name: &str, variable: &str, signal: Option<i32>, code: Option<i32>) {
    let world = world(name, "");
    let mut messages: Vec<Message> = (0..300).map(|at| paid(&format!("p{}", at % 50), json!(at))).collect();
    messages[170] = message("p20", event("Paid", json!({ "id": "p20", "amount": 1, "note": "poisonous" })));
    world.send("events", &messages);
    world.apply();
    let environment = [(variable, "poisonous"), ("PROJECTOR__FOLD__STUCK_S", "1")];
    let (daemon, ends) = survive_with_deaths(&world, &environment);
    use std::os::unix::process::ExitStatusExt as _;
    assert!(ends.iter().all(|end| end.signal() == signal && end.code() == code), "{ends:?}");
    // Once as ever, once in thousands, once in dozens, and three times alone.
    assert_eq!(ends.len(), 6, "{}", daemon.log());
    let letters = parked(&world);
    assert_eq!(letters[0], json!({ "offset": 170, "code": "poison", "waits": false }));
    assert!(letters[1..].iter().all(|letter| letter["waits"] == true), "{letters:?}");
    assert_eq!(letters.len(), 3, "of its sequence 2 more come after it: {letters:?}");
    assert_eq!(world.query("SELECT count(*) AS n FROM views.payments"), ["{\"n\":50}"]);
    assert_eq!(world.query("SELECT amount FROM views.payments WHERE id = 'p20'"), ["{\"amount\":120.00}"]);
    drop(daemon);
    // Another program is not poisoned by it.
    let group = format!("{}-cured", world.name);
    let _daemon = world.start_applied(&[("PROJECTOR__KAFKA__GROUP_PREFIX", &group)]);
    let (code, text) = world.output(&["dead-letters", "retry", "--code", "poison"]);
    assert_eq!(code, 0, "{text}");
    world.wait("the sequence", || if parked(&world).is_empty() { Ok(()) } else { Err("parked".into()) });
    assert_eq!(world.query("SELECT amount FROM views.payments WHERE id = 'p20'"), ["{\"amount\":270.00}"]);
}

/// Starts daemons, each after the death of the last, until the topic is applied.
fn survive_with_deaths(world: &World, environment: &[(&str, &str)]) -> (Daemon, Vec<std::process::ExitStatus>) {
    let mut ends = Vec::new();
    loop {
        let group = format!("{}-{}", world.name, ends.len());
        let mut all = environment.to_vec();
        all.push(("PROJECTOR__KAFKA__GROUP_PREFIX", &group));
        let mut daemon = world.start_applied(&all);
        loop {
            let now = world.query("SELECT coalesce(sum(next_offset), 0)::text AS n FROM projector.checkpoints");
            if now == ["{\"n\":\"300\"}"] {
                return (daemon, ends);
            }
            if !daemon.is_running() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        ends.push(daemon.ended());
        assert!(ends.len() < 12, "it dies for ever; the last one: {}", daemon.log());
    }
}

#[test]
fn an_event_that_kills_the_process_is_found_and_parked() {
    poison("lethal", "PROJECTOR_LETHAL", Some(9), None);
}

#[test]
fn an_event_that_never_ends_is_found_and_parked() {
    poison("endless", "PROJECTOR_ENDLESS", None, Some(70));
}

/// Postgres alone knows: a person's check constraint.
#[test]
fn what_a_constraint_refuses_is_parked_alone() {
    let world = world("constraint", "");
    world.apply();
    world.execute("ALTER TABLE \"payments@1\".payments ADD CONSTRAINT small CHECK (amount < 1000)");
    let amount = |at: usize| if at % 100 == 37 { 5_000 } else { at };
    let messages: Vec<Message> = (0..600).map(|at| paid(&format!("p{at}"), json!(amount(at)))).collect();
    world.send("events", &messages);
    let daemon = world.start_applied(&[]);
    world.applied("payments", "events");
    let offsets: Vec<i64> = parked(&world).iter().map(|letter| letter["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [37, 137, 237, 337, 437, 537]);
    assert!(parked(&world).iter().all(|letter| letter["code"] == "refused-by-postgres"));
    assert_eq!(world.query("SELECT count(*) AS n FROM views.payments"), ["{\"n\":594}"]);
    // Each of the six costs about twice the logarithm of the batch; the batch is not tried event by event.
    let tries = daemon.log().matches("going on from the checkpoints").count();
    assert!(tries <= 6 * 12, "{tries} tries");
    world.execute("ALTER TABLE \"payments@1\".payments DROP CONSTRAINT small");
    let (code, text) = world.output(&["dead-letters", "retry", "--all"]);
    assert!(code == 0 && text.contains("6 settled"), "{text}");
    assert_eq!(world.query("SELECT count(*) AS n FROM views.payments"), ["{\"n\":600}"]);
}

#[test]
fn without_a_key_nobody_knows_what_would_have_to_wait() {
    let broken = || message("", b"{".to_vec());
    let strict = world("keyless", "");
    strict.send("events", &[paid("a", json!(1)), broken(), paid("b", json!(2))]);
    let daemon = strict.start(&[]);
    let halt = strict.halted("payments");
    assert!(halt.contains("undecodable") && halt.contains("keyless: park"), "{halt}");
    let place = format!("{}/0@1", strict.topic("events"));
    let (code, text) = strict.output(&["dead-letters", "discard", &place, "--reason", "cut off by hand"]);
    assert!(code == 0 && text.contains("goes on"), "{text}");
    strict.applied("payments", "events");
    assert!(daemon.log().contains("payments.1 goes on"), "{}", daemon.log());
    assert_eq!(strict.query("SELECT count(*) AS n FROM views.payments"), ["{\"n\":2}"]);

    let lenient = world("lenient", "keyless: park");
    lenient.send("events", &[broken(), paid("b", json!(2))]);
    let _daemon = lenient.start(&[]);
    lenient.applied("payments", "events");
    assert_eq!(parked(&lenient).len(), 1);
}

#[test]
fn policies_are_the_projections() {
    let world = world("policies", "requirement: skip, undecodable: halt, unhandled: park");
    let bad = |key: &str, type_: &str| message(key, event(type_, json!({ "id": key })));
    world.send("events", &[bad("a", "Bad1"), bad("b", "Unheard"), paid("c", json!(3)), message("d", b"{".to_vec())]);
    let _daemon = world.start(&[]);
    let halt = world.halted("payments");
    assert!(halt.contains("\"offset\":3"), "{halt}");
    assert_eq!(parked(&world), [json!({ "offset": 1, "code": "unhandled-type", "waits": false })]);
    let (_, status) = world.output(&["status", "--format", "json"]);
    assert!(
        status.contains("\"skipped\":{\"requirement\":1}") && status.contains("\"parked_sequences\":1"),
        "{status}"
    );
    // A policy changes no row of what was applied: no rebuild.
    world.projection("payments.yaml", &PAYMENTS.replace("ERRORS", "requirement: skip, undecodable: park"));
    let (code, text) = world.output(&["apply"]);
    assert!(code == 0 && text.contains("unchanged"), "{text}");
    world.projection("payments.yaml", &PAYMENTS.replace("ERRORS", "undecodable: park"));
    let (code, text) = world.output(&["apply"]);
    assert!(code == 0 && text.contains("generation 2 is built"), "what is skipped decides rows: {text}");
}

#[test]
fn past_its_limits_the_projection_stands_still_and_can_be_settled() {
    let world = world("limits", "max_parked_sequences: 3");
    let bad = |key: usize| paid(&format!("p{key}"), json!("much"));
    let messages: Vec<Message> = (0..5).flat_map(|key| [bad(key), paid(&format!("good{key}"), json!(1))]).collect();
    world.send("events", &messages[..6]);
    let _daemon = world.start(&[]);
    world.applied("payments", "events");
    world.send("events", &messages[6..]);
    let halt = world.halted("payments");
    assert!(halt.contains("too-many-parked") && halt.contains("more than 3 sequences"), "{halt}");
    assert_eq!(parked(&world).len(), 3);
    let (code, text) = world.output(&["dead-letters", "discard", "--code", "wrong-value", "--reason", "no sums"]);
    assert!(code == 0 && text.contains("3 settled"), "{text}");
    let (code, text) = world.output(&["resume", "payments"]);
    assert_eq!(code, 0, "{text}");
    world.applied("payments", "events");
    assert_eq!(parked(&world).len(), 2);
    assert_eq!(world.query("SELECT count(*) AS n FROM views.payments"), ["{\"n\":5}"]);
}

fn request(port: u16, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, head.to_lowercase(), body.to_string())
}

#[test]
fn readers_are_told() {
    let world = world("readers", "");
    let port = free_port();
    let _daemon = world.start(&[("PROJECTOR__SERVE__LISTEN", &format!("127.0.0.1:{port}"))]);
    world.send("events", &[paid("a", json!(1)), paid("b", json!(2))]);
    world.applied("payments", "events");
    let (_, head, _) = request(port, "/payments", "");
    assert!(!head.contains("projector-parked"), "{head}");
    world.send("events", &[paid("a", json!("much")), paid("c", json!(3))]);
    world.applied("payments", "events");
    let (status, head, body) = request(port, "/payments?select=id,parked&order=id", "");
    assert_eq!(status, 200, "{body}");
    assert!(head.contains("projector-parked: 1"), "{head}");
    let rows: Json = serde_json::from_str(&body).unwrap();
    let expected =
        json!([{ "id": "a", "parked": true }, { "id": "b", "parked": false }, { "id": "c", "parked": false }]);
    assert_eq!(rows, expected);
    let (_, _, body) = request(port, "/payments?select=*,parked&id=eq.a", "");
    assert!(body.contains("\"amount\":1.00") && body.contains("\"parked\":true"), "{body}");

    let topic = world.topic("events");
    let after = |offset: i64, wait: u64| format!("Projector-After: {topic}/0@{offset}\r\nPrefer: wait={wait}\r\n");
    let (status, ..) = request(port, "/payments", &after(3, 0));
    assert_eq!(status, 200);
    let begun = std::time::Instant::now();
    let (status, _, body) = request(port, "/payments", &after(2, 30));
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("wrong-value") && body.contains("dead-letters show"), "{body}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "it waited for what will not come");
    let (status, _, body) = request(port, "/payments", &after(4, 1));
    assert!(status == 504 && body.contains("the next one to be applied is 4"), "{status} {body}");
    let (status, _, body) = request(port, "/payments", "Projector-After: nonsense\r\n");
    assert_eq!(status, 400, "{body}");
    // A reader that waits sees its own write.
    let waiting = std::thread::spawn({
        let headers = after(4, 30);
        move || request(port, "/payments?id=eq.d", &headers)
    });
    world.send("events", &[paid("d", json!(4))]);
    let (status, _, body) = waiting.join().unwrap();
    assert!(status == 200 && body.contains("\"amount\":4.00"), "{status} {body}");
}

#[test]
fn other_tools_see_them_in_a_topic() {
    let world = world("topic", "topic: TOPIC(dead)");
    world.create_topic("dead", 1, &[]);
    let bad = paid("a", json!("much"));
    let raw = bad.payload.clone();
    world.send("events", &[bad, paid("a", json!(1))]);
    let _daemon = world.start(&[]);
    world.applied("payments", "events");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.brokers).set("group.id", &world.name).set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&[&world.topic("dead")]).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let message = loop {
        assert!(std::time::Instant::now() < deadline, "nothing came");
        if let Some(Ok(message)) = consumer.poll(std::time::Duration::from_millis(200)) {
            break message.detach();
        }
    };
    assert_eq!((message.key(), message.payload()), (Some(&b"a"[..]), Some(&raw[..])));
    let headers = message.headers().unwrap();
    let header = |name: &str| {
        let found = headers.iter().find(|header| header.key == format!("__connect.errors.{name}"));
        String::from_utf8(found.unwrap_or_else(|| panic!("{name}")).value.unwrap().to_vec()).unwrap()
    };
    assert_eq!(header("topic"), world.topic("events"));
    assert_eq!((header("partition"), header("offset")), ("0".into(), "0".into()));
    assert_eq!((header("connector.name"), header("exception.class.name")), ("payments".into(), "wrong-value".into()));
    assert!(header("exception.message").contains("much"), "{}", header("exception.message"));
    // What only waits is no error.
    assert_eq!(world.query("SELECT count(*) AS n FROM projector.dead_letters WHERE published"), ["{\"n\":1}"]);
    assert_eq!(parked(&world).len(), 2);
}

/// Yesterday's event of a version that nobody could read: an upcaster comes, and it is applied.
#[test]
fn an_upcaster_lets_parked_events_go_on() {
    let world = world("upcast", "");
    let folder = world.projections().join("upcasters");
    std::fs::create_dir(&folder).unwrap();
    let upcaster = |steps: &str| {
        let text = format!(
            "upcaster: paid\ntopic: {}\ntype: Paid\nversion: opt(data.version)\nsteps:\n{steps}",
            world.topic("events")
        );
        std::fs::write(folder.join("paid.yaml"), text).unwrap();
    };
    const FIRST: &str = "  1: { move: { sum: amount }, set: { version: '2' } }\n";
    upcaster(FIRST);
    let of_version = |id: &str, version: Json, field: &str| {
        let mut data = json!({ "id": id, "version": version });
        data[field] = json!(7);
        message(id, event("Paid", data))
    };
    world.send("events", &[of_version("one", json!(null), "sum"), of_version("two", json!(2), "amount")]);
    world.send("events", &[of_version("three", json!(3), "amount")]);
    let daemon = world.start(&[]);
    world.applied("payments", "events");
    let letters = parked(&world);
    assert_eq!(letters, [json!({ "offset": 2, "code": "no-upcaster", "waits": false })]);
    let (_, text) = world.output(&["dead-letters", "list"]);
    assert!(text.contains("no-upcaster"), "{text}");
    daemon.stop();
    upcaster(&format!("{FIRST}  2: {{ set: {{ version: '3' }} }}\n"));
    let (code, text) = world.output(&["plan"]);
    assert!(code == 2 && text.contains("payments: steps are added to upcasters; no row is another"), "{text}");
    assert!(text.contains("\n  + upcaster `paid` from 2\n") && text.contains("1 to change in place"), "{text}");
    let (code, text) = world.output(&["apply"]);
    assert!(code == 0 && text.contains("upcasters were added"), "{text}");
    let (code, text) = world.output(&["plan"]);
    assert!(code == 0 && text.contains("payments: unchanged"), "{text}");
    let daemon = world.start_applied(&[]);
    let (code, text) = world.output(&["dead-letters", "retry", "--code", "no-upcaster"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(world.query("SELECT sum(amount) AS n FROM views.payments"), ["{\"n\":21.00}"]);
    daemon.stop();
    // A step that is changed would have made other rows.
    upcaster("  1: { move: { amount: sum } }\n  2: { set: { version: '3' } }\n");
    let (code, text) = world.output(&["plan"]);
    assert!(code == 2 && text.contains("payments: is built anew") && text.contains("~ upcaster `paid`"), "{text}");
    let (code, text) = world.output(&["apply"]);
    assert!(code == 0 && text.contains("generation 2 is built"), "{text}");
}

#[test]
fn a_correction_is_tried_before_it_is_recorded_and_its_original_stays() {
    let world = world("correct", "");
    world.send("events", &[paid("a", json!("much")), paid("a", json!(2))]);
    let _daemon = world.start(&[]);
    world.applied("payments", "events");
    let place = format!("{}/0@0", world.topic("events"));
    let file = world.projections().join("fixed.json");
    let file = file.to_str().unwrap();
    let correct = |payload: &[u8]| {
        std::fs::write(file, payload).unwrap();
        world.output(&["dead-letters", "correct", &place, "--payload", file, "--reason", "a typo", "--by", "ada"])
    };
    let (code, text) = correct(&paid("a", json!("more")).payload);
    assert!(code == 64 && text.contains("either") && text.contains("Nothing is recorded"), "{text}");
    let (_, text) = world.output(&["dead-letters", "show", &place]);
    assert!(text.contains("\"amount\": \"much\"      <-- here") && text.contains("What to do"), "{text}");
    let (_, text) = world.output(&["dead-letters", "retry", &place, "--dry-run"]);
    assert!(text.contains("would stay parked") && text.contains("Nothing was written"), "{text}");
    let (code, text) = correct(&paid("a", json!(1)).payload);
    assert!(code == 0 && text.contains("1 settled"), "{text}");
    world.wait("the one behind it", || if parked(&world).is_empty() { Ok(()) } else { Err("parked".into()) });
    assert_eq!(world.query("SELECT amount FROM views.payments"), ["{\"amount\":2.00}"]);
    let (_, text) = world.output(&["dead-letters", "export", "--decisions"]);
    let decision: Json = serde_json::from_str(&text).unwrap();
    assert_eq!((&decision["reason"], &decision["decided_by"]), (&json!("a typo"), &json!("ada")));
    assert!(decision["original"].as_str().unwrap().contains("much"), "{decision}");
    let (_, text) = world.output(&["dead-letters", "log", &place, "--format", "json"]);
    let trail: Vec<Json> = serde_json::from_str(&text).unwrap();
    let done: Vec<(&str, &str)> =
        trail.iter().map(|line| (line["who"].as_str().unwrap(), line["action"].as_str().unwrap())).collect();
    assert_eq!(done, [("ada", "correct"), ("ada", "applied as corrected")]);
}

#[test]
fn a_dry_run_shows_rows_and_writes_nothing() {
    let world = world("dry", "");
    world.apply();
    world.execute("ALTER TABLE \"payments@1\".payments ADD CONSTRAINT small CHECK (amount < 1000)");
    world.send("events", &[paid("a", json!(1)), paid("a", json!(5_000))]);
    let _daemon = world.start_applied(&[]);
    world.applied("payments", "events");
    world.execute("ALTER TABLE \"payments@1\".payments DROP CONSTRAINT small");
    let (code, text) = world.output(&["dead-letters", "retry", "--all", "--dry-run"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("* amount: 1.00 -> 5000.00") && text.contains("would be applied"), "{text}");
    assert_eq!(parked(&world).len(), 1);
    assert_eq!(world.query("SELECT amount FROM views.payments"), ["{\"amount\":1.00}"]);
}

/// Whoever goes on without having mended anything stands still at the same place, and nothing else is made of it.
#[test]
fn a_halt_is_no_poison() {
    let world = world("resume", "default: halt");
    world.send("events", &[paid("a", json!(1)), paid("a", json!("much"))]);
    let _daemon = world.start(&[]);
    for _ in 0..5 {
        let halt = world.halted("payments");
        assert!(halt.contains("wrong-value") && halt.contains("\"offset\":1"), "{halt}");
        assert_eq!(world.output(&["resume", "payments"]).0, 0);
    }
    world.halted("payments");
    assert_eq!(parked(&world), Vec::<Json>::new());
    let starts = world.query("SELECT max(starts) AS n, max(tries) AS tries FROM projector.checkpoints");
    assert_eq!(starts, ["{\"n\":0,\"tries\":0}"]);
}
