//! One relation of a statement: its columns, joins, conditions and order, as a `SELECT`.

use crate::query::Aggregate;
use crate::store::sql::ident;

/// Where a level's rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Each row is one of the answer, or of what is embedded.
    Row,
    /// Its columns become those of the row around it, aggregates included.
    SpreadOne,
    SpreadMany,
}

/// A column of a level's rows.
pub(super) struct Out {
    pub name: String,
    /// `None`: the row itself, to be counted.
    pub sql: Option<String>,
    pub aggregate: Option<Aggregate>,
    /// JSON has no equality; it is grouped by as `jsonb`.
    pub is_json: bool,
}

impl Out {
    pub fn plain(name: String, sql: String, is_json: bool) -> Out {
        Out { name, sql: Some(sql), aggregate: None, is_json }
    }

    fn sql(&self) -> &str {
        self.sql.as_deref().unwrap_or("*")
    }

    /// In a level that has aggregates.
    fn grouped(&self) -> String {
        if self.is_json { format!("{}::jsonb", self.sql()) } else { self.sql().into() }
    }
}

/// A relation, with all that is asked of it.
pub(super) struct Level {
    pub from: String,
    pub joins: String,
    /// Joins decide which rows there are.
    pub joins_count: bool,
    pub outs: Vec<Out>,
    pub conditions: Vec<String>,
    pub orders: Vec<String>,
    pub limit: u64,
    pub offset: u64,
    /// Aggregates are worked out here.
    pub groups: bool,
}

impl Level {
    fn condition(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!(" WHERE {}", self.conditions.join(" AND ")) }
    }

    /// Its rows; the columns with their own names, or as `c1`, `c2`, ….
    pub fn select(&self, numbered: Option<&str>) -> String {
        let groups = self.groups && self.outs.iter().any(|out| out.aggregate.is_some());
        let columns = self.outs.iter().enumerate().map(|(at, out)| {
            let name = match numbered {
                Some(prefix) => format!("{prefix}{}", at + 1),
                None => out.name.clone(),
            };
            let sql = match (&out.aggregate, groups) {
                (Some(aggregate), true) => aggregated(aggregate, out.sql()),
                (None, true) => out.grouped(),
                (_, false) => out.sql.clone().unwrap_or_else(|| "true".into()),
            };
            format!("{sql} AS {}", ident(&name))
        });
        let columns: Vec<String> = columns.collect();
        let mut sql = format!("SELECT {} FROM {}{}{}", columns.join(", "), self.from, self.joins, self.condition());
        let keys: Vec<String> = self.outs.iter().filter(|out| out.aggregate.is_none()).map(Out::grouped).collect();
        if groups && !keys.is_empty() {
            sql += &format!(" GROUP BY {}", keys.join(", "));
        }
        if !self.orders.is_empty() {
            sql += &format!(" ORDER BY {}", self.orders.join(", "));
        }
        sql += &format!(" LIMIT {} OFFSET {}", self.limit, self.offset);
        sql
    }

    /// One row for each that the filters let through.
    pub fn all(&self) -> String {
        let joins = if self.joins_count { self.joins.as_str() } else { "" };
        format!("SELECT 1 FROM {}{joins}{}", self.from, self.condition())
    }
}

fn aggregated(aggregate: &Aggregate, sql: &str) -> String {
    cast(format!("{}({sql})", aggregate.function.name()), aggregate.cast.as_deref())
}

/// The parser lets nothing but words be the name of a type.
pub(super) fn cast(sql: String, type_: Option<&str>) -> String {
    match type_ {
        Some(type_) => format!("CAST({sql} AS {type_})"),
        None => sql,
    }
}
