//! Every stable code, with what it means in a sentence. The page of a code is docs/errors/CODE.md.
//!
//! Scripts and alerts go by codes, so none is ever given another meaning. A test holds this list to the places that
//! give codes, and to the pages.

use crate::error_kind::ErrorKind;

/// Where a code is met. Some are met in several places; this is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `projector validate` refuses a file.
    Error,
    /// `projector validate` has a doubt about a file, and lets it pass.
    Warning,
    /// A golden test file is wrong.
    Test,
    /// An event cannot be applied.
    Event,
    /// A projection stands still for another reason than an event.
    Halt,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Error => "error",
            Kind::Warning => "warning",
            Kind::Test => "test",
            Kind::Event => "event",
            Kind::Halt => "halt",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    pub code: &'static str,
    pub kind: Kind,
    /// What it is by what is to be done about it, where an event or a projection meets it.
    pub error: Option<ErrorKind>,
    /// One sentence, in Markdown; the first of the page.
    pub summary: &'static str,
}

/// Sorted by code.
pub const CODES: &[Code] = &[
    error("bad-expire", "`expire` names a column that is not an instant."),
    error("bad-expression", "A text is no expression, or uses a part of CEL that has no meaning here."),
    error("bad-fillfactor", "A `fillfactor` is not between 10 and 100 percent."),
    error("bad-index", "An index names a column that is not stored."),
    error("bad-key", "A key column has a type that cannot be a key, or a word that a key column cannot have."),
    error("bad-name", "A name has characters that it cannot have, is too long, or is kept for the projector itself."),
    error("bad-pattern", "The name of a handler is not a pattern of event types."),
    test("bad-query", "A query in a test file cannot be read."),
    error("bad-search", "`search` names a column that cannot be searched."),
    error("bad-start", "`start` is no place to begin to read at."),
    error("bad-steps", "The steps of an upcaster leave out a version, or name a field that cannot be one."),
    error("bad-topic", "A source has no topic, two ways to name it, or one that cannot be a topic's name."),
    error("bad-type", "A column has no type, or one that is not supported."),
    event("bad-version", ErrorKind::Invalid, "What `latest` says of an event cannot be a version."),
    error("bad-window", "A `dedupe` does not say for how long repeats may come."),
    error("bare-division", "A division stands outside of `round`."),
    warning(
        "dedupe-not-needed",
        "A source has a `dedupe`, and every handler of it stands repeated events without one.",
    ),
    error("delete-and-set", "A handler ends a row and does something else with it."),
    error("delete-without-latest", "A column is under `latest`, and a `delete` that clears it is not."),
    error("derived-cycle", "A column that a join or a rollup fills follows from itself."),
    error("duplicate-column", "A column is named twice where it can be only once."),
    error("duplicate-key", "A map of the file has the same key twice."),
    error("duplicate-type", "An event type has handlers under two keys of the same table and source."),
    test("empty-case", "A test case says nothing of what comes of its events."),
    halt("gap", ErrorKind::History, "Events were deleted from the topic before they were applied."),
    error("generated-cycle", "A generated column is worked out from itself, directly or by way of others."),
    error("generated-set", "A handler changes a column that is generated from others."),
    halt("generation-gone", ErrorKind::Setup, "The rows that a daemon was writing were dropped under it."),
    error("ignore-and-more", "An event type is ignored and handled at once."),
    error("join-type", "What a join or a rollup refers by, or fills, is of another type than what it meets."),
    error("key-set", "A handler changes a column of the key."),
    error("latest-with", "A handler has `latest` beside something that no version can order."),
    error("limited-remove", "A column keeps only its greatest records, and something other than `push` changes it."),
    event("missing-field", ErrorKind::Invalid, "An event does not have a field that an expression reads."),
    error("missing-name", "Something that needs a name has none."),
    error("mixed-folds", "A column is folded in two ways that have no meaning together."),
    error(
        "mixed-latest",
        "A column is under `latest` in one handler and not in another, or a `delete` is and its columns are not.",
    ),
    error("mixed-push", "Two handlers push to a column, and say different things about its records."),
    error("mixed-versions", "The versions of one column are instants in one handler and something else in another."),
    error("name-taken", "Two files define a projection of one name, or serve a view of one name."),
    error("no-handler", "A table has no handlers, so that no event would ever reach it."),
    error("no-identity", "A `dedupe` does not say what makes an event's identity, and the format has none."),
    error("no-key", "A table has no key, or a key column has no expression that fills it."),
    error("no-reason", "Something that needs a reason in words has none."),
    error("no-record-id", "Records are kept in an array, and nothing says which field tells them apart."),
    error("no-source", "A projection has no sources."),
    error("no-table", "A projection has no table."),
    error("no-type", "A source of plain JSON does not say where the event type is."),
    event(
        "no-upcaster",
        ErrorKind::Undecodable,
        "An event has a version that nobody has said how to bring up to date.",
    ),
    error(
        "not-in-sql",
        "What is worked out when a row is read uses a function that Postgres cannot work out with the same meaning.",
    ),
    event("not-null", ErrorKind::Invalid, "An event would set a column to NULL that is `not_null`."),
    error("nothing-served", "No table of the projection is one that readers see."),
    error("nothing-to-forget", "A table forgets ended rows, and nothing ends them."),
    event("null-key", ErrorKind::Invalid, "An expression of the key is NULL, so that the event names no row."),
    warning("null-sum", "A sum is NULL where a field is missing, and nothing is added."),
    halt("offset-beyond-end", ErrorKind::History, "A checkpoint is past the end of its partition."),
    event(
        "older-than-window",
        ErrorKind::TooLate,
        "An event is older than identities are kept for, so that nobody knows whether it is a repeat.",
    ),
    warning("order-dependent", "The rows of a table depend on the order in which partitions happen to be read."),
    event("overflow", ErrorKind::Invalid, "A sum leaves its column's type, or cannot be held exactly."),
    event("poison", ErrorKind::Poison, "An event brings the process down again and again, or runs out of time."),
    halt("postgres", ErrorKind::Setup, "Postgres refuses something for a reason that does not pass by itself."),
    error("push-of-row", "A field of a record that is pushed reads the row."),
    error("reads-derived", "A handler reads a column that follows from other rows."),
    warning("record-time", "The time of Kafka's record decides a key or a version."),
    event("refused-by-postgres", ErrorKind::Refused, "Postgres refuses a row that an event makes."),
    event("requirement", ErrorKind::Requirement, "A condition under `require` does not hold."),
    halt("settings", ErrorKind::Setup, "A lane cannot make its Kafka client from the settings."),
    error("shared-errors", "A projection that uses a shared file says what becomes of events that cannot be applied."),
    error("shared-sum", "Several sources add to one column, and one of them deletes."),
    error("too-many", "A table has more than 400 columns, or is fed by more than 30 sources."),
    halt("too-many-parked", ErrorKind::Setup, "More events are parked, or have failed, than the projection allows."),
    halt("topic-made-anew", ErrorKind::History, "A topic of the same name is not the one that was read before."),
    halt("truncated-history", ErrorKind::History, "A view would begin where earlier events are missing."),
    error("two-elements", "A `for_each` names two lists at once."),
    error("two-forms", "A projection has `tables`, and at its top level the key, columns or handlers of one more."),
    warning("two-owners", "Two sources set the same column."),
    event("undecodable", ErrorKind::Undecodable, "A message is no event of its source's format."),
    warning("unfilled-column", "No handler fills a column, so that it is at its default in every row."),
    error(
        "unfilled-not-null",
        "A column is `not_null`, and a row can come into being, or stay, without a value for it.",
    ),
    event(
        "unhandled-type",
        ErrorKind::Unhandled,
        "No table handles the event's type, and the projection wants it told.",
    ),
    error("unknown-column", "A name is not among the columns it should be one of."),
    error("unknown-function", "An expression calls a function that does not exist."),
    error("unknown-key", "A word of the file means nothing where it stands."),
    error("unknown-name", "An expression reads a name that it cannot read."),
    error("unknown-shared", "A projection uses a shared file that does not exist."),
    error("unknown-source", "Handlers stand under a source that does not exist."),
    error("unknown-table", "A table is named that does not exist."),
    error("unknown-word", "A word is none of those that can stand there."),
    error("unset-by", "Nothing sets the column by which a row refers to another."),
    warning("unused-shared", "No projection uses a shared file."),
    warning("unused-source", "No table has handlers for a source."),
    event("upcast-failed", ErrorKind::Undecodable, "A step of an upcaster cannot bring an event to the next version."),
    error("useless-type", "A source of CloudEvents says where the event type is."),
    error("wrong-aggregate", "A rollup aggregates in a way that does not fit, or in none."),
    error(
        "wrong-arguments",
        "A function has too few or too many arguments, or a literal argument that it can never take.",
    ),
    error("wrong-fold", "A column's type does not go with what a handler does to it."),
    error("wrong-generated", "A generated column has a type or a word that it cannot have."),
    error("wrong-kind", "An expression gives a kind of value that can never be used where it stands."),
    error(
        "wrong-shape",
        "A value of the file is of another shape than is needed there: a map, a list, a number, true or false.",
    ),
    error_or_event(
        "wrong-value",
        ErrorKind::Invalid,
        "A value does not fit its column, or has no meaning where it stands.",
    ),
    error("yaml", "The file is not YAML, is empty, or is too deep or too large to be a definition."),
    error("yaml-trap", "YAML takes a part of an expression for itself, and the rest arrives as something else."),
];

const fn error(code: &'static str, summary: &'static str) -> Code {
    Code { code, kind: Kind::Error, error: None, summary }
}

/// Met in files, and by events.
const fn error_or_event(code: &'static str, error: ErrorKind, summary: &'static str) -> Code {
    Code { code, kind: Kind::Error, error: Some(error), summary }
}

const fn warning(code: &'static str, summary: &'static str) -> Code {
    Code { code, kind: Kind::Warning, error: None, summary }
}

const fn test(code: &'static str, summary: &'static str) -> Code {
    Code { code, kind: Kind::Test, error: None, summary }
}

const fn event(code: &'static str, error: ErrorKind, summary: &'static str) -> Code {
    Code { code, kind: Kind::Event, error: Some(error), summary }
}

const fn halt(code: &'static str, error: ErrorKind, summary: &'static str) -> Code {
    Code { code, kind: Kind::Halt, error: Some(error), summary }
}
