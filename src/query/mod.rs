//! PostgREST's grammar for reading, as a tree: <https://docs.postgrest.org/en/v13/references/api/tables_views.html>,
//! <https://docs.postgrest.org/en/v13/references/api/resource_embedding.html> and
//! <https://docs.postgrest.org/en/v13/references/api/aggregate_functions.html>.
//!
//! The parser knows no SQL and no relations; what it cannot read it refuses with PostgREST's own code.

mod field;
mod filter;
mod order;
mod parse;
mod reader;
mod select;
#[cfg(test)]
mod tests;

/// A read of one relation, or of one that is embedded in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// In the order of the answer. Empty only in an embed that is not shown, `clients()`.
    pub select: Vec<Item>,
    /// All have to hold.
    pub filters: Vec<Condition>,
    pub order: Vec<Order>,
    pub limit: Option<u64>,
    pub offset: u64,
}

/// A part of what is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// `*`
    All,
    Field(Selected),
    Embed(Embed),
}

/// `alias:field::cast`, `alias:field::cast.sum()::cast`, `count()`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selected {
    /// `None`: `count()` of rows.
    pub field: Option<Field>,
    pub alias: Option<String>,
    /// Of the field, before an aggregate sees it.
    pub cast: Option<String>,
    pub aggregate: Option<Aggregate>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// Of what comes out.
    pub cast: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregateFunction {
    Count,
    Sum,
    Avg,
    Max,
    Min,
}

impl AggregateFunction {
    /// In the grammar, and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            AggregateFunction::Count => "count",
            AggregateFunction::Sum => "sum",
            AggregateFunction::Avg => "avg",
            AggregateFunction::Max => "max",
            AggregateFunction::Min => "min",
        }
    }
}

/// `alias:target!hint!inner(…)`, `...target(…)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Embed {
    /// A relation's name, or a column's that refers to one.
    pub target: String,
    pub alias: Option<String>,
    /// The constraint, or the column, that the relation is found by.
    pub hint: Option<String>,
    /// `!inner`: rows without one are left out.
    pub inner: bool,
    /// `...`: its columns become those of the row around it.
    pub spread: bool,
    pub query: Query,
}

impl Embed {
    /// What filters and orders of it call it.
    pub fn name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.target)
    }
}

/// A column, or something within a column of JSON or of a composite type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Field {
    pub column: String,
    /// `->a`, `->>0`.
    pub path: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub key: Key,
    /// `->>`
    pub as_text: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    Name(String),
    Index(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Test(Field, Test),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Against one operand.
    Compare(Operator, String),
    /// `op(any).{a,b}`, `op(all).{a,b}`; `None` is a `NULL` without quotes.
    Quantified(Operator, Quantifier, Vec<Option<String>>),
    /// None of them holds for the empty list, `in.()`.
    In(Vec<String>),
    Is(Is),
    Search(Search),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantifier {
    Any,
    All,
}

/// Operators that take one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `eq`
    Equal,
    /// `neq`
    NotEqual,
    /// `gt`
    Greater,
    /// `gte`
    GreaterOrEqual,
    /// `lt`
    Less,
    /// `lte`
    LessOrEqual,
    /// `like`; `*` stands for `%`, and is replaced by it in the operand.
    Like,
    /// `ilike`; the same.
    ILike,
    /// `match`: a regular expression
    Match,
    /// `imatch`
    IMatch,
    /// `isdistinct`
    IsDistinct,
    /// `cs`
    Contains,
    /// `cd`
    ContainedIn,
    /// `ov`
    Overlaps,
    /// `sl`
    StrictlyLeft,
    /// `sr`
    StrictlyRight,
    /// `nxr`
    NotRightOf,
    /// `nxl`
    NotLeftOf,
    /// `adj`
    Adjacent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    Null,
    NotNull,
    True,
    False,
    Unknown,
}

/// `fts(english).words` and its kin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    pub kind: SearchKind,
    pub language: Option<String>,
    pub words: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchKind {
    /// `fts`: `to_tsquery`
    Query,
    /// `plfts`: `plainto_tsquery`
    Plain,
    /// `phfts`: `phraseto_tsquery`
    Phrase,
    /// `wfts`: `websearch_to_tsquery`
    Web,
}

/// `field.desc.nullslast`, `embedded(field).asc`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// The embedded relation that the field is of; there is at most one row of it.
    pub of: Option<String>,
    pub field: Field,
    pub descending: bool,
    pub nulls_first: Option<bool>,
}

/// A query string that cannot be read: what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unreadable {
    /// Mostly `PGRST100`; what only Postgres would have refused has its SQLSTATE.
    pub code: &'static str,
    pub message: String,
    pub hint: String,
}

impl Unreadable {
    /// The HTTP status that PostgREST answers with.
    pub fn status(&self) -> u16 {
        if self.code == "PGRST103" { 416 } else { 400 }
    }
}
