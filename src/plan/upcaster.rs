//! Upcasters as compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Topics;
use super::expr::Expr;
use crate::json_paths::Paths;
use crate::spec::diagnostic::SourceFile;

/// Brings events of some types up to date.
#[derive(Debug, Clone)]
pub struct Upcaster {
    pub name: String,
    /// Where it was read from, for messages.
    pub path: String,
    pub file: Arc<SourceFile>,
    pub topics: Topics,
    /// Whole event types, or what they begin with.
    pub types: Vec<TypePattern>,
    /// The type afterwards.
    pub as_: Option<String>,
    pub version: Option<Expr>,
    /// The paths that `version` reads, by scope.
    pub scopes: Vec<Paths>,
    /// Digest of all but the steps, hexadecimal.
    pub digest: String,
    /// By the version that they start from; no version is left out.
    pub steps: BTreeMap<i64, Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypePattern {
    Whole(String),
    Prefix(String),
}

/// From one version to the next.
#[derive(Debug, Clone)]
pub struct Step {
    /// Line of the file, for messages.
    pub line: usize,
    /// Digest of the step as written, hexadecimal.
    pub digest: String,
    pub scopes: Vec<Paths>,
    pub moves: Vec<(Path, Path)>,
    pub sets: Vec<(Path, Expr)>,
    /// JSON texts.
    pub defaults: Vec<(Path, String)>,
    pub removes: Vec<Path>,
}

/// A field of the data: the names of its members from the outermost in.
pub type Path = Vec<String>;

impl Upcaster {
    pub fn takes(&self, topic: &str, type_: &str) -> bool {
        let matches = |pattern: &TypePattern| match pattern {
            TypePattern::Whole(name) => name == type_,
            TypePattern::Prefix(prefix) => type_.starts_with(prefix.as_str()),
        };
        self.types.iter().any(matches) && self.topics.matches(topic)
    }

    /// The version that its steps lead to.
    pub fn newest(&self) -> i64 {
        self.steps.keys().next_back().map_or(1, |last| last + 1)
    }
}
