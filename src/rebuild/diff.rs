//! Two generations of a projection, compared at the same place of the log.

use sqlx::{Connection, Executor, PgPool};

use crate::plan::Plan;
use crate::store::compare::{Difference, Rows, compare, pairs};
use crate::store::explain::{Moment, moment};
use crate::store::meeting::meet;
use crate::store::{Generation, StoreError};

/// What came of comparing.
#[derive(Debug)]
pub struct Compared {
    pub differences: Vec<Difference>,
    /// What could not be compared, and why.
    pub incomparable: Vec<String>,
    /// The two generations as they were; what is known of them besides their rows.
    pub moments: (Moment, Moment),
}

/// Compares what readers see of two generations, or of some rows. Both stand still for a moment, until the snapshot is taken.
///
/// # Errors
/// That they do not come to the same place, or what Postgres says.
pub async fn diff(
    pool: &PgPool,
    (old, old_plan): (&Generation, &Plan),
    (new, new_plan): (&Generation, &Plan),
    only: Option<&Rows>,
    samples: i64,
) -> Result<Compared, StoreError> {
    let meeting = meet(pool, (old, old_plan), (new, new_plan)).await?;
    let mut connection = pool.acquire().await?;
    let begun = async {
        let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // Comparing may take its time. The first statement takes the snapshot.
        transaction.execute("SET LOCAL statement_timeout = 0").await?;
        transaction.execute("SELECT 1 FROM projector.generations LIMIT 1").await?;
        Ok::<_, StoreError>(transaction)
    };
    let begun = begun.await;
    meeting.end(pool).await?;
    let mut transaction = begun?;
    let moments = (moment(&mut transaction, old_plan, old).await?, moment(&mut transaction, new_plan, new).await?);
    let mut compared = Compared { differences: Vec::new(), incomparable: Vec::new(), moments };
    let pairs = pairs(old_plan, new_plan);
    for pair in pairs.iter().filter(|pair| only.is_none_or(|rows| rows.table == pair.name)) {
        match compare(&mut transaction, pair, (old, new), only, samples).await? {
            Ok(difference) => compared.differences.push(difference),
            Err(why) => compared.incomparable.push(why),
        }
    }
    Ok(compared)
}
