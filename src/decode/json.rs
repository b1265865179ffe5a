//! Plain JSON: the whole message is the data.

use super::{TOMBSTONE, body, empty, place, text, undecodable};
use crate::event::{Event, Record};
use crate::plan::Source;
use crate::plan::expr::{Env, Expr, Failure};
use crate::value::Value;
use crate::value::show;

pub(super) fn decode<'a>(source: &Source, record: &'a Record<'a>) -> Result<Event<'a>, Failure> {
    let Some(payload) = record.payload else { return Ok(empty(source, record, TOMBSTONE)) };
    let payload = text(payload, "the message")?;
    let mut event = empty(source, record, "");
    let slots = source.scopes[body(source)]
        .read(payload)
        .map_err(|e| undecodable(format!("the message is not JSON: {e}: {}", show(payload))))?;
    event.body = Some(payload);
    place(source, &mut event, slots);
    Ok(event)
}

pub(super) fn event_type(expr: &Expr, event: &Event<'_>) -> Result<String, Failure> {
    match expr.eval(&Env::event(event, &[])) {
        Ok(Value::Text(text)) => Ok(text.to_string()),
        Ok(other) => Err(undecodable(format!("the event type ({}) is {}, a text is needed", expr.text, other.kind()))),
        Err(failure) => Err(undecodable(format!("the event type cannot be read: {}", failure.message))),
    }
}
