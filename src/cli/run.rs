//! `projector run`

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Common, Failure, Outcome, apply, plans, runtime, start_log, stop_signal};
use crate::config::{Settings, password};
use crate::pipeline::{Outage, Supervisor};
use crate::plan::Plan;
use crate::serve::serve;
use crate::source::Admin;
use crate::store::error::StoreError;
use crate::store::{Generation, catalog, connect};

pub fn run(common: &Common, apply: bool) -> Outcome {
    let settings = common.settings()?;
    let plans = plans(&settings.projections)?;
    start_log(&settings.log.format, &settings.log.level)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(daemon(&settings, plans, apply));
    // Threads of lanes that were left behind do not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn daemon(settings: &Settings, plans: Vec<Plan>, apply: bool) -> Outcome {
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        stop_signal().await;
        tracing::info!("stopping");
        on_signal.cancel();
    });
    // The port is taken before anything else, so that a second daemon by mistake does not get far.
    let listener = listen(&settings.serve.listen).await?;
    let pool = apply::pool(settings)?;
    let Some(generations) = prepare(&pool, &plans, settings, apply, &stop).await? else { return Ok(()) };
    let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
    tracing::info!("folding {} with {} lanes each", names.join(", "), settings.fold.lanes);
    let admin = Admin::new(&settings.kafka).map_err(Failure::refused)?;
    let mut supervisor = Supervisor::start(plans, generations, settings, &pool, admin, stop.clone());
    let server = listener.map(|listener| {
        if let Ok(address) = listener.local_addr() {
            tracing::info!("serving the schema {} on http://{address}", settings.serve.schema);
        }
        tokio::spawn(serve(listener, readers(settings), settings.serve.clone(), stop.clone()))
    });
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = supervisor.next_ended() => {
                if ended.halt.is_some() {
                    tracing::info!(
                        "the others go on; {0} goes on once what it stands before is settled (`projector dead-letters`), or \
                         with `projector resume {0}`",
                        ended.projection
                    );
                }
            }
        }
    }
    let clean = supervisor.shut_down().await;
    if let Some(server) = server {
        // Readers that do not finish are cut.
        let _ = tokio::time::timeout(Duration::from_secs(2), server).await;
    }
    let _ = tokio::time::timeout(Duration::from_secs(2), pool.close()).await;
    tracing::info!("stopped");
    if clean { Ok(()) } else { Err(Failure::failed("stopped before everything was committed; nothing is lost")) }
}

/// Binds the endpoint's address, if there is one.
pub async fn listen(address: &str) -> Result<Option<TcpListener>, Failure> {
    if address.is_empty() {
        return Ok(None);
    }
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) => Err(Failure::refused(format!(
            "cannot listen on {address}: {error}. Is another projector running? Set serve.listen to another address"
        ))),
    }
}

/// The pool for readers: it cannot write.
pub fn readers(settings: &Settings) -> sqlx::PgPool {
    let password = password(settings.postgres.password_file.as_deref(), "postgres_password").ok().flatten();
    let options = connect::options(&settings.postgres, password.as_ref());
    connect::pool(options, settings.serve.max_connections, settings.serve.statement_timeout_ms, true)
}

/// Checks the server and the catalog, waiting for a Postgres that is away. `None` when told to stop meanwhile.
async fn prepare(
    pool: &sqlx::PgPool,
    plans: &[Plan],
    settings: &Settings,
    apply: bool,
    stop: &CancellationToken,
) -> Result<Option<Vec<Generation>>, Failure> {
    let mut outage = Outage::default();
    loop {
        let attempt: Result<Vec<Generation>, StoreError> = async {
            if apply {
                for (name, applied) in apply::apply_all(pool, plans, &[], settings).await? {
                    tracing::info!("{name}: {}", apply::describe(&applied));
                }
            } else {
                connect::check_server(pool).await?;
            }
            catalog::live_generations(pool, plans).await
        }
        .await;
        match attempt {
            Ok(generations) => {
                outage.over("Postgres");
                return Ok(Some(generations));
            }
            Err(error) if error.is_transient() => {
                let wait = outage.failed("Postgres", &error);
                if tokio::time::timeout(wait, stop.cancelled()).await.is_ok() {
                    return Ok(None);
                }
            }
            Err(error) => return Err(Failure::refused(error)),
        }
    }
}
