//! What is served, compared with what the log gives.

use sqlx::{Connection, PgPool};

use crate::plan::Plan;
use crate::store::compare::{Rows, mend};
use crate::store::generations::{Listed, Making, State};
use crate::store::meeting::meet;
use crate::store::parked::same_letters;
use crate::store::status::{gone, truncated};
use crate::store::{Generation, StoreError, promotion};

/// Begins to fold all of a projection's history again, into tables that nobody sees.
///
/// # Errors
/// What Postgres says.
pub async fn begin(pool: &PgPool, plan: &Plan, live: &Listed, max_rate: Option<f64>) -> Result<Generation, StoreError> {
    if plan.begins_late() {
        return Err(StoreError::Catalog(format!(
            "a source of `{}` starts at `latest`: nobody knows with which events its rows began, so that they cannot be verified",
            plan.name
        )));
    }
    let making = Making { max_rate, history_from: live.history_from, ..Making::plain(State::Scratch) };
    promotion::begin(pool, plan, making).await
}

/// Puts right what is served, or some rows of it. Nothing is folded meanwhile; readers see all of it at once. Returns how many rows of which
/// table were put right.
///
/// # Errors
/// That the two do not come to the same place, or that it took too long; or what Postgres says. Nothing has changed then.
pub async fn repair(
    pool: &PgPool,
    plan: &Plan,
    live: &Generation,
    scratch: &Generation,
    only: Option<&Rows>,
) -> Result<Vec<(String, u64)>, StoreError> {
    for generation in [live, scratch] {
        if let Some((topic, _)) = truncated(pool, generation.id).await?.first() {
            return Err(StoreError::Catalog(format!(
                "the early history of {topic} is gone: rows that were made of it would be taken out. Nothing was changed"
            )));
        }
    }
    if let Some(topic) = gone(pool, live.id).await?.first() {
        return Err(StoreError::Catalog(format!(
            "the topic {topic} is not there any more: rows that were made of it would be taken out. Nothing was changed"
        )));
    }
    let meeting = meet(pool, (live, plan), (scratch, plan)).await?;
    let mended = async {
        let mut connection = pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        // Even if the meeting is over by its time, nobody moves until the rows are right.
        meeting.hold(&mut transaction).await?;
        same_letters(&mut transaction, live, scratch).await?;
        let mended = mend(&mut transaction, plan, (live, scratch), only).await?;
        transaction.commit().await?;
        Ok::<_, StoreError>(mended)
    };
    let mended = mended.await;
    meeting.end(pool).await?;
    mended
}
