//! Random projections over random events on a real Kafka, by several processes that are killed and started again, and built
//! anew now and then, compared with the naive model. `scripts/soak` runs it for longer.

use std::time::{Duration, Instant};

use super::{Sent, Stage, fold, network};
use crate::world::{Dice, Message, World};
use projector::golden::Model;
use projector::plan::compile;
use projector::spec::diagnostic::SourceFile;

const TOPICS: [&str; 4] = ["companies", "customers", "orders", "lines"];
const PARTITIONS: i32 = 4;
/// Events in which the same few rows are met.
const ERA: u64 = 1_000;

/// The network with some of what follows left out: each seed another projection.
fn yaml(world: &World, dice: &mut Dice) -> String {
    let leaves_out = |dice: &mut Dice| dice.roll(4) == 0;
    let mut lines: Vec<&str> = Vec::new();
    for line in network::YAML.lines() {
        // An aggregate on a line of its own is the only thing of which another does not depend.
        let own = line.trim_start();
        let optional = own.ends_with('}')
            && own.contains(": { ")
            && line.starts_with("          ")
            && !["total:", "lines:", "spent:", "customers:"].iter().any(|needed| own.starts_with(needed));
        if !(optional && leaves_out(dice)) {
            lines.push(line);
        }
    }
    let mut text = lines.join("\n");
    for topic in TOPICS {
        text = text.replace(&format!("topic: {topic},"), &format!("topic: {},", world.topic(topic)));
    }
    text
}

fn message(sent: &Sent) -> Message {
    let key = sent.data["id"].as_str().unwrap().to_string();
    let partition = key.bytes().map(i32::from).sum::<i32>() % PARTITIONS;
    Message { partition, key, payload: sent.payload().into_bytes() }
}

/// Runs one seed for a time. Panics with the differences.
fn soak(seed: u64, time: Duration) {
    println!("soak: seed {seed}, {} s", time.as_secs());
    let mut dice = Dice(seed);
    let world = World::new("soak");
    for topic in TOPICS {
        world.create_topic(topic, PARTITIONS, &[]);
    }
    let text = yaml(&world, &mut dice);
    world.projection("network.yaml", &text);
    let (plan, found) = compile(&SourceFile::new("network.yaml", text.clone()));
    let plan = plan.unwrap_or_else(|| panic!("{found:#?}"));
    let mut model = Model::new(&plan);
    world.apply();
    let mut daemons: Vec<_> = (0..2).map(|_| world.start_applied(&[])).collect();
    let deadline = Instant::now() + time;
    let mut events = 0;
    let (mut kills, mut rebuilds) = (0, 0);
    while Instant::now() < deadline {
        for _ in 0..1 + dice.roll(300) {
            let sent = network::event(&mut dice, events / ERA);
            let mut unused = projector::batch::Batch::new(&plan);
            fold(&plan, Some(&mut model), &mut unused, &sent);
            world.send_only(TOPICS[sent.source], &message(&sent));
            events += 1;
        }
        world.flush();
        // A pause as long as events take to come: it decides nothing.
        std::thread::sleep(Duration::from_millis(dice.roll(60)));
        if dice.roll(12) == 0 {
            let at = dice.roll(daemons.len() as u64) as usize;
            daemons[at].kill();
            daemons[at] = world.start_applied(&[]);
            kills += 1;
        }
        // What is built anew in one go shows little of what was left out. And now and then one is being built already.
        let sabotaged = std::env::var_os("PROJECTOR_SABOTAGE").is_some();
        if dice.roll(40) == 0 && !sabotaged && world.output(&["replay", "network", "--detach"]).0 == 0 {
            rebuilds += 1;
        }
    }
    let building = "SELECT number FROM projector.generations WHERE state = 'building'";
    world.wait("all to be built", || match world.try_query(building) {
        Ok(rows) if rows.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for topic in TOPICS {
        world.applied("network", topic);
    }
    let live = "SELECT 'network@' || number AS s FROM projector.generations WHERE state = 'live'";
    let live = world.query(live).remove(0).split('"').nth(3).unwrap().to_string();
    let marks = format!("SELECT count(*)::text AS n FROM \"{live}\".projector_marks");
    world.wait("all to be followed", || match world.try_query(&marks) {
        Ok(rows) if rows == ["{\"n\":\"0\"}"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let stage = Stage::over(world, plan, model);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let differences = runtime.block_on(stage.differences());
    println!("soak: {events} events, {kills} kills, {rebuilds} rebuilds");
    assert!(differences.is_empty(), "seed {seed}:\n{}\n{text}", differences.join("\n"));
}

/// `PROJECTOR_TEST_SOAK_S` seconds for each of two seeds: one that is always the same, and a fresh one.
#[test]
fn random_projections_survive_kills() {
    let seconds = std::env::var("PROJECTOR_TEST_SOAK_S").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let time = Duration::from_secs(seconds);
    soak(1, time);
    let fresh = std::env::var("PROJECTOR_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    soak(fresh.unwrap_or_else(|| now() % 1_000_000), time);
}

/// Those that need no two transactions to meet at one moment; the explorer finds the others.
#[test]
fn the_soak_finds_steps_left_out() {
    for switch in ["next-hop", "old-parent"] {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["derived::soak::random_projections_survive_kills", "--exact", "--nocapture"]);
        command.env("PROJECTOR_TEST_SOAK_S", "12").env("PROJECTOR_TEST_SEED", "1");
        let output = command.env("PROJECTOR_SABOTAGE", switch).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(", not ") || told.contains(" there"), "{switch} is not found out: {told}");
    }
}
