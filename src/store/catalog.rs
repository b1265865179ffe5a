//! The catalog: what is defined, which generation serves, how far it has read.

use std::collections::HashMap;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, PgPool, Row, SqlSafeStr};

use super::commit::Generation;
use super::error::StoreError;
use super::sql::{ident, vouched};
use super::tables::{create_statements, schema_name, view_statements};
use super::upcasters::{self, Compared};
use super::{companion, relations};
use crate::plan::{Plan, SEMANTICS_VERSION};

pub const PROGRAM_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Serialises everything that changes the catalog. The number is arbitrary and only has to be ours.
const CATALOG_LOCK: i64 = 0x7072_6f6a_6563_7401;

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "catalog", include_str!("../../migrations/0001_catalog.sql")),
    (2, "clock", include_str!("../../migrations/0002_clock.sql")),
    (3, "dead letters", include_str!("../../migrations/0003_dead_letters.sql")),
    (4, "relations", include_str!("../../migrations/0004_relations.sql")),
];

/// What `apply` did with one projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    Created,
    Unchanged,
    /// Unchanged, and upcasters were added: events that wait for them may be retried.
    MoreUpcasters,
    /// Its rows were dropped; history is folded again.
    Recreated,
}

/// Brings the catalog's own tables up to date.
///
/// # Errors
/// When a newer program's catalog no longer allows this one, or Postgres refuses.
pub async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    refuse_if_too_old(pool).await?;
    let migrations = MIGRATIONS
        .iter()
        .map(|(version, name, sql)| {
            Migration::new(*version, (*name).into(), MigrationType::Simple, (*sql).into_sql_str(), false)
        })
        .collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.create_schema("projector");
    migrator.dangerous_set_table_name("projector.migrations");
    // A newer program may have migrated further; what it added does not concern this one.
    migrator.set_ignore_missing(true);
    migrator.run(pool).await.map_err(|error| match error {
        // A connection that breaks in the middle leaves the migration undone, to be tried again.
        sqlx::migrate::MigrateError::Execute(error) | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => {
            StoreError::from(error)
        }
        other => StoreError::Migrate(other),
    })
}

async fn refuse_if_too_old(pool: &PgPool) -> Result<(), StoreError> {
    if !catalog_exists(pool).await? {
        return Ok(());
    }
    let oldest: String = sqlx::query_scalar("SELECT oldest_version FROM projector.program").fetch_one(pool).await?;
    if version_number(&oldest) > version_number(PROGRAM_VERSION) {
        return Err(StoreError::Catalog(format!(
            "the catalog was migrated by a newer program and needs version {oldest} or later; this is {PROGRAM_VERSION}"
        )));
    }
    Ok(())
}

fn version_number(version: &str) -> Vec<u64> {
    version.split(['.', '-']).map_while(|part| part.parse().ok()).collect()
}

async fn catalog_exists(pool: &PgPool) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar("SELECT to_regclass('projector.program') IS NOT NULL").fetch_one(pool).await?)
}

/// Records definitions and makes their tables and views, all or nothing.
///
/// A definition that differs from the recorded one is refused, unless its projection is among `recreate`; so is one
/// that a newer definition has superseded.
///
/// # Errors
/// Which projections are refused and why, or what Postgres says; nothing has changed then.
pub async fn apply(
    pool: &PgPool,
    plans: &[Plan],
    recreate: &[String],
    served_schema: &str,
) -> Result<Vec<(String, Applied)>, StoreError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CATALOG_LOCK).execute(&mut *transaction).await?;
    let create = format!("CREATE SCHEMA IF NOT EXISTS {}", ident(served_schema));
    transaction.execute(vouched(create)).await?;
    let mut done = Vec::new();
    let mut refused = Vec::new();
    for plan in plans {
        match apply_one(&mut transaction, plan, recreate.contains(&plan.name), served_schema).await? {
            Ok(applied) => done.push((plan.name.clone(), applied)),
            Err(reason) => refused.push(reason),
        }
    }
    if !refused.is_empty() {
        let differ: Vec<String> = plans
            .iter()
            .filter(|plan| refused.iter().any(|reason| reason.ends_with(&format!("--recreate {}", plan.name))))
            .map(|plan| format!("--recreate {}", plan.name))
            .collect();
        if differ.len() > 1 {
            refused.push(format!("All of them at once: projector apply {}", differ.join(" ")));
        }
        return Err(StoreError::Catalog(refused.join("\n")));
    }
    transaction.commit().await?;
    Ok(done)
}

async fn apply_one(
    connection: &mut PgConnection,
    plan: &Plan,
    recreate: bool,
    served_schema: &str,
) -> Result<Result<Applied, String>, StoreError> {
    let known = sqlx::query("SELECT digest FROM projector.definitions WHERE projection = $1 ORDER BY id DESC")
        .bind(&plan.name)
        .fetch_all(&mut *connection)
        .await?;
    let digests: Vec<String> = known.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let current = digests.first() == Some(&plan.digest);
    if current && !recreate {
        return Ok(match upcasters::compare(connection, plan, true).await? {
            Compared::Same => Ok(Applied::Unchanged),
            Compared::More => Ok(Applied::MoreUpcasters),
            Compared::Changed(step) => Err(format!(
                "{}: the rows of `{}` were folded without the upcaster {step} as it is now. To drop the view's rows and \
                 fold history again: projector apply --recreate {}",
                plan.path, plan.name, plan.name
            )),
        });
    }
    if !recreate && digests.contains(&plan.digest) {
        return Ok(Err(format!(
            "{}: this definition of `{}` was superseded by a newer one. To go back to it on purpose, dropping the \
             view's rows and folding history again: projector apply --recreate {}",
            plan.path, plan.name, plan.name
        )));
    }
    if !recreate && !digests.is_empty() {
        return Ok(Err(format!(
            "{}: the definition of `{}` differs from the one its rows were folded by. To drop the view's rows and \
             fold history again: projector apply --recreate {}",
            plan.path, plan.name, plan.name
        )));
    }
    let number = drop_live(connection, plan, served_schema).await? + 1;
    if let Some(reason) = collision(connection, plan, served_schema).await? {
        return Ok(Err(reason));
    }
    let definition: i64 = sqlx::query_scalar(
        "INSERT INTO projector.definitions (projection, digest, definition, program_version)
         VALUES ($1, $2, $3::jsonb, $4) RETURNING id",
    )
    .bind(&plan.name)
    .bind(&plan.digest)
    .bind(&plan.definition)
    .bind(PROGRAM_VERSION)
    .fetch_one(&mut *connection)
    .await?;
    let generation: i64 = sqlx::query_scalar(
        "INSERT INTO projector.generations (projection, number, definition_id, semantics_version, state)
         VALUES ($1, $2, $3, $4, 'live') RETURNING id",
    )
    .bind(&plan.name)
    .bind(number)
    .bind(definition)
    .bind(SEMANTICS_VERSION)
    .fetch_one(&mut *connection)
    .await?;
    let schema = schema_name(&plan.name, number);
    let mut statements = create_statements(plan, &schema);
    statements.extend(relations::statements(plan, &schema, generation));
    for table in plan.tables.iter().filter(|table| table.served) {
        statements.extend(view_statements(plan, table, &schema, served_schema));
    }
    for statement in statements {
        connection.execute(vouched(statement)).await?;
    }
    companion::make(connection, plan, generation, served_schema).await?;
    record_served(connection, plan, generation).await?;
    relations::record(connection, plan, generation).await?;
    upcasters::begin(connection, plan).await?;
    Ok(Ok(if digests.is_empty() { Applied::Created } else { Applied::Recreated }))
}

/// Notes which views show which tables of the generation.
async fn record_served(connection: &mut PgConnection, plan: &Plan, generation: i64) -> Result<(), StoreError> {
    for table in plan.tables.iter().filter(|table| table.served) {
        sqlx::query(
            "INSERT INTO projector.served (view, generation_id, \"table\", key) VALUES ($1, $2, $1, $3)
             ON CONFLICT (view) DO UPDATE SET generation_id = excluded.generation_id, key = excluded.key",
        )
        .bind(&table.name)
        .bind(generation)
        .bind(table.key.iter().map(|column| column.name.as_str()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Drops the live generation, if there is one. Returns the highest number used so far.
async fn drop_live(connection: &mut PgConnection, plan: &Plan, served_schema: &str) -> Result<i32, StoreError> {
    let rows = sqlx::query("SELECT id, number, state FROM projector.generations WHERE projection = $1 ORDER BY number")
        .bind(&plan.name)
        .fetch_all(&mut *connection)
        .await?;
    let mut highest = 0;
    for row in rows {
        let (id, number, state): (i64, i32, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        highest = number;
        if state != "live" {
            continue;
        }
        let schema = ident(&schema_name(&plan.name, number));
        sqlx::query("UPDATE projector.generations SET state = 'dropped' WHERE id = $1")
            .bind(id)
            .execute(&mut *connection)
            .await?;
        companion::drop_made(connection, id, served_schema).await?;
        for table in [
            "checkpoints",
            "topics",
            "halts",
            "unhandled",
            "dead_letters",
            "parked_rows",
            "skipped",
            "served",
            "relations",
        ] {
            let delete = format!("DELETE FROM projector.{table} WHERE generation_id = $1");
            sqlx::query(vouched(delete)).bind(id).execute(&mut *connection).await?;
        }
        for table in plan.tables.iter().filter(|table| table.served) {
            let view = format!("DROP VIEW IF EXISTS {}.{}", ident(served_schema), ident(&table.name));
            connection.execute(vouched(view)).await?;
        }
        connection.execute(vouched(format!("DROP SCHEMA {schema} CASCADE"))).await?;
    }
    Ok(highest)
}

/// A relation of a person's stands where a view should go.
async fn collision(
    connection: &mut PgConnection,
    plan: &Plan,
    served_schema: &str,
) -> Result<Option<String>, StoreError> {
    for table in plan.tables.iter().filter(|table| table.served) {
        let kind: Option<String> = sqlx::query_scalar(
            "SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'r' THEN 'table' ELSE 'relation' END
             FROM pg_class WHERE relname = $1 AND relnamespace = to_regnamespace(quote_ident($2))",
        )
        .bind(&table.name)
        .bind(served_schema)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(kind) = kind {
            return Ok(Some(format!(
                "{}: there is already a {kind} {served_schema}.{} that the projector did not make; rename one of the two",
                plan.path, table.name
            )));
        }
    }
    Ok(None)
}

/// Refuses a database without a catalog, and one whose catalog needs a newer program.
///
/// # Errors
/// What to do about it.
pub async fn require(pool: &PgPool) -> Result<(), StoreError> {
    if !catalog_exists(pool).await? {
        return Err(StoreError::Catalog("the database has no catalog yet. Make it with: projector apply".into()));
    }
    refuse_if_too_old(pool).await
}

/// The live generations of these plans.
///
/// # Errors
/// When the catalog is missing or differs from the files, with the command to type.
pub async fn live_generations(pool: &PgPool, plans: &[Plan]) -> Result<Vec<Generation>, StoreError> {
    require(pool).await?;
    let rows = sqlx::query(
        "SELECT g.id, g.projection, g.number, g.semantics_version, d.digest
         FROM projector.generations g JOIN projector.definitions d ON d.id = g.definition_id WHERE g.state = 'live'",
    )
    .fetch_all(pool)
    .await?;
    let mut live: HashMap<String, (Generation, i32, String)> = HashMap::new();
    for row in rows {
        let (projection, number): (String, i32) = (row.try_get(1)?, row.try_get(2)?);
        let schema = schema_name(&projection, number);
        let generation = Generation { id: row.try_get(0)?, projection: projection.clone(), number, schema };
        live.insert(projection, (generation, row.try_get(3)?, row.try_get(4)?));
    }
    let mut generations = Vec::new();
    let mut differ = Vec::new();
    for plan in plans {
        match live.remove(&plan.name) {
            None => differ.push(format!("`{}` has not been applied yet. Apply it with: projector apply", plan.name)),
            Some((_, semantics, _)) if semantics != SEMANTICS_VERSION => differ.push(format!(
                "`{}` was built by semantics version {semantics}, this program has {SEMANTICS_VERSION}. Build it anew with: \
                 projector apply --recreate {}",
                plan.name, plan.name
            )),
            Some((_, _, digest)) if digest != plan.digest => differ.push(format!(
                "{}: the definition of `{}` differs from the catalog's. See what to do with: projector apply",
                plan.path, plan.name
            )),
            Some((generation, _, _)) => generations.push(generation),
        }
    }
    let mut connection = pool.acquire().await?;
    for plan in plans {
        match upcasters::compare(&mut connection, plan, false).await? {
            Compared::Same => {}
            Compared::More | Compared::Changed(_) => differ.push(format!(
                "{}: the upcasters of `{}` differ from the catalog's. See what to do with: projector apply",
                plan.path, plan.name
            )),
        }
    }
    if differ.is_empty() { Ok(generations) } else { Err(StoreError::Catalog(differ.join("\n"))) }
}
