//! Rollups in SQL: sums that grow by what was marked, and values for which all rows are looked at.

use sqlx::Arguments;
use sqlx::postgres::{PgArguments, PgConnection};

use super::error::StoreError;
use super::marks::Marked;
use super::row_sql::row_sql_of;
use super::sql::{ident, literal, vouched};
use super::tables::{exists, sql_type, table_name};
use super::write::Target;
use crate::batch::Key;
use crate::plan::Table;
use crate::plan::derived::{Item, Quotient, Rollup, Search, What};
use crate::plan::expr::{Expr, RowRef};
use crate::plan::types::Scalar;

impl Target<'_> {
    fn column_name(&self, at: u16) -> String {
        ident(&self.table.columns[usize::from(at)].name)
    }

    fn column_type(&self, at: u16) -> String {
        sql_type(self.schema, &self.table.name, &self.table.columns[usize::from(at)])
    }

    /// Adds what was marked to the sums of rows that this transaction has locked.
    pub(super) async fn add_sums(
        &self,
        connection: &mut PgConnection,
        rollup: &Rollup,
        marked: &[&Marked],
    ) -> Result<(), StoreError> {
        if rollup.sums.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = (0..rollup.sums.len()).map(|at| format!("projector_d{at}")).collect();
        let more: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "text[]")).collect();
        let mut sums: Vec<(u16, String)> = Vec::new();
        for (sum, delta) in rollup.sums.iter().zip(&names) {
            let name = self.column_name(sum.column);
            sums.push((sum.column, format!("(COALESCE(t.{name}, 0)::numeric + s.{delta}::numeric)")));
        }
        let sum_of = |at: u16| sums.iter().find(|(column, _)| *column == at).map_or("NULL", |(_, sql)| sql.as_str());
        let quotients = rollup.quotients.iter().map(|quotient| match quotient {
            Quotient::Any { column, count } => (*column, format!("({} > 0)", sum_of(*count))),
            Quotient::Average { column, sum, count, scale } => {
                let exact = format!("({} * 1.{}) / NULLIF({}, 0)", sum_of(*sum), "0".repeat(28), sum_of(*count));
                (*column, format!("projector.round_half_even({exact}, {scale})"))
            }
        });
        let assign =
            |(at, sql): &(u16, String)| format!("{} = {sql}::{}", self.column_name(*at), self.column_type(*at));
        let assignments: Vec<String> = sums.iter().cloned().chain(quotients).map(|one| assign(&one)).collect();
        let sql = format!(
            "UPDATE {} AS t SET {} FROM {} WHERE {}",
            table_name(self.schema, self.table),
            assignments.join(", "),
            self.unnest(&[], &more),
            self.same_key(),
        );
        let mut arguments = PgArguments::default();
        self.bind_key(&mut arguments, marked.iter().map(|marked| &marked.key))?;
        for at in 0..names.len() {
            let deltas: Vec<&str> = marked.iter().map(|marked| marked.deltas[at].as_str()).collect();
            arguments.add(deltas).map_err(sqlx::Error::Encode)?;
        }
        sqlx::query_with(vouched(sql), arguments).execute(connection).await?;
        Ok(())
    }

    /// Works out anew what all the aggregated rows decide, for rows that this transaction has locked.
    pub(super) async fn search(
        &self,
        connection: &mut PgConnection,
        rollup: &Rollup,
        keys: &[&Key],
    ) -> Result<(), StoreError> {
        if rollup.searches.is_empty() || keys.is_empty() {
            return Ok(());
        }
        let family = Family { target: self, rollup, child: &self.plan.tables[rollup.table] };
        let found: Vec<String> = rollup.searches.iter().map(|search| family.value(search)).collect();
        let names: Vec<String> = (0..found.len()).map(|at| format!("projector_v{at}")).collect();
        let selected: Vec<String> = found.iter().zip(&names).map(|(sql, name)| format!("{sql} AS {name}")).collect();
        let assignments: Vec<String> = rollup
            .searches
            .iter()
            .zip(&names)
            .map(|(search, name)| format!("{} = v.{name}", self.column_name(search.column)))
            .collect();
        let same: Vec<String> =
            self.table.key.iter().map(|column| format!("t.{0} = v.{0}", ident(&column.name))).collect();
        let key: Vec<String> = self
            .table
            .key
            .iter()
            .map(|column| format!("{} AS {}", self.selected(column), ident(&column.name)))
            .collect();
        let sql = format!(
            "UPDATE {} AS t SET {} FROM (SELECT {}, {} FROM {}) AS v WHERE {}",
            table_name(self.schema, self.table),
            assignments.join(", "),
            key.join(", "),
            selected.join(", "),
            self.unnest(&[], &[]),
            same.join(" AND "),
        );
        let mut arguments = PgArguments::default();
        self.bind_key(&mut arguments, keys.iter().copied())?;
        sqlx::query_with(vouched(sql), arguments).execute(connection).await?;
        Ok(())
    }
}

/// The rows that belong to a row `s`, as `c`.
struct Family<'f> {
    target: &'f Target<'f>,
    rollup: &'f Rollup,
    child: &'f Table,
}

impl Family<'_> {
    fn expr(&self, expr: &Expr) -> String {
        row_sql_of(expr, self.child, "c.")
    }

    fn column(&self, at: RowRef) -> String {
        format!("c.{}", ident(&self.child.column(at).name))
    }

    /// A column that rows are ordered by: text by bytes.
    fn ordered(&self, at: RowRef) -> String {
        match &self.child.column(at).shape.type_.scalar {
            Scalar::Text | Scalar::Citext | Scalar::Enum(_) | Scalar::ExistingEnum(_) => {
                format!("{}::text COLLATE \"C\"", self.column(at))
            }
            _ => self.column(at),
        }
    }

    fn order(&self, by: &[RowRef], direction: &str) -> String {
        let key = (0..self.child.key.len()).map(|at| RowRef { of_key: true, at: at as u16 });
        let columns = by.iter().copied().chain(key);
        let columns: Vec<String> = columns.map(|at| format!("{} {direction} NULLS LAST", self.ordered(at))).collect();
        columns.join(", ")
    }

    /// `FROM … WHERE …` over the rows that count.
    fn from(&self, search: &Search) -> String {
        let parent = &self.target.table.key;
        let mut conditions: Vec<String> = self
            .rollup
            .by
            .iter()
            .zip(parent)
            .map(|(by, key)| {
                let own = self.child.column(*by);
                let type_ = sql_type(self.target.schema, &self.child.name, own);
                format!("{} = s.{}::{type_}", self.column(*by), ident(&key.name))
            })
            .collect();
        conditions.extend(exists(self.child, "c.", false));
        let both = [&self.rollup.condition, &search.condition];
        conditions.extend(both.into_iter().flatten().map(|condition| self.expr(condition)));
        format!("FROM {} AS c WHERE {}", table_name(self.target.schema, self.child), conditions.join(" AND "))
    }

    fn value(&self, search: &Search) -> String {
        let from = self.from(search);
        let type_ = self.target.column_type(search.column);
        match &search.what {
            What::Min(expr) => format!("(SELECT min({}) {from})::{type_}", self.expr(expr)),
            What::Max(expr) => format!("(SELECT max({}) {from})::{type_}", self.expr(expr)),
            What::CountDistinct(expr) => format!("(SELECT count(DISTINCT {}) {from})", self.expr(expr)),
            What::Newest { value, by } => {
                format!("(SELECT {} {from} ORDER BY {} LIMIT 1)::{type_}", self.expr(value), self.order(by, "DESC"))
            }
            What::List { item, by, newest } => {
                let item = match item {
                    Item::Value(expr) => format!("to_jsonb({})", self.expr(expr)),
                    Item::Members(members) => {
                        let members: Vec<String> = members
                            .iter()
                            .map(|(name, at)| format!("{}, {}", literal(name), self.column(*at)))
                            .collect();
                        format!("jsonb_build_object({})", members.join(", "))
                    }
                };
                let order = self.order(by, if newest.is_some() { "DESC" } else { "ASC" });
                let limit = newest.map(|newest| format!(" LIMIT {newest}")).unwrap_or_default();
                format!(
                    "(SELECT COALESCE(jsonb_agg(i.item ORDER BY i.n), '[]') FROM (
                         SELECT {item} AS item, row_number() OVER (ORDER BY {order}) AS n {from} ORDER BY {order}{limit}
                     ) AS i)"
                )
            }
            What::Object { name, value } => format!(
                "(SELECT COALESCE(jsonb_object_agg({0}, {1} ORDER BY {2}) FILTER (WHERE {0} IS NOT NULL), '{{}}') {from})",
                self.column(*name),
                self.column(*value),
                self.order(&[], "ASC"),
            ),
        }
    }
}
