//! Exactly-once effect: kills, zombies, rebalances, restarts, a lost answer to a COMMIT.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::proxy::Proxy;
use super::world::{Daemon, Dice, Message, World, event};

const PARTITIONS: u64 = 4;
const EVENTS: u64 = 30_000;
const KEYS: u64 = 700;

/// Every event counts in its key's row and in one of a few rows that every lane hits.
const TALLY: &str = "
projection: tally
serve: [tally, hot]
sources: { events: { topic: TOPIC(events), ordered_by: data.k } }
tables:
  tally:
    key: { k: data.k }
    columns:
      n: { type: bigint, default: 0 }
      sum: \"numeric(14,2)\"
      last: bigint
    handlers:
      events:
        Counted:
          add: { n: 1, sum: data.amount }
          set: { last: data.seq }
  hot:
    key: { bucket: data.bucket }
    columns: { n: { type: bigint, default: 0 }, greatest: bigint }
    handlers:
      events:
        Counted:
          add: { n: 1 }
          max: { greatest: data.seq }
";

/// What the naive model makes of the events: by key, (count, sum in cents, last).
#[derive(Default)]
pub struct Tally {
    keys: BTreeMap<String, (u64, u64, u64)>,
    buckets: BTreeMap<String, (u64, u64)>,
}

impl Tally {
    /// The next events, and what they count.
    pub fn more(&mut self, from: u64, count: u64) -> Vec<Message> {
        let mut dice = Dice(from + 1);
        let mut messages = Vec::new();
        for seq in from..from + count {
            let key = dice.roll(KEYS);
            let cents = dice.roll(10_000);
            let (k, bucket) = (format!("k{key}"), format!("b{}", dice.roll(3)));
            let entry = self.keys.entry(k.clone()).or_default();
            *entry = (entry.0 + 1, entry.1 + cents, seq);
            let hot = self.buckets.entry(bucket.clone()).or_default();
            *hot = (hot.0 + 1, hot.1.max(seq));
            let amount = format!("{}.{:02}", cents / 100, cents % 100);
            let amount: serde_json::Value = serde_json::from_str(&amount).unwrap();
            let payload = event("Counted", json!({ "k": k, "amount": amount, "seq": seq, "bucket": bucket }));
            messages.push(Message { partition: (key % PARTITIONS) as i32, key: k, payload });
        }
        messages
    }

    /// What differs between the model and the view.
    fn check(&self, world: &World) -> Result<(), String> {
        let mut expected: Vec<String> = Vec::new();
        for (key, (n, cents, last)) in &self.keys {
            expected.push(format!("{key} {n} {}.{:02} {last}", cents / 100, cents % 100));
        }
        for (bucket, (n, greatest)) in &self.buckets {
            expected.push(format!("{bucket} {n} {greatest}"));
        }
        let found = world.query(
            "SELECT string_agg(line, E'\\n' ORDER BY line COLLATE \"C\") AS lines FROM (
                 SELECT k || ' ' || n || ' ' || sum::numeric(14,2) || ' ' || last AS line FROM views.tally
                 UNION ALL SELECT bucket || ' ' || n || ' ' || greatest FROM views.hot) AS q",
        );
        let found: serde_json::Value = serde_json::from_str(&found[0]).unwrap();
        let found: Vec<&str> = found["lines"].as_str().unwrap_or_default().lines().collect();
        expected.sort();
        let wrong: Vec<String> = expected
            .iter()
            .filter(|line| !found.contains(&line.as_str()))
            .take(3)
            .map(|line| {
                let key = line.split(' ').next().unwrap_or_default();
                let other = found.iter().find(|other| other.starts_with(&format!("{key} ")));
                format!("expected {line}, found {other:?}")
            })
            .collect();
        if wrong.is_empty() && found.len() == expected.len() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

fn world(name: &str) -> World {
    let world = World::new(name);
    tally_world(&world);
    world
}

pub fn tally_world(world: &World) {
    world.create_topic("events", PARTITIONS as i32, &[]);
    world.projection("tally.yaml", TALLY);
}

/// Small batches, so that there are many commits to die in.
const SMALL: (&str, &str) = ("PROJECTOR__FOLD__FAR_BEHIND", "1000000000");

pub fn settle(world: &World, tally: &Tally) -> Result<(), String> {
    world.try_applied("tally", "events")?;
    tally.check(world)
}

fn killed_at(failpoint: &str, sabotage: &str) -> Result<(), String> {
    let world = world("killed");
    let mut tally = Tally::default();
    world.send("events", &tally.more(0, EVENTS));
    world.apply();
    for times in ["1", "3", "2"] {
        let chosen = format!("{failpoint}:{times}");
        // A group of its own each time: the dead one's session need not end first, and nothing rests on the group.
        let group = ("PROJECTOR__KAFKA__GROUP_PREFIX", &*format!("{}-{times}", world.name));
        let mut daemon =
            world.start(&[SMALL, group, ("PROJECTOR_FAILPOINT", &chosen), ("PROJECTOR_SABOTAGE", sabotage)]);
        // It dies where it is told to, unless everything was applied before.
        let applied = world.try_wait("dying", || match daemon_state(&daemon) {
            State::Dead => Ok(()),
            State::Alive => match world.try_query("SELECT sum(next_offset) AS n FROM projector.checkpoints") {
                Ok(rows) if rows == [format!("{{\"n\":{EVENTS}}}")] => Ok(()),
                _ => Err("still running".into()),
            },
        });
        applied?;
        daemon.kill();
    }
    let daemon = world.start(&[("PROJECTOR_SABOTAGE", sabotage)]);
    let result = settle(&world, &tally);
    drop(daemon);
    result
}

enum State {
    Alive,
    Dead,
}

fn daemon_state(daemon: &Daemon) -> State {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim().chars().next();
    if matches!(state, None | Some('Z')) { State::Dead } else { State::Alive }
}

#[test]
fn killed_at_every_failpoint() {
    for failpoint in projector::proof::FAILPOINTS {
        killed_at(failpoint, "").unwrap_or_else(|wrong| panic!("killed at {failpoint}: {wrong}"));
    }
}

#[test]
fn without_one_transaction_a_kill_loses_rows() {
    assert!(killed_at("after-checkpoint", "checkpoint-apart").is_err());
}

#[test]
fn killed_at_random_under_load() {
    let world = world("random");
    let mut tally = Tally::default();
    let mut dice = Dice(99);
    world.apply();
    for round in 0..6 {
        let group = ("PROJECTOR__KAFKA__GROUP_PREFIX", &*format!("{}-{}", world.name, round % 2));
        let mut daemon = world.start(&[SMALL, group]);
        world.send("events", &tally.more(round * 5_000, 5_000));
        // The moment of death is what is random here, not a wait for anything.
        std::thread::sleep(Duration::from_millis(200 + dice.roll(1_500)));
        daemon.kill();
    }
    let _daemon = world.start(&[]);
    settle(&world, &tally).unwrap();
}

/// Two processes that both own every partition, because they believe to be in different groups.
fn two_owners(sabotage: &str) -> Result<(), String> {
    let world = world("zombies");
    let mut tally = Tally::default();
    world.apply();
    let one = world.start(&[SMALL, ("PROJECTOR__KAFKA__GROUP_PREFIX", "one"), ("PROJECTOR_SABOTAGE", sabotage)]);
    let two = world.start(&[SMALL, ("PROJECTOR__KAFKA__GROUP_PREFIX", "two"), ("PROJECTOR_SABOTAGE", sabotage)]);
    for owner in [&one, &two] {
        world.try_wait("owning partitions", || if owner.log().contains("owns") { Ok(()) } else { Err(owner.log()) })?;
    }
    for round in 0..10 {
        world.send("events", &tally.more(round * 2_000, 2_000));
    }
    let result = settle(&world, &tally);
    drop((one, two));
    result
}

#[test]
fn two_owners_of_a_partition_do_no_harm() {
    two_owners("").unwrap();
}

#[test]
fn without_the_comparison_two_owners_count_twice() {
    assert!(two_owners("checkpoint-compare").is_err());
}

#[test]
fn a_rebalance_in_mid_batch_loses_nothing() {
    let world = world("rebalance");
    let mut tally = Tally::default();
    let first = world.start(&[SMALL]);
    let mut others: Vec<Daemon> = Vec::new();
    for round in 0..12 {
        world.send("events", &tally.more(round * 3_000, 3_000));
        match round % 3 {
            0 => others.push(world.start(&[SMALL])),
            2 => drop(others.pop()),
            _ => {}
        }
    }
    settle(&world, &tally).unwrap();
    let (code, log) = first.stop();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn cut_connections_to_postgres_lose_nothing() {
    let world = world("cut");
    let mut tally = Tally::default();
    let daemon = world.start(&[SMALL]);
    for round in 0..10 {
        world.send("events", &tally.more(round * 3_000, 3_000));
        world.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'projector'");
    }
    settle(&world, &tally).unwrap_or_else(|wrong| panic!("{wrong}; {}", daemon.log()));
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
}

/// A proxy forwards COMMIT, and cuts the line before the answer comes back.
fn lost_commit(sabotage: &str) -> Result<(), String> {
    let world = world("lost");
    let mut tally = Tally::default();
    world.apply();
    let proxy = Proxy::start(world.postgres_port);
    let port = proxy.port.to_string();
    let daemon = world.start_applied(&[SMALL, ("PROJECTOR__POSTGRES__PORT", &port), ("PROJECTOR_SABOTAGE", sabotage)]);
    for round in 0..8 {
        proxy.lose_next_commit();
        world.send("events", &tally.more(round * 2_000, 2_000));
        world.try_wait("losing the answer", || if proxy.has_lost() { Ok(()) } else { Err("no commit yet".into()) })?;
    }
    let result = settle(&world, &tally);
    drop(daemon);
    result
}

#[test]
fn a_lost_answer_to_a_commit_counts_once() {
    lost_commit("").unwrap();
}

#[test]
fn a_commit_repeated_without_asking_counts_twice() {
    assert!(lost_commit("lost-commit").is_err());
}

#[test]
fn stopping_commits_what_was_folded() {
    let world = world("stop");
    let mut tally = Tally::default();
    world.send("events", &tally.more(0, EVENTS));
    let daemon = world.start(&[]);
    settle(&world, &tally).unwrap();
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");
    let idle = world.query("SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'projector'");
    assert_eq!(idle, ["{\"n\":0}"]);
}
