//! The SQL file beside a projection: views on top of the served tables, made anew with them.

use sqlx::postgres::{PgConnection, PgErrorPosition};
use sqlx::{Executor, Row};

use super::error::StoreError;
use super::sql::{ident, vouched};
use crate::plan::{Companion, Plan};

/// Runs the SQL files of a projection, in the transaction that makes its views, and notes which views it made.
///
/// # Errors
/// What Postgres says, with the line of the file.
pub async fn make(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: i64,
    served_schema: &str,
) -> Result<(), StoreError> {
    if plan.companions.is_empty() {
        return Ok(());
    }
    let before = views(connection, served_schema).await?;
    let path_before: String = sqlx::query_scalar("SHOW search_path").fetch_one(&mut *connection).await?;
    set_search_path(connection, &format!("{}, public", ident(served_schema))).await?;
    for companion in &plan.companions {
        run(connection, companion).await?;
    }
    set_search_path(connection, &path_before).await?;
    let made = views(connection, served_schema).await?;
    let made: Vec<String> = made.into_iter().filter(|view| !before.contains(view)).collect();
    sqlx::query(
        "INSERT INTO projector.companions (generation_id, position, view)
         SELECT $1, v.position, v.view FROM unnest($2::text[]) WITH ORDINALITY AS v(view, position)",
    )
    .bind(generation)
    .bind(made)
    .execute(connection)
    .await?;
    Ok(())
}

async fn run(connection: &mut PgConnection, companion: &Companion) -> Result<(), StoreError> {
    let sql = &companion.sql;
    let path = std::path::Path::new(&companion.path).with_extension("sql");
    let wrong = |message: String| StoreError::Catalog(format!("{}{message}", path.display()));
    if let Some(line) = transaction_line(sql) {
        return Err(wrong(format!(
            ":{line}: the file runs in a transaction of its own making; leave out BEGIN and COMMIT"
        )));
    }
    connection.execute(vouched(sql.clone())).await.map_err(|error| {
        let Some(database) = error.as_database_error() else { return StoreError::from(error) };
        let position = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().and_then(|e| e.position());
        let line = match position {
            Some(PgErrorPosition::Original(at)) => {
                let before: String = sql.chars().take(at.saturating_sub(1)).collect();
                format!(":{}", before.matches('\n').count() + 1)
            }
            _ => String::new(),
        };
        wrong(format!("{line}: {}", database.message()))
    })?;
    Ok(())
}

/// Drops the views that a generation's SQL file made, the last first.
///
/// # Errors
/// What Postgres says, for example that something a person made stands on one of them.
pub async fn drop_made(connection: &mut PgConnection, generation: i64, served_schema: &str) -> Result<(), StoreError> {
    let rows = sqlx::query("DELETE FROM projector.companions WHERE generation_id = $1 RETURNING position, view")
        .bind(generation)
        .fetch_all(&mut *connection)
        .await?;
    let mut views: Vec<(i32, String)> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, sqlx::Error>>()?;
    views.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
    for (_, view) in views {
        let drop = format!("DROP VIEW IF EXISTS {}.{}", ident(served_schema), ident(&view));
        connection.execute(vouched(drop)).await?;
    }
    Ok(())
}

async fn set_search_path(connection: &mut PgConnection, path: &str) -> Result<(), StoreError> {
    sqlx::query("SELECT set_config('search_path', $1, true)").bind(path).execute(connection).await?;
    Ok(())
}

/// The views of a schema, the oldest first.
async fn views(connection: &mut PgConnection, schema: &str) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = to_regnamespace(quote_ident($1)) AND relkind = 'v' ORDER BY oid",
    )
    .bind(schema)
    .fetch_all(connection)
    .await?)
}

fn transaction_line(sql: &str) -> Option<usize> {
    let is_one = |line: &str| {
        let word = line.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        matches!(word.to_ascii_uppercase().as_str(), "BEGIN" | "COMMIT" | "ROLLBACK" | "START")
    };
    sql.lines().position(is_one).map(|at| at + 1)
}
