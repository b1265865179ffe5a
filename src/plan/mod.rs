//! Projections as compiled: checked, typed, resolved to indexes. The hot path reads nothing else.

mod build;
pub mod change;
pub mod derived;
mod errors;
pub mod expr;
mod stored;
pub mod types;
pub mod upcaster;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use regex::Regex;

pub use build::{Units, compile, compile_all, compile_each, compile_upcasters, units};
pub use errors::Errors;

use crate::json_paths::Paths;
use crate::patch::{ColumnShape, Presence};
use crate::spec::diagnostic::SourceFile;
use crate::spec::{Format, KeyFormat, SearchMethod};
use derived::{Edge, Join, Rollup};
use expr::{Expr, ScopeId};
pub use upcaster::Upcaster;

/// The version of the meaning of definitions. It is stored with every generation, and moves when the same definition
/// would make other rows.
pub const SEMANTICS_VERSION: i32 = 1;

/// Gives every source the upcasters of its topics.
pub fn attach(plans: &mut [Plan], upcasters: &[Arc<Upcaster>]) {
    for source in plans.iter_mut().flat_map(|plan| &mut plan.sources) {
        let concerns = |upcaster: &&Arc<Upcaster>| match (&source.topics, &upcaster.topics) {
            (Topics::Named(topic), topics) | (topics, Topics::Named(topic)) => topics.matches(topic),
            // Which topics there will be is not known yet.
            (Topics::Matching(_), Topics::Matching(_)) => true,
        };
        source.upcasters = upcasters.iter().filter(concerns).cloned().collect();
    }
}

/// One compiled projection.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: String,
    /// The projections that it is made of: itself, and those that share a file with it.
    pub parts: Vec<String>,
    /// Of served tables, what readers find in them.
    pub descriptions: HashMap<String, String>,
    /// Where the definition was read from, for messages.
    pub path: String,
    pub file: Arc<SourceFile>,
    pub sources: Vec<Source>,
    pub tables: Vec<Table>,
    /// What joins and rollups make of them.
    pub edges: Vec<Edge>,
    /// The order in which a batch writes the tables.
    pub write_order: Vec<usize>,
    pub errors: Errors,
    pub companions: Vec<Companion>,
    /// The definition without comments and layout, as JSON.
    pub definition: String,
    /// SHA-256 of `definition`, hexadecimal.
    pub digest: String,
}

impl Plan {
    /// Whether events of a topic are folded.
    pub fn reads(&self, topic: &str) -> bool {
        self.sources.iter().any(|source| source.topics.matches(topic))
    }

    /// Whether a source begins at the end of its topic: what is built by it has none of the past events.
    pub fn begins_late(&self) -> bool {
        self.sources.iter().any(|source| source.start == Start::Latest)
    }
}

/// A file of SQL views on top of the served tables.
#[derive(Debug, Clone)]
pub struct Companion {
    pub path: String,
    pub sql: String,
}

#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    pub topics: Topics,
    pub format: Format,
    pub key_format: KeyFormat,
    /// Where the event type is, for formats that have none.
    pub type_: Option<Expr>,
    pub type_prefix: String,
    pub start: Start,
    pub accept_truncated: Option<String>,
    /// The list whose elements are the events.
    pub split: Option<Expr>,
    /// What the producer keeps in one partition; the record key, if nothing is said.
    pub ordered_by: Option<Expr>,
    pub dedupe: Option<Dedupe>,
    /// A second delivery of an event changes nothing, because it is found out or because every handler stands it.
    pub stands_repeats: bool,
    /// The paths that expressions read, by [`ScopeId`].
    pub scopes: Vec<Paths>,
    /// Indexes into a table's handlers, by event type.
    pub routes: Routes,
    /// Those that may concern its topics.
    pub upcasters: Vec<Arc<Upcaster>>,
}

/// How repeated events are told.
#[derive(Debug, Clone)]
pub struct Dedupe {
    /// What makes the identity beside the type; CloudEvents' `source` and `id` if empty.
    pub by: Vec<Expr>,
    /// Microseconds of event time for which identities are kept.
    pub window: i64,
}

#[derive(Debug, Clone)]
pub enum Topics {
    Named(String),
    /// Whole names, with named captures.
    Matching(Regex),
}

impl Topics {
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Topics::Named(name) => name == topic,
            Topics::Matching(regex) => regex.is_match(topic),
        }
    }

    /// The values of the named captures in a topic's name.
    pub fn captures(&self, topic: &str) -> Vec<(String, String)> {
        let Topics::Matching(regex) = self else { return Vec::new() };
        let Some(found) = regex.captures(topic) else { return Vec::new() };
        let value = |name: &str| found.name(name).map(|m| (name.to_string(), m.as_str().to_string()));
        regex.capture_names().flatten().filter_map(value).collect()
    }
}

impl std::fmt::Display for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Topics::Named(name) => f.write_str(name),
            Topics::Matching(regex) => write!(f, "topics matching {regex}"),
        }
    }
}

/// Where a generation that has no checkpoint yet begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// Microseconds since the Unix epoch.
    At(i64),
}

/// (table, handler) pairs in the order of the file.
pub type HandlerIds = Vec<(usize, usize)>;

/// Which handlers take an event type.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    exact: HashMap<String, HandlerIds>,
    /// One for each table that the source feeds.
    patterns: Vec<Patterns>,
}

/// A table's patterns that end in a star, as prefixes, the most specific first.
#[derive(Debug, Clone, Default)]
struct Patterns(Vec<(String, HandlerIds)>);

impl Patterns {
    /// The handlers of the most specific pattern that matches; of a table, it alone applies.
    fn best(&self, type_: &str) -> &[(usize, usize)] {
        let found = self.0.iter().find(|(prefix, _)| type_.starts_with(prefix.as_str()));
        found.map_or(&[], |(_, handlers)| handlers)
    }
}

impl Routes {
    /// The handlers of an event type; empty when no table takes it.
    pub fn handlers(&self, type_: &str) -> Cow<'_, [(usize, usize)]> {
        match self.exact.get(type_) {
            Some(found) => found.into(),
            None => self.patterns.iter().flat_map(|patterns| patterns.best(type_)).copied().collect::<Vec<_>>().into(),
        }
    }

    /// Whether any table handles the type, or says why not.
    pub fn knows(&self, type_: &str) -> bool {
        let by_pattern = |patterns: &Patterns| patterns.0.iter().any(|(prefix, _)| type_.starts_with(prefix.as_str()));
        self.exact.contains_key(type_) || self.patterns.iter().any(by_pattern)
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.iter().all(|patterns| patterns.0.is_empty())
    }
}

#[derive(Debug, Clone)]
pub struct Table {
    pub name: String,
    pub served: bool,
    /// The key's columns, in order.
    pub key: Vec<Column>,
    /// The other columns; patches name them by their index here.
    pub columns: Vec<Column>,
    /// The same, as patches need them.
    pub shapes: Vec<ColumnShape>,
    /// Rows come into being and end, so that presence is stored.
    pub presence: bool,
    pub handlers: Vec<Handler>,
    pub joins: Vec<Join>,
    pub rollups: Vec<Rollup>,
    /// Of a table that no handler feeds: the column that counts the rows it is made of.
    pub children: Option<u16>,
    /// Each a list of column names.
    pub indexes: Vec<Vec<String>>,
    pub fillfactor: Option<u16>,
    /// How many version slots a row has.
    pub version_slots: u16,
    /// Columns that say, under `latest`, whether a source is present; beside the stored bits.
    pub alive: Vec<u16>,
    /// The column that says when a row expires.
    pub expire: Option<u16>,
    pub forget: Option<Forget>,
    /// A further condition for a row to be seen.
    pub show: Option<Expr>,
    /// Columns worked out when the row is read, in the order of the file, `flags` last.
    pub generated: Vec<Generated>,
    pub search: Option<Search>,
    pub unlogged: bool,
    /// It is proved that the rows do not depend on the order in which partitions are read.
    pub order_free: bool,
    /// Sources of which two events may clash in a row: they have an order to keep there. Only events of one source meet in a
    /// partition.
    pub ordered_sources: Vec<usize>,
}

impl Table {
    /// Whether a row can end for good.
    pub fn has_finals(&self) -> bool {
        self.handlers.iter().any(|handler| handler.existence == Existence::EndsForGood)
    }
}

/// When rows that have ended are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forget {
    /// The state column that says when.
    pub column: u16,
    /// Microseconds of event time after the row's end.
    pub after: i64,
}

/// A column that is worked out when a row is read.
#[derive(Debug, Clone)]
pub struct Generated {
    pub name: String,
    pub type_: types::ColumnType,
    pub value: GeneratedValue,
    pub hidden: bool,
    pub description: Option<String>,
}

#[derive(Debug, Clone)]
pub enum GeneratedValue {
    Expr(Expr),
    /// The names of the conditions that hold, in the order of the file.
    Flags(Vec<(String, Expr)>),
}

#[derive(Debug, Clone)]
pub struct Search {
    pub columns: Vec<String>,
    pub method: SearchMethod,
}

#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub shape: ColumnShape,
    pub not_null: bool,
    pub hidden: bool,
    /// A join or a rollup fills it, and no handler does.
    pub derived: bool,
    /// A join keeps what it last was: the end of a row does not clear it, unless it is for good.
    pub kept: bool,
    pub description: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Handler {
    /// Index into [`Plan::sources`].
    pub source: usize,
    /// Line of the projection file, for messages.
    pub line: usize,
    /// File, line and table, for messages.
    pub origin: Arc<str>,
    pub key: Vec<Expr>,
    pub when: Option<Expr>,
    pub require: Vec<(String, Expr)>,
    /// Outermost first.
    pub for_each: Vec<ForEach>,
    pub existence: Existence,
    /// The stored bits of presence that the handler changes.
    pub presence: Presence,
    /// What `latest` says: the parts of the version. Empty without.
    pub version: Vec<Expr>,
    pub effects: Vec<Effect>,
    /// Some expression reads the row, or the row may have expired: the handler runs when the row is loaded.
    pub on_row: bool,
}

/// What a handler does to its source's presence in the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    Leaves,
    Begins,
    Ends,
    EndsForGood,
}

impl Handler {
    /// `delete`: it clears columns rather than writes them.
    pub fn deletes(&self) -> bool {
        matches!(self.existence, Existence::Ends | Existence::EndsForGood)
    }
}

#[derive(Debug, Clone)]
pub struct ForEach {
    pub list: Expr,
    pub scope: ScopeId,
}

/// What a handler does to a column.
#[derive(Debug, Clone)]
pub struct Effect {
    /// Index into [`Table::columns`].
    pub column: u16,
    pub fold: Fold,
    pub expr: Expr,
    /// The fields of a record that is pushed; `expr` says nothing then.
    pub record: Vec<(String, Expr)>,
    pub line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    Set,
    SetIfPresent,
    /// As `Set`; change capture's placeholder for an unchanged value leaves the column.
    Spread,
    Add,
    Max,
    Min,
    Merge,
    Push,
    Remove,
}

impl Fold {
    /// Whether what was there before does not count.
    pub fn sets(self) -> bool {
        matches!(self, Fold::Set | Fold::SetIfPresent | Fold::Spread)
    }

    pub fn word(self) -> &'static str {
        match self {
            Fold::Set => "set",
            Fold::SetIfPresent => "set_if_present",
            Fold::Add => "add",
            Fold::Max => "max",
            Fold::Min => "min",
            Fold::Spread => "spread",
            Fold::Merge => "merge",
            Fold::Push => "push",
            Fold::Remove => "remove",
        }
    }
}
