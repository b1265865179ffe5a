//! Random projections over the whole language, random events, random batches: blind, locked and the naive model agree.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use projector::batch::Batch;
use projector::event::Record;
use projector::golden::Model;
use projector::intake::intake;
use projector::plan::{Plan, compile};
use projector::spec::diagnostic::SourceFile;
use projector::store::commit::commit;
use projector::store::write::Way;
use projector::store::{catalog, connect};
use projector::value::Value;
use projector::value::json::{canonical, json_value};

use super::world::{Dice, World, made};

const EVENTS: u64 = 60;

/// What a projection does to each of its columns, and how its rows come and go.
struct Shape {
    versioned: bool,
    merged_by_version: bool,
    limit: bool,
    creates: bool,
    deletes: bool,
    finals: bool,
    reads_row: bool,
    expires: bool,
    defaults: bool,
}

impl Shape {
    fn roll(dice: &mut Dice) -> Shape {
        let mut coin = |of: u64| dice.roll(of) == 0;
        Shape {
            versioned: coin(2),
            merged_by_version: coin(2),
            limit: coin(2),
            creates: coin(2),
            deletes: coin(2),
            finals: coin(3),
            reads_row: coin(2),
            expires: coin(5),
            defaults: coin(2),
        }
    }

    fn projection(&self) -> String {
        let default = |text: &str| if self.defaults { format!(", default: {text}") } else { String::new() };
        let mut yaml = format!(
            "projection: random\nsources: {{ s: {{ topic: t }} }}\ntables:\n  random:\n    key: {{ k: data.k, n: data.n }}\n    columns:\n      n: bigint\n      \
             name: {{ type: text{} }}\n      state: \"enum(low, mid, high)\"\n      at: timestamptz\n      \
             sum: {{ type: \"numeric(20,2)\"{} }}\n      count: {{ type: bigint{} }}\n      most: integer\n      least: text\n      \
             optional: text\n      document: jsonb\n      records: jsonb\n      tags: \"text[]\"\n      noted: text\n      title: text\n",
            default("nobody"),
            default("1.5"),
            default("0"),
        );
        if self.expires {
            yaml += "    expire: at\n";
        }
        yaml += "    handlers:\n      s:\n";
        let create = if self.creates { "create: true, " } else { "" };
        let latest = if self.versioned { "latest: data.v, " } else { "" };
        let _ = writeln!(
            yaml,
            "        Said: {{ {create}{latest}set: {{ name: opt(data.name), state: opt(data.state), at: data.at, tags: data.tags }} }}"
        );
        let _ = writeln!(
            yaml,
            "        Named: {{ {latest}set: {{ name: opt(data.name) }}, set_if_present: {{ optional: data.optional }} }}"
        );
        yaml +=
            "        Counted: { add: { sum: data.amount, count: 1 }, max: { most: data.m }, min: { least: data.l } }\n";
        yaml += "        Titled: { set: { title: data.l } }\n";
        yaml += "        Lines: { for_each: [{ line: data.lines }, { part: line.parts }], key: { n: part.n }, add: { count: part.q } }\n";
        let merge_latest = if self.merged_by_version { "latest: data.v, " } else { "" };
        let _ = writeln!(yaml, "        Merged: {{ {merge_latest}merge: {{ document: data.changes }} }}");
        let _ = writeln!(yaml, "        Replaced: {{ {merge_latest}set: {{ document: data.changes }} }}");
        let limit = if self.limit { ", limit: 3" } else { "" };
        let _ = writeln!(
            yaml,
            "        Pushed: {{ push: {{ records: {{ id: id, of: {{ id: data.m, v: data.v, at: data.at }}, by: [v]{limit} }} }} }}"
        );
        if !self.limit {
            yaml += "        Removed: { remove: { records: data.m } }\n";
        }
        if self.reads_row {
            yaml += "        Noted: { when: \"row.count == null || row.count < 5\", set: { noted: \"coalesce(row.name, '?') + '/' + opt(data.name)\" }, add: { count: 1 } }\n";
            yaml += "        Doubled: { add: { sum: \"coalesce(row.sum, 0)\" } }\n";
        }
        // A delete clears what has no version, too: it has one only where everything has.
        if self.deletes && !self.versioned && !self.merged_by_version {
            yaml += "        Gone: { delete: true }\n";
        }
        if self.finals {
            yaml += "        Erased: { delete: final }\n";
        }
        yaml
    }
}

fn event(types: &[String], dice: &mut Dice) -> String {
    let pick = |options: &[&str], dice: &mut Dice| options[dice.roll(options.len() as u64) as usize].to_string();
    let type_ = &types[dice.roll(types.len() as u64) as usize];
    // Ends for good are rare, or nothing would be left to be seen.
    let type_ = if type_ == "Erased" && dice.roll(4) != 0 { "Counted" } else { type_ };
    let mut data = format!("\"k\":\"k{}\",\"n\":{}", dice.roll(3), dice.roll(2));
    let _ = write!(data, ",\"v\":{},\"amount\":{}.{}", dice.roll(9), dice.roll(90), dice.roll(99));
    let _ = write!(data, ",\"m\":{},\"l\":\"{}\"", dice.roll(9), pick(&["", "a", "Z", "é"], dice));
    let _ = write!(data, ",\"at\":\"2026-01-{:02}T00:00:00.{:03}Z\"", 1 + dice.roll(20), dice.roll(999));
    let _ = write!(data, ",\"tags\":{}", pick(&["[]", "[\"a\",\"b,\\\"\"]", "[null]"], dice));
    let changes = [
        "{}",
        "{\"a\":1}",
        "{\"a\":null}",
        "{\"a\":{\"b\":2.50}}",
        "{\"a\":{\"b\":null,\"c\":{}}}",
        "{\"d\":[1,{\"x\":null}]}",
    ];
    let _ = write!(data, ",\"changes\":{}", pick(&changes, dice));
    let _ = write!(data, ",\"lines\":[{{\"parts\":[{{\"n\":0,\"q\":1}},{{\"n\":1,\"q\":2}}]}},{{\"parts\":[]}}]");
    for (name, values) in [
        ("name", ["\"Ada\"", "\"\"", "null"]),
        ("state", ["\"low\"", "\"high\"", "null"]),
        ("optional", ["\"x\"", "\"y\"", "null"]),
    ] {
        if dice.roll(4) != 0 {
            let _ = write!(data, ",\"{name}\":{}", pick(&values, dice));
        }
    }
    let time = format!("2026-01-{:02}T12:00:00Z", 1 + dice.roll(20));
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/t\",\"type\":\"{type_}\",\"time\":\"{time}\",\"data\":{{{data}}}}}"
    )
}

/// A row in a form in which what Postgres says and what the model says can be compared.
type Plain = BTreeMap<String, String>;

fn plain(type_: &projector::plan::types::ColumnType, value: Value) -> String {
    let value = type_.coerce(value).unwrap_or_else(|message| panic!("{message}"));
    canonical(&value.to_json_text()).unwrap()
}

/// Of a row that has ended for good nobody asks any more how new its columns were.
fn without_versions_of_the_ended(mut row: Plain) -> Plain {
    const FINAL: &str = "1073741824";
    if row.get("projector_present").is_some_and(|present| present == FINAL) {
        row.retain(|name, _| !name.starts_with("projector_version"));
    }
    row
}

fn of_model(plan: &Plan, model: &Model) -> BTreeMap<String, Plain> {
    let table = &plan.tables[0];
    let rows = model.tables[0].iter().map(|(key, row)| {
        let mut plain_row = Plain::new();
        for (column, value) in table.columns.iter().zip(&row.values) {
            plain_row.insert(column.name.clone(), plain(&column.shape.type_, value.clone()));
        }
        if table.presence {
            plain_row.insert("projector_present".into(), row.present.to_string());
        }
        for (slot, version) in row.versions.iter().enumerate() {
            let version = version.as_ref().map_or("null".into(), |v| hex::encode(v.as_bytes()));
            plain_row.insert(format!("projector_version_{slot}"), version);
        }
        let key: Vec<String> = key.iter().map(Value::to_json_text).collect();
        (key.join(" "), without_versions_of_the_ended(plain_row))
    });
    rows.collect()
}

fn of_postgres(world: &World, plan: &Plan, schema: &str) -> BTreeMap<String, Plain> {
    let table = &plan.tables[0];
    let mut selected: Vec<String> =
        table.columns.iter().map(|c| format!("to_jsonb(\"{0}\")::text AS \"{0}\"", c.name)).collect();
    if table.presence {
        selected.push("projector_present::text".into());
    }
    selected.extend(
        (0..table.version_slots)
            .map(|slot| format!("encode(projector_version_{slot}, 'hex') AS projector_version_{slot}")),
    );
    let sql =
        format!("SELECT to_json(k)::text || ' ' || n::text AS key, {} FROM \"{schema}\".random", selected.join(", "));
    let rows = world.query(&sql).into_iter().map(|json| {
        let mut row: BTreeMap<String, Option<String>> = serde_json::from_str(&json).unwrap();
        let key = row.remove("key").flatten().unwrap();
        let plain_row = row.into_iter().map(|(name, text)| {
            let column = table.columns.iter().find(|column| column.name == name);
            let text = text.unwrap_or("null".into());
            match column {
                Some(column) => (name, plain(&column.shape.type_, json_value(&text).unwrap())),
                None => (name, text),
            }
        });
        (key, without_versions_of_the_ended(plain_row.collect()))
    });
    rows.collect()
}

struct Sent {
    payload: String,
    offset: i64,
}

fn record(sent: &Sent) -> Record<'_> {
    Record {
        topic: "t",
        partition: 0,
        offset: sent.offset,
        time: Some(0),
        key: None,
        payload: Some(sent.payload.as_bytes()),
        headers: vec![],
    }
}

/// The naive model of the events, and the same events through batches and Postgres.
fn agree(world: &World, seed: u64) -> bool {
    let mut dice = Dice(seed);
    for _ in 0..8 {
        dice.roll(2);
    }
    let shape = Shape::roll(&mut dice);
    let yaml = shape.projection();
    let (plan, found) = compile(&SourceFile::new("random.yaml", yaml.clone()));
    // Some combinations are refused; the others are many.
    let Some(plan) = plan else {
        assert!(
            found.iter().any(|d| matches!(d.code, "mixed-latest" | "delete-without-latest" | "limited-remove")),
            "{found:?}\n{yaml}"
        );
        return false;
    };
    let types: Vec<String> = yaml
        .lines()
        .skip_while(|line| !line.starts_with("      s:"))
        .skip(1)
        .map(|line| line.trim().split(':').next().unwrap().to_string())
        .collect();
    let sent: Vec<Sent> =
        (0..EVENTS).map(|offset| Sent { payload: event(&types, &mut dice), offset: offset as i64 }).collect();
    let mut model = Model::new(&plan);
    let mut clock = None;
    for event in &sent {
        let taken = intake(&plan, 0, &record(event), clock, &|_, _| false)
            .unwrap_or_else(|e| panic!("{e:?} {}", event.payload));
        clock = taken.clock;
        for row in taken.patches {
            model.apply(&plan, row.table, &row.key, &row.patch).unwrap_or_else(|e| panic!("{e:?} {}", event.payload));
        }
    }
    let expected = of_model(&plan, &model);
    for way in [Way::Best, Way::Locked, Way::Loaded] {
        world.runtime.block_on(async {
            let pool = connect::pool(world.options(), 4, 60_000);
            let generation = made(&pool, &plan).await;
            let mut clock = None;
            let mut at = 0;
            while at < sent.len() {
                let size = 1 + dice.roll(20) as usize;
                let mut batch = Batch::new(&plan);
                for event in sent.iter().skip(at).take(size) {
                    let taken = intake(&plan, 0, &record(event), clock, &|_, _| false).unwrap();
                    clock = taken.clock;
                    batch.absorb(&plan, taken.patches).unwrap();
                }
                at += size;
                commit(&pool, &plan, &generation, &batch.seal(), 0.0, way)
                    .await
                    .unwrap_or_else(|e| panic!("{e}\n{yaml}"));
            }
            pool.close().await;
        });
        let schema = world.query("SELECT 'random@' || number AS s FROM projector.generations WHERE state = 'live'");
        let schema = schema[0].split('"').nth(3).unwrap().to_string();
        let found = of_postgres(world, &plan, &schema);
        assert_eq!(expected, found, "{way:?}, seed {seed}\n{yaml}");
    }
    true
}

#[test]
fn random_projections_give_the_rows_of_the_naive_model() {
    const SEEDS: u64 = 40;
    let world = World::new("language");
    world.runtime.block_on(async {
        let pool = connect::pool(world.options(), 2, 60_000);
        catalog::migrate(&pool).await.unwrap();
        pool.close().await;
    });
    let tried = (1..=SEEDS).filter(|seed| agree(&world, *seed)).count();
    assert!(tried as u64 > SEEDS / 2, "only {tried} projections were not refused");
}

#[test]
fn these_tests_can_fail() {
    for sabotage in ["versions", "absent-is-null"] {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["language::random_projections_give_the_rows_of_the_naive_model", "--exact"]);
        let output = command.env("PROJECTOR_SABOTAGE", sabotage).output().unwrap();
        assert!(!output.status.success(), "{sabotage}");
    }
}
