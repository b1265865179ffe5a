//! `list`, `show` and `log`.

use comfy_table::Table;
use serde_json::json;

use super::super::{Failure, Format, Outcome, count};
use super::{Desk, Which, mark, text_or_hex};
use crate::error_kind::ErrorKind;
use crate::store::parked::desk::{self, Filter, Noted, Summary};

impl Desk {
    pub(super) async fn list(&self, which: &Which, failed: bool, limit: i64, format: Format) -> Outcome {
        // One more than is shown tells whether there are more.
        let filter = Filter { failed, limit: limit.saturating_add(1), ..which.filter()? };
        let mut found = desk::list(&self.pool, &filter).await.map_err(Failure::failed)?;
        let more = found.len() as i64 > limit;
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        if format == Format::Json {
            println!("{}", json!(found));
            return Ok(());
        }
        if found.is_empty() {
            println!("nothing is parked");
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["projection", "event", "type", "key", "error", "behind it", "parked at"]);
        for letter in &found {
            let error = match letter.waits {
                true => letter.message.clone(),
                false => letter.code.clone(),
            };
            let behind = if letter.waits { String::new() } else { letter.waiting_behind.to_string() };
            table.add_row([
                letter.projection.clone(),
                letter.place().to_string(),
                letter.type_.clone().unwrap_or_else(|| "?".into()),
                letter.key.clone().unwrap_or_default(),
                error,
                behind,
                seconds(&letter.parked_at),
            ]);
        }
        println!("{table}");
        if more {
            println!("there are more; see them with --limit");
        }
        if let Some(first) = found.iter().find(|letter| !letter.waits) {
            println!("Look at one with: projector dead-letters show {}", first.place());
        }
        Ok(())
    }

    pub(super) async fn show(&self, which: &Which, format: Format) -> Outcome {
        if which.place.is_none() {
            return Err(Failure::refused("say which event: projector dead-letters show TOPIC/PARTITION@OFFSET"));
        }
        for letter in self.chosen(which).await? {
            let message = desk::message(&self.pool, &letter).await.map_err(Failure::failed)?;
            let Some(message) = message else { continue };
            let rows = desk::rows_of(&self.pool, letter.generation, &letter.place()).await.map_err(Failure::failed)?;
            let payload = message.payload.as_deref();
            match format {
                Format::Json => {
                    let headers: Vec<_> = message
                        .headers
                        .iter()
                        .map(|(name, value)| json!({ "name": name, "value": value.as_deref().map(text_or_hex) }))
                        .collect();
                    let rows: Vec<_> = rows.iter().map(|(table, key)| json!({ "table": table, "key": key })).collect();
                    let mut all = json!(letter);
                    if let Some(all) = all.as_object_mut() {
                        all.insert("headers".into(), headers.into());
                        all.insert("rows".into(), rows.into());
                        all.insert("payload".into(), json!(payload.map(text_or_hex)));
                        all.insert("cure".into(), json!(cure(&letter)));
                    }
                    println!("{all}");
                }
                Format::Text => {
                    head(&letter);
                    for (name, value) in &message.headers {
                        println!("  header      {name}: {}", value.as_deref().map(text_or_hex).unwrap_or_default());
                    }
                    for (table, key) in &rows {
                        println!("  would touch {table} {key}");
                    }
                    println!("\n{}\n", mark::marked(payload, &letter.message));
                    println!("  {} [{}]\n", letter.message, letter.code);
                    println!("  What to do: {}.", cure(&letter));
                }
            }
        }
        Ok(())
    }

    pub(super) async fn log(&self, which: &Which, limit: i64, format: Format) -> Outcome {
        let filter = Filter { limit, ..which.filter()? };
        let trail = desk::trail(&self.pool, &filter).await.map_err(Failure::failed)?;
        if format == Format::Json {
            println!("{}", json!(trail));
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["at", "who", "did", "projection", "event", "detail"]);
        for Noted { at, who, action, projection, topic, partition, offset, detail } in trail {
            let place = format!("{topic}/{partition}@{offset}");
            table.add_row([seconds(&at), who, action, projection, place, detail.unwrap_or_default()]);
        }
        println!("{table}");
        Ok(())
    }
}

fn head(letter: &Summary) {
    println!("{} of {}", letter.place(), letter.projection);
    println!("  type        {}", letter.type_.as_deref().unwrap_or("?"));
    println!("  key         {}", letter.key.as_deref().unwrap_or("none"));
    println!("  parked at   {}, tried {}", seconds(&letter.parked_at), count(letter.attempts as usize, "time"));
    if !letter.waits {
        println!("  behind it   {}", count(letter.waiting_behind as usize, "event"));
    }
}

fn cure(letter: &Summary) -> String {
    match ErrorKind::of(&letter.code) {
        _ if letter.waits => "nothing: it is applied once what is before it is settled".into(),
        kind => kind.map_or("retry it", ErrorKind::cure).into(),
    }
}

/// An RFC 3339 time without its fraction.
fn seconds(time: &str) -> String {
    time.split('.').next().unwrap_or(time).replace("+00:00", "") + "Z"
}
