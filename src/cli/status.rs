//! `projector status`

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use comfy_table::Table;
use serde_json::json;

use super::{Common, Failure, Format, Outcome, apply, count, runtime};
use crate::checkpoint::Partition;
use crate::config::Settings;
use crate::source::{Consumer, SourceError};
use crate::store::generations::State;
use crate::store::status::{Other, PartitionStatus, ProjectionStatus, projections};

pub fn status(common: &Common, format: Format) -> Outcome {
    let settings = common.settings()?;
    let runtime = runtime()?;
    let known = runtime.block_on(async {
        let pool = apply::pool(&settings)?;
        let known = projections(&pool).await.map_err(Failure::failed);
        pool.close().await;
        known
    })?;
    let ends = match ends(&settings, &known) {
        Ok(ends) => ends,
        Err(error) => {
            eprintln!("projector: the ends of the topics are not known: {error}");
            HashMap::new()
        }
    };
    match format {
        Format::Json => {
            let list: Vec<_> = known.iter().map(|projection| to_json(projection, &ends)).collect();
            println!("{}", serde_json::Value::from(list));
        }
        Format::Text => print(&known, &ends),
    }
    Ok(())
}

type Ends = HashMap<Partition, i64>;

fn ends(settings: &Settings, known: &[ProjectionStatus]) -> Result<Ends, SourceError> {
    let consumer = Consumer::new(&settings.kafka, &settings.fold, "projector-status")?;
    let mut ends = Ends::new();
    for partition in known.iter().flat_map(|projection| &projection.partitions) {
        let partition = Partition::new(partition.topic.clone(), partition.partition);
        if let Entry::Vacant(unknown) = ends.entry(partition) {
            let offsets = consumer.offsets(unknown.key())?;
            unknown.insert(offsets.high);
        }
    }
    Ok(ends)
}

/// How one partition stands to its end.
struct Lag {
    end: Option<i64>,
    events: Option<i64>,
    /// Zero when nothing is missing, whatever the age of the last event.
    seconds: Option<f64>,
}

fn lag(partition: &PartitionStatus, ends: &Ends) -> Lag {
    let end = ends.get(&Partition::new(partition.topic.clone(), partition.partition)).copied();
    let events = end.map(|end| (end - partition.next_offset).max(0));
    let seconds = match events {
        Some(0) => Some(0.0),
        _ => partition.last_record_s,
    };
    Lag { end, events, seconds }
}

fn state(projection: &ProjectionStatus, ends: &Ends) -> &'static str {
    let lags = || projection.partitions.iter().map(|partition| lag(partition, ends).events);
    match () {
        () if projection.halt.is_some() => "halted",
        () if projection.partitions.is_empty() => "waiting for its topics",
        () if lags().any(|events| events.is_none()) => "unknown",
        () if lags().all(|events| events == Some(0)) => "caught up",
        () => "behind",
    }
}

fn to_json(projection: &ProjectionStatus, ends: &Ends) -> serde_json::Value {
    let partitions: Vec<_> = projection
        .partitions
        .iter()
        .map(|partition| {
            let Lag { end, events, seconds } = lag(partition, ends);
            json!({
                "topic": partition.topic, "partition": partition.partition, "checkpoint": partition.next_offset,
                "end": end, "lag_events": events, "lag_s": seconds, "events": partition.events,
                "events_per_s": partition.rate, "waiting": partition.waiting,
            })
        })
        .collect();
    let error = projection.halt.as_ref().map(|halt| {
        json!({
            "code": halt.code, "message": halt.message,
            "place": halt.place.as_ref().map(ToString::to_string),
        })
    });
    let truncated: HashMap<&str, &str> = projection.truncated.iter().map(|(t, r)| (t.as_str(), r.as_str())).collect();
    let propagating = projection.propagating.iter().map(
        |pending| json!({ "from": pending.from, "to": pending.to, "keys": pending.keys, "oldest_s": pending.oldest_s }),
    );
    let propagating: Vec<_> = propagating.collect();
    let skipped: HashMap<&str, i64> = projection.skipped.iter().map(|(code, n)| (code.as_str(), *n)).collect();
    let unhandled: Vec<_> = projection
        .unhandled
        .iter()
        .map(|(source, type_, events)| json!({ "source": source, "type": type_, "events": events }))
        .collect();
    json!({
        "projection": projection.projection, "generation": projection.generation, "state": state(projection, ends),
        "error": error, "parked_sequences": projection.parked_sequences, "parked_events": projection.parked_events,
        "skipped": skipped, "accepted_truncation": truncated, "unhandled": unhandled, "propagating": propagating,
        "partitions": partitions, "others": projection.others.iter().map(other_json).collect::<Vec<_>>(),
    })
}

fn other_json(other: &Other) -> serde_json::Value {
    let listed = &other.listed;
    json!({
        "generation": listed.generation.number, "state": listed.state.name(), "behind": other.behind,
        "caught_up": listed.ready, "indexed": listed.indexed, "manual": listed.manual, "refused": listed.refused,
        "error": other.halt, "parked_sequences": other.parked_sequences,
    })
}

/// A generation that readers do not see, in a line.
fn other_line(name: &str, other: &Other) -> String {
    let listed = &other.listed;
    let number = listed.generation.number;
    let how = match (&other.halt, &listed.refused, other.behind) {
        (Some(halt), ..) => format!("stands still: {halt}"),
        (_, Some(refused), _) => format!("has caught up, and is not promoted: {refused}"),
        (_, _, None) => "was made by another version of the program, and is not folded by this one".into(),
        (_, _, Some(_)) if listed.state == State::Kept => {
            let hours = listed.replaced_s.unwrap_or(0.0) / 3600.0;
            format!("is kept, replaced {hours:.1} h ago; readers get it back with: projector rollback {name} {number}")
        }
        (_, _, Some(_)) if listed.state == State::Building && listed.ready && listed.manual => {
            format!("has caught up; compare it with: projector diff {name}; show it with: projector promote {name}")
        }
        (_, _, Some(behind)) => {
            let (what, last) = match listed.state {
                State::Scratch => ("folded for comparison", ""),
                _ if listed.indexed => ("built", ""),
                _ => ("built", "; its indexes are made last"),
            };
            format!("is being {what}, {} behind the live one{last}", count(behind as usize, "event"))
        }
    };
    format!("{name}: generation {number} {how}")
}

fn print(known: &[ProjectionStatus], ends: &Ends) {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["projection", "state", "partition", "checkpoint", "end", "lag", "lag s", "events/s"]);
    for projection in known {
        let state = state(projection, ends);
        if projection.partitions.is_empty() {
            table.add_row([projection.projection.as_str(), state, "", "", "", "", "", ""]);
        }
        for (at, partition) in projection.partitions.iter().enumerate() {
            let Lag { end, events, seconds } = lag(partition, ends);
            let number = |n: Option<i64>| n.map_or("?".to_string(), |n| n.to_string());
            let waiting = if partition.waiting { " (waits for other partitions)" } else { "" };
            table.add_row([
                if at == 0 { projection.projection.clone() } else { String::new() },
                if at == 0 { state.to_string() } else { String::new() },
                format!("{}/{}{waiting}", partition.topic, partition.partition),
                partition.next_offset.to_string(),
                number(end),
                number(events),
                seconds.map_or("?".to_string(), |s| format!("{s:.1}")),
                format!("{:.0}", partition.rate),
            ]);
        }
    }
    println!("{table}");
    for projection in known {
        if let Some(halt) = &projection.halt {
            let place = halt.place.as_ref().map(|place| format!(" at {place}")).unwrap_or_default();
            println!("{} stands still{place}: {} [{}]", projection.projection, halt.message, halt.code);
        }
        if projection.parked_events > 0 {
            println!(
                "{0}: {1} parked ({2} in all); look with `projector dead-letters list --projection {0}`",
                projection.projection,
                count(projection.parked_sequences as usize, "sequence"),
                count(projection.parked_events as usize, "event"),
            );
        }
        for pending in &projection.propagating {
            println!(
                "{}: {} propagating from {} to {}, oldest {:.1} s",
                projection.projection,
                count(pending.keys as usize, "key"),
                pending.from,
                pending.to,
                pending.oldest_s
            );
        }
        for other in &projection.others {
            println!("{}", other_line(&projection.projection, other));
        }
        for (code, events) in &projection.skipped {
            println!("{}: {} skipped for {code}", projection.projection, count(*events as usize, "event"));
        }
        for (source, type_, events) in &projection.unhandled {
            println!(
                "{}: no table handles {type_} of {source} ({}); `ignore: reason` says that it is meant",
                projection.projection,
                count(*events as usize, "event")
            );
        }
        for (topic, reason) in &projection.truncated {
            println!("{} reads {topic} though its early history is gone: {reason}", projection.projection);
        }
    }
}
