//! `projector apply`

use super::{Common, Failure, Outcome, plans, runtime};
use crate::config::{Settings, password};
use crate::plan::Plan;
use crate::store::catalog::{self, Applied};
use crate::store::connect;
use crate::store::error::StoreError;

pub fn apply(common: &Common, recreate: &[String]) -> Outcome {
    let settings = common.settings()?;
    let plans = plans(&settings.projections)?;
    if let Some(unknown) = recreate.iter().find(|name| !plans.iter().any(|plan| plan.name == **name)) {
        return Err(Failure::refused(format!(
            "there is no projection `{unknown}` in {}",
            settings.projections.display()
        )));
    }
    runtime()?.block_on(async {
        let pool = pool(&settings)?;
        let applied = apply_all(&pool, &plans, recreate, &settings)
            .await
            .map_err(|error| if error.is_transient() { Failure::failed(error) } else { Failure::refused(error) })?;
        for (name, applied) in applied {
            println!("{name}: {}", describe(&applied));
        }
        pool.close().await;
        Ok(())
    })
}

/// The pool for catalog and lanes.
pub fn pool(settings: &Settings) -> Result<sqlx::PgPool, Failure> {
    let postgres = &settings.postgres;
    let password = password(postgres.password_file.as_deref(), "postgres_password").map_err(Failure::refused)?;
    let options = connect::options(postgres, password.as_ref());
    Ok(connect::pool(options, postgres.max_connections.max(2), postgres.statement_timeout_ms, false))
}

pub async fn apply_all(
    pool: &sqlx::PgPool,
    plans: &[Plan],
    recreate: &[String],
    settings: &Settings,
) -> Result<Vec<(String, Applied)>, StoreError> {
    connect::check_server(pool).await?;
    catalog::migrate(pool).await?;
    catalog::apply(pool, plans, recreate, &settings.serve.schema).await
}

pub fn describe(applied: &Applied) -> &'static str {
    match applied {
        Applied::Created => "created",
        Applied::Unchanged => "unchanged",
        Applied::MoreUpcasters => {
            "upcasters were added; events that were parked for want of them: projector dead-letters retry --code no-upcaster"
        }
        Applied::Recreated => "created anew; its history is folded again, by a daemon that is started from now on",
    }
}
