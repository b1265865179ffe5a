//! Tables, put together: which there are, which are served, what they are made of.

use indexmap::IndexMap;

use super::derived::{Shape, fills};
use super::versions::forget_column;
use super::{Build, LONGEST_NAME};
use crate::plan::expr::duration;
use crate::plan::types::{ColumnType, Scalar};
use crate::plan::{Forget, Search, Source, Table};
use crate::spec::diagnostic::suggest;
use crate::spec::{self, Name, Projection, SearchMethod};

/// Postgres' limit is 1,600 columns; far below it rows get slow.
const MOST_COLUMNS: usize = 400;
/// Presence is stored in an `integer`, whose last bits are for rows that were ever there, and have ended for good.
const MOST_SOURCES: usize = 29;

impl Build<'_> {
    /// The tables of a projection by name, that of the short form too.
    pub(super) fn expanded(&self, projection: &Projection) -> IndexMap<Name, spec::Table> {
        let short = spec::Table {
            key: projection.key.clone(),
            columns: projection.columns.clone(),
            handlers: projection.handlers.clone(),
            indexes: projection.indexes.clone(),
            fillfactor: projection.fillfactor.clone(),
            show: projection.show.clone(),
            flags: projection.flags.clone(),
            search: projection.search.clone(),
            expire: projection.expire.clone(),
            unlogged: projection.unlogged,
            join: spec::Many::default(),
            rollups: spec::Many::default(),
            forget_deleted_after: projection.forget_deleted_after.clone(),
        };
        let uses_short = !short.key.is_empty() || !short.columns.is_empty() || !short.handlers.is_empty();
        let mut tables: IndexMap<Name, spec::Table> = projection.tables.clone();
        for name in tables.keys() {
            self.identifier(name, "table", LONGEST_NAME);
        }
        if uses_short && !tables.is_empty() {
            let help = "move the top-level `key`, `columns` and `handlers` into a table of their own";
            self.error(
                "two-forms",
                &projection.projection.span,
                "the projection has `tables` and a table at its top level",
                Some(help),
            );
        } else if uses_short {
            tables.insert(projection.projection.clone(), short);
        }
        if tables.is_empty() {
            self.error("no-table", &projection.projection.span, "the projection has no table", None);
        }
        tables
    }

    /// The tables that readers see.
    pub(super) fn served(&self, projection: &Projection, tables: &IndexMap<Name, spec::Table>) -> Vec<Name> {
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
            true => vec![projection.projection.clone()],
            false => projection.serve.iter().cloned().collect(),
        }
    }

    pub(super) fn tables(&self, projection: &Projection, sources: &mut [Source]) -> Vec<Table> {
        let written = &projection.tables;
        let mut shapes = self.shapes(written);
        self.refer(written, &mut shapes);
        let tables: Vec<Table> = written
            .iter()
            .zip(shapes)
            .enumerate()
            .map(|(at, ((name, table), shape))| {
                self.table(at, name, (table, shape), projection.serve.iter().any(|served| served == name), sources)
            })
            .collect();
        self.check_derived(written, &tables);
        tables
    }

    fn table(
        &self,
        at: usize,
        name: &Name,
        (table, shape): (&spec::Table, Shape),
        served: bool,
        sources: &mut [Source],
    ) -> Table {
        if table.key.is_empty() {
            let help = "key: { order_id: data.order_id }";
            self.error("no-key", &name.span, format!("the table `{}` has no key", name.value), Some(help));
        }
        if table.columns.len() > MOST_COLUMNS {
            let message = format!("{} columns; at most {MOST_COLUMNS} are supported", table.columns.len());
            self.error("too-many", &name.span, message, None);
        }
        let Shape { key, columns, joins, rollups, children } = shape;
        let (row, generated) = self.row(table, &key, &columns);
        let mut plan = Table {
            name: name.value.clone(),
            served,
            key,
            columns,
            shapes: Vec::new(),
            presence: false,
            handlers: Vec::new(),
            joins,
            rollups,
            children,
            indexes: self.indexes(table),
            fillfactor: self.fillfactor(table),
            version_slots: 0,
            alive: Vec::new(),
            expire: None,
            forget: None,
            show: table.show.as_ref().and_then(|show| self.row_condition(show, &row)),
            generated,
            search: self.search(table),
            unlogged: table.unlogged,
            order_free: false,
            ordered_sources: Vec::new(),
        };
        plan.expire = self.expire(table, &plan);
        plan.forget = self.forget(table, &mut plan);
        if table.handlers.values().all(|types| types.is_empty()) && table.rollups.is_nothing() {
            self.error("no-handler", &name.span, format!("the table `{}` has no handlers", name.value), None);
        }
        if table.handlers.len() > MOST_SOURCES {
            self.error("too-many", &name.span, format!("a table is fed by at most {MOST_SOURCES} sources"), None);
        }
        let owners = self.handlers(at, table, &row, &mut plan, sources);
        self.check_latest(table, &plan, &owners);
        self.settle_versions(table, &mut plan);
        self.check_folds(table, &plan, &owners);
        self.check_not_null(table, &plan, &owners);
        self.version_slots(&mut plan);
        self.clear_for_good(&mut plan);
        plan.shapes = plan.columns.iter().map(|column| column.shape.clone()).collect();
        self.check_order(name, table, &mut plan, sources);
        plan
    }

    fn expire(&self, table: &spec::Table, plan: &Table) -> Option<u16> {
        let name = table.expire.as_ref()?;
        let Some(at) = plan.columns.iter().position(|column| column.name == name.value) else {
            self.unknown_column(name, table);
            return None;
        };
        let type_ = &plan.columns[at].shape.type_;
        if *type_ != ColumnType::scalar(Scalar::Timestamptz) {
            let message = format!("a row expires at an instant, `{}` is {type_}", name.value);
            self.error("bad-expire", &name.span, message, Some("make it a timestamptz"));
        }
        Some(at as u16)
    }

    fn forget(&self, table: &spec::Table, plan: &mut Table) -> Option<Forget> {
        let text = table.forget_deleted_after.as_ref()?;
        let all = || table.handlers.values().flat_map(|types| types.values()).flat_map(|many| many.iter());
        if !all().any(|handler| handler.delete.as_ref().is_some_and(|word| word.as_str() == "true")) {
            let message = "no handler of the table has `delete: true`: there is nothing to forget";
            self.error("nothing-to-forget", &text.span, message, Some("leave it out"));
        }
        let after = duration(text).ok().filter(|after| *after > 0);
        if after.is_none() {
            let help = "for how long ended rows are remembered, as an ISO 8601 duration: P90D";
            self.error("bad-window", &text.span, format!("`{}` is no window", text.value), Some(help));
        }
        plan.columns.push(forget_column());
        Some(Forget { column: plan.columns.len() as u16 - 1, after: after? })
    }

    fn search(&self, table: &spec::Table) -> Option<Search> {
        let search = table.search.as_ref()?;
        let filled = |column: &&Name| fills(table).any(|name| name.value == column.value);
        for name in search.columns.iter().filter(|name| !filled(name)) {
            let Some(column) = table.columns.get(name) else {
                if !table.key.contains_key(name) {
                    self.unknown_column(name, table);
                }
                continue;
            };
            if !matches!(column.0.type_.as_str(), "text" | "citext") || column.0.generated.is_some() {
                let message = format!("`{}` cannot be searched", name.value);
                self.error("bad-search", &name.span, message, Some("search goes by stored columns of type text"));
            }
        }
        if search.method == SearchMethod::Fts && table.columns.contains_key("search") {
            let span = &search.columns.first().map_or(0..0, |name| name.span.clone());
            self.error("duplicate-column", span, "full-text search makes a column `search`; there is one", None);
        }
        Some(Search { columns: search.columns.iter().map(|name| name.value.clone()).collect(), method: search.method })
    }

    fn indexes(&self, table: &spec::Table) -> Vec<Vec<String>> {
        let filled = |column: &Name| fills(table).any(|name| name.value == column.value);
        for index in &table.indexes {
            for column in index.iter().filter(|column| !filled(column)) {
                if !table.columns.contains_key(column) && !table.key.contains_key(column) {
                    self.unknown_column(column, table);
                } else if table.columns.get(column).is_some_and(|column| column.0.generated.is_some()) {
                    let message = format!("`{}` is worked out when it is read and cannot be indexed", column.value);
                    self.error("bad-index", &column.span, message, Some("index the columns that it is made of"));
                }
            }
        }
        table.indexes.iter().map(|index| index.iter().map(|column| column.value.clone()).collect()).collect()
    }

    fn fillfactor(&self, table: &spec::Table) -> Option<u16> {
        let percent = table.fillfactor.as_ref()?;
        if !(10..=100).contains(&percent.value) {
            self.error("bad-fillfactor", &percent.span, "a fillfactor is 10 to 100 percent", None);
        }
        Some(percent.value)
    }
}
