//! Rows: the blind and the locked way against the naive model, on random tables, patches and batches.

use std::collections::BTreeMap;

use projector::batch::{Batch, Key, Sealed};
use projector::fold::RowPatch;
use projector::golden::Model;
use projector::patch::{Change, Patch, Presence};
use projector::plan::{Plan, compile};
use projector::spec::diagnostic::SourceFile;
use projector::store::commit::commit;
use projector::store::write::Way;
use projector::store::{catalog, connect};
use projector::value::Value;

use super::world::{Dice, World, made};

/// Every type that changes can be told apart in, every fold, defaults and presence.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("a_text", "text", ""),
    ("b_text", "text", ", default: zero"),
    ("c_sum", "bigint", ""),
    ("d_sum", "\"numeric(14,2)\"", ", default: 1.5"),
    ("e_max", "integer", ""),
    ("f_min", "text", ""),
    ("g_max", "\"enum(low, mid, high)\"", ", default: mid"),
    ("h_time", "timestamptz", ""),
    ("i_bool", "boolean", ""),
    ("j_json", "jsonb", ""),
    ("k_list", "\"text[]\"", ""),
];

fn plan(presence: bool) -> Plan {
    let columns: Vec<String> =
        COLUMNS.iter().map(|(name, type_, more)| format!("      {name}: {{ type: {type_}{more} }}")).collect();
    let create = if presence { "create: true, " } else { "" };
    let delete = if presence { ", Gone: { delete: true }" } else { "" };
    let text = format!(
        "projection: random\nsources: {{ s: {{ topic: t }} }}\ntables:\n  random:\n    key: {{ k: data.k, n: data.n }}\n    columns:\n      n: bigint\n{}\n    handlers: {{ s: {{ Set: {{ {create}set: {{ a_text: data.a }} }}{delete} }} }}\n",
        columns.join("\n")
    );
    let (plan, found) = compile(&SourceFile::new("random.yaml", text));
    plan.unwrap_or_else(|| panic!("{found:?}"))
}

fn value(column: usize, dice: &mut Dice) -> Value {
    match column {
        0 | 1 | 5 => Value::text(["", "a", "Z", "é", "zz'\\\"", "NULL"][dice.roll(6) as usize]),
        2 | 4 => Value::Int(dice.roll(2_000) as i64 - 1_000),
        3 => Value::Decimal(rust_decimal::Decimal::new(dice.roll(2_000) as i64 - 1_000, 2)),
        6 => Value::text(["low", "mid", "high"][dice.roll(3) as usize]),
        7 => Value::Time(dice.roll(4_000_000_000_000) as i64 * 1_000 + 123),
        8 => Value::Bool(dice.roll(2) == 0),
        9 => Value::Json(format!("{{\"n\":{}}}", dice.roll(10)).into()),
        _ => Value::List(Box::new([Value::text("a,\"b"), Value::Null])),
    }
}

/// What a batch does to a column, so that batches which one upsert can say are as frequent as others.
#[derive(Clone, Copy)]
struct Style {
    /// Of four rows, how many are touched.
    density: u64,
    sets: bool,
    nulls: bool,
    /// Set and folded in the same batch.
    mixed: bool,
}

fn style(dice: &mut Dice) -> Style {
    let wild = dice.roll(4) == 0;
    Style { density: [0, 2, 4][dice.roll(3) as usize], sets: dice.roll(3) == 0, nulls: wild, mixed: wild }
}

fn change(column: usize, style: Style, dice: &mut Dice) -> Change {
    if style.nulls && dice.roll(4) == 0 {
        return Change::Set(Value::Null);
    }
    let value = value(column, dice);
    if style.sets != (style.mixed && dice.roll(2) == 0) {
        return Change::Set(value);
    }
    match column {
        2 | 3 => Change::Add(value),
        4 | 6 => Change::Max(value),
        5 => Change::Min(value),
        _ => Change::Set(value),
    }
}

fn batch(plan: &Plan, dice: &mut Dice) -> Vec<(Key, Patch)> {
    let table = &plan.tables[0];
    // Half of the batches do not delete, half touch few columns in a wild way.
    let calm = dice.roll(2) == 0;
    let styles: Vec<Style> = table
        .columns
        .iter()
        .map(|_| match style(dice) {
            wild if calm => Style { nulls: false, mixed: false, ..wild },
            wild => wild,
        })
        .collect();
    let mut rows = BTreeMap::new();
    for _ in 0..1 + dice.roll(40) {
        let mut patch = Patch::default();
        for (column, style) in styles.iter().enumerate() {
            if dice.roll(4) < style.density {
                patch.changes.push((column as u16, change(column, *style, dice)));
            }
        }
        if table.presence {
            patch.presence = match dice.roll(4) {
                0 if !calm => Presence { begun: 0, ended: 1 },
                1 => Presence::default(),
                _ => Presence { begun: 1, ended: 0 },
            };
        }
        rows.insert((dice.roll(8), dice.roll(3) as i64), patch);
    }
    let key = |k: u64, n: i64| Key::from_iter([Value::text(&format!("k{k}")), Value::Int(n)]);
    rows.into_iter().map(|((k, n), patch)| (key(k, n), patch)).collect()
}

/// The rows of the model, in the form in which the table is read.
fn expected(plan: &Plan, model: &Model) -> Vec<String> {
    let mut rows: Vec<String> = model.tables[0]
        .iter()
        .map(|(key, row)| {
            let parts: Vec<String> = key.iter().chain(&row.values).map(shown).collect();
            format!("{} {}", parts.join(" | "), if plan.tables[0].presence { row.present as i64 } else { -1 })
        })
        .collect();
    rows.sort();
    rows
}

fn shown(value: &Value) -> String {
    match value {
        Value::Decimal(d) => format!("{:.2}", d),
        Value::Time(micros) => micros.to_string(),
        Value::Json(_) => value.to_json_text().replace(':', ": "),
        other => other.to_sql_text().unwrap_or("~".into()),
    }
}

fn found(world: &World, schema: &str, presence: bool) -> Vec<String> {
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|(name, type_, _)| match *type_ {
            "timestamptz" => format!("coalesce((extract(epoch FROM {name}) * 1000000)::bigint::text, '~')"),
            "\"numeric(14,2)\"" => format!("coalesce(trim_scale({name})::text, '~')"),
            _ => format!("coalesce({name}::text, '~')"),
        })
        .collect();
    let present = if presence { "projector_present" } else { "-1" };
    let sql = format!(
        "SELECT concat_ws(' | ', k, n, {}) || ' ' || {present} AS line FROM \"{schema}\".random",
        columns.join(", ")
    );
    let line =
        |json: String| serde_json::from_str::<serde_json::Value>(&json).unwrap()["line"].as_str().unwrap().to_string();
    let mut rows: Vec<String> = world.query(&sql).into_iter().map(line).collect();
    rows.sort();
    rows
}

/// Decimals are compared by value, whatever their trailing zeros.
fn plain(row: &str) -> String {
    row.split(" | ")
        .enumerate()
        .map(|(at, part)| {
            if at == 5 && part.contains('.') {
                part.trim_end_matches('0').trim_end_matches('.').to_string()
            } else {
                part.to_string()
            }
        })
        .collect::<Vec<_>>()
        .join(" | ")
}

fn ways_agree(way: Way, presence: bool, seed: u64) {
    let world = World::new("ways");
    let plan = plan(presence);
    let (expected, schema): (Vec<String>, String) = world.runtime.block_on(async {
        let pool = connect::pool(world.options(), 4, 60_000);
        catalog::migrate(&pool).await.unwrap();
        let generation = made(&pool, &plan).await;
        let mut dice = Dice(seed);
        let mut model = Model::new(&plan);
        for round in 0..40 {
            let rows = batch(&plan, &mut dice);
            let before = model.clone();
            let applied = rows.iter().try_for_each(|(key, patch)| model.apply(&plan, 0, key, patch));
            let sealed = Sealed { tables: vec![rows], ..Sealed::default() };
            let written = commit(&pool, &plan, &generation, &sealed, 0.0, way).await;
            if applied.is_err() {
                model = before;
                continue;
            }
            written.unwrap_or_else(|error| panic!("round {round} of seed {seed}: {error}"));
        }
        let expected: Vec<String> = expected(&plan, &model).iter().map(|row| plain(row)).collect();
        let schema = generation.schema.clone();
        pool.close().await;
        (expected, schema)
    });
    let found: Vec<String> = found(&world, &schema, presence).iter().map(|row| plain(row)).collect();
    assert_eq!(expected, found, "{way:?}, presence {presence}, seed {seed}");
}

#[test]
fn blind_and_locked_give_the_rows_of_the_naive_model() {
    for seed in 1..=12 {
        for presence in [false, true] {
            for way in [Way::Best, Way::Locked, Way::Loaded] {
                ways_agree(way, presence, seed);
            }
        }
    }
}

/// Two writers add to the same rows again and again. Every addition counts, and none waits for the other in a circle.
#[test]
fn two_writers_of_the_same_rows() {
    const ROUNDS: i64 = 150;
    const KEYS: i64 = 25;
    let world = World::new("writers");
    let plan = plan(false);
    let counted: i64 = world.runtime.block_on(async {
        let pool = connect::pool(world.options(), 4, 60_000);
        catalog::migrate(&pool).await.unwrap();
        let generation = made(&pool, &plan).await;
        let writer = |way: Way| {
            let (pool, plan, generation) = (pool.clone(), plan.clone(), generation.clone());
            async move {
                for _ in 0..ROUNDS {
                    let mut batch = Batch::new(&plan);
                    for n in 0..KEYS {
                        let key = Key::from_iter([Value::text("k"), Value::Int(n)]);
                        let patch = Patch { changes: vec![(2, Change::Add(Value::Int(1)))], ..Patch::default() };
                        batch.absorb(&plan, [RowPatch { table: 0, key, patch }].into_iter().collect()).unwrap();
                    }
                    commit(&pool, &plan, &generation, &batch.seal(), 0.0, way).await.unwrap();
                }
            }
        };
        let writers = [Way::Locked, Way::Locked, Way::Best].map(|way| tokio::spawn(writer(way)));
        for writer in writers {
            writer.await.unwrap();
        }
        let sum = format!("SELECT sum(c_sum)::bigint FROM \"{}\".random", generation.schema);
        let sum: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sum)).fetch_one(&pool).await.unwrap();
        pool.close().await;
        sum
    });
    assert_eq!(counted, 3 * ROUNDS * KEYS);
}

/// Runs one of this file's tests in a process of its own with a step left out.
fn passes_without(test: &str, sabotage: &str) -> bool {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact"]).env("PROJECTOR_SABOTAGE", sabotage);
    command.output().unwrap().status.success()
}

#[test]
fn these_tests_can_fail() {
    assert!(!passes_without("rows::blind_and_locked_give_the_rows_of_the_naive_model", "absent-is-null"));
    assert!(!passes_without("rows::two_writers_of_the_same_rows", "row-locks"));
    assert!(!passes_without("rows::two_writers_of_the_same_rows", "key-order"));
}
