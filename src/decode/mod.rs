//! From bytes to events, one file a format. No I/O.

mod cloudevents;
mod json;

use crate::event::{Event, Record};
use crate::json_paths::Slots;
use crate::plan::Source;
use crate::plan::expr::{Failure, KEY};
use crate::plan::types::show;
use crate::spec::{Format, KeyFormat};

/// The type of a message without payload that is no event by its headers.
pub const TOMBSTONE: &str = "tombstone";

/// Decodes a message by its source's format.
///
/// # Errors
/// Why the message is no event of that format.
pub fn decode<'a>(source: &Source, record: &'a Record<'a>) -> Result<Event<'a>, Failure> {
    let mut event = match source.format {
        Format::CloudEvents => cloudevents::decode(source, record),
        Format::Json => json::decode(source, record),
    }?;
    event.key = key_slots(source, record)?;
    event.captures = source.topics.captures(record.topic);
    if event.time.is_none() {
        event.time = record.time;
    }
    if let Some(expr) = &source.type_
        && event.type_.is_empty()
    {
        event.type_ = json::event_type(expr, &event)?.into();
    }
    if !source.type_prefix.is_empty()
        && let Some(short) = event.type_.strip_prefix(source.type_prefix.as_str())
    {
        event.type_ = short.to_string().into();
    }
    Ok(event)
}

fn key_slots<'a>(source: &Source, record: &'a Record<'a>) -> Result<Slots<'a>, Failure> {
    let paths = &source.scopes[KEY];
    match (source.key_format, record.key) {
        (KeyFormat::Json, Some(key)) if !paths.is_empty() => {
            let text = text(key, "the record key")?;
            paths.read(text).map_err(|e| undecodable(format!("the record key is not JSON: {e}: {}", show(text))))
        }
        _ => Ok(paths.missing()),
    }
}

fn text<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, Failure> {
    std::str::from_utf8(bytes)
        .map_err(|e| undecodable(format!("{what} is not UTF-8: the byte at {} is wrong", e.valid_up_to())))
}

fn undecodable(message: String) -> Failure {
    Failure { code: "undecodable", message }
}

/// An event without data.
fn empty<'a>(source: &Source, record: &'a Record<'a>, type_: &'a str) -> Event<'a> {
    Event {
        record,
        type_: type_.into(),
        id: None,
        subject: None,
        time: None,
        data: source.scopes[crate::plan::expr::DATA].missing(),
        key: Slots::new(),
        captures: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
