//! Projection files exactly as written.
//!
//! The structs here are the single truth for what a file may contain: the parser, the JSON Schema for editors and the
//! reference in the docs are all made from them. What the words mean is [`crate::plan`]'s business.

pub mod de;
mod derived;
pub mod diagnostic;
mod errors;
pub mod shape;
mod traps;
pub mod upcaster;
pub mod yaml;

use std::ops::Range;
use std::sync::Arc;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use derived::{Aggregate, Join, OnDelete, Rollup};
use diagnostic::{Sink, SourceFile};
pub use errors::{Errors, OnError, OnUnhandled};
pub use shape::{ExprText, FromShort, Literal, Located, Many, Short};

pub type Name = Located<String>;
pub type Expr = Located<ExprText>;
pub type Named<T> = IndexMap<Name, T>;

/// A projection: tables, fed by handlers from sources.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Projection {
    /// The projection's name, and the name of its view unless `serve` says otherwise.
    pub projection: Name,
    /// What a reader finds in the view; becomes the comment of the SQL view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The file in `shared/`, by the name of its projection, whose tables and sources this one uses as its own. All that
    /// use one such file are built together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<Name>,
    /// Where events come from, by a name that the handlers use.
    pub sources: Named<Source>,
    /// Keyed entities, by name.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub tables: Named<Table>,
    /// The tables that readers see; the one named like the projection, if nothing is said.
    pub serve: Many<Name>,
    /// What becomes of events that cannot be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Errors>,
    /// Short form for a projection of one table: its key.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub key: Named<Expr>,
    /// Short form for a projection of one table: its columns.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub columns: Named<Short<Column>>,
    /// Short form for a projection of one table: its handlers.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub handlers: Named<Named<Many<Located<Handler>>>>,
    /// Short form for a projection of one table: its indexes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<Many<Name>>,
    /// Short form for a projection of one table: how full Postgres packs its pages, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fillfactor: Option<Located<u16>>,
    /// Short form for a projection of one table: a further condition for a row to be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show: Option<Expr>,
    /// Short form for a projection of one table: named conditions on the row.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub flags: Named<Expr>,
    /// Short form for a projection of one table: what readers search by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// Short form for a projection of one table: the column that says when a row expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire: Option<Name>,
    /// Short form for a projection of one table: without a write-ahead log.
    pub unlogged: bool,
    /// Short form for a projection of one table: for how long rows that have ended are remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forget_deleted_after: Option<Name>,
}

/// One or more Kafka topics of one format.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// The topic's name.
    pub topic: Option<Name>,
    /// A regular expression over whole topic names; its named captures are `topic.NAME` in expressions.
    pub topics: Option<Name>,
    /// How messages are encoded.
    pub format: Format,
    /// How record keys are read.
    pub key_format: KeyFormat,
    /// The event type, for formats that have none of their own: an expression over `data`, `headers`, `record` or `topic`.
    #[serde(rename = "type")]
    pub type_: Option<Expr>,
    /// Cut off the front of every event type.
    pub type_prefix: Option<String>,
    /// Where a new projection begins to read: `earliest`, `latest` or an RFC 3339 time.
    pub start: Option<Name>,
    /// Why it is all right that the topic's early history is gone.
    pub accept_truncated: Option<Name>,
    /// What the producer keeps in one partition, as an expression such as `data.order_id`; the record key, if nothing is
    /// said. A row whose key contains it sees its events in their order.
    pub ordered_by: Option<Expr>,
    /// Every element of this list of the `message` becomes an event; `data` is the element.
    pub split: Option<Expr>,
    /// Repeated events count once.
    pub dedupe: Option<Dedupe>,
}

/// How repeated events are told: within a partition, by their type and identity.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dedupe {
    /// Expressions that make the identity; CloudEvents' `source` and `id`, if nothing is said.
    pub by: Many<Expr>,
    /// For how long identities are kept, by the events' own time: an ISO 8601 duration such as P7D.
    pub window: Name,
    /// What becomes of an event older than the window, of which nobody knows whether it is a repeat: `park`.
    pub older: Option<Name>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// CloudEvents 1.0, structured or binary; the `content-type` header decides.
    #[default]
    CloudEvents,
    /// Plain JSON; `data` is the whole message and `type` says where the event type is.
    Json,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyFormat {
    #[default]
    String,
    Json,
    /// Lower-case hexadecimal text.
    Bytes,
    None,
}

/// A keyed entity.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Table {
    /// The key's columns, each with the expression that fills it.
    pub key: Named<Expr>,
    /// The columns: a type, or a map.
    pub columns: Named<Short<Column>>,
    /// What events do to rows: by source, then by event type (`A`, `A | B`, `Prefix*`, `"*"`).
    pub handlers: Named<Named<Many<Located<Handler>>>>,
    /// Lists of columns to index.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<Many<Name>>,
    /// How full Postgres packs the table's pages, in percent (10 to 100).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fillfactor: Option<Located<u16>>,
    /// Columns of other tables copied in.
    #[serde(skip_serializing_if = "Many::is_nothing")]
    pub join: Many<Join>,
    /// Columns aggregated from other tables' rows.
    #[serde(skip_serializing_if = "Many::is_nothing")]
    pub rollups: Many<Rollup>,
    /// A further condition, on `row.`, for a row to be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show: Option<Expr>,
    /// Named conditions on `row.`: the column `flags` lists the names of those that hold.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub flags: Named<Expr>,
    /// What readers search by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// The column that says when a row expires: from then on no reader sees it, and an event finds an empty row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire: Option<Name>,
    /// Without a write-ahead log: faster to write, and empty after a crash of Postgres, from when on it is built anew.
    pub unlogged: bool,
    /// For how long rows that have ended are remembered, by the events' own time: an ISO 8601 duration such as P90D.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forget_deleted_after: Option<Name>,
}

/// Indexes for searching text.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Search {
    /// Text columns.
    pub columns: Many<Name>,
    /// How they are searched.
    pub method: SearchMethod,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SearchMethod {
    /// Parts of words: makes `like` and `ilike` fast. Needs Postgres' extension pg_trgm.
    #[default]
    Trigram,
    /// Whole words, by Postgres' full-text search: the view has a column `search`.
    Fts,
}

/// A column: its type, or a map of its type and more.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Column {
    /// A Postgres scalar type, an array of one (`text[]`), `enum(a, b, c)`, or an existing enum by name.
    #[serde(rename = "type")]
    pub type_: Name,
    /// The value of the column while nothing was said about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Located<Literal>>,
    /// The column of a visible row is never NULL.
    pub not_null: bool,
    /// State that readers do not see.
    pub hidden: bool,
    /// Becomes the column's comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// An expression over the row's other columns, `row.NAME`, worked out when the row is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated: Option<Expr>,
}

impl FromShort for Column {
    fn from_short(text: Name) -> Column {
        Column { type_: text, ..Column::default() }
    }
}

/// What one event type does to a row (or, with `for_each`, to several).
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Handler {
    /// Key expressions where they differ from the table's.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub key: Named<Expr>,
    /// When false, the event passes over this row, by intention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<Expr>,
    /// Named conditions; when one is false the event cannot be applied.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub require: Named<Expr>,
    /// One row for each element of a list: the name of the element, and the list. A list of such maps nests.
    #[serde(skip_serializing_if = "Many::is_nothing")]
    pub for_each: Many<Named<Expr>>,
    /// Columns and the expressions they are set to.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub set: Named<Expr>,
    /// Columns and the literals they are set to.
    #[serde(rename = "const", skip_serializing_if = "IndexMap::is_empty")]
    pub const_: Named<Located<Literal>>,
    /// Like `set`, but a missing field leaves the column as it is; an explicit null clears it.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub set_if_present: Named<Expr>,
    /// Columns and what is added to them.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub add: Named<Expr>,
    /// Columns that keep the greatest value seen.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub max: Named<Expr>,
    /// Columns that keep the least value seen.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub min: Named<Expr>,
    /// Brings the row into being.
    pub create: bool,
    /// `true` ends the row and clears its source's columns; `final` ends it for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete: Option<Name>,
    /// Last-writer-wins: each column that the handler writes keeps the value of the greatest version. Several expressions
    /// make a tuple.
    #[serde(skip_serializing_if = "Many::is_nothing")]
    pub latest: Many<Expr>,
    /// Columns and the records that are put into their arrays.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub push: Named<Push>,
    /// Columns and the ids of the records that are taken out of their arrays.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub remove: Named<Expr>,
    /// Columns and the objects that are merged into them, as RFC 7396 has it: null takes a member away.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub merge: Named<Expr>,
    /// Spreads an object onto the columns of the same names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    /// Why nothing is done with events of this type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore: Option<Name>,
}

/// A record for an array.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Push {
    /// The field that tells records apart: of two with one id, the later stands.
    pub id: Name,
    /// The record's fields.
    pub of: Named<Expr>,
    /// The fields that sort the array, the least first; the id, if nothing is said.
    #[serde(skip_serializing_if = "Many::is_nothing")]
    pub by: Many<Name>,
    /// Keep only this many, the greatest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Located<u32>>,
}

/// An object whose members fill the columns of the same names; a member that is absent is NULL.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Spread {
    /// The object, for example `data.after`.
    pub from: Expr,
    /// Members that fill a column of another name.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub rename: Named<Name>,
    /// Columns that are left alone.
    #[serde(skip_serializing_if = "Many::is_nothing")]
    pub except: Many<Name>,
}

/// Reads a value of one of this module's types from a file; all that is wrong goes to the sink.
pub fn read<T: for<'de> Deserialize<'de>>(sink: &Sink) -> Option<T> {
    read_part(sink, 0..sink.file.text.len())
}

/// The same from one of several files that are compiled as one: those bytes of the sink's text.
pub fn read_part<T: for<'de> Deserialize<'de>>(sink: &Sink, part: Range<usize>) -> Option<T> {
    let root = yaml::parse(sink, part)?;
    match T::deserialize(de::Recovering { node: &root, sink }) {
        Ok(value) => Some(value),
        Err(error) => {
            sink.error("wrong-shape", &root.span, error.to_string(), None);
            None
        }
    }
}

/// The files in `upcasters` or `shared` of a folder of projections, or of the folder of a projection file.
///
/// # Errors
/// The path and the reason, when the folder or a file in it cannot be read.
pub fn files_in(projections: &std::path::Path, folder: &str) -> Result<Vec<Arc<SourceFile>>, FileError> {
    let all = if projections.is_dir() { projections } else { projections.parent().unwrap_or(projections) };
    let folder = all.join(folder);
    if folder.is_dir() { projection_files(&folder) } else { Ok(Vec::new()) }
}

/// The projection files of a folder, in the order of their names, each with the SQL file beside it. Test files are left
/// out.
///
/// # Errors
/// The path and the reason, when the folder or a file in it cannot be read.
pub fn projection_files(path: &std::path::Path) -> Result<Vec<Arc<SourceFile>>, FileError> {
    let unreadable = |path: &std::path::Path| {
        let path = path.display().to_string();
        move |source| FileError { path, source }
    };
    let mut paths = Vec::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(unreadable(path))? {
            let path = entry.map_err(unreadable(path))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let yaml = name.ends_with(".yaml") || name.ends_with(".yml");
            if yaml && !name.ends_with(".test.yaml") && !name.ends_with(".test.yml") {
                paths.push(path);
            }
        }
        paths.sort();
    } else {
        paths.push(path.to_path_buf());
    }
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
            let beside = path.with_extension("sql");
            let sql = match beside.exists() {
                true => Some(std::fs::read_to_string(&beside).map_err(unreadable(&beside))?),
                false => None,
            };
            Ok(SourceFile::with_sql(path.display().to_string(), text, sql))
        })
        .collect()
}

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}")]
pub struct FileError {
    path: String,
    source: std::io::Error,
}

/// The JSON Schema of projection files, for editors.
pub fn json_schema() -> String {
    printed(&schemars::schema_for!(Projection))
}

/// The JSON Schema of upcaster files.
pub fn upcaster_schema() -> String {
    printed(&schemars::schema_for!(upcaster::Upcaster))
}

fn printed(schema: &schemars::Schema) -> String {
    let mut text = serde_json::to_string_pretty(schema).expect("a schema is always JSON");
    text.push('\n');
    text
}
