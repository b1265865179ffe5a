//! YAML as a tree that knows where each node stands, how it was quoted and what tag it carries.
//!
//! Deserializers that stream lose the style and the tag, and both are needed to recognise the traps where YAML
//! swallows part of an expression.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::diagnostic::Sink;

/// Aliases may not grow a file beyond this many nodes.
const MAX_NODES: usize = 100_000;
/// Nesting beyond this is refused rather than recursed into.
const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone)]
pub struct Node {
    pub span: Range<usize>,
    pub tag: Option<String>,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Scalar { text: String, quoted: bool },
    Map(Vec<(Node, Node)>),
    Seq(Vec<Node>),
}

impl Node {
    pub fn null(span: Range<usize>) -> Node {
        Node { span, tag: None, kind: Kind::Scalar { text: String::new(), quoted: false } }
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, quoted: false } if matches!(text.as_str(), "" | "~" | "null"))
    }

    pub fn describe(&self) -> &'static str {
        match &self.kind {
            _ if self.is_null() => "nothing",
            Kind::Scalar { .. } => "a single value",
            Kind::Map(_) => "a map",
            Kind::Seq(_) => "a list",
        }
    }

    /// The node as JSON text, by YAML's core schema: unquoted numbers, booleans and null are themselves, with every
    /// digit kept.
    pub fn to_json(&self) -> String {
        let quote = |text: &str| serde_json::to_string(text).expect("a string is always JSON");
        match &self.kind {
            Kind::Scalar { .. } if self.is_null() => "null".into(),
            Kind::Scalar { text, quoted: false } if matches!(text.as_str(), "true" | "false") => text.clone(),
            Kind::Scalar { text, quoted: false } if serde_json::from_str::<serde_json::Number>(text).is_ok() => {
                text.clone()
            }
            Kind::Scalar { text, .. } => quote(text),
            Kind::Seq(items) => format!("[{}]", items.iter().map(Node::to_json).collect::<Vec<_>>().join(",")),
            Kind::Map(entries) => {
                let entries: Vec<String> = entries
                    .iter()
                    .map(|(key, value)| match &key.kind {
                        Kind::Scalar { text, .. } => format!("{}:{}", quote(text), value.to_json()),
                        _ => format!("{}:{}", quote(&key.to_json()), value.to_json()),
                    })
                    .collect();
                format!("{{{}}}", entries.join(","))
            }
        }
    }
}

/// Parses the one document of a file, which is those bytes of the sink's text. Findings go to the sink; `None` when there
/// is no tree to go on with.
pub fn parse(sink: &Sink, file: Range<usize>) -> Option<Node> {
    let offsets = CharOffsets::new(&sink.file.text[file.clone()], file.start);
    let mut events = Parser::new_from_str(&sink.file.text[file.clone()]);
    let mut builder = Builder { sink, offsets: &offsets, anchors: HashMap::new(), nodes: 0 };
    let mut root = None;
    loop {
        match events.next() {
            None => break,
            Some(Err(error)) => {
                let start = offsets.byte(error.marker().index());
                let line = sink.file.text[start.min(sink.file.text.len())..].lines().next().unwrap_or("");
                sink.error(
                    "yaml",
                    &(start..start + line.len().max(1)),
                    format!("this is not YAML: {}", error.info()),
                    super::traps::syntax_help(&sink.file.text, start),
                );
                return None;
            }
            Some(Ok((Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Nothing, _))) => {}
            Some(Ok((Event::DocumentStart(_), span))) => {
                if root.is_some() {
                    let span = offsets.range(span);
                    sink.error(
                        "yaml",
                        &span,
                        "a second YAML document begins here",
                        Some("one file, one document".into()),
                    );
                    return root;
                }
            }
            Some(Ok((event, span))) => match builder.node(event, span, &mut events, 0) {
                Ok(node) => root = Some(node),
                Err(Stop) => return None,
            },
        }
    }
    if root.is_none() {
        sink.error("yaml", &(file.start..file.start + 1), "the file is empty", None);
    }
    root
}

/// Building stops; what is wrong has been told, or will be by the parser's own next error.
struct Stop;

struct Builder<'a> {
    sink: &'a Sink,
    offsets: &'a CharOffsets,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

type Events<'i> = Parser<'i, saphyr_parser::StrInput<'i>>;

impl Builder<'_> {
    fn node<'i>(&mut self, event: Event<'i>, span: Span, events: &mut Events<'i>, depth: usize) -> Result<Node, Stop> {
        let mut range = self.offsets.range(span);
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            self.sink.error("yaml", &range, "the file is too deep or too large to be a definition", None);
            return Err(Stop);
        }
        let (kind, tag, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = !matches!(style, ScalarStyle::Plain);
                (Kind::Scalar { text: text.into_owned(), quoted }, tag, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next(events)?;
                    if matches!(event, Event::SequenceEnd) {
                        break;
                    }
                    items.push(self.node(event, span, events, depth + 1)?);
                }
                (Kind::Seq(items), tag, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                let mut entries: Vec<(Node, Node)> = Vec::new();
                loop {
                    let (event, span) = self.next(events)?;
                    if matches!(event, Event::MappingEnd) {
                        break;
                    }
                    let key = self.node(event, span, events, depth + 1)?;
                    let (event, span) = self.next(events)?;
                    let value = self.node(event, span, events, depth + 1)?;
                    self.refuse_duplicate(&entries, &key);
                    entries.push((key, value));
                }
                if let Some((key, _)) = entries.first() {
                    range.end = range.end.max(key.span.end);
                }
                (Kind::Map(entries), tag, anchor)
            }
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    self.sink.error("yaml", &range, "this alias refers to nothing", None);
                    return Err(Stop);
                };
                self.nodes += count(&node);
                return Ok(node);
            }
            _ => return Ok(Node::null(range)),
        };
        let tag = tag.map(tag_text);
        let node = Node { span: range, tag, kind };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn next<'i>(&self, events: &mut Events<'i>) -> Result<(Event<'i>, Span), Stop> {
        match events.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let start = self.offsets.byte(error.marker().index());
                self.sink.error(
                    "yaml",
                    &(start..start + 1),
                    format!("this is not YAML: {}", error.info()),
                    super::traps::syntax_help(&self.sink.file.text, start),
                );
                Err(Stop)
            }
            None => Err(Stop),
        }
    }

    fn refuse_duplicate(&self, entries: &[(Node, Node)], key: &Node) {
        let Kind::Scalar { text, .. } = &key.kind else { return };
        let same = |(other, _): &&(Node, Node)| matches!(&other.kind, Kind::Scalar { text: t, .. } if t == text);
        if let Some((first, _)) = entries.iter().find(same) {
            let (line, _) = self.sink.file.position(first.span.start);
            self.sink.error(
                "duplicate-key",
                &key.span,
                format!("`{text}` stands here twice; the first is on line {line}"),
                Some("keep one of them".into()),
            );
        }
    }
}

fn count(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => 1,
        Kind::Seq(items) => 1 + items.iter().map(count).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|(k, v)| count(k) + count(v)).sum::<usize>(),
    }
}

fn tag_text(tag: Cow<'_, Tag>) -> String {
    format!("{}{}", tag.handle, tag.suffix)
}

/// The parser counts characters, diagnostics count bytes.
struct CharOffsets(Vec<usize>);

impl CharOffsets {
    fn new(text: &str, start: usize) -> CharOffsets {
        CharOffsets(text.char_indices().map(|(at, _)| at).chain([text.len()]).map(|at| start + at).collect())
    }

    fn byte(&self, chars: usize) -> usize {
        self.0.get(chars).or(self.0.last()).copied().unwrap_or(0)
    }

    fn range(&self, span: Span) -> Range<usize> {
        self.byte(span.start.index())..self.byte(span.end.index())
    }
}
