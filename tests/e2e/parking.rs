//! Bad events mixed into good ones: exactly those are parked that have to be, everything else is applied as the naive
//! model has it, and once they are mended every row is what it would have been.

use std::collections::{BTreeMap, BTreeSet};

use projector::checkpoint::Partition;
use projector::event::Record;
use projector::golden::Model;
use projector::intake::intake;
use projector::parking::{each, sequences};
use projector::plan::{Plan, compile};
use projector::spec::diagnostic::SourceFile;
use projector::store::parked::retry::counts;
use projector::store::{connect, generations};
use serde_json::{Value as Json, json};

use super::world::{Daemon, Dice, Message, World, event};

const PARTITIONS: i32 = 3;

const DIRTY: &str = "
projection: dirty
serve: [things, tally]
sources: { events: { topic: TOPIC(events), ordered_by: data.k } }
errors: { unhandled: park, max_parked_events: 100000, max_parked_sequences: 100000 }
tables:
  things:
    key: { k: data.k }
    columns:
      text: text
      count: { type: bigint, default: 0 }
      amount: { type: \"numeric(5,0)\", default: 0 }
      seen: text
    handlers:
      events:
        Noted: { require: { polite: \"data.text != 'rude'\" }, set: { text: data.text }, add: { count: 1 } }
        Asked: { require: { few: row.count % 7 != 3 }, set: { seen: row.text }, add: { count: 1 } }
        Moved:
          - { add: { amount: data.v }, set: { text: data.text } }
          - { key: { k: data.to }, set: { seen: data.text }, add: { count: 1 } }
  tally:
    key: { bucket: data.b }
    columns: { bucket: bigint, n: { type: bigint, default: 0 } }
    handlers:
      events:
        Noted | Asked | Moved: { add: { n: 1 } }
";

fn plan(world: &World) -> Plan {
    let text = std::fs::read_to_string(world.projections().join("dirty.yaml")).unwrap();
    compile(&SourceFile::new("dirty.yaml", text)).0.unwrap()
}

fn noted(key: u64, text: &str) -> Vec<u8> {
    event("Noted", json!({ "k": format!("k{key}"), "b": key % 4, "text": text }))
}

/// `percent` of the events are bad, of every kind.
fn messages(events: u64, percent: u64, dice: &mut Dice) -> Vec<Message> {
    let mut messages = Vec::new();
    for at in 0..events {
        let key = dice.roll(60);
        let k = format!("k{key}");
        // The other key is in the same partition, or there would be no order to speak of.
        let to = format!("k{}", (key + PARTITIONS as u64 * dice.roll(5)) % 60);
        let text = format!("t{at}");
        let payload = if dice.roll(100) < percent {
            match dice.roll(7) {
                0 => b"\xff\xfe{".to_vec(),
                1 => b"{\"specversion\":\"1.0\"".to_vec(),
                2 => event("Noted", json!({ "k": k, "b": 1 })),
                3 => event("Noted", json!({ "k": k, "b": 1, "text": 7 })),
                4 => noted(key, "rude"),
                5 => event("Unheard", json!({ "k": k })),
                _ => event("Moved", json!({ "k": k, "b": 2, "to": to, "v": "much", "text": text })),
            }
        } else {
            match dice.roll(60) {
                // Whether these can be applied depends on the row.
                0 if percent < 100 && percent > 0 => event("Asked", json!({ "k": k, "b": 3 })),
                1 if percent < 100 && percent > 0 => {
                    event("Moved", json!({ "k": k, "b": 2, "to": to, "v": 40_000, "text": text }))
                }
                2..15 => event("Moved", json!({ "k": k, "b": 2, "to": to, "v": 1, "text": text })),
                _ => noted(key, &text),
            }
        };
        messages.push(Message { partition: (key % PARTITIONS as u64) as i32, key: k, payload });
    }
    messages
}

type Rows = BTreeSet<String>;
type Places = BTreeMap<(i32, i64), bool>;

/// What has to come of the messages: the rows, and the parked events with whether they only wait.
fn expected(plan: &Plan, messages: &[Message], corrections: &BTreeMap<(i32, i64), Vec<u8>>) -> (Rows, Places) {
    let mut model = Model::new(plan);
    let mut blocked: BTreeMap<i32, BTreeSet<_>> = BTreeMap::new();
    let mut parked = Places::new();
    let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
    for message in messages {
        let offset = offsets.entry(message.partition).or_default();
        let place = (message.partition, *offset);
        let record = Record {
            topic: "t",
            partition: message.partition,
            offset: *offset,
            time: Some(0),
            key: Some(message.key.as_bytes()),
            payload: Some(corrections.get(&place).unwrap_or(&message.payload)),
            headers: vec![],
        };
        *offset += 1;
        let blocked = blocked.entry(message.partition).or_default();
        let mut park = |rows: &[_], waits: bool| {
            blocked.extend(sequences(plan, 0, "t", Some(message.key.as_bytes()), each(rows)));
            parked.insert(place, waits);
        };
        let taken = match intake(plan, 0, &record, None, &|_, _| false) {
            Ok(taken) => taken,
            Err(refused) => {
                park(&refused.rows, false);
                continue;
            }
        };
        let rows = taken.rows();
        let all = sequences(plan, 0, "t", Some(message.key.as_bytes()), each(&rows));
        if all.iter().any(|sequence| blocked.contains(sequence)) {
            let mut park = |rows: &[_], waits: bool| {
                blocked.extend(sequences(plan, 0, "t", Some(message.key.as_bytes()), each(rows)));
                parked.insert(place, waits);
            };
            park(&rows, true);
            continue;
        }
        let before = model.clone();
        let applied = taken.patches.iter().try_for_each(|row| model.apply(plan, row.table, &row.key, &row.patch));
        if applied.is_err() {
            model = before;
            blocked.extend(all);
            parked.insert(place, false);
        }
    }
    let mut rows = Rows::new();
    for at in 0..plan.tables.len() {
        for row in model.visible_rows(plan, at, 0).unwrap() {
            let mut text: Vec<String> =
                row.iter().map(|(name, value)| format!("{name}={}", value.to_json_text())).collect();
            text.sort();
            rows.insert(text.join(" "));
        }
    }
    (rows, parked)
}

fn found(world: &World) -> (Rows, Places) {
    let mut rows = Rows::new();
    for view in ["things", "tally"] {
        for row in world.query(&format!("SELECT * FROM views.{view}")) {
            let row: BTreeMap<String, Json> = serde_json::from_str(&row).unwrap();
            let text: Vec<String> = row.iter().map(|(name, value)| format!("{name}={value}")).collect();
            rows.insert(text.join(" "));
        }
    }
    let mut parked = Places::new();
    for row in world.query("SELECT partition, \"offset\", waits FROM projector.dead_letters") {
        let row: Json = serde_json::from_str(&row).unwrap();
        let place = (row["partition"].as_i64().unwrap() as i32, row["offset"].as_i64().unwrap());
        parked.insert(place, row["waits"].as_bool().unwrap());
    }
    (rows, parked)
}

fn same(expected: &(Rows, Places), found: &(Rows, Places)) -> Result<(), String> {
    let parked = |places: &Places| places.iter().map(|(place, waits)| format!("{place:?} {waits}")).collect::<Rows>();
    for (what, expected, found) in
        [("parked", parked(&expected.1), parked(&found.1)), ("rows", expected.0.clone(), found.0.clone())]
    {
        if expected != found {
            let missing: Vec<&String> = expected.difference(&found).take(4).collect();
            let more: Vec<&String> = found.difference(&expected).take(4).collect();
            return Err(format!(
                "{what}: {} expected, {} found; missing {missing:?}, not expected {more:?}",
                expected.len(),
                found.len()
            ));
        }
    }
    Ok(())
}

fn start(name: &str) -> (World, Plan) {
    let world = World::new(name);
    world.create_topic("events", PARTITIONS, &[]);
    world.projection("dirty.yaml", DIRTY);
    let plan = plan(&world);
    (world, plan)
}

/// Corrects what has an error of its own, by way of export and import. Returns how many there were.
fn mend(world: &World, corrections: &mut BTreeMap<(i32, i64), Vec<u8>>) -> usize {
    let (code, exported) = world.output(&["dead-letters", "export"]);
    assert_eq!(code, 0, "{exported}");
    let mut lines = Vec::new();
    for line in exported.lines() {
        let mut letter: Json = serde_json::from_str(line).unwrap();
        if letter["code"] == "waits" {
            continue;
        }
        let key: u64 = letter["key"].as_str().unwrap()[1..].parse().unwrap();
        let payload = noted(key, &format!("mended {}", letter["offset"]));
        let place = (letter["partition"].as_i64().unwrap() as i32, letter["offset"].as_i64().unwrap());
        letter["payload"] = String::from_utf8(payload.clone()).unwrap().into();
        letter.as_object_mut().unwrap().remove("payload_base64");
        corrections.insert(place, payload);
        lines.push(letter.to_string());
    }
    let file = world.projections().join("edited.jsonl");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let (code, text) =
        world.output(&["dead-letters", "import", file.to_str().unwrap(), "--reason", "mended", "--wait", "0"]);
    assert_eq!(code, 0, "{text}");
    lines.len()
}

fn mend_all(world: &World, corrections: &mut BTreeMap<(i32, i64), Vec<u8>>) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(90);
    while std::time::Instant::now() < deadline {
        mend(world, corrections);
        if found(world).1.is_empty() {
            return;
        }
        world.wait(
            "retries",
            || match &world.query("SELECT count(requested_at) AS n FROM projector.dead_letters")[..] {
                [none] if none == "{\"n\":0}" => Ok(()),
                other => Err(format!("{other:?}")),
            },
        );
    }
    panic!("not all could be mended");
}

fn mixed(name: &str, percent: u64, events: u64, sabotage: &str) -> Result<(), String> {
    let (world, plan) = start(name);
    let messages = messages(events, percent, &mut Dice(percent + 7));
    world.send("events", &messages);
    let _daemon = world.start(&[("PROJECTOR_SABOTAGE", sabotage)]);
    world.try_applied("dirty", "events")?;
    same(&expected(&plan, &messages, &BTreeMap::new()), &found(&world))?;
    let mut corrections = BTreeMap::new();
    mend_all(&world, &mut corrections);
    world.try_wait("everything mended", || same(&expected(&plan, &messages, &corrections), &found(&world)))?;
    assert!(percent == 0 || !corrections.is_empty());
    // A rebuild honours what people decided.
    drop(_daemon);
    let (code, text) = world.output(&["apply", "--recreate", "dirty"]);
    assert_eq!(code, 0, "{text}");
    let _daemon = world.start(&[("PROJECTOR_SABOTAGE", sabotage)]);
    world.try_applied("dirty", "events")?;
    let rebuilt = found(&world);
    same(&expected(&plan, &messages, &corrections), &rebuilt)?;
    if rebuilt.1.is_empty() { Ok(()) } else { Err(format!("{:?}", rebuilt.1)) }
}

#[test]
fn one_in_a_hundred_is_bad() {
    mixed("dirty1", 1, 4_000, "").unwrap();
}

#[test]
fn one_in_ten_is_bad() {
    mixed("dirty10", 10, 1_500, "").unwrap();
}

#[test]
fn all_are_bad() {
    mixed("dirty100", 100, 300, "").unwrap();
}

#[test]
fn order_behind_parked_events_can_be_lost() {
    assert!(mixed("unordered", 5, 800, "parked-order").is_err());
}

#[test]
fn decisions_can_be_forgotten() {
    let (world, _) = start("forgotten");
    world.send("events", &[Message { partition: 0, key: "k0".into(), payload: noted(0, "rude") }]);
    let daemon = world.start(&[]);
    world.applied("dirty", "events");
    let place = format!("{}/0@0", world.topic("events"));
    let (code, text) = world.output(&["dead-letters", "discard", &place, "--reason", "rude"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("1 settled"), "{text}");
    drop(daemon);
    for (sabotage, parked) in [("", 0), ("decisions", 1)] {
        assert_eq!(world.output(&["apply", "--recreate", "dirty"]).0, 0);
        let _daemon = world.start(&[("PROJECTOR_SABOTAGE", sabotage)]);
        world.applied("dirty", "events");
        assert_eq!(found(&world).1.len(), parked, "{sabotage}");
    }
}

/// Two daemons, one killed again and again, while everything is parked, mended and retried, and partitions are added.
#[test]
fn order_holds_through_kills_and_rebalances_and_added_partitions() {
    let (world, plan) = start("stormy");
    let mut dice = Dice(99);
    let mut sent = messages(1_500, 8, &mut dice);
    world.send("events", &sent);
    let mut corrections = BTreeMap::new();
    world.apply();
    let _steady = world.start_applied(&[]);
    let mut shaky: Option<Daemon> = Some(world.start_applied(&[]));
    for round in 0..6 {
        let more = messages(200, 8, &mut dice);
        world.send("events", &more);
        sent.extend(more);
        if round == 2 {
            world.add_partitions("events", PARTITIONS as usize + 1);
            // A key that is parked in an old partition and goes on in the new one.
            let moved = (0..60).map(|key| Message {
                partition: PARTITIONS,
                key: format!("k{key}"),
                payload: noted(key, "moved"),
            });
            let moved: Vec<Message> = moved.collect();
            world.send("events", &moved);
        }
        mend(&world, &mut corrections);
        drop(shaky.take());
        shaky = Some(world.start_applied(&[]));
    }
    world.applied("dirty", "events");
    mend_all(&world, &mut corrections);
    world.wait("nothing parked", || match found(&world).1.len() {
        0 => Ok(()),
        parked => Err(format!("{parked} parked")),
    });
    // Of the keys that moved, all that was before comes first; afterwards some went on in the old partition.
    let texts = world.query("SELECT count(*) AS n FROM views.things WHERE text IS NOT NULL");
    assert_eq!(texts, ["{\"n\":60}"]);
    let counted: i64 = 60 + sent.len() as i64;
    let total = world.query("SELECT sum(n)::bigint AS n FROM views.tally");
    assert_eq!(total, [format!("{{\"n\":{counted}}}")]);
    let _ = plan;
}

/// A crash between the commit of a batch and what it parks, between a letter's end and its rows, or when some of the letters
/// that can be applied now are and others are not.
fn crash(name: &str, failpoint: &str, sabotage: &str) -> Result<(), String> {
    let (world, plan) = start(name);
    let message = |key: u64, payload: Vec<u8>| Message { partition: 0, key: format!("k{key}"), payload };
    let mut sent = vec![message(0, noted(0, "one")), message(0, noted(0, "rude"))];
    // More than are retried in one transaction.
    sent.extend((0..250).map(|_| message(0, noted(0, "three"))));
    world.send("events", &sent);
    world.apply();
    let environment = [("PROJECTOR_SABOTAGE", sabotage), ("PROJECTOR_FAILPOINT", failpoint)];
    let mut corrections = BTreeMap::new();
    if failpoint.starts_with("between-release") || failpoint.starts_with("after-retry") {
        let daemon = world.start_applied(&[]);
        world.applied("dirty", "events");
        daemon.stop();
        mend(&world, &mut corrections);
    }
    world.start_applied(&environment).ended();
    // Of a group of its own, nobody has to wait until the group has noticed that its last member was killed.
    let _daemon = world.start_applied(&[("PROJECTOR__KAFKA__GROUP_PREFIX", &format!("{}-2", world.name))]);
    world.try_applied("dirty", "events")?;
    let expected = expected(&plan, &sent, &corrections);
    for _ in 0..200 {
        if same(&expected, &found(&world)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    same(&expected, &found(&world))
}

/// Keys that have moved wait for what is un-parked in another partition: it must not go unseen because as many were parked.
#[test]
fn what_was_un_parked_is_noticed_though_others_were_parked() {
    let (world, _) = start("counts");
    let rude = |key: u64| Message { partition: 0, key: format!("k{key}"), payload: noted(key, "rude") };
    let parked = |offsets: [i64; 2]| {
        let expected: Places = offsets.map(|offset| ((0, offset), false)).into();
        world.wait("the letters", || match found(&world).1 {
            parked if parked == expected => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    let counted = |newest: i64| {
        world.runtime.block_on(async {
            let pool = connect::pool(world.options(), 1, 60_000);
            let live = generations::list(&pool).await.unwrap().remove(0).generation;
            counts(&pool, &live, newest).await.unwrap()[&Partition::new(world.topic("events"), 0)]
        })
    };
    let _daemon = world.start(&[]);
    world.send("events", &[rude(0), rude(3)]);
    world.applied("dirty", "events");
    parked([0, 1]);
    let before = counted(0);
    world.send("events", &[rude(6)]);
    let place = format!("{}/0@0", world.topic("events"));
    let (code, text) = world.output(&["dead-letters", "discard", &place, "--reason", "rude"]);
    assert_eq!(code, 0, "{text}");
    parked([1, 2]);
    let after = counted(before.newest);
    assert_eq!((before.parked, after.parked, after.still), (2, 2, 1));
}

#[test]
fn a_crash_loses_no_letter_and_no_retry() {
    crash("crash1", "after-commit:1", "").unwrap();
    crash("crash2", "before-commit:1", "").unwrap();
    crash("crash3", "between-release-and-rows:1", "").unwrap();
    crash("crash6", "after-retry:1", "").unwrap();
    assert!(crash("crash4", "after-commit:1", "parked-apart").is_err());
    assert!(crash("crash5", "between-release-and-rows:1", "retry-apart").is_err());
}
