//! CloudEvents 1.0 over Kafka, structured and binary mode.
//!
//! Follows <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>: the
//! `content-type` header decides between the modes; where it is missing, the `ce_` headers and then the payload do.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{TOMBSTONE, body, empty, place, text, undecodable};
use crate::event::{Event, Record};
use crate::json_paths::Slots;
use crate::plan::Source;
use crate::plan::expr::Failure;
use crate::value::parse_time;
use crate::value::show;

pub(super) fn decode<'a>(source: &Source, record: &'a Record<'a>) -> Result<Event<'a>, Failure> {
    let content_type = match record.header("content-type").or_else(|| record.header("Content-Type")) {
        Some(bytes) => Some(text(bytes, "the content-type header")?),
        None => None,
    };
    let structured = content_type.is_some_and(|content| content.starts_with("application/cloudevents"));
    if structured && !content_type.is_some_and(|content| content.starts_with("application/cloudevents+json")) {
        let content = content_type.unwrap_or_default();
        return Err(undecodable(format!(
            "the content type {} is not supported; application/cloudevents+json is",
            show(content)
        )));
    }
    let binary = !structured && record.header("ce_specversion").is_some();
    match record.payload {
        _ if binary => self::binary(source, record, content_type),
        None => Ok(empty(source, record, TOMBSTONE)),
        Some(payload) => self::structured(source, record, text(payload, "the message")?),
    }
}

fn binary<'a>(source: &Source, record: &'a Record<'a>, content_type: Option<&str>) -> Result<Event<'a>, Failure> {
    let attribute = |name: &str| match record.header(name) {
        Some(bytes) => text(bytes, name).map(Some),
        None => Ok(None),
    };
    let version = attribute("ce_specversion")?.unwrap_or_default();
    check_version(version)?;
    let required = |name: &'static str| {
        attribute(name)?
            .filter(|value| !value.is_empty())
            .ok_or_else(|| undecodable(format!("the header {name} is missing")))
    };
    let mut event = empty(source, record, required("ce_type")?);
    event.source = Some(required("ce_source")?.into());
    event.id = Some(required("ce_id")?.into());
    event.subject = attribute("ce_subject")?.map(Cow::Borrowed);
    event.time = attribute("ce_time")?.map(read_time).transpose()?;
    if let Some(payload) = record.payload {
        let json = content_type.is_none_or(|content| {
            let media = content.split(';').next().unwrap_or_default().trim();
            media.ends_with("/json") || media.ends_with("+json")
        });
        if json {
            let payload = text(payload, "the message")?;
            let slots = source.scopes[body(source)]
                .read(payload)
                .map_err(|e| undecodable(format!("the data is not JSON: {e}: {}", show(payload))))?;
            event.body = Some(payload);
            place(source, &mut event, slots);
        }
    }
    Ok(event)
}

fn structured<'a>(source: &Source, record: &'a Record<'a>, payload: &'a str) -> Result<Event<'a>, Failure> {
    let mut envelope = Envelope { slots: source.scopes[body(source)].missing(), ..Envelope::default() };
    let mut deserializer = serde_json::Deserializer::from_str(payload);
    let read = deserializer.deserialize_map(EnvelopeVisitor { envelope: &mut envelope, source });
    read.and_then(|()| deserializer.end())
        .map_err(|e| undecodable(format!("the message is not a CloudEvent: {e}: {}", show(payload))))?;
    let required = |value: Option<Cow<'a, str>>, name: &str| {
        value.filter(|v| !v.is_empty()).ok_or_else(|| {
            undecodable(format!("the message is not a CloudEvent: `{name}` is missing: {}", show(payload)))
        })
    };
    check_version(&required(envelope.specversion, "specversion")?)?;
    let mut event = empty(source, record, "");
    event.source = Some(required(envelope.source, "source")?);
    event.type_ = required(envelope.type_, "type")?;
    event.id = Some(required(envelope.id, "id")?);
    event.subject = envelope.subject;
    event.time = envelope.time.map(|time| read_time(&time)).transpose()?;
    event.body = envelope.body;
    place(source, &mut event, envelope.slots);
    Ok(event)
}

fn check_version(version: &str) -> Result<(), Failure> {
    if version == "1.0" {
        return Ok(());
    }
    Err(undecodable(format!("CloudEvents version {} is not supported; 1.0 is", show(version))))
}

fn read_time(text: &str) -> Result<i64, Failure> {
    parse_time(text).ok_or_else(|| {
        undecodable(format!("the event's time {} is not an RFC 3339 timestamp (years up to 9999)", show(text)))
    })
}

#[derive(Default)]
struct Envelope<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    type_: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    /// The text of the data, where an upcaster may want it.
    body: Option<&'a str>,
    slots: Slots<'a>,
}

struct EnvelopeVisitor<'v, 'p, 'a> {
    envelope: &'v mut Envelope<'a>,
    source: &'p Source,
}

impl<'a> Visitor<'a> for EnvelopeVisitor<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_data = false;
        while let Some(name) = map.next_key::<Text<'a>>()? {
            let attribute = match &*name.0 {
                "specversion" => &mut self.envelope.specversion,
                "id" => &mut self.envelope.id,
                "source" => &mut self.envelope.source,
                "type" => &mut self.envelope.type_,
                "subject" => &mut self.envelope.subject,
                "time" => &mut self.envelope.time,
                "data" if has_data => return Err(de::Error::custom("the key `data` stands twice")),
                "data" => {
                    has_data = true;
                    if !self.source.upcasters.is_empty() {
                        let data: &'a RawValue = map.next_value()?;
                        self.envelope.body = Some(data.get());
                        let read = self.source.scopes[body(self.source)].read(data.get());
                        self.envelope.slots = read.map_err(de::Error::custom)?;
                        continue;
                    }
                    map.next_value_seed(self.source.scopes[body(self.source)].seed(&mut self.envelope.slots))?;
                    continue;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if attribute.is_some() {
                return Err(de::Error::custom(format_args!("the key `{}` stands twice", name.0)));
            }
            *attribute = map.next_value::<Option<Text<'a>>>()?.map(|text| text.0);
        }
        Ok(())
    }
}

/// A string, borrowed where the JSON has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Text<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_string())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}
