//! Sources: topics, formats, where to begin.

use regex::Regex;

use super::{Build, LONGEST_NAME};
use crate::json_paths::Paths;
use crate::plan::expr::{Compiler, Expr as Compiled, FIRST_ELEMENT, MESSAGE, Node, duration};
use crate::plan::types::Kind;
use crate::plan::{Dedupe, Routes, Source, Start, Topics};
use crate::spec::{self, Expr, Format, KeyFormat, Name};
use crate::value::parse_time;

impl Build<'_> {
    pub(super) fn source(&self, name: &Name, source: &spec::Source) -> Source {
        self.identifier(name, "source", LONGEST_NAME);
        let topics = topics(self, name, "source", &source.topic, &source.topics);
        let mut scopes = vec![Paths::default(); FIRST_ELEMENT];
        let captures = capture_names(&topics);
        let type_ = match (source.format, &source.type_) {
            (Format::CloudEvents, Some(expr)) => {
                self.error(
                    "useless-type",
                    &expr.span,
                    "CloudEvents carry their type",
                    Some("leave `type` out; or is it plain JSON? `format: json`"),
                );
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
                let mut compiler = compiler(&mut scopes, &captures, source.split.is_some(), source.key_format);
                self.expression(&mut compiler, expr, Kind::Text, "an event type is a text")
            }
        };
        let mut compiler = compiler(&mut scopes, &captures, source.split.is_some(), source.key_format);
        let ordered_by = source
            .ordered_by
            .as_ref()
            .and_then(|expr| self.expression(&mut compiler, expr, Kind::Any, "a field is needed"));
        let split = source.split.as_ref().and_then(|expr| self.split(&mut compiler, expr));
        let dedupe = source.dedupe.as_ref().and_then(|dedupe| self.dedupe(name, dedupe, source, &mut compiler));
        Source {
            name: name.value.clone(),
            topics,
            format: source.format,
            key_format: source.key_format,
            type_,
            type_prefix: source.type_prefix.clone().unwrap_or_default(),
            start: self.start(source),
            accept_truncated: self.reason(source),
            split,
            ordered_by,
            stands_repeats: dedupe.is_some(),
            dedupe,
            scopes,
            routes: Routes::default(),
            upcasters: Vec::new(),
        }
    }

    /// An expression of one kind, or of any.
    pub(super) fn expression(
        &self,
        compiler: &mut Compiler<'_>,
        expr: &Expr,
        kind: Kind,
        needed: &str,
    ) -> Option<Compiled> {
        match compiler.compile(&expr.value.0) {
            Ok(compiled) if kind == Kind::Any || compiled.kind == kind || compiled.kind == Kind::Any => Some(compiled),
            Ok(compiled) => {
                let message = format!("{needed}, this is {}", compiled.kind.describe());
                self.error("wrong-kind", &expr.span, message, None);
                None
            }
            Err(misread) => {
                self.misread(expr, misread);
                None
            }
        }
    }

    fn split(&self, compiler: &mut Compiler<'_>, expr: &Expr) -> Option<Compiled> {
        let compiled = self.expression(compiler, expr, Kind::List, "a list is needed")?;
        if !matches!(compiled.node, Node::Path { scope: MESSAGE, .. } | Node::Opt { scope: MESSAGE, .. }) {
            let help = "split: message.Records";
            self.error("wrong-kind", &expr.span, "split needs a field of the message that is a list", Some(help));
        }
        Some(compiled)
    }

    fn dedupe(
        &self,
        name: &Name,
        dedupe: &spec::Dedupe,
        source: &spec::Source,
        compiler: &mut Compiler<'_>,
    ) -> Option<Dedupe> {
        if source.format != Format::CloudEvents && dedupe.by.is_empty() {
            let help = "say what makes an event's identity: `by: data.event_id`";
            self.error("no-identity", &name.span, "only CloudEvents have an identity of their own", Some(help));
        }
        let by = dedupe.by.iter().filter_map(|expr| self.expression(compiler, expr, Kind::Any, "a value")).collect();
        if let Some(older) = dedupe.older.as_ref().filter(|older| older.as_str() != "park") {
            let help = "an event that may be a repeat is never counted: `older: park`";
            self.error("unknown-word", &older.span, format!("`{}` is not to be had", older.value), Some(help));
        }
        let window = duration(&dedupe.window).ok().filter(|window| *window > 0);
        if window.is_none() {
            let help = "for how long repeats may come, as an ISO 8601 duration: `window: P7D`";
            let (span, message) = match dedupe.window.is_empty() {
                true => (&name.span, "the dedupe needs a window".to_string()),
                false => (&dedupe.window.span, format!("`{}` is no window", dedupe.window.value)),
            };
            self.error("bad-window", span, message, Some(help));
        }
        Some(Dedupe { by, window: window? })
    }

    pub(super) fn topic_name(&self, topic: &Name) {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(legal) {
            let message = format!("`{}` cannot be a topic's name", topic.value);
            let help = "letters, digits, dots, underscores and dashes; a pattern goes under `topics`";
            self.error("bad-topic", &topic.span, message, Some(help));
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

pub(super) fn topics(
    build: &Build<'_>,
    name: &Name,
    what: &str,
    topic: &Option<Name>,
    topics: &Option<Name>,
) -> Topics {
    match (topic, topics) {
        (Some(topic), None) => {
            build.topic_name(topic);
            Topics::Named(topic.value.clone())
        }
        (None, Some(pattern)) => match Regex::new(&format!("^(?:{})$", pattern.value)) {
            Ok(regex) => Topics::Matching(regex),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default();
                build.error("bad-topic", &pattern.span, format!("not a regular expression: {reason}"), None);
                Topics::Named(String::new())
            }
        },
        (Some(_), Some(pattern)) => {
            build.error("bad-topic", &pattern.span, "it has `topic` or `topics`, not both", None);
            Topics::Named(String::new())
        }
        (None, None) => {
            let message = format!("the {what} `{}` has no topic", name.value);
            build.error("bad-topic", &name.span, message, Some("add `topic: NAME`"));
            Topics::Named(String::new())
        }
    }
}

pub(super) fn compiler<'p>(
    scopes: &'p mut Vec<Paths>,
    captures: &[String],
    splits: bool,
    key_format: KeyFormat,
) -> Compiler<'p> {
    Compiler {
        scopes,
        elements: vec![],
        captures: captures.to_vec(),
        key_format,
        splits,
        row: &[],
        event: true,
        bare: false,
    }
}

pub(super) fn capture_names(topics: &Topics) -> Vec<String> {
    match topics {
        Topics::Named(_) => Vec::new(),
        Topics::Matching(regex) => regex.capture_names().flatten().map(String::from).collect(),
    }
}
