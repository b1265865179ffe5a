//! Generated columns, flags and `show`: worked out by Postgres when a row is read, they mean what expressions mean.

use std::collections::BTreeMap;

use projector::batch::Batch;
use projector::event::Record;
use projector::golden::Model;
use projector::intake::intake;
use projector::plan::compile;
use projector::spec::diagnostic::SourceFile;
use projector::store::commit::commit;
use projector::store::write::Way;
use projector::store::{catalog, connect};
use projector::value::Value;
use projector::value::json::{canonical, json_value};

use super::world::{Dice, World, made};

/// A random expression of a kind over the columns of the row.
fn expression(kind: &str, depth: u64, dice: &mut Dice) -> String {
    let of = |kind: &str, dice: &mut Dice| expression(kind, depth - 1, dice);
    let leaf = |options: &[&str], dice: &mut Dice| options[dice.roll(options.len() as u64) as usize].to_string();
    if depth == 0 {
        return match kind {
            "numeric" => leaf(&["row.i", "row.n", "0", "2.5", "-3", "row.b"], dice),
            "text" => leaf(&["row.s", "row.e", "'Z'", "'é'", "''", "row.k"], dice),
            "bool" => leaf(&["row.f", "true", "row.i == null", "row.s != null"], dice),
            "timestamptz" => leaf(&["row.t", "timestamp('2026-03-29T00:30:00Z')"], dice),
            _ => leaf(&["row.d", "date(row.t)"], dice),
        };
    }
    match (kind, dice.roll(5)) {
        ("numeric", 0) => format!("({} + {})", of(kind, dice), of(kind, dice)),
        ("numeric", 1) => format!("({} * {})", expression(kind, 0, dice), expression(kind, 0, dice)),
        ("numeric", 2) => {
            format!(
                "round({} / {}, {})",
                of(kind, dice),
                leaf(&["4", "8", "3", "0.5", "row.i", "(row.i * 0)"], dice),
                dice.roll(4)
            )
        }
        ("numeric", 3) => format!("abs({})", of(kind, dice)),
        ("numeric", _) => format!("size({})", of("text", dice)),
        ("text", 0) => format!("({} + {})", of(kind, dice), of(kind, dice)),
        ("text", 1) => format!("({}).lowerAscii()", of(kind, dice)),
        ("text", 2) => format!("({}).replace('a', 'bb')", of(kind, dice)),
        ("text", _) => format!("coalesce({}, {})", of(kind, dice), of(kind, dice)),
        ("bool", 0) => {
            let kind = leaf(&["numeric", "text", "timestamptz", "date"], dice);
            let operator = leaf(&["==", "!=", "<", "<=", ">", ">="], dice);
            format!("({} {operator} {})", of(&kind, dice), of(&kind, dice))
        }
        ("bool", 1) => format!("({} && {})", of(kind, dice), of(kind, dice)),
        ("bool", 2) => format!("({} || {})", of(kind, dice), of(kind, dice)),
        ("bool", 3) => format!("!({})", of(kind, dice)),
        ("bool", _) => {
            let test = leaf(&["startsWith", "endsWith", "contains"], dice);
            format!("({}).{test}({})", of("text", dice), leaf(&["'a'", "'Z'", "row.s"], dice))
        }
        ("timestamptz", 0) => format!("({} + duration('PT36H'))", of(kind, dice)),
        ("timestamptz", 1) => {
            format!("bucket({}, '{}')", of(kind, dice), leaf(&["hour", "day", "week", "month"], dice))
        }
        ("timestamptz", 2) => format!("bucket({}, 'day', 'Europe/Berlin')", of(kind, dice)),
        ("date", 0) => format!("date({}, 'America/New_York')", of("timestamptz", dice)),
        (kind, _) => format!("({} ? {} : {})", of("bool", dice), of(kind, dice), of(kind, dice)),
    }
}

const KINDS: &[&str] = &["numeric", "text", "bool", "timestamptz", "date"];

pub fn projection(dice: &mut Dice) -> String {
    let mut yaml = String::from(
        "projection: made\nsources: { s: { topic: t, ordered_by: data.k } }\nkey: { k: data.k }\ncolumns:\n  i: integer\n  n: \"numeric(10,2)\"\n  \
         b: bigint\n  s: text\n  e: \"enum(zero, a, Ab)\"\n  f: bool\n  t: timestamptz\n  d: date\n",
    );
    for at in 0..10 {
        let kind = KINDS[at % KINDS.len()];
        let text = expression(kind, 1 + dice.roll(3), dice);
        yaml += &format!("  g{at}: {{ type: {kind}, generated: \"{text}\" }}\n");
    }
    yaml += &format!(
        "  g_again: {{ type: bool, generated: \"row.g0 == row.g5 || row.i in [1, 2, null]\" }}\nshow: \"{}\"\n",
        expression("bool", 1, dice)
    );
    yaml +=
        &format!("flags: {{ odd: \"{}\", even: \"{}\" }}\n", expression("bool", 2, dice), expression("bool", 2, dice));
    yaml += "handlers:\n  s:\n    Set:\n      set: { i: opt(data.i), n: opt(data.n), b: opt(data.b), s: opt(data.s), e: opt(data.e), f: opt(data.f), t: opt(data.t), d: opt(data.d) }\n";
    yaml
}

pub fn row(k: u64, dice: &mut Dice) -> String {
    let columns: [(&str, [&str; 5]); 8] = [
        ("i", ["1", "2", "-7", "null", "0"]),
        ("n", ["2.50", "-0.05", "null", "0.125e1", "1000"]),
        ("b", ["9007199254", "-3", "null", "1", "0"]),
        ("s", ["\"\"", "\"aZ\"", "\"Zé\"", "null", "\"a'\\\\%_\""]),
        ("e", ["\"zero\"", "\"a\"", "\"Ab\"", "null", "\"a\""]),
        ("f", ["true", "false", "null", "true", "false"]),
        (
            "t",
            [
                "\"2026-03-29T00:59:59.5Z\"",
                "\"1969-12-31T23:59:59.999999Z\"",
                "null",
                "\"2026-10-25T01:30:00Z\"",
                "\"2026-01-04T00:00:00Z\"",
            ],
        ),
        ("d", ["\"2026-03-29\"", "\"1969-12-31\"", "null", "\"2026-01-04\"", "\"2024-02-29\""]),
    ];
    let members: Vec<String> =
        columns.iter().map(|(name, values)| format!("\"{name}\":{}", values[dice.roll(5) as usize])).collect();
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/t\",\"type\":\"Set\",\"data\":{{\"k\":\"k{k}\",{}}}}}",
        members.join(",")
    )
}

type Rows = BTreeMap<String, BTreeMap<String, String>>;

fn agree(world: &World, seed: u64) {
    let mut dice = Dice(seed);
    let yaml = projection(&mut dice);
    let (plan, found) = compile(&SourceFile::new("made.yaml", yaml.clone()));
    let plan = plan.unwrap_or_else(|| panic!("{found:?}\n{yaml}"));
    let mut model = Model::new(&plan);
    let mut batch = Batch::new(&plan);
    for k in 0..25 {
        let payload = row(k, &mut dice);
        let record = Record {
            topic: "t",
            partition: 0,
            offset: k as i64,
            time: Some(0),
            key: None,
            payload: Some(payload.as_bytes()),
            headers: vec![],
        };
        let taken = intake(&plan, 0, &record, None, &|_, _| false).unwrap_or_else(|e| panic!("{e:?} {payload}"));
        for row in &taken.patches {
            model.apply(&plan, row.table, &row.key, &row.patch).unwrap();
        }
        batch.absorb(&plan, taken.patches).unwrap();
    }
    let table = &plan.tables[0];
    let expected: Rows = model
        .visible_rows(&plan, 0, 0)
        .unwrap_or_else(|e| panic!("{e}\n{yaml}"))
        .into_iter()
        .map(|row| {
            let plain = row.iter().map(|(name, value)| (name.clone(), canonical(&value.to_json_text()).unwrap()));
            (row["k"].to_json_text(), plain.collect())
        })
        .collect();
    world.runtime.block_on(async {
        let pool = connect::pool(world.options(), 2, 60_000);
        let generation = made(&pool, &plan).await;
        commit(&pool, &plan, &generation, &batch.seal(), 0.0, Way::Best).await.unwrap();
        pool.close().await;
    });
    let types: BTreeMap<&str, _> = (table.key.iter().chain(&table.columns).map(|c| (c.name.as_str(), &c.shape.type_)))
        .chain(table.generated.iter().map(|c| (c.name.as_str(), &c.type_)))
        .collect();
    let selected: Vec<String> = types.keys().map(|name| format!("to_jsonb({name})::text AS {name}")).collect();
    let found: Rows = world
        .query(&format!("SELECT {} FROM views.made", selected.join(", ")))
        .into_iter()
        .map(|json| {
            let row: BTreeMap<String, Option<String>> = serde_json::from_str(&json).unwrap();
            let plain = row.into_iter().map(|(name, text)| {
                let value = text.map_or(Value::Null, |text| json_value(&text).unwrap());
                let value = types[name.as_str()].coerce(value).unwrap_or_else(|e| panic!("{name}: {e}\n{yaml}"));
                (name, canonical(&value.to_json_text()).unwrap())
            });
            let plain: BTreeMap<String, String> = plain.collect();
            (plain["k"].clone(), plain)
        })
        .collect();
    for (key, row) in &expected {
        let Some(other) = found.get(key) else { panic!("seed {seed}: {key} is not shown by Postgres\n{yaml}") };
        for (column, value) in row {
            assert_eq!(value, &other[column], "seed {seed}, {column} of {key}: {row:?}\n{yaml}");
        }
    }
    assert_eq!(expected.len(), found.len(), "seed {seed}: rows shown\n{yaml}");
}

#[test]
fn postgres_works_out_what_rust_does() {
    let world = World::new("generated");
    world.runtime.block_on(async {
        let pool = connect::pool(world.options(), 2, 60_000);
        catalog::migrate(&pool).await.unwrap();
        pool.close().await;
    });
    for seed in 1..=60 {
        agree(&world, seed);
    }
}
