//! Rows: the blind and the locked way against the naive model, on random tables, patches and batches.

use std::collections::BTreeMap;

use projector::batch::{Key, Sealed};
use projector::checkpoint::Progress;
use projector::golden::Model;
use projector::patch::{Change, Patch, Presence};
use projector::plan::{Plan, compile};
use projector::spec::diagnostic::SourceFile;
use projector::store::commit::commit;
use projector::store::write::Way;
use projector::store::{catalog, connect};
use projector::value::Value;
use sqlx::postgres::PgConnectOptions;

use super::world::{Dice, World};

/// Every type that changes can be told apart in, every fold, defaults and presence.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("a_text", "text", ""),
    ("b_text", "text", ", default: zero"),
    ("c_sum", "bigint", ""),
    ("d_sum", "numeric(14,2)", ", default: 1.5"),
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

fn change(column: usize, dice: &mut Dice) -> Change {
    if dice.roll(5) == 0 {
        return Change::Set(if dice.roll(3) == 0 { Value::Null } else { value(column, dice) });
    }
    let value = value(column, dice);
    match column {
        2 | 3 => Change::Add(value),
        4 | 6 => Change::Max(value),
        5 => Change::Min(value),
        _ => Change::Set(value),
    }
}

fn patch(plan: &Plan, dice: &mut Dice) -> Patch {
    let table = &plan.tables[0];
    // Some batches leave columns out altogether, so that both ways are taken.
    let density = 1 + dice.roll(4);
    let mut patch = Patch::default();
    for column in 0..table.columns.len() {
        if dice.roll(4) < density {
            patch.changes.push((column as u16, change(column, dice)));
        }
    }
    if table.presence {
        patch.presence = match dice.roll(4) {
            0 => Presence { begun: 0, ended: 1 },
            1 => Presence::default(),
            _ => Presence { begun: 1, ended: 0 },
        };
    }
    patch
}

fn batch(plan: &Plan, dice: &mut Dice) -> Vec<(Key, Patch)> {
    let mut rows = BTreeMap::new();
    let uniform = dice.roll(3) == 0;
    let template = patch(plan, dice);
    for _ in 0..1 + dice.roll(40) {
        let (k, n) = (dice.roll(8), dice.roll(3) as i64);
        let patch = if uniform { template.clone() } else { self::patch(plan, dice) };
        rows.insert((k, n), patch);
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
            "numeric(14,2)" => format!("coalesce(trim_scale({name})::text, '~')"),
            _ => format!("coalesce({name}::text, '~')"),
        })
        .collect();
    let present = if presence { "projector_present" } else { "-1" };
    let sql = format!("SELECT concat_ws(' | ', k, n, {}) || ' ' || {present} AS line FROM \"{schema}\".random", columns.join(", "));
    let line = |json: String| serde_json::from_str::<serde_json::Value>(&json).unwrap()["line"].as_str().unwrap().to_string();
    let mut rows: Vec<String> = world.query(&sql).into_iter().map(line).collect();
    rows.sort();
    rows
}

/// Decimals are compared by value, whatever their trailing zeros.
fn plain(row: &str) -> String {
    row.split(" | ").enumerate().map(|(at, part)| {
        if at == 5 && part.contains('.') { part.trim_end_matches('0').trim_end_matches('.').to_string() } else { part.to_string() }
    }).collect::<Vec<_>>().join(" | ")
}

fn ways_agree(way: Way, presence: bool, seed: u64) {
    let world = World::new("ways");
    let plan = plan(presence);
    let (expected, schema): (Vec<String>, String) = world.runtime.block_on(async {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(world.postgres_port);
        let pool = connect::pool(options.username("projector").database(&world.name), 4, 60_000, false);
        catalog::migrate(&pool).await.unwrap();
        catalog::apply(&pool, std::slice::from_ref(&plan), &[], "views").await.unwrap();
        let generation = catalog::live_generations(&pool, std::slice::from_ref(&plan)).await.unwrap().remove(0);
        let mut dice = Dice(seed);
        let mut model = Model::new(&plan);
        for round in 0..40 {
            let rows = batch(&plan, &mut dice);
            let before = model.clone();
            let applied = rows.iter().try_for_each(|(key, patch)| model.apply(&plan, 0, key, patch));
            let sealed = Sealed { tables: vec![rows], progress: Progress::default() };
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
            for way in [Way::Best, Way::Locked] {
                ways_agree(way, presence, seed);
            }
        }
    }
}
