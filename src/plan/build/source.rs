//! Sources: topics, formats, where to begin.

use regex::Regex;

use super::{Build, LONGEST_NAME};
use crate::json_paths::Paths;
use crate::plan::expr::{Compiler, KEY};
use crate::plan::types::Kind;
use crate::plan::{Routes, Source, Start, Topics};
use crate::spec::{self, Format, Name};
use crate::value::parse_time;

impl Build<'_> {
    pub(super) fn source(&self, name: &Name, source: &spec::Source) -> Source {
        self.identifier(name, "source", LONGEST_NAME);
        self.refuse_later(&[("split", &source.split), ("dedupe", &source.dedupe)]);
        let topics = self.topics(name, source);
        let mut scopes = vec![Paths::default(); KEY + 1];
        let type_ = match (source.format, &source.type_) {
            (Format::CloudEvents, Some(expr)) => {
                self.error("useless-type", &expr.span, "CloudEvents carry their type", Some("leave `type` out"));
                None
            }
            (Format::CloudEvents, None) => None,
            (Format::Json, None) => {
                let help =
                    "for example `type: data.kind`, `type: headers.type` or, for a topic of one type, \"'Changed'\"";
                self.error(
                    "no-type",
                    &name.span,
                    "plain JSON has no event type of its own; say where it is",
                    Some(help),
                );
                None
            }
            (Format::Json, Some(expr)) => {
                let captures = capture_names(&topics);
                let mut compiler =
                    Compiler { scopes: &mut scopes, elements: vec![], captures, key_format: source.key_format };
                match compiler.compile(&expr.value.0) {
                    Ok(compiled) if matches!(compiled.kind, Kind::Text | Kind::Any) => Some(compiled),
                    Ok(compiled) => {
                        let message = format!("an event type is a text, this is {}", compiled.kind.describe());
                        self.error("wrong-kind", &expr.span, message, None);
                        None
                    }
                    Err(misread) => {
                        self.misread(expr, misread);
                        None
                    }
                }
            }
        };
        Source {
            name: name.value.clone(),
            topics,
            format: source.format,
            key_format: source.key_format,
            type_,
            type_prefix: source.type_prefix.clone().unwrap_or_default(),
            start: self.start(source),
            accept_truncated: self.reason(source),
            scopes,
            routes: Routes::default(),
        }
    }

    fn topics(&self, name: &Name, source: &spec::Source) -> Topics {
        match (&source.topic, &source.topics) {
            (Some(topic), None) => {
                let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                if topic.is_empty() || topic.len() > 249 || !topic.chars().all(legal) {
                    let message = format!("`{}` cannot be a topic's name", topic.value);
                    let help = "letters, digits, dots, underscores and dashes; a pattern goes under `topics`";
                    self.error("bad-topic", &topic.span, message, Some(help));
                }
                Topics::Named(topic.value.clone())
            }
            (None, Some(pattern)) => match Regex::new(&format!("^(?:{})$", pattern.value)) {
                Ok(regex) => Topics::Matching(regex),
                Err(error) => {
                    let reason = error.to_string();
                    let reason = reason.lines().last().unwrap_or_default();
                    self.error("bad-topic", &pattern.span, format!("not a regular expression: {reason}"), None);
                    Topics::Named(String::new())
                }
            },
            (Some(_), Some(pattern)) => {
                self.error("bad-topic", &pattern.span, "a source has `topic` or `topics`, not both", None);
                Topics::Named(String::new())
            }
            (None, None) => {
                let message = format!("the source `{}` has no topic", name.value);
                self.error("bad-topic", &name.span, message, Some("add `topic: NAME`"));
                Topics::Named(String::new())
            }
        }
    }

    fn start(&self, source: &spec::Source) -> Start {
        let Some(start) = &source.start else { return Start::Earliest };
        match start.as_str() {
            "earliest" => Start::Earliest,
            "latest" => Start::Latest,
            text => match parse_time(text) {
                Some(micros) => Start::At(micros),
                None => {
                    let help = "earliest, latest, or a time such as 2026-11-01T00:00:00Z";
                    self.error("bad-start", &start.span, format!("`{text}` is no place to start"), Some(help));
                    Start::Earliest
                }
            },
        }
    }

    fn reason(&self, source: &spec::Source) -> Option<String> {
        let reason = source.accept_truncated.as_ref()?;
        if reason.trim().is_empty() || matches!(reason.as_str(), "true" | "yes") {
            let help = "for example `accept_truncated: orders before 2024 were archived`";
            self.error("no-reason", &reason.span, "accepting a truncated history needs a reason in words", Some(help));
        }
        Some(reason.value.clone())
    }
}

pub(super) fn capture_names(topics: &Topics) -> Vec<String> {
    match topics {
        Topics::Named(_) => Vec::new(),
        Topics::Matching(regex) => regex.capture_names().flatten().map(String::from).collect(),
    }
}
