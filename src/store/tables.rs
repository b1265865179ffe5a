//! The tables and views of a generation: names and DDL.

use super::marks::create_marks;
use super::row_sql::row_sql;
use super::sql::{ident, literal};
use crate::patch::{EVER, FINAL};
use crate::plan::expr::{Expr, RowRef};
use crate::plan::types::{ColumnType, Scalar};
use crate::plan::{Column, GeneratedValue, Plan, Table};
use crate::spec::SearchMethod;

/// Which sources are present in a row, one bit each; only in tables whose rows begin or end.
pub const PRESENCE: &str = "projector_present";

/// Identities of events that were counted, for sources with `dedupe`.
pub const SEEN: &str = "projector_seen";

/// An unlogged table of one row: empty when Postgres has emptied the unlogged tables.
pub const WITNESS: &str = "projector_witness";

/// The column of a version slot.
pub fn version_column(slot: u16) -> String {
    format!("projector_version_{slot}")
}

/// The schema that holds a generation's tables.
pub fn schema_name(projection: &str, number: i32) -> String {
    format!("{projection}@{number}")
}

/// A table's qualified name.
pub fn table_name(schema: &str, table: &Table) -> String {
    format!("{}.{}", ident(schema), ident(&table.name))
}

/// The SQL type of a column in the schema of its generation.
pub fn sql_type(schema: &str, table: &str, column: &Column) -> String {
    let type_ = &column.shape.type_;
    let scalar = match &type_.scalar {
        Scalar::Enum(_) => enum_name(schema, table, &column.name),
        Scalar::ExistingEnum(name) => name.split('.').map(ident).collect::<Vec<_>>().join("."),
        scalar => ColumnType::scalar(scalar.clone()).to_string(),
    };
    format!("{scalar}{}", if type_.array { "[]" } else { "" })
}

fn enum_name(schema: &str, table: &str, column: &str) -> String {
    format!("{}.{}", ident(schema), ident(&format!("{table}.{column}")))
}

/// The statements that make a generation's schema and tables, but for the [`late_indexes`].
pub fn create_statements(plan: &Plan, schema: &str) -> Vec<String> {
    // Readers of a view may have to name its types, and call what says whether something of a row is parked; that opens
    // no table.
    let mut statements =
        vec![format!("CREATE SCHEMA {}", ident(schema)), format!("GRANT USAGE ON SCHEMA {} TO PUBLIC", ident(schema))];
    let columns = || plan.tables.iter().flat_map(|t| t.key.iter().chain(&t.columns).map(move |c| (t, c)));
    if columns().any(|(_, column)| column.shape.type_.scalar == Scalar::Citext) {
        statements.push("CREATE EXTENSION IF NOT EXISTS citext SCHEMA public".into());
    }
    for (table, column) in columns() {
        if let Scalar::Enum(labels) = &column.shape.type_.scalar {
            let labels: Vec<String> = labels.iter().map(|label| literal(label)).collect();
            let name = enum_name(schema, &table.name, &column.name);
            statements.push(format!("CREATE TYPE {name} AS ENUM ({})", labels.join(", ")));
        }
    }
    if plan.sources.iter().any(|source| source.dedupe.is_some()) {
        let name = format!("{}.{}", ident(schema), ident(SEEN));
        statements.push(format!(
            "CREATE TABLE {name} (topic text COLLATE \"C\" NOT NULL, partition integer NOT NULL, identity bytea NOT NULL, \
             time bigint NOT NULL, horizon bigint NOT NULL, PRIMARY KEY (topic, partition, identity))"
        ));
        statements.push(format!("CREATE INDEX ON {name} (topic, partition, time)"));
    }
    if plan.tables.iter().any(|table| table.unlogged) {
        let name = format!("{}.{}", ident(schema), ident(WITNESS));
        statements.push(format!("CREATE UNLOGGED TABLE {name} AS SELECT true AS here"));
    }
    let search = |method| plan.tables.iter().filter_map(|t| t.search.as_ref()).any(|search| search.method == method);
    if search(SearchMethod::Trigram) {
        statements.push("CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public".into());
    }
    if !plan.edges.is_empty() {
        statements.push(create_marks(schema));
    }
    for (at, table) in plan.tables.iter().enumerate() {
        statements.push(create_table(schema, table));
        statements.extend(followed(plan, at).iter().map(|index| create_index(schema, table, index)));
    }
    statements
}

/// The statements that make the indexes which nothing needs while a generation is built. Made of all rows at once, an index
/// costs a fraction of what it costs to keep it while they come.
pub fn late_indexes(plan: &Plan, schema: &str) -> Vec<String> {
    let mut statements = Vec::new();
    for (at, table) in plan.tables.iter().enumerate() {
        statements.extend(search_indexes(schema, table));
        for swept_by in table.expire.into_iter().chain(table.forget.map(|forget| forget.column)) {
            statements.push(create_index(schema, table, &[table.columns[usize::from(swept_by)].name.clone()]));
        }
        let early = followed(plan, at);
        let late = indexes(plan, at).into_iter().filter(|index| !early.contains(index));
        statements.extend(late.map(|index| create_index(schema, table, &index)));
    }
    statements
}

/// The columns of the indexes by which rows are found that refer to another, those that the definition names among them.
fn followed(plan: &Plan, at: usize) -> Vec<Vec<String>> {
    let needed = needed_to_follow(plan, at);
    indexes(plan, at).into_iter().filter(|index| needed.iter().any(|columns| index.starts_with(columns))).collect()
}

/// The columns of a table's indexes, those included that joins and rollups need.
fn indexes(plan: &Plan, at: usize) -> Vec<Vec<String>> {
    plan.tables[at].indexes.iter().cloned().chain(references(plan, at)).collect()
}

fn create_index(schema: &str, table: &Table, index: &[String]) -> String {
    let columns: Vec<String> = index.iter().map(|column| ident(column)).collect();
    format!("CREATE INDEX ON {} ({})", table_name(schema, table), columns.join(", "))
}

/// The statements that make a generation's indexes those of another plan of the same tables.
pub fn index_changes(old: &Plan, new: &Plan, schema: &str) -> Vec<String> {
    let mut statements = Vec::new();
    for (at, table) in new.tables.iter().enumerate() {
        let Some(before) = old.tables.iter().position(|known| known.name == table.name) else { continue };
        let (before, after) = (indexes(old, before), indexes(new, at));
        for index in after.iter().filter(|index| !before.contains(index)) {
            statements.push(create_index(schema, table, index));
        }
        for index in before.iter().filter(|index| !after.contains(index)) {
            statements.push(drop_index(schema, table, index));
        }
    }
    statements
}

/// Indexes have the names that Postgres gave them.
fn drop_index(schema: &str, table: &Table, index: &[String]) -> String {
    let columns: Vec<String> = index.iter().map(|column| literal(column)).collect();
    format!(
        "DO $do$ DECLARE found regclass; BEGIN
             SELECT i.indexrelid::regclass INTO found FROM pg_index i
             WHERE i.indrelid = {}::regclass AND NOT i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
               AND ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS k(number, place)
                         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number ORDER BY k.place) = ARRAY[{}]
             LIMIT 1;
             IF found IS NOT NULL THEN EXECUTE format('DROP INDEX %s', found); END IF;
         END $do$",
        literal(&table_name(schema, table)),
        columns.join(", ")
    )
}

fn create_table(schema: &str, table: &Table) -> String {
    let mut lines: Vec<String> = Vec::new();
    for column in &table.key {
        lines.push(format!("{} NOT NULL", column_definition(schema, table, column)));
    }
    for column in &table.columns {
        let default = match column.shape.default.to_sql_text() {
            Some(default) => format!(" DEFAULT {}::{}", literal(&default), sql_type(schema, &table.name, column)),
            None => String::new(),
        };
        lines.push(format!("{}{default}", column_definition(schema, table, column)));
    }
    if table.presence {
        lines.push(format!("{PRESENCE} integer NOT NULL DEFAULT 0"));
    }
    for slot in 0..table.version_slots {
        lines.push(format!("{} bytea", ident(&version_column(slot))));
    }
    let key: Vec<String> = table.key.iter().map(|column| ident(&column.name)).collect();
    lines.push(format!("PRIMARY KEY ({})", key.join(", ")));
    let storage = table.fillfactor.map(|percent| format!(" WITH (fillfactor = {percent})")).unwrap_or_default();
    let unlogged = if table.unlogged { "UNLOGGED " } else { "" };
    format!("CREATE {unlogged}TABLE {} ({}){storage}", table_name(schema, table), lines.join(", "))
}

fn column_definition(schema: &str, table: &Table, column: &Column) -> String {
    let type_ = &column.shape.type_;
    let collation = if type_.scalar == Scalar::Text { " COLLATE \"C\"" } else { "" };
    format!("{} {}{collation}", ident(&column.name), sql_type(schema, &table.name, column))
}

fn search_indexes(schema: &str, table: &Table) -> Vec<String> {
    let Some(search) = &table.search else { return Vec::new() };
    let name = table_name(schema, table);
    match search.method {
        SearchMethod::Trigram => search
            .columns
            .iter()
            .map(|column| format!("CREATE INDEX ON {name} USING gin (({}::text) public.gin_trgm_ops)", ident(column)))
            .collect(),
        SearchMethod::Fts => vec![format!("CREATE INDEX ON {name} USING gin ({})", search_document(&search.columns))],
    }
}

/// The words of a row. Index and view spell it alike, so that the one serves the other.
fn search_document(columns: &[String]) -> String {
    let words: Vec<String> = columns.iter().map(|column| format!("coalesce({}::text, '')", ident(column))).collect();
    format!("to_tsvector('simple'::regconfig, {})", words.join(" || ' ' || "))
}

/// The conditions under which a row is there for readers, joins and rollups; or was, once.
pub(super) fn exists(table: &Table, prefix: &str, once: bool) -> Vec<String> {
    let column = |at: u16| format!("{prefix}{}", ident(&table.columns[usize::from(at)].name));
    if let Some(children) = table.children {
        return vec![format!("{} > 0", column(children))];
    }
    if !table.presence {
        return Vec::new();
    }
    let (bits, known) = if once { ((EVER - 1) | EVER, "NOT NULL") } else { (EVER - 1, "TRUE") };
    let alive = table.alive.iter().map(|at| format!("{} IS {known}", column(*at)));
    let present: Vec<String> = std::iter::once(format!("{prefix}{PRESENCE} & {bits} <> 0")).chain(alive).collect();
    let mut conditions = vec![format!("({})", present.join(" OR "))];
    if table.has_finals() && !once {
        conditions.push(format!("{prefix}{PRESENCE} & {FINAL} = 0"));
    }
    conditions
}

/// The columns of indexes that joins and rollups need and the definition does not name.
fn references(plan: &Plan, at: usize) -> Vec<Vec<String>> {
    let named = &plan.tables[at].indexes;
    let mut needed = needed_to_follow(plan, at);
    needed.retain(|columns| !named.iter().any(|index| index.starts_with(columns)));
    needed
}

/// The columns by which rows are found that refer to another, and their keys.
fn needed_to_follow(plan: &Plan, at: usize) -> Vec<Vec<String>> {
    let table = &plan.tables[at];
    let name = |by: &RowRef| table.column(*by).name.clone();
    let key: Vec<String> = table.key.iter().map(|column| column.name.clone()).collect();
    let joins = table.joins.iter().map(|join| &join.by);
    let rollups = plan.edges_from(at).filter_map(|(_, edge)| plan.rollup(edge)).map(|rollup| &rollup.by);
    let mut found: Vec<Vec<String>> = Vec::new();
    for by in joins.chain(rollups) {
        let mut columns: Vec<String> = by.iter().map(name).collect();
        if key.starts_with(&columns) {
            continue;
        }
        let rest: Vec<String> = key.iter().filter(|part| !columns.contains(part)).cloned().collect();
        columns.extend(rest);
        if !found.contains(&columns) {
            found.push(columns);
        }
    }
    found
}

/// The condition under which readers see a row.
fn visible(table: &Table) -> String {
    let mut conditions = exists(table, "", false);
    if let Some(expire) = table.expire {
        let column = ident(&table.columns[usize::from(expire)].name);
        conditions.push(format!("({column} IS NULL OR {column} > now())"));
    }
    if let Some(show) = &table.show {
        conditions.push(row_sql(show, table));
    }
    conditions.join(" AND ")
}

/// The statements that make a served table visible to readers.
pub fn view_statements(plan: &Plan, table: &Table, schema: &str, served_schema: &str) -> Vec<String> {
    let view = format!("{}.{}", ident(served_schema), ident(&table.name));
    let create = format!("CREATE VIEW {view} AS {}", view_query(table, schema));
    std::iter::once(create).chain(view_comments(plan, table, served_schema)).collect()
}

/// What readers see of a table.
pub fn view_query(table: &Table, schema: &str) -> String {
    let stored = table.key.iter().chain(table.columns.iter().filter(|c| !c.hidden));
    let mut selected: Vec<String> = stored.map(|column| ident(&column.name)).collect();
    for column in table.generated.iter().filter(|column| !column.hidden) {
        let value = match &column.value {
            GeneratedValue::Expr(expr) => format!("({})::{}", row_sql(expr, table), column.type_),
            GeneratedValue::Flags(flags) => {
                let flag = |(name, expr): &(String, Expr)| {
                    format!("CASE WHEN {} THEN {} END", row_sql(expr, table), literal(name))
                };
                let flags: Vec<String> = flags.iter().map(flag).collect();
                format!("array_remove(ARRAY[{}]::text[], NULL)", flags.join(", "))
            }
        };
        selected.push(format!("{value} AS {}", ident(&column.name)));
    }
    if let Some(search) = table.search.as_ref().filter(|search| search.method == SearchMethod::Fts) {
        selected.push(format!("{} AS search", search_document(&search.columns)));
    }
    let visible = visible(table);
    let condition = if visible.is_empty() { visible } else { format!(" WHERE {visible}") };
    format!("SELECT {} FROM {}{condition}", selected.join(", "), table_name(schema, table))
}

/// What the definition says of a view and its columns, as comments.
pub fn view_comments(plan: &Plan, table: &Table, served_schema: &str) -> Vec<String> {
    let view = format!("{}.{}", ident(served_schema), ident(&table.name));
    let description = plan.descriptions.get(&table.name).into_iter();
    let of_view = description.map(|text| format!("COMMENT ON VIEW {view} IS {}", literal(text)));
    let stored = table.key.iter().chain(table.columns.iter().filter(|c| !c.hidden));
    let generated = table.generated.iter().filter(|column| !column.hidden);
    let columns = stored.map(|c| (&c.name, &c.description)).chain(generated.map(|c| (&c.name, &c.description)));
    let of_columns = columns.filter_map(|(name, description)| {
        Some(format!("COMMENT ON COLUMN {view}.{} IS {}", ident(name), literal(description.as_ref()?)))
    });
    of_view.chain(of_columns).collect()
}
