//! `projector run`

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Common, Failure, Outcome, apply, plans, runtime, start_log, stop_signal};
use crate::config::{Rebuild, Settings, password};
use crate::demand::Demand;
use crate::ops;
use crate::pipeline::{Outage, Politeness, Supervisor};
use crate::plan::Plan;
use crate::rebuild::keep_building;
use crate::serve::ready;
use crate::source::Admin;
use crate::store::catalog::Asked;
use crate::store::error::StoreError;
use crate::store::generations::{Listed, State};
use crate::store::news::listen as listen_for_news;
use crate::store::{catalog, connect, generations};

pub fn run(common: &Common, apply: bool) -> Outcome {
    let settings = common.settings()?;
    let plans = plans(&settings.projections)?;
    start_log(&settings.log.format, &settings.log.level)?;
    let folding = runtime()?;
    // Readers are answered by threads of their own, however much is folded.
    let serving = runtime()?;
    let outcome = folding.block_on(daemon(&settings, plans, apply, &serving));
    serving.shutdown_background();
    // Threads of lanes that were left behind do not keep the process.
    folding.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn daemon(settings: &Settings, plans: Vec<Plan>, apply: bool, serving: &Runtime) -> Outcome {
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        stop_signal().await;
        tracing::info!("stopping");
        on_signal.cancel();
    });
    // The port is taken before anything else, so that a second daemon by mistake does not get far.
    let listener = listen(&settings.serve.listen, "serve.listen").await?;
    let operations = listen(&settings.operations.listen, "operations.listen").await?;
    let pool = apply::pool(settings)?;
    let Some(listed) = prepare(&pool, &plans, settings, apply, &stop).await? else { return Ok(()) };
    let admin = Admin::new(&settings.kafka).map_err(Failure::refused)?;
    let mut supervisor = Supervisor::new(settings, &pool, admin, stop.clone());
    let mut folding = Folding::new(plans, settings);
    folding.follow(&mut supervisor, &listed);
    if listed.iter().all(|listed| !supervisor.has(listed.generation.id)) {
        return Err(Failure::refused("there is nothing that this program can fold; see above"));
    }
    let builder = tokio::spawn(keep_building(pool.clone(), settings.clone(), folding.plans.clone(), stop.clone()));
    let demand = supervisor.demand();
    let server = listener.map(|listener| serve_on(serving, listener, settings, demand, &stop)).transpose()?;
    if let Some(listener) = operations {
        let pool = readers(settings);
        let listener = on(serving, listener)?;
        serving.spawn(ops::serve(listener, pool, settings.operations.clone(), stop.clone()));
    }
    let news = Arc::new(Notify::new());
    let (pool_of_news, heard) = (pool.clone(), news.clone());
    let listening = tokio::spawn(async move { listen_for_news(&pool_of_news, &heard).await });
    let mut look = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = look.tick() => follow(&pool, &mut folding, &mut supervisor).await,
            () = news.notified() => follow(&pool, &mut folding, &mut supervisor).await,
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
    listening.abort();
    let clean = supervisor.shut_down().await;
    let _ = builder.await;
    if let Some(server) = server {
        // Readers that do not finish are cut.
        let _ = tokio::time::timeout(Duration::from_secs(1 + settings.serve.limits.stop_s), server).await;
    }
    let _ = tokio::time::timeout(Duration::from_secs(2), pool.close()).await;
    tracing::info!("stopped");
    if clean { Ok(()) } else { Err(Failure::failed("stopped before everything was committed; nothing is lost")) }
}

/// Folds what the catalog lists now.
async fn follow(pool: &sqlx::PgPool, folding: &mut Folding, supervisor: &mut Supervisor) {
    match generations::list(pool).await {
        Ok(listed) => folding.follow(supervisor, &listed),
        // The lanes say so.
        Err(error) => tracing::debug!("the catalog cannot be read: {error}"),
    }
}

/// Starts the endpoint on a runtime.
fn serve_on(
    serving: &Runtime,
    listener: TcpListener,
    settings: &Settings,
    demand: Arc<Demand>,
    stop: &CancellationToken,
) -> Result<JoinHandle<std::io::Result<()>>, Failure> {
    if let Ok(address) = listener.local_addr() {
        let scheme = if settings.serve.tls.cert_file.is_some() { "https" } else { "http" };
        tracing::info!("serving the schema {} on {scheme}://{address}", settings.serve.schema);
    }
    let listener = on(serving, listener)?;
    let ready = ready(readers(settings), settings.serve.clone(), demand).map_err(Failure::refused)?;
    Ok(serving.spawn(ready.serve(listener, stop.clone())))
}

/// Hands a listener over to a runtime.
fn on(runtime: &Runtime, listener: TcpListener) -> Result<TcpListener, Failure> {
    let _inside = runtime.enter();
    listener.into_std().and_then(TcpListener::from_std).map_err(Failure::failed)
}

/// Binds an address, if there is one.
pub async fn listen(address: &str, setting: &str) -> Result<Option<TcpListener>, Failure> {
    if address.is_empty() {
        return Ok(None);
    }
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) => Err(Failure::refused(format!(
            "cannot listen on {address}: {error}. Is another projector running? Set {setting} to another address"
        ))),
    }
}

/// The pool for readers: it cannot write.
pub fn readers(settings: &Settings) -> sqlx::PgPool {
    let password = password(settings.postgres.password_file.as_deref(), "postgres_password").ok().flatten();
    let options = connect::options(&settings.postgres, password.as_ref());
    connect::readers(options, settings.serve.max_connections, settings.serve.statement_timeout_ms)
}

/// What this process folds: all generations that the catalog lists.
pub struct Folding {
    /// Those of the projection files.
    plans: Vec<Plan>,
    /// Generations that this program cannot fold, and has said so.
    cannot: BTreeSet<i64>,
    rebuild: Rebuild,
}

impl Folding {
    pub fn new(plans: Vec<Plan>, settings: &Settings) -> Folding {
        Folding { plans, cannot: BTreeSet::new(), rebuild: settings.rebuild.clone() }
    }

    /// Starts what is new in the catalog, and stops what is gone from it.
    pub fn follow(&mut self, supervisor: &mut Supervisor, listed: &[Listed]) {
        supervisor.keep_only(&listed.iter().map(|listed| listed.generation.id).collect());
        for listed in listed {
            let generation = &listed.generation;
            let is_behind = matches!(listed.state, State::Building | State::Scratch) && !listed.ready;
            if !is_behind {
                supervisor.caught_up(generation.id);
            }
            if supervisor.has(generation.id) || self.cannot.contains(&generation.id) {
                continue;
            }
            match listed.plan(&self.plans) {
                Ok(plan) => {
                    tracing::info!("folding {generation} ({})", listed.state.name());
                    let polite = || Politeness::new(&plan, &self.rebuild, listed.max_rate, supervisor.demand());
                    let politeness = is_behind.then(polite);
                    supervisor.start(plan, generation.clone(), politeness);
                }
                Err(error) => {
                    tracing::error!("{error}");
                    self.cannot.insert(generation.id);
                }
            }
        }
    }
}

/// Checks the server and the catalog, waiting for a Postgres that is away. `None` when told to stop meanwhile.
async fn prepare(
    pool: &sqlx::PgPool,
    plans: &[Plan],
    settings: &Settings,
    apply: bool,
    stop: &CancellationToken,
) -> Result<Option<Vec<Listed>>, Failure> {
    let mut outage = Outage::default();
    loop {
        let attempt: Result<Vec<Listed>, StoreError> = async {
            if apply {
                for (name, applied) in apply::apply_all(pool, plans, Asked::default(), settings).await? {
                    tracing::info!("{name}: {}", apply::describe(&applied));
                }
            } else {
                connect::check_server(pool).await?;
                catalog::require(pool).await?;
            }
            let listed = generations::list(pool).await?;
            if !apply {
                warn_of_differences(plans, &listed);
            }
            Ok(listed)
        }
        .await;
        match attempt {
            Ok(listed) => {
                outage.over(&"Postgres");
                return Ok(Some(listed));
            }
            Err(error) if error.is_transient() => {
                let wait = outage.failed(&"Postgres", &error);
                if tokio::time::timeout(wait, stop.cancelled()).await.is_ok() {
                    return Ok(None);
                }
            }
            Err(error) => return Err(Failure::refused(error)),
        }
    }
}

/// The catalog decides what is folded; files that differ from it are told.
fn warn_of_differences(plans: &[Plan], listed: &[Listed]) {
    for plan in plans {
        let newest = listed
            .iter()
            .filter(|listed| listed.generation.projection == plan.name)
            .filter(|listed| matches!(listed.state, State::Live | State::Building))
            .max_by_key(|listed| listed.generation.number);
        let (path, name) = (&plan.path, &plan.name);
        match newest {
            None => tracing::warn!("{path}: `{name}` has not been applied yet. Apply it with: projector apply"),
            Some(newest) if !newest.is_current(plan) => tracing::warn!(
                "{path}: the definition of `{name}` differs from the catalog's, which is folded. See what would change: \
                 projector plan"
            ),
            Some(_) => {}
        }
    }
}
