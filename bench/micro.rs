//! The stages that need no service, each alone: decoding, one expression, folding into a batch.

use std::hint::black_box;
use std::time::Instant;

use projector::batch::Batch;
use projector::decode::decode;
use projector::event::Record;
use projector::fold::fold;
use projector::plan::{Plan, compile};
use projector::spec::diagnostic::SourceFile;
use serde_json::{Value, json};

use crate::{Result, rounded};

const ROUNDS: u64 = 200_000;
const KEYS: u64 = 10_000;

fn plan(handlers: &str) -> Result<Plan> {
    let text = format!(
        "projection: micro\nsources: {{ s: {{ topic: t, ordered_by: data.id }} }}\nkey: {{ id: data.id }}\ncolumns:\n  a: text\n  b: \"numeric(14,2)\"\n  c: {{ type: bigint, default: 0 }}\n  d: timestamptz\n  e: jsonb\n  f: jsonb\nhandlers: {{ s: {{ Sold: {handlers} }} }}\n"
    );
    let (plan, found) = compile(&SourceFile::new("micro.yaml", text));
    plan.ok_or_else(|| format!("{found:?}").into())
}

fn payloads() -> Vec<String> {
    let payload = |n: u64| {
        format!(
            r#"{{"specversion":"1.0","id":"{n}","source":"/bench","type":"Sold","time":"2026-01-01T00:00:00Z","data":{{"id":"k-{:06}","name":"a thing with a name","price":19.99,"quantity":{},"at":"2026-01-01T10:00:00Z","version":{n},"changes":{{"colour":"red","size":{{"width":10}}}},"note":"left with the neighbour on the second floor, who rings twice"}}}}"#,
            n % KEYS,
            n % 9
        )
    };
    (0..KEYS).map(payload).collect()
}

/// Nanoseconds an event, of decoding alone or of all up to the batch.
fn measure(plan: &Plan, payloads: &[String], folds: bool) -> Result<f64> {
    let mut batch = Batch::new(plan);
    let started = Instant::now();
    for n in 0..ROUNDS {
        let record = Record {
            topic: "t",
            partition: 0,
            offset: n as i64,
            time: Some(0),
            key: None,
            payload: Some(payloads[(n % KEYS) as usize].as_bytes()),
            headers: Vec::new(),
        };
        let arena = bumpalo::Bump::new();
        let events = decode(&plan.sources[0], &record, None, &arena).map_err(|failure| failure.message)?;
        if folds {
            let patches = fold(plan, 0, &events[0]).map_err(|unapplied| unapplied.to_string())?;
            batch.absorb(plan, patches).map_err(|refused| refused.error.message)?;
        } else {
            black_box(&events);
        }
    }
    black_box(&batch);
    Ok(started.elapsed().as_nanos() as f64 / ROUNDS as f64)
}

pub fn run() -> Result<Value> {
    let payloads = payloads();
    let set = "{ set: { a: data.name, d: data.at } }";
    let started = Instant::now();
    let mut figures = serde_json::Map::new();
    figures.insert("workload".into(), json!("micro"));
    figures.insert("decode_ns".into(), json!(rounded(measure(&plan(set)?, &payloads, false)?)));
    for (name, handlers) in [
        ("set", set),
        ("expression", "{ set: { b: round(data.price * data.quantity * 1.19, 2), a: data.name.lowerAscii() } }"),
        ("add", "{ add: { b: data.price, c: 1 } }"),
        ("latest", "{ latest: data.version, set: { a: data.name, d: data.at } }"),
        ("merge", "{ merge: { e: data.changes } }"),
        ("push", "{ push: { f: { id: v, of: { v: data.version, name: data.name } } } }"),
        ("row", "{ when: row.c < 5, add: { c: 1 } }"),
    ] {
        let handlers = handlers
            .replace("round(data.price * data.quantity * 1.19, 2)", "\"round(data.price * data.quantity * 1.19, 2)\"");
        let ns = measure(&plan(&handlers)?, &payloads, true)?;
        eprintln!("bench: {name}: {ns:.0} ns an event, decoding included");
        figures.insert(format!("{name}_ns"), json!(rounded(ns)));
    }
    let seconds = started.elapsed().as_secs_f64();
    let events = 8 * ROUNDS;
    for (name, value) in [
        ("events", json!(events)),
        ("seconds", json!(rounded(seconds))),
        ("events_per_s", json!((events as f64 / seconds).round() as u64)),
        // Nothing is read and nothing is written.
        ("floor_s", Value::Null),
        ("ratio_to_floor", Value::Null),
        ("peak_rss_mb", Value::Null),
        ("rows_written", Value::Null),
    ] {
        figures.insert(name.into(), value);
    }
    Ok(Value::Object(figures))
}
