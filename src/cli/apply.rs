//! `projector apply`

use clap::Args;

use super::{Common, Failure, Outcome, REFUSED, plans, runtime};
use crate::config::{Settings, password};
use crate::plan::Plan;
use crate::store::catalog::{self, Applied, Asked};
use crate::store::connect;
use crate::store::error::StoreError;

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Drop this projection's rows and fold its history again, with its view empty meanwhile. May be given several times.
    #[arg(long, value_name = "PROJECTION")]
    recreate: Vec<String>,
    /// Build definitions too that newer ones have superseded.
    #[arg(long)]
    again: bool,
    /// Show what is built only when somebody says `projector promote`.
    #[arg(long)]
    manual: bool,
}

pub fn apply(options: &Options) -> Outcome {
    let Options { common, recreate, again, manual } = options;
    let settings = common.settings()?;
    let plans = plans(&settings.projections)?;
    if let Some(unknown) = recreate.iter().find(|name| !plans.iter().any(|plan| plan.name == **name)) {
        return Err(Failure::refused(format!(
            "there is no projection `{unknown}` in {}",
            settings.projections.display()
        )));
    }
    let asked = Asked { recreate, again: *again, manual: *manual };
    runtime()?.block_on(async {
        let pool = pool(&settings)?;
        let applied = apply_all(&pool, &plans, asked, &settings)
            .await
            .map_err(|error| if error.is_transient() { Failure::failed(error) } else { Failure::refused(error) })?;
        pool.close().await;
        for (name, applied) in &applied {
            println!("{name}: {}", describe(applied));
        }
        match applied.iter().any(|(_, applied)| matches!(applied, Applied::Superseded(_))) {
            true => Err(Failure::told(REFUSED)),
            false => Ok(()),
        }
    })
}

/// The pool for catalog and lanes.
pub fn pool(settings: &Settings) -> Result<sqlx::PgPool, Failure> {
    let postgres = &settings.postgres;
    let password = password(postgres.password_file.as_deref(), "postgres_password").map_err(Failure::refused)?;
    let options = connect::options(postgres, password.as_ref());
    Ok(connect::pool(options, postgres.max_connections.max(2), postgres.statement_timeout_ms))
}

pub async fn apply_all(
    pool: &sqlx::PgPool,
    plans: &[Plan],
    asked: Asked<'_>,
    settings: &Settings,
) -> Result<Vec<(String, Applied)>, StoreError> {
    connect::check_server(pool).await?;
    catalog::migrate(pool).await?;
    catalog::apply(pool, plans, asked, &settings.serve.schema).await
}

pub fn describe(applied: &Applied) -> String {
    match applied {
        Applied::Created => "created".into(),
        Applied::Building(number) => {
            format!("generation {number} is built, by a daemon, beside the one that readers see")
        }
        Applied::Superseded(cure) => format!("a newer definition was applied after this one; {cure}"),
        Applied::InPlace => "changed in place; no row is another".into(),
        Applied::Unchanged => "unchanged".into(),
        Applied::MoreUpcasters => {
            "upcasters were added; events that were parked for want of them: projector dead-letters \
                                   retry --code no-upcaster"
                .into()
        }
        Applied::Recreated => "created anew; its history is folded again".into(),
    }
}
