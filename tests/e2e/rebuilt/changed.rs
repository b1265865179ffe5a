//! A projection whose definition has changed ends in the rows of one that had the new definition from its beginning.

use projector::plan::compile;
use projector::spec::diagnostic::SourceFile;
use regex::Regex;

use super::cases::{renamed, shown, with_topics};
use super::start;
use crate::derived::network;
use crate::world::{Dice, Message, World};
use crate::{generated, kills};

const PARTITIONS: u64 = 3;

/// Two definitions of a projection, and random events for them.
struct Changed {
    old: String,
    new: String,
    topics: &'static [&'static str],
    events: usize,
    /// The topic and the message of an event.
    event: fn(u64, &mut Dice) -> (&'static str, Message),
    /// Events come a second time, so many events later; 0: never.
    again: usize,
    /// The generation that is shown in the end.
    number: i32,
}

fn partition(key: &str) -> i32 {
    (key.bytes().map(u64::from).sum::<u64>() % PARTITIONS) as i32
}

/// Replaces each of the texts, which have to be there.
fn replaced(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_string(), |text, (before, after)| {
        assert!(text.contains(before), "{before}");
        text.replace(before, after)
    })
}

/// Columns that are new and that have another name, other conditions and expressions, also in what others join.
fn network() -> Changed {
    let new = [
        ("columns: { name: text }", "columns: { sound: text, name: text }"),
        (
            "set: { name: data.name } }\n        Closed",
            "set: { name: data.name, sound: data.name.lowerAscii() } }\n        Closed",
        ),
        ("fill: { company_name: name }", "fill: { company_name: sound, employer: name }"),
        ("where: amount > 5", "where: amount > 3"),
        ("{ customer_name: name, customer_company: company_name }", "{ customer_name: name, customer_tier: tier }"),
        ("fill: { buyer: customer_name }", "fill: { buyer: customer_tier }"),
        ("customers: { count: true }", "people: { count: true }"),
        ("spent: { sum: spent }", "spent: { max: spent }"),
    ];
    Changed {
        old: network::YAML.into(),
        new: replaced(network::YAML, &new),
        topics: &["companies", "customers", "orders", "lines"],
        events: 3_000,
        event: |number, dice| {
            let sent = network::event(dice, number / 1_000);
            let topic = ["companies", "customers", "orders", "lines"][sent.source];
            let key = sent.data["id"].as_str().unwrap().to_string();
            (topic, Message { partition: partition(&key), payload: sent.payload().into_bytes(), key })
        },
        again: 0,
        number: 2,
    }
}

/// The same of every operation of the language.
fn everything() -> Changed {
    let new = Regex::new(r"\bcount\b").unwrap().replace_all(kills::EVERYTHING, "times").into_owned();
    let new = [
        ("most: integer", "longest: integer\n      most: integer"),
        ("max: { most: data.v }", "max: { most: data.v, longest: size(data.l) }"),
        ("sum: data.amount,", "sum: data.amount * 2,"),
        ("row.times < 30", "row.times < 25"),
        ("of: { v: data.v, l: data.l }, limit: 3", "of: { v: data.v }, limit: 4"),
    ]
    .iter()
    .fold(new, |text, change| replaced(&text, &[*change]));
    Changed {
        old: kills::EVERYTHING.replace("TOPIC(events)", "events"),
        new: new.replace("TOPIC(events)", "events"),
        topics: &["events"],
        events: 3_000,
        event: |number, dice| {
            let (key, text) = kills::payload(number, dice);
            let key = format!("k{key}");
            ("events", Message { partition: partition(&key), key, payload: text.into_bytes() })
        },
        again: 400,
        number: 2,
    }
}

/// What readers work out is another: nothing is folded again.
fn generated(seed: u64) -> Changed {
    let [old, new] = [seed, seed + 1].map(|seed| generated::projection(&mut Dice(seed)));
    Changed {
        old,
        new,
        topics: &["t"],
        events: 200,
        event: |_, dice| {
            let key = dice.roll(25);
            let payload = generated::row(key, dice).into_bytes();
            ("t", Message { partition: (key % PARTITIONS) as i32, key: key.to_string(), payload })
        },
        again: 0,
        number: 1,
    }
}

/// What differs in the end.
fn changed(changed: &Changed, seed: u64, sabotage: &str) -> Result<(), String> {
    const BESIDE: usize = 1;
    let (plan, found) = compile(&SourceFile::new("changed.yaml", changed.new.clone()));
    let plan = plan.unwrap_or_else(|| panic!("{found:?}\n{}", changed.new));
    let (name, beside) = (plan.name.as_str(), format!("{}_{BESIDE}", plan.name));
    let file = format!("{name}.yaml");
    let world = World::new("changed");
    world.create_topics(&changed.topics.iter().map(|topic| (topic.to_string(), PARTITIONS as i32)).collect::<Vec<_>>());
    world.projection(&file, &with_topics(&changed.old, ""));
    world.projection("beside.yaml", &with_topics(&renamed(&changed.new, &plan, BESIDE), ""));
    world.apply();
    let mut daemon = start(&world, "", "");
    let send = |events: std::ops::Range<usize>| {
        for number in events {
            let again = changed.again > 0 && number % 10 == 0;
            let number = number.saturating_sub(if again { changed.again } else { 0 }) as u64;
            let mut dice = Dice((seed << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (topic, message) = (changed.event)(number, &mut dice);
            world.send_only(topic, &message);
        }
        world.flush();
    };
    let applied = || {
        changed.topics.iter().try_for_each(|topic| {
            world.try_applied(name, topic)?;
            world.try_applied(&beside, topic)
        })
    };
    send(0..changed.events / 2);
    applied()?;
    if !sabotage.is_empty() {
        daemon.kill();
        daemon = start(&world, "", sabotage);
    }
    world.projection(&file, &with_topics(&changed.new, ""));
    world.apply();
    send(changed.events / 2..changed.events);
    world.try_wait("the new definition to be shown", || match shown(&world)?[name].iter().eq([&changed.number]) {
        true => Ok(()),
        false => Err(format!("{:?}", shown(&world))),
    })?;
    applied()?;
    if !plan.edges.is_empty() {
        let marks = format!(
            "SELECT edge FROM \"{name}@2\".projector_marks UNION ALL SELECT edge FROM \"{beside}@1\".projector_marks"
        );
        world.try_wait("all to be followed", || match world.try_query(&marks) {
            Ok(marks) if marks.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
    }
    let mut differences = Vec::new();
    for table in plan.tables.iter().filter(|table| table.served) {
        let [one, other] = [table.name.clone(), format!("{}_{BESIDE}", table.name)]
            .map(|view| format!("SELECT to_jsonb(v) AS row FROM views.{view} AS v"));
        let rows = world.query(&format!("SELECT count(*)::int AS n FROM ({one}) AS v"));
        assert!(rows != ["{\"n\":0}"], "{} is empty: nothing is compared", table.name);
        for (what, from, without) in [("has", &one, &other), ("lacks", &other, &one)] {
            let rows = world.query(&format!("{from} EXCEPT ALL {without}"));
            differences.extend(rows.iter().map(|row| format!("{} {what} {row}", table.name)));
        }
    }
    let log = daemon.stop().1;
    assert!(!log.contains("stands still"), "{log}");
    if differences.is_empty() { Ok(()) } else { Err(format!("seed {seed}:\n{}", differences.join("\n"))) }
}

#[test]
fn a_changed_definition_gives_the_rows_of_one_that_was_there_from_the_beginning() {
    for (changes, seed) in [(network(), 1), (everything(), 2), (generated(3), 3)] {
        changed(&changes, seed, "").unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn this_test_can_fail() {
    let found = changed(&network(), 1, "old-parent");
    assert!(found.as_ref().is_err_and(|error| error.contains(" has ")), "{found:?}");
}
