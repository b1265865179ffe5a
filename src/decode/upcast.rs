//! Events of an older shape, brought to the newest one.
//!
//! A step works on the text of the data, member by member: what it does not name is copied as it is, with every digit.
//! Only events that are not of the newest version pay for it.

use bumpalo::Bump;
use indexmap::IndexMap;
use serde_json::value::RawValue;

use super::undecodable;
use crate::event::Event;
use crate::plan::Source;
use crate::plan::expr::{DATA, Env, Failure};
use crate::plan::upcaster::{Step, Upcaster};
use crate::value::{Value, show};

/// Brings an event up to date, if one of the source's upcasters is for it.
///
/// # Errors
/// When its version is none that is known, or a step cannot work out a field.
pub(super) fn bring_up<'a>(source: &Source, event: &mut Event<'a>, arena: &'a Bump) -> Result<(), Failure> {
    let Some(upcaster) = source.upcasters.iter().find(|u| u.takes(event.record.topic, &event.type_)) else {
        return Ok(());
    };
    // A tombstone has nothing that could be of a version.
    let Some(body) = event.body else { return Ok(()) };
    let (version, newest) = (version(upcaster, event, body)?, upcaster.newest());
    if version != newest {
        if !upcaster.steps.contains_key(&version) {
            let message = format!(
                "there is no upcaster from {version}: `{}` ({}) leads to version {newest}",
                upcaster.name, upcaster.path
            );
            return Err(Failure { code: "no-upcaster", message });
        }
        let mut text = body;
        for (from, step) in upcaster.steps.range(version..) {
            let next = up(step, event, text).map_err(|failure| Failure {
                code: "upcast-failed",
                message: format!(
                    "the upcaster `{}` cannot bring the event from version {from} to the next: {} ({}:{})",
                    upcaster.name, failure.message, upcaster.path, step.line
                ),
            })?;
            text = arena.alloc_str(&next);
        }
        event.body = Some(text);
        event.data = source.scopes[DATA].read(text).map_err(|error| {
            undecodable(format!("the data that the upcaster `{}` makes is not readable: {error}", upcaster.name))
        })?;
    }
    if let Some(name) = &upcaster.as_ {
        event.type_ = name.clone().into();
    }
    Ok(())
}

fn version<'a>(upcaster: &Upcaster, event: &Event<'a>, body: &'a str) -> Result<i64, Failure> {
    let Some(expr) = &upcaster.version else { return Ok(1) };
    let slots = upcaster.scopes[DATA]
        .read(body)
        .map_err(|error| undecodable(format!("the data is not readable: {error}: {}", show(body))))?;
    let view = Event { data: slots, ..event.clone() };
    let wrong = |what: &str| {
        undecodable(format!("the version ({}) is {what}, a whole number is needed ({})", expr.text, upcaster.path))
    };
    match crate::value::canonical_number(expr.eval(&Env::event(&view, &[]))?) {
        Value::Null => Ok(1),
        Value::Int(version) => Ok(version),
        Value::Text(text) => text.parse().map_err(|_| wrong(&show(&text))),
        other => Err(wrong(&other.to_json_text())),
    }
}

/// One step, on the text of the data.
fn up<'a>(step: &Step, event: &Event<'a>, body: &'a str) -> Result<String, Failure> {
    let wrong = |error: serde_json::Error| Failure::wrong(error.to_string());
    let slots = step.scopes[DATA].read(body).map_err(wrong)?;
    let view = Event { data: slots, ..event.clone() };
    let env = Env::event(&view, &[]);
    let mut sets = Vec::with_capacity(step.sets.len());
    for (path, expr) in &step.sets {
        let value = expr.eval(&env);
        let value = value.map_err(|failure| Failure {
            code: failure.code,
            message: format!("`{}`: {}", path.join("."), failure.message),
        })?;
        sets.push((path, value.to_json_text()));
    }
    let mut text = body.to_string();
    for (old, new) in &step.moves {
        if let Some(value) = member(&text, old)? {
            text = put(&without(&text, old)?, new, &value)?;
        }
    }
    for (path, value) in sets {
        text = put(&text, path, &value)?;
    }
    for (path, value) in &step.defaults {
        if member(&text, path)?.is_none() {
            text = put(&text, path, value)?;
        }
    }
    for path in &step.removes {
        text = without(&text, path)?;
    }
    Ok(text)
}

type Members<'t> = IndexMap<String, &'t RawValue>;

fn members(text: &str) -> Result<Members<'_>, Failure> {
    serde_json::from_str(text).map_err(|_| Failure::wrong(format!("{} is no object", show(text))))
}

fn written(members: &IndexMap<String, Box<RawValue>>) -> Result<String, Failure> {
    serde_json::to_string(members).map_err(|error| Failure::wrong(error.to_string()))
}

/// The text of a field; `None` when it or what it stands in is missing.
fn member(text: &str, path: &[String]) -> Result<Option<String>, Failure> {
    let Some((first, rest)) = path.split_first() else { return Ok(Some(text.to_string())) };
    if text == "null" {
        return Ok(None);
    }
    match members(text)?.get(first) {
        Some(inner) => member(inner.get(), rest),
        None => Ok(None),
    }
}

/// The object with a field set; objects on the way to it are made.
fn put(text: &str, path: &[String], value: &str) -> Result<String, Failure> {
    let Some((first, rest)) = path.split_first() else { return Ok(value.to_string()) };
    let known = if text == "null" { Members::new() } else { members(text)? };
    let inner = put(known.get(first).map_or("{}", |inner| inner.get()), rest, value)?;
    let inner = RawValue::from_string(inner).map_err(|error| Failure::wrong(error.to_string()))?;
    let mut all: IndexMap<String, Box<RawValue>> =
        known.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    all.insert(first.clone(), inner);
    written(&all)
}

/// The object without a field.
fn without(text: &str, path: &[String]) -> Result<String, Failure> {
    let Some((first, rest)) = path.split_first() else { return Ok(text.to_string()) };
    if text == "null" {
        return Ok(text.to_string());
    }
    let known = members(text)?;
    let Some(inner) = known.get(first) else { return Ok(text.to_string()) };
    let inner = if rest.is_empty() { None } else { Some(without(inner.get(), rest)?) };
    let mut all: IndexMap<String, Box<RawValue>> =
        known.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    match inner {
        None => drop(all.shift_remove(first)),
        Some(inner) => {
            let inner = RawValue::from_string(inner).map_err(|error| Failure::wrong(error.to_string()))?;
            all.insert(first.clone(), inner);
        }
    }
    written(&all)
}
