//! Killed again and again while every operation of the language meets every other on the same rows: the rows are those of the
//! naive model in the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use projector::event::Record;
use projector::golden::Model;
use projector::intake::intake;
use projector::plan::{Plan, compile};
use projector::spec::diagnostic::SourceFile;
use projector::value::json::canonical;

use super::world::{Dice, Message, World};

const PARTITIONS: u64 = 3;
const EVENTS: u64 = 6_000;

pub const EVERYTHING: &str = "
projection: everything
sources:
  events: { topic: TOPIC(events), ordered_by: data.k, dedupe: { window: P1D } }
tables:
  everything:
    key: { k: data.k, n: data.n }
    columns:
      n: bigint
      name: { type: text, default: nobody }
      sum: { type: \"numeric(20,2)\", default: 0 }
      count: { type: bigint, default: 0 }
      most: integer
      least: text
      note: text
      newest: text
      document: jsonb
      members: jsonb
      goods: jsonb
      last: jsonb
      seen: text
    flags: { many: row.count > 20, noted: row.note != null }
    handlers:
      events:
        Said: { create: true, set: { name: data.l }, set_if_present: { note: data.note } }
        Counted:
          - add: { sum: data.amount, count: 1 }
            max: { most: data.v }
            min: { least: data.l }
          - latest: data.v
            set: { newest: data.l }
        Merged:
          - merge: { document: data.changes }
          - latest: data.v
            merge: { members: data.changes }
        Pushed: { push: { goods: { id: v, of: { v: data.v, l: data.l } }, last: { id: v, of: { v: data.v, l: data.l }, limit: 3 } } }
        Removed: { remove: { goods: data.v } }
        Asked: { when: \"row.count < 30\", set: { seen: \"row.name + '/' + string(row.count)\" }, add: { count: 2 } }
        Lines: { for_each: { line: data.lines }, key: { n: line.n }, add: { count: line.q } }
        Cleared: { const: { note: null, sum: 0 } }
        Erased: { delete: final }
";

pub fn payload(id: u64, dice: &mut Dice) -> (u64, String) {
    let types = [
        "Said", "Said", "Counted", "Counted", "Counted", "Merged", "Pushed", "Pushed", "Removed", "Asked", "Asked",
        "Lines", "Cleared",
    ];
    let type_ = if dice.roll(400) == 0 { "Erased" } else { types[dice.roll(types.len() as u64) as usize] };
    let key = dice.roll(40);
    let mut data = format!("\"k\":\"k{key}\",\"n\":{}", dice.roll(2));
    let _ = write!(
        data,
        ",\"v\":{},\"amount\":{}.{:02},\"l\":\"l{}\"",
        dice.roll(9),
        dice.roll(90),
        dice.roll(100),
        dice.roll(50)
    );
    let changes =
        ["{}", "{\"a\":1}", "{\"a\":null}", "{\"a\":{\"b\":2.50}}", "{\"a\":{\"b\":null,\"c\":{}}}", "{\"d\":[1]}"];
    let _ = write!(data, ",\"changes\":{}", changes[dice.roll(6) as usize]);
    let _ = write!(data, ",\"lines\":[{{\"n\":0,\"q\":1}},{{\"n\":1,\"q\":2}}]");
    if dice.roll(2) == 0 {
        let _ = write!(data, ",\"note\":{}", ["\"x\"", "null"][dice.roll(2) as usize]);
    }
    let text = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/t\",\"type\":\"{type_}\",\"time\":\"2026-01-01T00:00:00Z\",\"data\":{{{data}}}}}"
    );
    (key, text)
}

type Rows = BTreeMap<String, BTreeMap<String, String>>;

/// What the naive model makes of the messages, repeats left out.
fn expected(plan: &Plan, topic: &str, messages: &[Message]) -> Rows {
    let mut model = Model::new(plan);
    let mut known = std::collections::HashSet::new();
    let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
    for message in messages {
        let offset = offsets.entry(message.partition).or_default();
        let record = Record {
            topic,
            partition: message.partition,
            offset: *offset,
            time: Some(0),
            key: Some(message.key.as_bytes()),
            payload: Some(&message.payload),
            headers: vec![],
        };
        *offset += 1;
        let taken =
            intake(plan, 0, &record, None, &|identity, _| known.contains(&(message.partition, *identity))).unwrap();
        known.extend(taken.counted.iter().map(|counted| (message.partition, counted.identity)));
        for row in taken.patches {
            model.apply(plan, row.table, &row.key, &row.patch).unwrap();
        }
    }
    let rows = model.visible_rows(plan, 0, 0).unwrap().into_iter();
    rows.map(|row| {
        let key = format!("{} {}", row["k"].to_json_text(), row["n"].to_json_text());
        (key, row.iter().map(|(name, value)| (name.clone(), canonical(&value.to_json_text()).unwrap())).collect())
    })
    .collect()
}

fn found(world: &World) -> Rows {
    let rows = world.query("SELECT * FROM views.everything").into_iter().map(|json| {
        let row: BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_str(&json).unwrap();
        let key = format!("{} {}", row["k"].get(), row["n"].get());
        (key, row.into_iter().map(|(name, raw)| (name, canonical(raw.get()).unwrap())).collect())
    });
    rows.collect()
}

/// The process is killed in its first commit, again and again, with more events each time.
fn killed_at(failpoint: &str, sabotage: &str) -> Result<(), String> {
    let world = World::new("kills");
    world.create_topic("events", PARTITIONS as i32, &[]);
    world.projection("everything.yaml", EVERYTHING);
    let yaml = EVERYTHING.replace("TOPIC(events)", &world.topic("events"));
    let (plan, problems) = compile(&SourceFile::new("everything.yaml", yaml));
    let plan = plan.unwrap_or_else(|| panic!("{problems:?}"));
    assert!(problems.is_empty(), "{problems:?}");
    world.apply();
    let mut dice = Dice(3);
    let mut messages: Vec<Message> = Vec::new();
    for id in 0..EVENTS {
        let (key, text) = payload(id, &mut dice);
        let partition = (key % PARTITIONS) as i32;
        for _ in 0..=u64::from(dice.roll(10) == 0) {
            messages.push(Message { partition, key: format!("k{key}"), payload: text.clone().into_bytes() });
        }
    }
    // Of a group of its own, nobody has to wait until the group has noticed that its last member was killed.
    let start = |number: usize, failpoint: &str| {
        let group = format!("{}-{number}", world.name);
        let all = [
            ("PROJECTOR__KAFKA__GROUP_PREFIX", group.as_str()),
            ("PROJECTOR_FAILPOINT", failpoint),
            ("PROJECTOR_SABOTAGE", sabotage),
            // It is the failpoint that kills, and no event: none is to be parked for it.
            ("PROJECTOR__FOLD__POISON_ATTEMPTS", "100"),
        ];
        world.start_applied(&all)
    };
    for (number, more) in messages.chunks(messages.len() / 6).enumerate() {
        world.send("events", more);
        let mut daemon = start(number, failpoint);
        let status = daemon.ended();
        if std::os::unix::process::ExitStatusExt::signal(&status) != Some(9) {
            return Err(format!("the process was to be killed, and ended with {status}: {}", daemon.log()));
        }
    }
    let _daemon = start(99, "");
    world.try_applied("everything", "events")?;
    let (expected, found) = (expected(&plan, &world.topic("events"), &messages), found(&world));
    for (key, row) in &expected {
        let other = found.get(key).ok_or(format!("{key} is missing"))?;
        for (column, value) in row {
            if other[column] != *value {
                return Err(format!("{failpoint}: {column} of {key} is {}, expected {value}", other[column]));
            }
        }
    }
    if expected.len() == found.len() {
        Ok(())
    } else {
        Err(format!("{} rows, expected {}", found.len(), expected.len()))
    }
}

#[test]
fn every_operation_survives_kills_before_the_commit() {
    killed_at("before-commit", "").unwrap();
}

#[test]
fn every_operation_survives_kills_after_the_commit() {
    killed_at("after-commit", "").unwrap();
}

#[test]
fn every_operation_survives_kills_after_the_checkpoint() {
    killed_at("after-checkpoint", "").unwrap();
    assert!(killed_at("after-checkpoint", "checkpoint-apart").is_err());
}
