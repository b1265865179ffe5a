//! From bytes to events, one file a format. No I/O.

mod cloudevents;
mod json;
mod upcast;

use bumpalo::Bump;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::event::{Event, Record};
use crate::json_paths::Slots;
use crate::plan::Source;
use crate::plan::expr::{DATA, Env, Expr, Failure, KEY, MESSAGE, ScopeId};
use crate::spec::{Format, KeyFormat};
use crate::value::show;

/// The type of a message without payload that is no event by its headers.
pub const TOMBSTONE: &str = "tombstone";

/// The events of a message: one, or with `split` as many as its list has elements.
pub type Events<'a> = SmallVec<[Event<'a>; 1]>;

/// Decodes a message by its source's format. `clock` is the greatest event time that the partition has had before.
///
/// # Errors
/// Why the message is no event of that format.
///
/// What upcasters make of old events stands in `arena`.
pub fn decode<'a>(
    source: &Source,
    record: &'a Record<'a>,
    clock: Option<i64>,
    arena: &'a Bump,
) -> Result<Events<'a>, Failure> {
    let mut whole = match source.format {
        Format::CloudEvents => cloudevents::decode(source, record),
        Format::Json => json::decode(source, record),
    }?;
    whole.key = key_slots(source, record)?;
    whole.captures = source.topics.captures(record.topic);
    if whole.time.is_none() {
        whole.time = record.time;
    }
    whole.clock = whole.time.max(clock);
    let mut events = Events::new();
    match &source.split {
        Some(list) if record.payload.is_some() => split(source, list, whole, &mut events)?,
        _ => events.push(whole),
    }
    for event in &mut events {
        if let Some(expr) = &source.type_
            && event.type_.is_empty()
        {
            event.type_ = json::event_type(expr, event)?.into();
        }
        if !source.upcasters.is_empty() {
            upcast::bring_up(source, event, arena)?;
        }
        if !source.type_prefix.is_empty()
            && let Some(short) = event.type_.strip_prefix(source.type_prefix.as_str())
        {
            event.type_ = short.to_string().into();
        }
    }
    Ok(events)
}

/// Makes an event of every element of the message's list.
fn split<'a>(source: &Source, list: &Expr, whole: Event<'a>, events: &mut Events<'a>) -> Result<(), Failure> {
    let raw = list.raw(&Env::event(&whole, &[]));
    let raw = match raw.filter(|raw| *raw != "null") {
        Some(raw) => raw,
        None if list.is_optional() => return Ok(()),
        None => return Err(undecodable(format!("the message has no `{}` to be split", list.text))),
    };
    let items: Vec<&RawValue> =
        serde_json::from_str(raw).map_err(|_| undecodable(format!("{} is not a list: {}", list.text, show(raw))))?;
    for (index, item) in items.into_iter().enumerate() {
        let data = source.scopes[DATA]
            .read(item.get())
            .map_err(|e| undecodable(format!("element {index} of {} is not readable: {e}", list.text)))?;
        events.push(Event { data, body: Some(item.get()), index: index as u32, ..whole.clone() });
    }
    Ok(())
}

/// The document that a payload is: the event's data, or the message that the data are split from.
fn body(source: &Source) -> ScopeId {
    if source.split.is_some() { MESSAGE } else { DATA }
}

/// Puts what was read of the payload where it belongs.
fn place<'a>(source: &Source, event: &mut Event<'a>, slots: Slots<'a>) {
    if source.split.is_some() {
        event.message = slots;
    } else {
        event.data = slots;
    }
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
        source: None,
        data: source.scopes[DATA].missing(),
        key: Slots::new(),
        body: None,
        message: source.scopes[MESSAGE].missing(),
        index: 0,
        clock: None,
        captures: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
