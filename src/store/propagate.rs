//! Carrying out marks: rows that follow from other rows are brought up to date.
//!
//! One propagator at a time works on a generation, transaction by transaction, under an advisory lock that ends with each.
//! What it writes it works out in the same transaction, from what is there then, on rows that it has locked: one that
//! slept can write nothing old.
//!
//! Lanes copy joined columns themselves when a row begins to refer to another one. They do so within the **gate**, an
//! advisory lock that they share and hold to their commit. A change of the joined row is marked; whoever carries the mark
//! out first waits until the lanes that stood in the gate when the mark was seen are through: nobody else can have read
//! the value from before it, and their rows can be seen now. Lanes that come later read the new value and are not waited
//! for. Locks on joined rows would not do: a lane that waits for one goes on with the values that it had read before
//! (<https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED>).

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, PgExecutor, PgPool};

use super::commit::Generation;
use super::error::StoreError;
use super::locked::Reach;
use super::marks::{self, Marked, Marks, Origin, Taken};
use super::observe::Watch;
use super::sql::vouched;
use super::write::Target;
use crate::batch::{Key, compare_keys};
use crate::plan::Plan;
use crate::plan::derived::{Edge, Join, Rollup};
use crate::proof::{self, Sabotage};

/// Rows that a transaction writes at most; so long are others kept waiting for one of them.
const CHUNK: usize = 4_000;
/// Marks that are looked at at once.
const MOST_MARKS: i64 = 10_000;

/// Classes of advisory locks; the generation is the other half of each. The numbers only have to be ours.
const GATE: i32 = 0x7072_6701;
const PROPAGATOR: i32 = 0x7072_6702;

/// What one step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Propagated {
    /// Keys whose marks are gone.
    pub keys: usize,
    /// Rows that were looked at.
    pub rows: usize,
}

/// Lanes stand in the gate from before they read a joined row until they have committed.
///
/// # Errors
/// What Postgres says.
pub(super) async fn enter_gate(
    connection: &mut PgConnection,
    plan: &Plan,
    generation: &Generation,
) -> Result<(), StoreError> {
    if plan.tables.iter().any(|table| !table.joins.is_empty()) && !proof::sabotaged(Sabotage::Gate) {
        sqlx::query("SELECT pg_advisory_xact_lock_shared($1, $2)")
            .bind(GATE)
            .bind(generation.id as i32)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Waits until those who stand in the gate now are through.
async fn wait_at_gate(connection: &mut PgConnection, generation: &Generation) -> Result<(), StoreError> {
    const AGAIN: Duration = Duration::from_millis(2);
    let holders = "SELECT virtualtransaction FROM pg_locks
        WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND classid = $1::bigint::oid AND objid = $2::bigint::oid AND objsubid = 2 AND granted";
    let class = i64::from(GATE as u32);
    let object = i64::from(generation.id as i32 as u32);
    let mut waiting: Vec<String> =
        sqlx::query_scalar(holders).bind(class).bind(object).fetch_all(&mut *connection).await?;
    while !waiting.is_empty() {
        proof::step(proof::AT_THE_GATE).await;
        tokio::time::sleep(AGAIN).await;
        let still = format!("{holders} AND virtualtransaction = ANY($3)");
        waiting = sqlx::query_scalar(vouched(still))
            .bind(class)
            .bind(object)
            .bind(&waiting)
            .fetch_all(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Carries out the oldest marks of one edge. `None` when there are none.
///
/// # Errors
/// What Postgres says. What was not carried out is still marked.
pub async fn propagate(pool: &PgPool, plan: &Plan, generation: &Generation) -> Result<Option<Propagated>, StoreError> {
    if plan.edges.is_empty() {
        return Ok(None);
    }
    let mut connection = pool.acquire().await?;
    let mut transaction = begin(&mut connection, generation).await?;
    let Some(taken) = marks::oldest(&mut transaction, plan, &generation.schema, MOST_MARKS).await? else {
        return Ok(None);
    };
    proof::step("seen").await;
    let edge = &plan.edges[taken.edge];
    let work = Work { plan, generation, target: Target::new(plan, &generation.schema, edge.to) };
    if let Some(rollup) = plan.rollup(edge) {
        let done = work.add_up(&mut transaction, rollup, &taken).await?;
        proof::step("added").await;
        proof::failpoint(proof::BEFORE_COMMIT);
        transaction.commit().await?;
        proof::failpoint(proof::AFTER_COMMIT);
        return Ok(Some(done));
    }
    let Some(join) = plan.join(edge) else { return Ok(None) };
    wait_at_gate(&mut transaction, generation).await?;
    let all: Vec<&Marked> = taken.keys.iter().collect();
    let mut stale = work.stale(&mut transaction, edge, join, &all, None).await?;
    proof::step("found").await;
    // What did not fit into the page is not carried out yet. Postgres went through the marks in their order, as it does
    // where it looks rows up by an index; had it not, nobody would know which marks the page is of.
    let whole = match stale.last() {
        Some((last, _)) if stale.len() >= CHUNK && stale.is_sorted_by_key(|(of, _)| *of) => *last,
        Some(_) if stale.len() >= CHUNK => 0,
        _ => all.len(),
    };
    if whole > 0 {
        let marked = &all[..whole];
        stale.retain(|(of, _)| *of < whole);
        work.refill(&mut transaction, &stale, oldest_of(marked)).await?;
        proof::step("refilled").await;
        marks::remove(&mut transaction, &generation.schema, marked).await?;
        proof::failpoint(proof::BEFORE_COMMIT);
        transaction.commit().await?;
        proof::failpoint(proof::AFTER_COMMIT);
        return Ok(Some(Propagated { keys: marked.len(), rows: stale.len() }));
    }
    // One row that very many refer to: page by page, each a transaction of its own. No gate any more: what lanes write
    // since the mark was seen is right by itself.
    transaction.rollback().await?;
    let marked = &all[..1];
    let (mut after, mut done) = (None, Propagated { keys: 1, rows: 0 });
    loop {
        let mut transaction = begin(&mut connection, generation).await?;
        let page = work.stale(&mut transaction, edge, join, marked, after.as_ref()).await?;
        work.refill(&mut transaction, &page, oldest_of(marked)).await?;
        let is_last = page.len() < CHUNK;
        if is_last {
            marks::remove(&mut transaction, &generation.schema, marked).await?;
        }
        proof::failpoint(proof::BEFORE_COMMIT);
        transaction.commit().await?;
        proof::failpoint(proof::AFTER_COMMIT);
        done.rows += page.len();
        if is_last {
            return Ok(Some(done));
        }
        after = page.into_iter().last().map(|(_, key)| key);
    }
}

/// A transaction that is the only one of its kind.
async fn begin<'c>(
    connection: &'c mut PgConnection,
    generation: &Generation,
) -> Result<sqlx::Transaction<'c, sqlx::Postgres>, StoreError> {
    // Few rows are looked up in tables that may be large and are not analysed yet: by their indexes, in their order.
    const PLANS: &str = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off; \
                         SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off";
    let mut transaction = connection.begin().await?;
    let lock = match proof::sabotaged(Sabotage::PropagatorLock) {
        true => String::new(),
        false => format!("; SELECT pg_advisory_xact_lock({PROPAGATOR}, {})", generation.id as i32),
    };
    transaction.execute(sqlx::raw_sql(vouched(format!("{PLANS}{lock}")))).await?;
    Ok(transaction)
}

fn oldest_of(marked: &[&Marked]) -> Option<Origin> {
    marked.iter().map(|marked| marked.origin).reduce(Origin::older)
}

struct Work<'w> {
    plan: &'w Plan,
    generation: &'w Generation,
    target: Target<'w>,
}

impl Work<'_> {
    async fn stale(
        &self,
        connection: &mut PgConnection,
        edge: &Edge,
        join: &Join,
        marked: &[&Marked],
        after: Option<&Key>,
    ) -> Result<Vec<(usize, Key)>, StoreError> {
        let keys: Vec<&Key> = marked.iter().map(|marked| &marked.key).collect();
        self.target.stale(connection, &join.by, (&self.plan.tables[edge.from], &keys), after, CHUNK).await
    }

    /// Brings the joined columns of rows up to date, and marks what follows from them.
    async fn refill(
        &self,
        connection: &mut PgConnection,
        rows: &[(usize, Key)],
        origin: Option<Origin>,
    ) -> Result<(), StoreError> {
        let mut keys: Vec<&Key> = rows.iter().map(|(_, key)| key).collect();
        keys.sort_unstable_by(|a, b| compare_keys(a, b));
        keys.dedup();
        let watch = Watch::of(self.plan, self.target.at);
        let mut marks = Marks::default();
        let before = watch.before(&self.target, connection, &keys).await?;
        self.fill(connection, &keys, &watch, &mut marks).await?;
        watch.after(&self.target, connection, &keys, &before, &mut marks).await?;
        self.mark(connection, marks, origin).await
    }

    /// Whatever brings joined columns up to date marks what follows from them: nobody else will find them stale.
    async fn fill(
        &self,
        connection: &mut PgConnection,
        keys: &[&Key],
        watch: &Watch,
        marks: &mut Marks,
    ) -> Result<(), StoreError> {
        let changed = self.target.refill(connection, keys).await?;
        let fills = self.target.table.joins.iter().flat_map(|join| &join.fill).map(|(column, _)| *column);
        if watch.is_copied(self.target.table, &fills.collect::<Vec<_>>()) {
            changed.iter().for_each(|key| watch.joined(key, marks));
        }
        Ok(())
    }

    /// Adds what was marked to the rows that aggregate it.
    async fn add_up(
        &self,
        connection: &mut PgConnection,
        rollup: &Rollup,
        taken: &Taken,
    ) -> Result<Propagated, StoreError> {
        let mut marked: Vec<&Marked> = taken.keys.iter().collect();
        marked.sort_unstable_by(|a, b| compare_keys(&a.key, &b.key));
        let keys: Vec<&Key> = marked.iter().map(|marked| &marked.key).collect();
        let watch = Watch::of(self.plan, self.target.at);
        let mut marks = Marks::default();
        self.target.make_rows(connection, &keys).await?;
        self.target.load(connection, &Reach::reading(std::iter::empty()), &keys, true).await?;
        let before = watch.before(&self.target, connection, &keys).await?;
        proof::step("looked").await;
        self.target.add_sums(connection, rollup, &marked).await?;
        let searched: Vec<&Key> = marked.iter().filter(|marked| marked.search).map(|marked| &marked.key).collect();
        self.target.search(connection, rollup, &searched).await?;
        self.fill(connection, &keys, &watch, &mut marks).await?;
        if watch.is_copied(self.target.table, &rollup.fills()) {
            keys.iter().for_each(|key| watch.joined(key, &mut marks));
        }
        watch.after(&self.target, connection, &keys, &before, &mut marks).await?;
        self.mark(connection, marks, oldest_of(&marked)).await?;
        marks::remove(connection, &self.generation.schema, &marked).await?;
        Ok(Propagated { keys: keys.len(), rows: keys.len() })
    }

    /// The marks of the next hop commit with what they follow from.
    async fn mark(
        &self,
        connection: &mut PgConnection,
        marks: Marks,
        origin: Option<Origin>,
    ) -> Result<(), StoreError> {
        if proof::sabotaged(Sabotage::NextHop) {
            return Ok(());
        }
        marks.write(connection, &self.generation.schema, origin).await
    }
}

/// The newest change that is marked: what was applied before now has been followed everywhere once no mark goes back to
/// it or to one before.
///
/// # Errors
/// What Postgres says.
pub async fn horizon(connection: impl PgExecutor<'_>, schema: &str) -> Result<Option<i64>, sqlx::Error> {
    let sql = format!("SELECT max(COALESCE(origin, id)) FROM {}", marks::marks_name(schema));
    sqlx::query_scalar(vouched(sql)).fetch_one(connection).await
}

/// Whether all that was marked up to a horizon has been followed.
///
/// # Errors
/// What Postgres says.
pub async fn is_followed(connection: impl PgExecutor<'_>, schema: &str, horizon: i64) -> Result<bool, sqlx::Error> {
    let sql =
        format!("SELECT NOT EXISTS (SELECT 1 FROM {} WHERE COALESCE(origin, id) <= $1)", marks::marks_name(schema));
    sqlx::query_scalar(vouched(sql)).bind(horizon).fetch_one(connection).await
}
