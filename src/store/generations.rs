//! Generations: physical builds of a projection, each with the definition that it is folded by.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Executor, PgPool, Row};

use super::commit::Generation;
use super::error::StoreError;
use super::sql::{ident, vouched};
use super::tables::{create_statements, index_changes, late_indexes, schema_name, view_statements};
use super::upcasters::{self, Compared};
use super::{companion, news, relations, views};
use crate::plan::change::{Need, need};
use crate::plan::{Plan, SEMANTICS_VERSION, Start};

/// What a generation is there for. All of these are folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It takes the place of the live one when it has caught up.
    Building,
    /// Readers see it.
    Live,
    /// It was live, and readers can be given it back.
    Kept,
    /// It is compared with the live one, and never shown.
    Scratch,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Building => "building",
            State::Live => "live",
            State::Kept => "kept",
            State::Scratch => "scratch",
        }
    }

    fn of(name: &str) -> Result<State, StoreError> {
        let all = [State::Building, State::Live, State::Kept, State::Scratch];
        let known = all.into_iter().find(|state| state.name() == name);
        known.ok_or_else(|| StoreError::Catalog(format!("a generation is `{name}`: a newer program made the catalog")))
    }
}

/// A generation as the catalog has it.
#[derive(Debug, Clone)]
pub struct Listed {
    pub generation: Generation,
    pub state: State,
    pub semantics_version: i32,
    pub digest: String,
    /// As [`Plan::definition`] has it.
    pub definition: String,
    /// The files of its definition; `None` if an older program recorded it.
    files: Option<String>,
    /// The upcasters that its events may have gone through.
    upcasters: String,
    /// Microseconds since the Unix epoch: where its history begins, if that is not where its sources say.
    pub history_from: Option<i64>,
    /// Events a second that are folded at most until it has caught up.
    pub max_rate: Option<f64>,
    /// Nobody promotes it but a person.
    pub manual: bool,
    /// It has caught up with the live one.
    pub ready: bool,
    /// It has all of its indexes.
    pub indexed: bool,
    /// Why it was not promoted, the last time that was tried.
    pub refused: Option<String>,
    /// Seconds since it was made, and since it was replaced.
    pub age_s: f64,
    pub replaced_s: Option<f64>,
}

const LISTED: &str = "SELECT g.id, g.projection, g.number, g.state, g.semantics_version, d.digest, d.files::text,
        (extract(epoch FROM g.history_from) * 1000000)::bigint, g.max_rate, g.promote = 'manual', g.ready_at IS NOT NULL,
        g.refused, extract(epoch FROM now() - g.created_at)::float8, extract(epoch FROM now() - g.replaced_at)::float8,
        g.upcasters::text, d.definition::text, g.indexed
    FROM projector.generations g JOIN projector.definitions d ON d.id = g.definition_id WHERE g.state <> 'dropped'";

fn listed(row: &PgRow) -> Result<Listed, StoreError> {
    let (projection, number): (String, i32) = (row.try_get(1)?, row.try_get(2)?);
    let schema = schema_name(&projection, number);
    Ok(Listed {
        generation: Generation { id: row.try_get(0)?, projection, number, schema },
        state: State::of(row.try_get(3)?)?,
        semantics_version: row.try_get(4)?,
        digest: row.try_get(5)?,
        files: row.try_get(6)?,
        history_from: row.try_get(7)?,
        max_rate: row.try_get(8)?,
        manual: row.try_get(9)?,
        ready: row.try_get(10)?,
        refused: row.try_get(11)?,
        age_s: row.try_get(12)?,
        replaced_s: row.try_get(13)?,
        upcasters: row.try_get(14)?,
        definition: row.try_get(15)?,
        indexed: row.try_get(16)?,
    })
}

/// All generations that are folded, by projection and number.
///
/// # Errors
/// What Postgres says.
pub async fn list(pool: &PgPool) -> Result<Vec<Listed>, StoreError> {
    let rows = pool.fetch_all(vouched(format!("{LISTED} ORDER BY g.projection, g.number"))).await?;
    rows.iter().map(listed).collect()
}

/// Those of one projection.
///
/// # Errors
/// What Postgres says.
pub async fn list_of(connection: &mut PgConnection, projection: &str) -> Result<Vec<Listed>, StoreError> {
    let sql = format!("{LISTED} AND g.projection = $1 ORDER BY g.number");
    let rows = sqlx::query(vouched(sql)).bind(projection).fetch_all(connection).await?;
    rows.iter().map(listed).collect()
}

impl Listed {
    /// Whether a definition is the one that this generation is folded by, in the same way.
    pub fn is_of(&self, plan: &Plan) -> bool {
        self.digest == plan.digest && self.semantics_version == SEMANTICS_VERSION
    }

    /// Whether it has the same definition, and another version of the program folded it by another meaning.
    pub fn is_by_another(&self, plan: &Plan) -> bool {
        self.digest == plan.digest && !self.is_of(plan)
    }

    /// What it takes to get from its definition to another one.
    pub fn need(&self, plan: &Plan) -> Need {
        if self.digest == plan.digest {
            return Need::Nothing;
        }
        // Postgres keeps the definition without the order of its words; its files have it.
        let kept = self.files.as_deref().and_then(|files| Plan::from_stored(files).ok());
        let as_now =
            self.semantics_version == SEMANTICS_VERSION && !matches!(self.upcasters_of(plan), Compared::Changed(_));
        match kept {
            Some(kept) if as_now => need(&kept.definition, &plan.definition),
            _ => Need::Rebuild,
        }
    }

    /// Whether it is folded just as this plan would have it.
    pub fn is_current(&self, plan: &Plan) -> bool {
        self.is_of(plan) && !matches!(self.upcasters_of(plan), Compared::Changed(_))
    }

    /// How the upcasters of a plan stand to those that its events may have gone through.
    pub fn upcasters_of(&self, plan: &Plan) -> Compared {
        upcasters::compare(&self.upcasters, plan)
    }

    /// What the generation is folded by. Of `plans`, that of the same definition is taken: what it says beside, such as
    /// what becomes of errors, may be newer.
    ///
    /// # Errors
    /// When this program cannot fold it: another program made it.
    pub fn plan(&self, plans: &[Plan]) -> Result<Plan, StoreError> {
        let Generation { projection, number, .. } = &self.generation;
        let cannot = |why: String| {
            StoreError::Catalog(format!(
                "generation {number} of `{projection}` was made by another version of the program, and this one cannot fold it \
                 ({why}). A new one is built by: projector apply"
            ))
        };
        if self.semantics_version != SEMANTICS_VERSION {
            let versions = format!("semantics version {}, not {SEMANTICS_VERSION}", self.semantics_version);
            return Err(cannot(versions));
        }
        let same = plans
            .iter()
            .find(|plan| plan.name == *projection && self.is_of(plan) && self.upcasters_of(plan) == Compared::Same);
        let mut plan = match (same, &self.files) {
            (Some(plan), _) => plan.clone(),
            (None, Some(files)) => Plan::from_stored(files).map_err(cannot)?,
            (None, None) => return Err(cannot("its files were not kept".into())),
        };
        if let Some(from) = self.history_from {
            plan.sources.iter_mut().for_each(|source| source.start = Start::At(from));
        }
        Ok(plan)
    }
}

/// How a generation is made.
#[derive(Debug, Clone, Copy)]
pub struct Making {
    pub state: State,
    pub manual: bool,
    /// Microseconds since the Unix epoch.
    pub history_from: Option<i64>,
    pub max_rate: Option<f64>,
}

impl Making {
    pub fn plain(state: State) -> Making {
        Making { state, manual: false, history_from: None, max_rate: None }
    }
}

/// Makes a generation: its record and its tables, which are empty. Nobody sees them yet. One that is built, or compared,
/// has some of its indexes only when it has caught up.
///
/// # Errors
/// What Postgres says.
pub(super) async fn create(
    connection: &mut PgConnection,
    plan: &Plan,
    making: Making,
) -> Result<Generation, StoreError> {
    let last: Option<i32> = sqlx::query_scalar("SELECT max(number) FROM projector.generations WHERE projection = $1")
        .bind(&plan.name)
        .fetch_one(&mut *connection)
        .await?;
    let number = last.unwrap_or(0) + 1;
    let schema = schema_name(&plan.name, number);
    let mut late = late_indexes(plan, &schema);
    let definition = record_definition(connection, plan).await?;
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO projector.generations
             (projection, number, definition_id, semantics_version, state, promote, history_from, max_rate, indexed)
         VALUES ($1, $2, $3, $4, $5, $6, to_timestamp($7::numeric / 1000000), $8, $9) RETURNING id",
    )
    .bind(&plan.name)
    .bind(number)
    .bind(definition)
    .bind(SEMANTICS_VERSION)
    .bind(making.state.name())
    .bind(if making.manual { "manual" } else { "auto" })
    .bind(making.history_from)
    .bind(making.max_rate)
    .bind(late.is_empty() || making.state == State::Live)
    .fetch_one(&mut *connection)
    .await?;
    let mut statements = create_statements(plan, &schema);
    if making.state == State::Live {
        statements.append(&mut late);
    }
    for statement in statements.into_iter().chain(relations::statements(plan, &schema, id)) {
        connection.execute(vouched(statement)).await?;
    }
    relations::record(connection, plan, id).await?;
    upcasters::record(connection, plan, id).await?;
    news::tell(connection).await?;
    Ok(Generation { id, projection: plan.name.clone(), number, schema })
}

async fn record_definition(connection: &mut PgConnection, plan: &Plan) -> Result<i64, StoreError> {
    let id = sqlx::query_scalar(
        "INSERT INTO projector.definitions (projection, digest, definition, files, program_version, upcasters)
         VALUES ($1, $2, $3::jsonb, $4::jsonb, $5, $6) RETURNING id",
    )
    .bind(&plan.name)
    .bind(&plan.digest)
    .bind(&plan.definition)
    .bind(plan.stored())
    .bind(super::catalog::PROGRAM_VERSION)
    .bind(upcasters::fingerprint(plan))
    .fetch_one(connection)
    .await?;
    Ok(id)
}

/// Notes that a generation is folded by this definition from now on. Its rows are as they would have been by it.
///
/// # Errors
/// What Postgres says.
pub(super) async fn give_definition(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
) -> Result<(), StoreError> {
    let definition = record_definition(connection, plan).await?;
    sqlx::query("UPDATE projector.generations SET definition_id = $2 WHERE id = $1")
        .bind(generation.id)
        .bind(definition)
        .execute(&mut *connection)
        .await?;
    upcasters::record(connection, plan, generation.id).await
}

/// Gives a generation another definition, by which its rows are the same: its indexes and views become the new one's.
///
/// # Errors
/// What Postgres says. Inside, why its views cannot be changed: what stands on them does not allow it.
pub(super) async fn redefine(
    connection: &mut PgConnection,
    old: &Plan,
    new: &Plan,
    generation: &Generation,
    served_schema: &str,
) -> Result<Result<(), String>, StoreError> {
    for statement in index_changes(old, new, &generation.schema) {
        connection.execute(vouched(statement)).await?;
    }
    if let Err(reason) = views::swap(connection, new, generation, generation, served_schema).await? {
        return Ok(Err(reason));
    }
    give_definition(connection, new, generation).await?;
    Ok(Ok(()))
}

/// Makes the views of a generation, which are not there yet.
///
/// # Errors
/// What Postgres says.
pub(super) async fn show(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
    served_schema: &str,
) -> Result<(), StoreError> {
    for table in plan.tables.iter().filter(|table| table.served) {
        for statement in view_statements(plan, table, &generation.schema, served_schema) {
            connection.execute(vouched(statement)).await?;
        }
    }
    companion::make(connection, plan, generation.id, served_schema).await?;
    record_served(connection, plan, generation).await
}

/// Notes which views show which tables of the generation.
pub(super) async fn record_served(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
) -> Result<(), StoreError> {
    for table in plan.tables.iter().filter(|table| table.served) {
        sqlx::query(
            "INSERT INTO projector.served (view, generation_id, \"table\", key) VALUES ($1, $2, $1, $3)
             ON CONFLICT (view) DO UPDATE SET generation_id = excluded.generation_id, key = excluded.key",
        )
        .bind(&table.name)
        .bind(generation.id)
        .bind(table.key.iter().map(|column| column.name.as_str()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Keeps the files of a definition as they are now: what does not decide on rows may have changed.
///
/// # Errors
/// What Postgres says.
pub(super) async fn refresh(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE projector.definitions d SET files = $2::jsonb FROM projector.generations g
         WHERE g.id = $1 AND d.id = g.definition_id AND d.files IS DISTINCT FROM $2::jsonb",
    )
    .bind(generation.id)
    .bind(plan.stored())
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets nobody move checkpoints before the transaction has ended. They are locked in the order in which lanes lock them.
pub(super) async fn hold(connection: &mut PgConnection, generations: &[i64]) -> Result<(), StoreError> {
    sqlx::query(
        "SELECT 1 FROM projector.checkpoints WHERE generation_id = ANY($1)
         ORDER BY generation_id, topic, partition FOR UPDATE",
    )
    .bind(generations)
    .execute(connection)
    .await?;
    Ok(())
}

/// Drops a generation with all that is kept of it. Its views have to be gone.
///
/// # Errors
/// What Postgres says.
pub(super) async fn drop(connection: &mut PgConnection, generation: &Generation) -> Result<(), StoreError> {
    hold(connection, &[generation.id]).await?;
    // Lanes that still fold it find no checkpoint to move, before their tables go.
    for table in
        ["checkpoints", "topics", "halts", "unhandled", "dead_letters", "parked_rows", "skipped", "served", "relations"]
    {
        let delete = format!("DELETE FROM projector.{table} WHERE generation_id = $1");
        sqlx::query(vouched(delete)).bind(generation.id).execute(&mut *connection).await?;
    }
    sqlx::query("UPDATE projector.generations SET state = 'dropped' WHERE id = $1")
        .bind(generation.id)
        .execute(&mut *connection)
        .await?;
    connection.execute(vouched(format!("DROP SCHEMA IF EXISTS {} CASCADE", ident(&generation.schema)))).await?;
    Ok(())
}
