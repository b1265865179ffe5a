//! Tables: columns, keys, who owns what.

use indexmap::IndexMap;

use super::{Build, LONGEST_NAME};
use crate::patch::ColumnShape;
use crate::plan::types::{ColumnType, Scalar, json_value};
use crate::plan::{Column, Fold, Handler, Source, Table};
use crate::spec::diagnostic::suggest;
use crate::spec::{self, Literal, Located, Name, Projection};
use crate::value::Value;

/// Postgres' limit is 1,600 columns; far below it rows get slow.
const MOST_COLUMNS: usize = 400;
/// Presence is stored in an `integer`.
const MOST_SOURCES: usize = 31;

impl Build<'_> {
    pub(super) fn tables(&self, projection: &Projection, sources: &mut [Source]) -> Vec<Table> {
        let short = spec::Table {
            key: projection.key.clone(),
            columns: projection.columns.clone(),
            handlers: projection.handlers.clone(),
            indexes: projection.indexes.clone(),
            fillfactor: projection.fillfactor.clone(),
            ..spec::Table::default()
        };
        let uses_short = !short.key.is_empty() || !short.columns.is_empty() || !short.handlers.is_empty();
        let mut written: IndexMap<Name, spec::Table> = projection.tables.clone();
        if uses_short && !written.is_empty() {
            let help = "move the top-level `key`, `columns` and `handlers` into a table of their own";
            self.error(
                "two-forms",
                &projection.projection.span,
                "the projection has `tables` and a table at its top level",
                Some(help),
            );
        } else if uses_short {
            written.insert(projection.projection.clone(), short);
        }
        if written.is_empty() {
            self.error("no-table", &projection.projection.span, "the projection has no table", None);
        }
        let served = self.served(projection, &written);
        written
            .iter()
            .enumerate()
            .map(|(at, (name, table))| self.table(at, name, table, served.contains(&name.value), sources))
            .collect()
    }

    fn served(&self, projection: &Projection, tables: &IndexMap<Name, spec::Table>) -> Vec<String> {
        for name in projection.serve.iter() {
            if !tables.contains_key(name) {
                let help = suggest(name, tables.keys().map(|n| n.as_str()));
                self.error("unknown-table", &name.span, format!("there is no table `{}`", name.value), help.as_deref());
            }
        }
        if projection.serve.is_empty() && !tables.is_empty() && !tables.contains_key(&projection.projection) {
            let help = "name a table like the projection, or say which tables readers see: `serve: [NAME]`";
            self.error("nothing-served", &projection.projection.span, "no table is served", Some(help));
        }
        match projection.serve.is_empty() {
            true => vec![projection.projection.value.clone()],
            false => projection.serve.iter().map(|name| name.value.clone()).collect(),
        }
    }

    fn table(&self, at: usize, name: &Name, table: &spec::Table, served: bool, sources: &mut [Source]) -> Table {
        self.identifier(name, "table", LONGEST_NAME);
        self.refuse_later(&[
            ("join", &table.join),
            ("rollups", &table.rollups),
            ("show", &table.show),
            ("search", &table.search),
            ("expire", &table.expire),
            ("flags", &table.flags),
            ("unlogged", &table.unlogged),
            ("forget_deleted_after", &table.forget_deleted_after),
        ]);
        if table.key.is_empty() {
            let help = "key: { order_id: data.order_id }";
            self.error("no-key", &name.span, format!("the table `{}` has no key", name.value), Some(help));
        }
        if table.columns.len() > MOST_COLUMNS {
            let message = format!("{} columns; at most {MOST_COLUMNS} are supported", table.columns.len());
            self.error("too-many", &name.span, message, None);
        }
        let key = self.key_columns(table);
        let columns: Vec<Column> = table
            .columns
            .iter()
            .filter(|(name, _)| !table.key.contains_key(*name))
            .map(|(name, column)| self.column(name, &column.0))
            .collect();
        let shapes = columns.iter().map(|column| column.shape.clone()).collect();
        let mut plan = Table {
            name: name.value.clone(),
            served,
            key,
            columns,
            shapes,
            presence: false,
            handlers: Vec::new(),
            indexes: self.indexes(table),
            fillfactor: self.fillfactor(table),
        };
        if table.handlers.is_empty() {
            self.error("no-handler", &name.span, format!("the table `{}` has no handlers", name.value), None);
        }
        if table.handlers.len() > MOST_SOURCES {
            self.error("too-many", &name.span, format!("a table is fed by at most {MOST_SOURCES} sources"), None);
        }
        let owners = self.handlers(at, table, &mut plan, sources);
        self.check_folds(table, &plan, &owners);
        self.check_not_null(table, &plan, &owners);
        plan
    }

    fn key_columns(&self, table: &spec::Table) -> Vec<Column> {
        let declared = |name: &Name| match table.columns.get(name) {
            Some(column) => {
                for (word, given) in [("default", column.0.default.is_some()), ("hidden", column.0.hidden)] {
                    if given {
                        let message = format!("the key column `{}` cannot have `{word}`", name.value);
                        self.error("bad-key", &column.0.type_.span, message, None);
                    }
                }
                self.column(name, &column.0)
            }
            None => Column {
                name: name.value.clone(),
                shape: ColumnShape { type_: ColumnType::scalar(Scalar::Text), default: Value::Null },
                not_null: true,
                hidden: false,
                description: None,
            },
        };
        table
            .key
            .keys()
            .map(|name| {
                self.identifier(name, "column", LONGEST_NAME);
                let column = declared(name);
                if !column.shape.type_.is_key() {
                    let message = format!("{} cannot be part of a key", column.shape.type_);
                    let help = "keys are text, integers, numeric, uuid, date, timestamptz, bool or enum";
                    self.error("bad-key", &name.span, message, Some(help));
                }
                column
            })
            .collect()
    }

    fn column(&self, name: &Name, column: &spec::Column) -> Column {
        self.identifier(name, "column", LONGEST_NAME);
        self.refuse_later(&[("generated", &column.generated)]);
        let type_ = match ColumnType::parse(&column.type_.value) {
            _ if column.type_.is_empty() => {
                let help = "for example `type: text`";
                self.error("bad-type", &name.span, format!("the column `{}` has no type", name.value), Some(help));
                None
            }
            Ok(type_) => Some(type_),
            Err((message, help)) => {
                self.error("bad-type", &column.type_.span, message, help.as_deref());
                None
            }
        };
        let default = match (&column.default, &type_) {
            (Some(default), Some(type_)) => self.literal(type_, default),
            _ => Value::Null,
        };
        Column {
            name: name.value.clone(),
            shape: ColumnShape { type_: type_.unwrap_or(ColumnType::scalar(Scalar::Jsonb)), default },
            not_null: column.not_null,
            hidden: column.hidden,
            description: column.description.clone(),
        }
    }

    /// A literal in the form its column stores.
    pub(super) fn literal(&self, type_: &ColumnType, literal: &Located<Literal>) -> Value {
        match json_value(&literal.value.0).and_then(|value| type_.coerce(value)) {
            Ok(value) => value,
            Err(message) => {
                self.error("wrong-value", &literal.span, message, None);
                Value::Null
            }
        }
    }

    fn indexes(&self, table: &spec::Table) -> Vec<Vec<String>> {
        for index in &table.indexes {
            for column in index.iter() {
                if !table.columns.contains_key(column) && !table.key.contains_key(column) {
                    self.unknown_column(column, table);
                }
            }
        }
        table.indexes.iter().map(|index| index.iter().map(|column| column.value.clone()).collect()).collect()
    }

    pub(super) fn unknown_column(&self, name: &Name, table: &spec::Table) {
        let known = table.columns.keys().chain(table.key.keys()).map(|n| n.as_str());
        let help = suggest(name, known).unwrap_or_else(|| "declare it under `columns`".into());
        self.error("unknown-column", &name.span, format!("the table has no column `{}`", name.value), Some(&help));
    }

    fn fillfactor(&self, table: &spec::Table) -> Option<u16> {
        let percent = table.fillfactor.as_ref()?;
        if !(10..=100).contains(&percent.value) {
            self.error("bad-fillfactor", &percent.span, "a fillfactor is 10 to 100 percent", None);
        }
        Some(percent.value)
    }

    /// A column is summed, or compared, or set: what has no one order-free meaning together is refused.
    fn check_folds(&self, table: &spec::Table, plan: &Table, owners: &Owners) {
        for (at, column) in plan.columns.iter().enumerate() {
            let Some((name, _)) = table.columns.iter().find(|(name, _)| name.value == column.name) else { continue };
            let effects = || plan.handlers.iter().flat_map(|h| &h.effects).filter(|e| usize::from(e.column) == at);
            let has = |fold: Fold| effects().any(|effect| effect.fold == fold);
            let commutative = [Fold::Add, Fold::Max, Fold::Min];
            if commutative.iter().filter(|fold| has(**fold)).count() > 1 {
                let message = format!("`{}` is folded by two of add, max and min", column.name);
                self.error("mixed-folds", &name.span, message, Some("give each a column of its own"));
            }
            let sources = owners.of(at);
            let sets = has(Fold::Set) || has(Fold::SetIfPresent);
            if sources.len() > 1 && sets {
                let message = format!(
                    "`{}` is set by two sources ({}): the later to be read wins",
                    column.name,
                    sources.join(", ")
                );
                let help = "let each source have a column of its own".to_string();
                self.sink.warning("two-owners", &name.span, message, Some(help));
            }
            if sources.len() > 1 && has(Fold::Add) && owners.deletes.iter().any(|source| sources.contains(source)) {
                let message = format!(
                    "`{}` is added to by several sources, one of which deletes: its part cannot be taken out",
                    column.name
                );
                self.error("shared-sum", &name.span, message, Some("let each source add to a column of its own"));
            }
            if sources.is_empty() {
                let message = format!("nothing fills the column `{}`", column.name);
                self.sink.warning("unfilled-column", &name.span, message, None);
            }
        }
    }

    /// A visible row's not_null column is filled by construction, so that no event can find it otherwise.
    fn check_not_null(&self, table: &spec::Table, plan: &Table, owners: &Owners) {
        for (at, column) in plan.columns.iter().enumerate().filter(|(_, c)| c.not_null && c.shape.default.is_null()) {
            let Some((name, _)) = table.columns.iter().find(|(name, _)| name.value == column.name) else { continue };
            let begins = |handler: &&Handler| !plan.presence || handler.presence.begun != 0;
            let fills = |handler: &Handler| {
                handler.effects.iter().any(|e| usize::from(e.column) == at && e.fold != Fold::SetIfPresent)
            };
            if let Some(handler) = plan.handlers.iter().filter(begins).find(|handler| !fills(handler)) {
                let message = format!(
                    "`{}` is not_null, but the handler on line {} makes a row without it",
                    column.name, handler.line
                );
                self.error(
                    "unfilled-not-null",
                    &name.span,
                    message,
                    Some("set it there, or give the column a `default`"),
                );
            } else if owners.creators > 1 && !owners.deletes.is_empty() {
                let message = format!(
                    "`{}` is not_null, but a source that deletes would clear it while another keeps the row",
                    column.name
                );
                self.error("unfilled-not-null", &name.span, message, Some("give the column a `default`"));
            }
        }
    }
}

/// Which sources write which column of a table.
#[derive(Default)]
pub(super) struct Owners {
    /// (column, source) pairs.
    pub columns: Vec<(usize, String)>,
    /// Sources with a `delete`.
    pub deletes: Vec<String>,
    /// How many sources bring rows into being.
    pub creators: usize,
}

impl Owners {
    pub fn of(&self, column: usize) -> Vec<String> {
        let mut sources: Vec<String> =
            self.columns.iter().filter(|(at, _)| *at == column).map(|(_, source)| source.clone()).collect();
        sources.sort();
        sources.dedup();
        sources
    }
}
