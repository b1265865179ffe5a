//! `projector resume`

use super::{Common, Failure, Outcome, apply, runtime};
use crate::store::catalog;
use crate::store::parked::desk;

pub fn resume(common: &Common, projection: &str) -> Outcome {
    let settings = common.settings()?;
    runtime()?.block_on(async {
        let pool = apply::pool(&settings)?;
        catalog::require(&pool).await.map_err(Failure::failed)?;
        let stood_still = desk::resume(&pool, projection).await.map_err(Failure::failed)?;
        pool.close().await;
        if !stood_still {
            return Err(Failure::refused(format!("no projection `{projection}` stands still; see `projector status`")));
        }
        println!("{projection} goes on, where a daemon runs it");
        Ok(())
    })
}
