//! What the catalog keeps of joins and rollups, and what readers are told by it: which rows wait for something parked.

use sqlx::postgres::PgConnection;

use super::error::StoreError;
use super::sql::{ident, literal};
use super::tables::table_name;
use crate::plan::Plan;
use crate::plan::derived::Via;
use crate::plan::expr::RowRef;
use crate::plan::types::Scalar;

/// Notes how the tables of a generation refer to one another.
///
/// # Errors
/// What Postgres says.
pub(super) async fn record(connection: &mut PgConnection, plan: &Plan, generation: i64) -> Result<(), StoreError> {
    for (at, edge) in plan.edges.iter().enumerate() {
        let (kind, by, referring) = match (plan.join(edge), plan.rollup(edge)) {
            (Some(join), _) => ("join", &join.by, edge.to),
            (_, Some(rollup)) => ("rollup", &rollup.by, edge.from),
            _ => continue,
        };
        let referring = &plan.tables[referring];
        let by: Vec<&str> = by.iter().map(|by| referring.column(*by).name.as_str()).collect();
        sqlx::query(
            "INSERT INTO projector.relations (generation_id, edge, kind, from_table, to_table, by)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(generation)
        .bind(at as i32)
        .bind(kind)
        .bind(&plan.tables[edge.from].name)
        .bind(&plan.tables[edge.to].name)
        .bind(by)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The function that says of a row's key whether something is parked that the row would follow from.
pub fn parked_function(schema: &str, table: &str) -> String {
    format!("{}.{}", ident(schema), ident(&format!("projector_parked.{table}")))
}

/// The statements that make these functions, for the tables that readers see and that follow from others.
pub(super) fn statements(plan: &Plan, schema: &str, generation: i64) -> Vec<String> {
    let follows = |at: usize| plan.edges.iter().any(|edge| edge.to == at);
    let served = (0..plan.tables.len()).filter(|at| plan.tables[*at].served && follows(*at));
    served
        .map(|at| {
            let table = &plan.tables[at];
            let derived = (0..table.columns.len() as u16).filter(|at| table.columns[usize::from(*at)].derived);
            let mut search = Parked { plan, schema, generation, depth: 0 };
            let of_row = search.condition(at, "t", &derived.collect::<Vec<_>>());
            let same: Vec<String> = table
                .key
                .iter()
                .enumerate()
                .map(|(at, column)| {
                    let type_ = super::tables::sql_type(schema, &table.name, column);
                    format!("t.{} = (key->>{at})::{type_}", ident(&column.name))
                })
                .collect();
            format!(
                "CREATE FUNCTION {}(key jsonb) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER \
                 SET search_path = pg_catalog, pg_temp RETURN \
                 projector.is_parked_row({generation}, {}, key) OR EXISTS (SELECT 1 FROM {} AS t WHERE {} AND ({of_row}))",
                parked_function(schema, &table.name),
                literal(&table.name),
                table_name(schema, table),
                same.join(" AND "),
            )
        })
        .collect()
}

struct Parked<'p> {
    plan: &'p Plan,
    schema: &'p str,
    generation: i64,
    /// How many rows have been named so far, so that each has a name of its own.
    depth: usize,
}

impl Parked<'_> {
    /// Whether something is parked of a row, or of the rows that these columns of it follow from. Columns follow each
    /// other in no circle.
    fn condition(&mut self, at: usize, alias: &str, columns: &[u16]) -> String {
        let plan = self.plan;
        let table = &plan.tables[at];
        let key = |alias: &str, at: usize| {
            let columns = plan.tables[at].key.iter().map(|column| format!("{alias}.{}", ident(&column.name)));
            columns.collect::<Vec<_>>()
        };
        let generation = self.generation;
        let mut parts = vec![format!(
            "projector.is_parked_row({generation}, {}, jsonb_build_array({}))",
            literal(&table.name),
            key(alias, at).join(", ")
        )];
        for edge in plan.edges.iter().filter(|edge| edge.to == at) {
            // What the columns are made of, in the other table; and how the two rows refer to each other.
            let (read, by): (Vec<RowRef>, &[RowRef]) = match edge.via {
                Via::Join(index) => {
                    let join = &table.joins[index];
                    let copied = join.fill.iter().filter(|(column, _)| columns.contains(column));
                    (copied.map(|(_, from)| *from).collect(), &join.by)
                }
                Via::Rollup(index) => {
                    let rollup = &table.rollups[index];
                    // Of a table without handlers, whether the row is there follows from every rollup.
                    let asked =
                        table.children.is_some() || rollup.fills().iter().any(|column| columns.contains(column));
                    (if asked { rollup.reads() } else { Vec::new() }, &rollup.by)
                }
            };
            if read.is_empty() {
                continue;
            }
            let other = &plan.tables[edge.from];
            let derived = read.iter().filter(|at| !at.of_key && other.columns[usize::from(at.at)].derived);
            let derived: Vec<u16> = derived.map(|at| at.at).collect();
            self.depth += 1;
            let own = format!("r{}", self.depth);
            let (referring, referring_alias, referred_alias, referred) = match edge.via {
                Via::Join(_) => (table, alias, own.as_str(), other),
                Via::Rollup(_) => (other, own.as_str(), alias, table),
            };
            let pairs = by.iter().zip(&referred.key).map(|(by, key)| {
                let column = referring.column(*by);
                let (by, key_name) = (ident(&column.name), ident(&key.name));
                // Each table has enums of its own.
                let cast = if matches!(key.shape.type_.scalar, Scalar::Enum(_)) { "::text" } else { "" };
                format!("{referring_alias}.{by}{cast} = {referred_alias}.{key_name}{cast}")
            });
            let pairs: Vec<String> = pairs.collect();
            if let (Via::Join(_), true) = (edge.via, derived.is_empty()) {
                // The row itself need not be there.
                let by: Vec<String> =
                    by.iter().map(|by| format!("{alias}.{}", ident(&table.column(*by).name))).collect();
                parts.push(format!(
                    "projector.is_parked_row({generation}, {}, jsonb_build_array({}))",
                    literal(&other.name),
                    by.join(", ")
                ));
                continue;
            }
            let inner = self.condition(edge.from, &own, &derived);
            parts.push(format!(
                "EXISTS (SELECT 1 FROM {} AS {own} WHERE {} AND ({inner}))",
                table_name(self.schema, other),
                pairs.join(" AND ")
            ));
        }
        parts.join(" OR ")
    }
}
