//! Plain JSON: the whole message is the data.

use super::{TOMBSTONE, empty, text, undecodable};
use crate::event::{Event, Record};
use crate::plan::Source;
use crate::plan::expr::{DATA, Env, Expr, Failure};
use crate::plan::types::show;
use crate::value::Value;

pub(super) fn decode<'a>(source: &Source, record: &'a Record<'a>) -> Result<Event<'a>, Failure> {
    let Some(payload) = record.payload else { return Ok(empty(source, record, TOMBSTONE)) };
    let payload = text(payload, "the message")?;
    let mut event = empty(source, record, "");
    event.data = source.scopes[DATA]
        .read(payload)
        .map_err(|e| undecodable(format!("the message is not JSON: {e}: {}", show(payload))))?;
    Ok(event)
}

pub(super) fn event_type(expr: &Expr, event: &Event<'_>) -> Result<String, Failure> {
    match expr.eval(&Env { event, elements: &[] }) {
        Ok(Value::Text(text)) => Ok(text.to_string()),
        Ok(other) => Err(undecodable(format!("the event type ({}) is {}, a text is needed", expr.text, other.kind()))),
        Err(failure) => Err(undecodable(format!("the event type cannot be read: {}", failure.message))),
    }
}
