//! What a generation is given last, when its rows are there: the indexes that nothing needs while it is built.
//!
//! Its lanes stand still meanwhile, where they are: who would wait for a table that is being indexed would run out of time.

use std::time::Duration;

use sqlx::{Connection, Executor, PgPool};

use super::commit::Generation;
use super::error::StoreError;
use super::generations::hold;
use super::meeting::{alone, release, release_within};
use super::sql::vouched;
use super::tables::late_indexes;
use crate::plan::Plan;
use crate::proof;

/// Lanes are stopped for no longer, should whoever stopped them die. The indexes of a billion rows take less.
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// Makes the indexes of a generation that are still missing, all of them at once.
///
/// # Errors
/// What Postgres says; none is there then, and the lanes go on.
pub async fn finish(pool: &PgPool, plan: &Plan, generation: &Generation) -> Result<(), StoreError> {
    // Who compares it meanwhile would let its lanes go on.
    let mut alone = alone(pool, &generation.projection).await?;
    alone.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
    stop(pool, generation).await?;
    let indexed = index(pool, plan, generation).await;
    if indexed.is_err() {
        release(pool, &[generation.id]).await?;
    }
    alone.rollback().await?;
    indexed
}

/// Stops the lanes of a generation where they are.
async fn stop(pool: &PgPool, generation: &Generation) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    hold(&mut transaction, &[generation.id]).await?;
    sqlx::query(
        "UPDATE projector.checkpoints
         SET stop_at = next_offset, stop_until = clock_timestamp() + make_interval(secs => $2) WHERE generation_id = $1",
    )
    .bind(generation.id)
    .bind(LONGEST.as_secs_f64())
    .execute(&mut *transaction)
    .await?;
    Ok(transaction.commit().await?)
}

async fn index(pool: &PgPool, plan: &Plan, generation: &Generation) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    transaction.execute("SET LOCAL statement_timeout = 0").await?;
    // One at a time does it.
    let missing = "SELECT NOT indexed FROM projector.generations WHERE id = $1 FOR UPDATE";
    let missing: bool = sqlx::query_scalar(missing).bind(generation.id).fetch_one(&mut *transaction).await?;
    if missing {
        for statement in late_indexes(plan, &generation.schema) {
            transaction.execute(vouched(statement)).await?;
        }
        let done = "UPDATE projector.generations SET indexed = true WHERE id = $1";
        sqlx::query(done).bind(generation.id).execute(&mut *transaction).await?;
        proof::failpoint(proof::INDEXING);
    }
    // Also when another daemon was faster.
    release_within(&mut transaction, &[generation.id]).await?;
    Ok(transaction.commit().await?)
}
