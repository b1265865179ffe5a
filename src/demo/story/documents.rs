//! People upload, overwrite and delete documents; the storage tells of it in bunches, late and twice.

use serde_json::{Value, json};

use super::{Dice, Told, time};

const PEOPLE: &[&str] = &["ada", "bo", "chidi", "dana"];
const NAMES: &[&str] = &["annual report", "invoice", "contract (signed)", "plan", "minutes", "größe"];
const TYPES: &[&str] = &["pdf", "docx", "PNG", "csv"];

pub fn told() -> Vec<Told> {
    let mut dice = Dice(13);
    let mut told: Vec<Told> = Vec::new();
    let mut held_back: Vec<Value> = Vec::new();
    for message in 0..300u64 {
        let mut records = Vec::new();
        for part in 0..=dice.roll(3) {
            let person = dice.pick(PEOPLE);
            let (name, type_) = (dice.pick(NAMES), dice.pick(TYPES));
            let key = encoded(&format!("{person}/{name} {}.{type_}", dice.roll(6)));
            let removed = dice.roll(6) == 0;
            // Of ever longer sequencers the shorter ones are filled up with zeros.
            let sequencer = format!("0055AED6{:04X}{}", message * 4 + part, if dice.roll(3) == 0 { "00" } else { "" });
            let record = json!({
                "eventName": if removed { "ObjectRemoved:Delete" } else { "ObjectCreated:Put" },
                "eventTime": time(8 + message / 25, message % 25 * 144),
                "userIdentity": { "principalId": person },
                "s3": {
                    "bucket": { "name": "acme-documents" },
                    "object": {
                        "key": key, "size": 1_000 + dice.roll(5_000_000), "eTag": format!("{:016x}", dice.roll(u64::MAX)),
                        "sequencer": sequencer,
                    },
                },
            });
            // Some notifications come much later than those after them.
            if dice.roll(10) == 0 { held_back.push(record) } else { records.push(record) }
        }
        if dice.roll(4) == 0 {
            records.append(&mut held_back);
        }
        let payload = json!({ "Records": records }).to_string();
        // Nothing keeps the notifications of one object together.
        let key = format!("{message}");
        if dice.roll(15) == 0 {
            told.push(Told { topic: "docs.uploads", key: key.clone(), payload: payload.clone() });
        }
        told.push(Told { topic: "docs.uploads", key, payload });
    }
    told
}

/// As forms encode it.
fn encoded(key: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b' ');
    percent_encoding::utf8_percent_encode(key, KEPT).to_string().replace(' ', "+")
}
