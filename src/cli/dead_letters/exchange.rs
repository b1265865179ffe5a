//! `export` and `import`, as lines of JSON.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::super::{Failure, Outcome, count};
use super::act::read;
use super::{Action, Desk, Which};
use crate::event::Place;
use crate::parking::Decision;
use crate::store::parked::desk::{self, Decided, Filter, Summary};

/// A line. Bytes that are no text are in the member whose name ends in `_base64`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Line {
    projection: String,
    topic: String,
    partition: i32,
    offset: i64,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    type_: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// `discard` or `correct`.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_base64: Option<String>,
}

impl Line {
    fn payload(&self) -> Result<Option<Vec<u8>>, String> {
        bytes(&self.payload, &self.payload_base64)
    }
}

/// Bytes as text, or else as base 64.
fn encoded(bytes: Option<&[u8]>) -> (Option<String>, Option<String>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text.to_string()), None),
        Some((bytes, Err(_))) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

fn bytes(text: &Option<String>, base64: &Option<String>) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (Some(text), _) => Ok(Some(text.clone().into_bytes())),
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).map(Some).map_err(|error| error.to_string()),
        (None, None) => Ok(None),
    }
}

fn print(line: &Line) -> Outcome {
    let text = serde_json::to_string(line).map_err(Failure::failed)?;
    println!("{text}");
    Ok(())
}

impl Desk {
    pub(super) async fn export(&self, which: &Which, decisions: bool) -> Outcome {
        if decisions {
            return self.export_decisions(which).await;
        }
        for letter in desk::list(&self.pool, &which.filter()?).await.map_err(Failure::failed)? {
            let Some(message) = desk::message(&self.pool, &letter).await.map_err(Failure::failed)? else { continue };
            let (payload, payload_base64) = encoded(message.payload.as_deref());
            let header = |(name, value): &(String, Option<Vec<u8>>)| {
                (name.clone(), value.as_deref().map(super::text_or_hex).into())
            };
            print(&Line {
                headers: message.headers.iter().map(header).collect(),
                payload,
                payload_base64,
                projection: letter.projection,
                topic: letter.topic,
                partition: letter.partition,
                offset: letter.offset,
                type_: letter.type_,
                key: letter.key,
                code: Some(letter.code),
                message: Some(letter.message),
                ..Line::default()
            })?;
        }
        Ok(())
    }

    async fn export_decisions(&self, which: &Which) -> Outcome {
        let all = desk::decisions(&self.pool, which.projection.as_deref()).await.map_err(Failure::failed)?;
        for recorded in all {
            let (word, payload) = match &recorded.decision {
                Decision::Discard => ("discard", None),
                Decision::Correct { payload } => ("correct", payload.as_deref()),
            };
            let (payload, payload_base64) = encoded(payload);
            let (original, original_base64) = encoded(recorded.original.as_deref());
            print(&Line {
                projection: recorded.projection,
                topic: recorded.place.topic,
                partition: recorded.place.partition,
                offset: recorded.place.offset,
                payload,
                payload_base64,
                original,
                original_base64,
                decision: Some(word.into()),
                reason: Some(recorded.reason),
                decided_by: Some(recorded.who),
                decided_at: Some(recorded.at),
                ..Line::default()
            })?;
        }
        Ok(())
    }

    pub(super) async fn import(&self, file: &str, reason: Option<&str>, action: &Action) -> Outcome {
        let text = String::from_utf8(read(file)?).map_err(|_| Failure::refused(format!("{file} is not UTF-8")))?;
        let mut lines = Vec::new();
        for (at, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
            let wrong = |error: String| Failure::refused(format!("{file}:{}: {error}", at + 1));
            let line: Line = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
            line.payload().map_err(wrong)?;
            if let Some(word) = line.decision.as_deref().filter(|word| !["discard", "correct"].contains(word)) {
                return Err(wrong(format!("a decision is `discard` or `correct`, not `{word}`")));
            }
            lines.push((at + 1, line));
        }
        let (mut recorded, mut unchanged) = (0, 0);
        let mut touched: Vec<Summary> = Vec::new();
        for (at, line) in lines {
            let place = Place { topic: line.topic.clone(), partition: line.partition, offset: line.offset };
            let filter = Filter {
                projection: Some(line.projection.clone()),
                topic: Some(line.topic.clone()),
                partition: Some(line.partition),
                offset: Some(line.offset),
                limit: 1,
                ..Filter::default()
            };
            let letter = desk::list(&self.pool, &filter).await.map_err(Failure::failed)?.pop();
            let message = match &letter {
                Some(letter) => desk::message(&self.pool, letter).await.map_err(Failure::failed)?,
                None => None,
            };
            let payload = line.payload().unwrap_or_default();
            let parked_payload = message.as_ref().and_then(|message| message.payload.clone());
            let decision = match (line.decision.as_deref(), &message) {
                (Some("discard"), _) => Decision::Discard,
                (Some(_), _) => Decision::Correct { payload },
                (None, Some(_)) if payload != parked_payload => Decision::Correct { payload },
                _ => {
                    unchanged += 1;
                    continue;
                }
            };
            let Some(reason) = line.reason.as_deref().or(reason).filter(|reason| !reason.trim().is_empty()) else {
                return Err(Failure::refused(format!(
                    "{file}:{at}: a decision needs a reason; give one in the line, or --reason for all"
                )));
            };
            let original = match parked_payload {
                Some(original) => Some(original),
                None => bytes(&line.original, &line.original_base64).map_err(Failure::refused)?,
            };
            let who = line.decided_by.clone().unwrap_or_else(|| action.who());
            let decided = Decided {
                projection: &line.projection,
                place: &place,
                decision: &decision,
                original: original.as_deref(),
                reason,
                who: &who,
            };
            desk::decide(&self.pool, &decided).await.map_err(Failure::failed)?;
            recorded += 1;
            touched.extend(letter);
        }
        println!("{} recorded, {} left as they are", count(recorded, "decision"), count(unchanged, "line"));
        if touched.is_empty() { Ok(()) } else { self.await_settled(&touched, action).await }
    }
}
