//! The query endpoint, beside what Postgres itself takes for the same rows.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolCopyExt as _;
use sqlx::{AssertSqlSafe, Executor as _};

use crate::fold::until_applied;
use crate::history::{History, mixed};
use crate::http::Http;
use crate::latency::quantile_ms;
use crate::orders::{Order, Orders};
use crate::product::Product;
use crate::{Result, Services, kafka, rounded, settle};

/// Connections of clients, to the endpoint and of `pgbench` to Postgres.
const CONNECTIONS: u64 = 8;
/// The role that requests read as.
const ROLE: &str = "bench_reader";
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
const STEADY: Duration = Duration::from_secs(10);
const PAGE_ROWS: usize = 1_000;
const PAGES: usize = 100;
const OPEN: usize = 1_000;

pub async fn run(services: &Services, events: u64) -> Result<Value> {
    let history = Orders::new(events)?;
    let orders = history.rows() as u64;
    let mut connection = services.connect().await?;
    eprintln!("bench: producing {events} events to {}, which come to {orders} rows", Orders::TOPIC);
    kafka::create_topic(&services.brokers, Orders::TOPIC).await?;
    history.produce(&services.brokers)?;
    connection.execute(AssertSqlSafe(format!("CREATE ROLE {ROLE} NOLOGIN"))).await?;
    let serve = json!({ "listen": "127.0.0.1:0", "auth": { "anonymous_role": ROLE } });
    let mut product = Product::start_with(services, Orders::FOLDER, json!({ "serve": serve }))?;
    until_applied(&mut product, &mut connection, Orders::TOPIC, i64::try_from(events)?).await?;
    let granted =
        format!("GRANT USAGE ON SCHEMA views TO {ROLE}; GRANT SELECT ON ALL TABLES IN SCHEMA views TO {ROLE}");
    connection.execute(AssertSqlSafe(granted)).await?;
    connection.execute(AssertSqlSafe(format!("VACUUM ANALYZE \"{0}@1\".{0}", Orders::PROJECTION))).await?;
    settle(&mut connection).await?;
    let address = product.address()?;

    let mut rates = Vec::new();
    let mut selects = Vec::new();
    for round in 0..ROUNDS {
        selects.push(pgbench(services, orders).await?);
        rates.push(highest_rate(&address, orders, round as u64)?);
        eprintln!("bench: {:.0} queries/s, {:.0} prepared selects/s", rates[round], selects[round]);
    }
    let (queries_per_s, selects_per_s) = (median(&mut rates), median(&mut selects));
    let steady_us = steady(&address, orders, queries_per_s / 2.0)?;
    let (page_ms, copy_ms) = pages(services, &address).await?;
    let before_mb = product.rss_mb()?;
    let open = open(&address)?;
    let open_mb = product.rss_mb()?;
    drop(open);
    product.stop().await?;
    Ok(json!({
        "workload": "query",
        "events": events,
        "queries_per_s": queries_per_s.round(),
        "selects_per_s": selects_per_s.round(),
        "of_selects": rounded(queries_per_s / selects_per_s),
        "half_rate_p50_ms": quantile_ms(&steady_us, 0.5),
        "half_rate_p99_ms": quantile_ms(&steady_us, 0.99),
        "half_rate_max_ms": quantile_ms(&steady_us, 1.0),
        "page_ms": rounded(page_ms),
        "copy_ms": rounded(copy_ms),
        "page_of_copy": rounded(page_ms / copy_ms),
        "rss_mb": rounded(before_mb),
        "open_connections": OPEN,
        "open_rss_mb": rounded(open_mb),
    }))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prepared selects of one row by its key that `pgbench` makes in a second.
async fn pgbench(services: &Services, orders: u64) -> Result<f64> {
    let script = services.directory.join("select.sql");
    let view = Orders::PROJECTION;
    let select = format!("SELECT * FROM views.{view} WHERE order_id = 'o-' || lpad((:n)::text, 8, '0');");
    std::fs::write(&script, format!("\\set n random(0, {})\n{select}\n", orders - 1))?;
    let output = tokio::process::Command::new("pgbench")
        .args(["--no-vacuum", "--protocol", "prepared", "--jobs", "2", "--username", "projector"])
        .args(["--client", &CONNECTIONS.to_string(), "--time", &ROUND.as_secs().to_string()])
        .args(["--host", &services.postgres_host, "--port", &services.postgres_port.to_string(), "--file"])
        .arg(&script)
        .arg("projector")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| format!("pgbench cannot be run: {error}"))?;
    let told = String::from_utf8_lossy(&output.stdout);
    let rate = told.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.ok_or_else(|| format!("pgbench says {told}{}", String::from_utf8_lossy(&output.stderr)).into())
}

/// Asks for one order and looks at the answer.
fn ask(http: &mut Http, number: u64) -> Result<()> {
    let id = Order(number).id();
    let body = http.get(&format!("/{}?order_id=eq.{id}", Orders::PROJECTION))?;
    match body.contains(&id) && body.contains("delivered") {
        true => Ok(()),
        false => Err(format!("the endpoint answers {body} when asked for order {id}").into()),
    }
}

/// Runs one client a connection, each on a thread of its own, and puts together what they return.
fn clients<T: Send>(address: &str, client: impl Fn(u64, Http) -> Result<Vec<T>> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let client = &client;
        let start = |at| scope.spawn(move || client(at, Http::connect(address)?));
        let running: Vec<_> = (0..CONNECTIONS).map(start).collect();
        let mut all = Vec::new();
        for one in running {
            all.extend(one.join().map_err(|_| "a client panicked")??);
        }
        Ok(all)
    })
}

/// Answers in a second when every connection asks again as soon as it is answered.
fn highest_rate(address: &str, orders: u64, seed: u64) -> Result<f64> {
    let over = Arc::new(AtomicBool::new(false));
    let timer = {
        let over = over.clone();
        std::thread::spawn(move || {
            std::thread::sleep(ROUND);
            over.store(true, Ordering::Relaxed);
        })
    };
    let begun = Instant::now();
    let counts = clients(address, |at, mut http| {
        let mut answered = 0u64;
        while !over.load(Ordering::Relaxed) {
            ask(&mut http, mixed(seed << 48 ^ at << 40 ^ answered) % orders)?;
            answered += 1;
        }
        Ok(vec![answered])
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    timer.join().map_err(|_| "the timer panicked")?;
    Ok(counts.iter().sum::<u64>() as f64 / seconds)
}

/// How long answers take at a steady rate, in microseconds, sorted. A query whose connection is still busy counts from when
/// it was due.
fn steady(address: &str, orders: u64, rate: f64) -> Result<Vec<u64>> {
    let begun = Instant::now();
    let mut took_us = clients(address, |at, mut http| {
        let mut took_us = Vec::new();
        for query in (at..).step_by(CONNECTIONS as usize) {
            let due = Duration::from_secs_f64(query as f64 / rate);
            if due > STEADY {
                break;
            }
            let early = due.saturating_sub(begun.elapsed());
            std::thread::sleep(early);
            // One whose client overslept is not late.
            let from = if early.is_zero() { due } else { begun.elapsed() };
            ask(&mut http, mixed(query) % orders)?;
            took_us.push((begun.elapsed() - from).as_micros() as u64);
        }
        Ok(took_us)
    })?;
    took_us.sort_unstable();
    Ok(took_us)
}

/// Milliseconds of a page of rows, and of what `COPY` takes for the same rows as JSON; medians, in turns.
async fn pages(services: &Services, address: &str) -> Result<(f64, f64)> {
    let view = Orders::PROJECTION;
    let copy = format!(
        "COPY (SELECT row_to_json(q) FROM (SELECT * FROM views.{view} ORDER BY order_id LIMIT {PAGE_ROWS}) AS q) TO STDOUT"
    );
    let path = format!("/{view}?order=order_id&limit={PAGE_ROWS}");
    let pool = sqlx::PgPool::connect_lazy_with(services.options());
    let mut http = Http::connect(address)?;
    let (mut of_page, mut of_copy) = (Vec::new(), Vec::new());
    for _ in 0..PAGES {
        let begun = Instant::now();
        let mut rows = 0;
        let mut stream = pool.copy_out_raw(&copy).await?;
        while let Some(piece) = stream.try_next().await? {
            rows += piece.iter().filter(|byte| **byte == b'\n').count();
        }
        of_copy.push(begun.elapsed().as_secs_f64() * 1000.0);
        let begun = Instant::now();
        let body = http.get(&path)?;
        of_page.push(begun.elapsed().as_secs_f64() * 1000.0);
        let answered = body.matches("\"order_id\"").count();
        if (rows, answered) != (PAGE_ROWS, PAGE_ROWS) {
            return Err(format!("of {PAGE_ROWS} rows COPY has {rows} and the endpoint {answered}").into());
        }
    }
    Ok((median(&mut of_page), median(&mut of_copy)))
}

/// Connections that have each asked once, and stay open.
fn open(address: &str) -> Result<Vec<Http>> {
    let connect = |number| {
        let mut http = Http::connect(address)?;
        ask(&mut http, number as u64)?;
        Ok(http)
    };
    (0..OPEN).map(connect).collect()
}
