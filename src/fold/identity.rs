//! Who an event is, so that a second delivery of it is found out.

use sha2::{Digest, Sha256};

use crate::event::Event;
use crate::plan::expr::{Env, Failure};
use crate::plan::{Dedupe, Source};
use crate::value::{Value, canonical_number};

/// A digest of an event's type and identity: half of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(pub [u8; 16]);

/// The identity of an event, where its source asks for one, with the time from which on it would be known.
///
/// # Errors
/// When a part of the identity is missing, or the event is older than identities are kept for: then nobody knows whether
/// it is a repeat.
pub fn identity(source: &Source, event: &Event<'_>) -> Result<Option<(Identity, i64)>, Failure> {
    let Some(Dedupe { by, window }) = &source.dedupe else { return Ok(None) };
    let missing = |name: &str| Failure {
        code: "missing-field",
        message: format!("the event has no `{name}`, so that nobody knows whether it is a repeat"),
    };
    let mut digest = Sha256::new();
    let mut part = |text: &str| {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    };
    part(&event.type_);
    if by.is_empty() {
        part(event.source.as_deref().ok_or_else(|| missing("source"))?);
        part(event.id.as_deref().ok_or_else(|| missing("id"))?);
        // The events of one message share its identity; which of them they are tells them apart.
        part(&event.index.to_string());
    }
    for expr in by {
        let value = expr.eval(&Env::event(event, &[])).map_err(|failure| match failure.code {
            "missing-field" => missing(&expr.text),
            _ => failure,
        })?;
        match value {
            Value::Null => return Err(missing(&expr.text)),
            value => part(&canonical_number(value).to_json_text()),
        }
    }
    let (Some(time), Some(clock)) = (event.time, event.clock) else { return Err(missing("time")) };
    let horizon = horizon(time, clock, *window, "identities are kept: nobody knows whether it is a repeat")?;
    let digest = digest.finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    Ok(Some((Identity(half), horizon)))
}

/// From when on something is remembered; the window goes back from the partition's time.
///
/// # Errors
/// When the event is from before.
pub(super) fn horizon(time: i64, clock: i64, window: i64, remembered: &str) -> Result<i64, Failure> {
    let horizon = clock.saturating_sub(window);
    if time >= horizon {
        return Ok(horizon);
    }
    let (time, horizon) = (Value::Time(time).to_json_text(), Value::Time(horizon).to_json_text());
    let message = format!("the event's time {time} is before {horizon}, from when on {remembered}");
    Err(Failure { code: "older-than-window", message })
}
