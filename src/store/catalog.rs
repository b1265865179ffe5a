//! The catalog: what is defined, which generation serves, how far it has read.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, PgPool, SqlSafeStr};

use super::error::StoreError;
use super::generations::{self, Listed, Making, State};
use super::sql::{ident, vouched};
use super::upcasters::{self, Compared};
use super::views;
use crate::plan::Plan;
use crate::plan::change::Need;

pub const PROGRAM_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Serialises everything that changes the catalog. The number is arbitrary and only has to be ours.
const CATALOG_LOCK: i64 = 0x7072_6f6a_6563_7401;

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "catalog", include_str!("../../migrations/0001_catalog.sql")),
    (2, "clock", include_str!("../../migrations/0002_clock.sql")),
    (3, "dead letters", include_str!("../../migrations/0003_dead_letters.sql")),
    (4, "relations", include_str!("../../migrations/0004_relations.sql")),
    (5, "generations", include_str!("../../migrations/0005_generations.sql")),
    (6, "endpoint", include_str!("../../migrations/0006_endpoint.sql")),
    (7, "built events", include_str!("../../migrations/0007_built_events.sql")),
    (8, "gone topics", include_str!("../../migrations/0008_gone_topics.sql")),
    (9, "late indexes", include_str!("../../migrations/0009_late_indexes.sql")),
    (10, "read cheaply", include_str!("../../migrations/0010_read_cheaply.sql")),
];

/// What `apply` did with one projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    Created,
    /// A generation of this number is built beside the live one.
    Building(i32),
    /// Views, comments and indexes were changed; the rows are the same.
    InPlace,
    /// A newer definition was recorded after this one; what to do.
    Superseded(String),
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
    let mut connection = pool.acquire().await?;
    let run = migrator.run(&mut *connection).await;
    if run.is_err() {
        // It has the lock of migrations still, and the next attempt may get another one.
        connection.close_on_drop();
    }
    run.map_err(|error| match error {
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

/// Whether there is a catalog at all.
///
/// # Errors
/// What Postgres says.
pub async fn catalog_exists(pool: &PgPool) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar("SELECT to_regclass('projector.program') IS NOT NULL").fetch_one(pool).await?)
}

/// What is asked of `apply` beside recording what is new.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// Projections whose rows are dropped, and whose views are empty until they are folded again.
    pub recreate: &'a [String],
    /// Definitions are built though newer ones were recorded after them.
    pub again: bool,
    /// What is built is not shown until somebody promotes it.
    pub manual: bool,
}

/// Records definitions, all or nothing. The tables and views of a new projection are made at once; of one that has
/// changed, a generation is begun beside the live one.
///
/// # Errors
/// Which projections are refused and why, or what Postgres says; nothing has changed then.
pub async fn apply(
    pool: &PgPool,
    plans: &[Plan],
    asked: Asked<'_>,
    served_schema: &str,
) -> Result<Vec<(String, Applied)>, StoreError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    lock(&mut transaction).await?;
    let create = format!("CREATE SCHEMA IF NOT EXISTS {}", ident(served_schema));
    transaction.execute(vouched(create)).await?;
    let mut done = Vec::new();
    let mut refused = Vec::new();
    for plan in plans {
        match apply_one(&mut transaction, plan, asked, served_schema).await? {
            Ok(applied) => done.push((plan.name.clone(), applied)),
            Err(reason) => refused.push(reason),
        }
    }
    if !refused.is_empty() {
        return Err(StoreError::Catalog(refused.join("\n")));
    }
    transaction.commit().await?;
    Ok(done)
}

/// Waits until nobody else changes the catalog. It ends with the transaction.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CATALOG_LOCK).execute(connection).await?;
    Ok(())
}

async fn apply_one(
    connection: &mut PgConnection,
    plan: &Plan,
    asked: Asked<'_>,
    served_schema: &str,
) -> Result<Result<Applied, String>, StoreError> {
    let known = generations::list_of(connection, &plan.name).await?;
    let live = known.iter().find(|listed| listed.state == State::Live);
    let building = known.iter().find(|listed| listed.state == State::Building);
    if asked.recreate.contains(&plan.name) || live.is_none() {
        if let Some(live) = live {
            views::hide(connection, &live.generation, served_schema).await?;
        }
        for listed in &known {
            generations::drop(connection, &listed.generation).await?;
        }
        if let Some(reason) = collision(connection, plan, served_schema).await? {
            return Ok(Err(reason));
        }
        let generation = generations::create(connection, plan, Making::plain(State::Live)).await?;
        generations::show(connection, plan, &generation, served_schema).await?;
        return Ok(Ok(if live.is_some() { Applied::Recreated } else { Applied::Created }));
    }
    if let Some(newest) = building.or(live).filter(|newest| newest.is_of(plan)) {
        match newest.upcasters_of(plan) {
            Compared::Same => {
                generations::refresh(connection, plan, &newest.generation).await?;
                return Ok(Ok(Applied::Unchanged));
            }
            Compared::More(_) => {
                generations::give_definition(connection, plan, &newest.generation).await?;
                return Ok(Ok(Applied::MoreUpcasters));
            }
            Compared::Changed(_) => {}
        }
    }
    // What another version of the program folded by this very definition is no newer one.
    let by_another = building.or(live).is_some_and(|newest| newest.is_by_another(plan));
    if !asked.again && !by_another && was_recorded(connection, plan).await? {
        return Ok(Ok(Applied::Superseded(what_to_do(plan, &known))));
    }
    if let Some(reason) = foreign_view(connection, plan, served_schema).await? {
        return Ok(Err(reason));
    }
    if let (None, Some(live)) = (building, live.filter(|live| live.need(plan) == Need::InPlace)) {
        // Its views are in use.
        connection.execute("SET LOCAL lock_timeout = '5s'").await?;
        let old = live.plan(&[])?;
        let mut attempt = connection.begin().await?;
        let redefined = generations::redefine(&mut attempt, &old, plan, &live.generation, served_schema).await?;
        return Ok(match redefined {
            Ok(()) => {
                attempt.commit().await?;
                Ok(Applied::InPlace)
            }
            Err(reason) => {
                attempt.rollback().await?;
                Err(format!("{}: {reason}", plan.path))
            }
        });
    }
    if let Some(building) = building {
        generations::drop(connection, &building.generation).await?;
    }
    let making = Making { manual: asked.manual || plan.begins_late(), ..Making::plain(State::Building) };
    let generation = generations::create(connection, plan, making).await?;
    Ok(Ok(Applied::Building(generation.number)))
}

/// How to have a definition all the same that a newer one has superseded.
fn what_to_do(plan: &Plan, known: &[Listed]) -> String {
    let name = &plan.name;
    let of = |state: State| known.iter().find(move |listed| listed.state == state && listed.is_current(plan));
    let building = known.iter().find(|listed| listed.state == State::Building);
    match (of(State::Live), building, of(State::Kept)) {
        (Some(_), Some(building), _) => {
            let number = building.generation.number;
            format!(
                "readers still see it; generation {number}, which is built, is given up with: projector drop {name} {number}"
            )
        }
        (_, _, Some(kept)) => {
            let number = kept.generation.number;
            format!("generation {number} still has it; readers get it back with: projector rollback {name} {number}")
        }
        _ => "to have this one again on purpose: projector apply --again".into(),
    }
}

/// Whether a newer definition was applied after this one.
///
/// # Errors
/// What Postgres says.
pub async fn is_superseded(pool: &PgPool, plan: &Plan) -> Result<bool, StoreError> {
    was_recorded(&mut *pool.acquire().await?, plan).await
}

/// Whether the definition was recorded once, before the one that is now.
async fn was_recorded(connection: &mut PgConnection, plan: &Plan) -> Result<bool, StoreError> {
    let known =
        "SELECT EXISTS (SELECT 1 FROM projector.definitions WHERE projection = $1 AND digest = $2 AND upcasters = $3)";
    let upcasters = upcasters::fingerprint(plan);
    Ok(sqlx::query_scalar(known).bind(&plan.name).bind(&plan.digest).bind(upcasters).fetch_one(connection).await?)
}

/// A relation that is not of this projection stands where one of its views should go.
async fn foreign_view(
    connection: &mut PgConnection,
    plan: &Plan,
    served_schema: &str,
) -> Result<Option<String>, StoreError> {
    let own: Vec<String> = sqlx::query_scalar(
        "SELECT s.view FROM projector.served s JOIN projector.generations g ON g.id = s.generation_id WHERE g.projection = $1",
    )
    .bind(&plan.name)
    .fetch_all(&mut *connection)
    .await?;
    let mut new = plan.clone();
    new.tables.retain(|table| !own.contains(&table.name));
    collision(connection, &new, served_schema).await
}

/// A relation of a person's stands where a view should go.
pub(super) async fn collision(
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
            let owner: Option<String> = sqlx::query_scalar(
                "SELECT g.projection FROM projector.served s JOIN projector.generations g ON g.id = s.generation_id
                 WHERE s.view = $1",
            )
            .bind(&table.name)
            .fetch_optional(&mut *connection)
            .await?;
            return Ok(Some(match owner {
                Some(owner) => format!(
                    "{}: the view {served_schema}.{} is of the projection `{owner}`. If that is not needed any more: projector \
                     drop {owner} --all",
                    plan.path, table.name
                ),
                None => format!(
                    "{}: there is already a {kind} {served_schema}.{} that the projector did not make; rename one of the two",
                    plan.path, table.name
                ),
            }));
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
    refuse_if_too_old(pool).await?;
    let there: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM projector.migrations").fetch_one(pool).await?;
    let newest = MIGRATIONS.iter().map(|(version, ..)| *version).max();
    if there < newest {
        return Err(StoreError::Catalog(
            "the catalog is of an older program. Bring it up to date with: projector apply".into(),
        ));
    }
    Ok(())
}
