//! A rebuild beside the view that readers see: how fast it is, and what readers and another projection notice of it.

use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;

use crate::dirty::forget;
use crate::fold::until_applied;
use crate::history::{History, mixed};
use crate::http::Http;
use crate::latency::{self, Sent, WARM_UP_S, quantile_ms};
use crate::orders::{Order, Orders};
use crate::product::Product;
use crate::{Result, Services, kafka, rounded, settle};

const MEMORY_MB: [u64; 2] = [64, 512];
/// A rebuild that takes longer is broken.
const STALL_S: u64 = 300;

const EVENTS_PER_S: u64 = 1_000;
const QUERIES_PER_S: u64 = 200;
/// Connections that take turns at asking, so that few queries wait for the answer to another one.
const READERS: u64 = 8;
/// Seconds without a rebuild, to compare with; and with one at least.
const BASE_S: u64 = 10;
const REBUILDS_S: u64 = 10;
const LONGEST_STREAM_S: u64 = WARM_UP_S + BASE_S + REBUILDS_S + STALL_S;

pub async fn run(services: &Services, events: u64) -> Result<Value> {
    let history = Orders::new(events)?;
    let mut connection = services.connect().await?;
    eprintln!("bench: producing {events} events to {}, which come to {} rows", Orders::TOPIC, history.rows());
    for topic in [Orders::TOPIC, latency::TOPIC] {
        kafka::create_topic(&services.brokers, topic).await?;
    }
    history.produce(&services.brokers)?;
    let before = Floor::measure(services, &mut connection, &history).await?;
    let mut rebuilt = Vec::new();
    for memory_mb in MEMORY_MB {
        rebuilt.push((memory_mb, rebuild(services, &mut connection, &history, memory_mb).await?));
    }
    // The machine may have been slower or faster at one of the two times: the stricter comparison counts.
    let after = Floor::measure(services, &mut connection, &history).await?;
    let floor = if after.seconds() < before.seconds() { after } else { before };
    let noticed = notice(services, &mut connection, &history).await?;
    let mut result = json!({
        "workload": "rebuild",
        "events": events,
        "floor_s": rounded(floor.seconds()),
        "floor_read_s": rounded(floor.read_s),
        "floor_copy_s": rounded(floor.copy_s),
        "floor_index_s": rounded(floor.index_s),
        "by_memory_mb": {},
        "rebuilds": noticed.rebuilds,
        "query_p99_ms": noticed.query_p99_ms,
        "base_query_p99_ms": noticed.base_query_p99_ms,
        "query_p99_ratio": rounded(noticed.query_p99_ms / noticed.base_query_p99_ms),
        "live_p99_ms": noticed.live_p99_ms,
        "base_live_p99_ms": noticed.base_live_p99_ms,
        "live_p99_ratio": rounded(noticed.live_p99_ms / noticed.base_live_p99_ms),
    });
    for (memory_mb, Rebuilt { seconds, peak_rss_mb }) in rebuilt {
        result["by_memory_mb"][memory_mb.to_string()] = json!({
            "seconds": rounded(seconds),
            "events_per_s": (events as f64 / seconds).round() as u64,
            "ratio_to_floor": rounded(seconds / floor.seconds()),
            "peak_rss_mb": rounded(peak_rss_mb),
        });
    }
    Ok(result)
}

/// What a rebuild cannot be faster than: reading the topic once, and writing the final rows once in the way that costs
/// Postgres least.
#[derive(Debug, Clone, Copy)]
struct Floor {
    read_s: f64,
    copy_s: f64,
    index_s: f64,
}

impl Floor {
    fn seconds(&self) -> f64 {
        self.read_s + self.copy_s + self.index_s
    }

    async fn measure(services: &Services, connection: &mut PgConnection, history: &Orders) -> Result<Floor> {
        /// Postgres takes in one piece while the next one is on its way.
        const PIECE_BYTES: usize = 1 << 16;
        let (read_s, _) = kafka::read_all(&services.brokers, Orders::TOPIC, history.events())?;
        let rows = history.copied()?;
        connection.execute(Orders::CREATE_FLOOR).await?;
        connection.execute("ALTER TABLE bench_floor DROP CONSTRAINT bench_floor_pkey").await?;
        settle(connection).await?;
        let started = Instant::now();
        let mut copy = connection.copy_in_raw("COPY bench_floor FROM STDIN").await?;
        for piece in rows.as_bytes().chunks(PIECE_BYTES) {
            copy.send(piece).await?;
        }
        copy.finish().await?;
        let copy_s = started.elapsed().as_secs_f64();
        let started = Instant::now();
        connection.execute("ALTER TABLE bench_floor ADD PRIMARY KEY (order_id)").await?;
        let index_s = started.elapsed().as_secs_f64();
        connection.execute("DROP TABLE bench_floor").await?;
        let floor = Floor { read_s, copy_s, index_s };
        let told = format!("reading {read_s:.2} s, copying {copy_s:.2} s, index {index_s:.2} s");
        eprintln!("bench: floor {:.2} s: {told}", floor.seconds());
        Ok(floor)
    }
}

struct Rebuilt {
    seconds: f64,
    peak_rss_mb: f64,
}

/// Folds history into an empty database, and then once more beside it.
async fn rebuild(
    services: &Services,
    connection: &mut PgConnection,
    history: &Orders,
    memory_mb: u64,
) -> Result<Rebuilt> {
    forget(connection, Orders::PROJECTION).await?;
    let settings = json!({ "fold": { "memory_mb": memory_mb } });
    let mut product = Product::start_with(services, Orders::FOLDER, settings)?;
    until_applied(&mut product, connection, Orders::TOPIC, i64::try_from(history.events())?).await?;
    settle(connection).await?;
    let seconds = replay(services, connection, 2).await.map_err(|error| product.failure(&error.to_string()))?;
    let peak_rss_mb = product.peak_rss_mb()?;
    product.stop().await?;
    history.check(connection).await?;
    let told = format!("rebuilt in {seconds:.2} s, at most {peak_rss_mb:.0} MiB");
    eprintln!("bench: with {memory_mb} MB {told}; the view is right");
    Ok(Rebuilt { seconds, peak_rss_mb })
}

/// Seconds from the start of `projector replay` until readers see what it began: the generation of this number.
async fn replay(services: &Services, connection: &mut PgConnection, number: i32) -> Result<f64> {
    const EVERY: Duration = Duration::from_millis(10);
    const LOOK: &str = "SELECT g.state = 'live',
            COALESCE(g.refused, (SELECT min(h.message) FROM projector.halts h WHERE h.generation_id = g.id))
        FROM projector.generations g WHERE g.projection = $1 AND g.number = $2";
    let started = Instant::now();
    Product::verb(services, &["replay", Orders::PROJECTION, "--detach"]).await?;
    loop {
        let query = sqlx::query_as(LOOK).bind(Orders::PROJECTION).bind(number);
        let (live, trouble): (bool, Option<String>) = query.fetch_one(&mut *connection).await?;
        if live {
            return Ok(started.elapsed().as_secs_f64());
        }
        if let Some(trouble) = trouble {
            return Err(format!("generation {number} does not take the place of the live one: {trouble}").into());
        }
        if started.elapsed() > Duration::from_secs(STALL_S) {
            return Err(format!("generation {number} is not live after {STALL_S} s").into());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What was noticed of rebuilds, beside the same without.
struct Noticed {
    rebuilds: i32,
    query_p99_ms: f64,
    base_query_p99_ms: f64,
    live_p99_ms: f64,
    base_live_p99_ms: f64,
}

/// Rebuilds the view while it is read, and while another projection follows a stream of events.
async fn notice(services: &Services, connection: &mut PgConnection, history: &Orders) -> Result<Noticed> {
    forget(connection, Orders::PROJECTION).await?;
    let settings = json!({ "serve": { "listen": "127.0.0.1:0", "auth": { "anonymous_role": "projector" } } });
    let mut product = Product::start_with(services, "projections/rebuild", settings)?;
    until_applied(&mut product, connection, Orders::TOPIC, i64::try_from(history.events())?).await?;
    latency::until_owned(&mut product, connection, latency::TOPIC).await?;
    settle(connection).await?;

    let after_s = WARM_UP_S + BASE_S;
    eprintln!("bench: {EVENTS_PER_S} events/s and {QUERIES_PER_S} queries/s, and after {after_s} s rebuilds");
    let mut reader = services.connect().await?;
    let sent = Arc::new(Sent::new(EVENTS_PER_S * LONGEST_STREAM_S));
    let asking = start_asking(&product.address()?, &sent, history.rows() as u64);
    let producing = latency::start_producing(&services.brokers, &sent, EVENTS_PER_S);
    let outcome = tokio::try_join!(
        latency::watch(&mut product, &mut reader, &sent),
        replay_over_and_over(services, connection, &sent),
    );
    sent.stop();
    latency::end_producing(producing)?;
    let answers = end_asking(asking);
    // When the projector has ended, this says so with its log.
    let (seen_us, periods) = outcome?;
    let answers = answers?;
    product.stop().await?;
    history.check(connection).await?;
    eprintln!("bench: the view is right");

    let both = [&periods.base_us, &periods.rebuilds_us];
    let [base_query_p99_ms, query_p99_ms] = both.map(|period| answers_p99_ms(&answers, period));
    let [base_live_p99_ms, live_p99_ms] =
        both.map(|period| quantile_ms(&sent.latencies_within_us(&seen_us, period), 0.99));
    eprintln!("bench: p99 of queries {query_p99_ms} ms, without rebuilds {base_query_p99_ms} ms");
    eprintln!("bench: p99 of live events {live_p99_ms} ms, without rebuilds {base_live_p99_ms} ms");
    let rebuilds = periods.rebuilds;
    Ok(Noticed { rebuilds, query_p99_ms, base_query_p99_ms, live_p99_ms, base_live_p99_ms })
}

/// When there was no rebuild yet, and from the first to the last, on the clock of the stream.
struct Periods {
    base_us: Range<u64>,
    rebuilds_us: Range<u64>,
    rebuilds: i32,
}

/// Rebuilds over and over, once the stream runs steadily, and then ends the stream.
async fn replay_over_and_over(services: &Services, connection: &mut PgConnection, sent: &Sent) -> Result<Periods> {
    tokio::time::sleep(Duration::from_secs(WARM_UP_S)).await;
    let base_from_us = sent.now_us();
    tokio::time::sleep(Duration::from_secs(BASE_S)).await;
    let rebuilds_from_us = sent.now_us();
    let mut rebuilds = 0;
    while sent.now_us() < rebuilds_from_us + REBUILDS_S * 1_000_000 {
        rebuilds += 1;
        let seconds = replay(services, connection, 1 + rebuilds).await?;
        eprintln!("bench: rebuilt in {seconds:.2} s");
    }
    let rebuilds_us = rebuilds_from_us..sent.now_us();
    sent.stop();
    Ok(Periods { base_us: base_from_us..rebuilds_from_us, rebuilds_us, rebuilds })
}

/// When a query was sent, on the clock of the stream, and how long its answer took.
struct Answer {
    at_us: u64,
    took_us: u64,
}

fn answers_p99_ms(answers: &[Answer], period: &Range<u64>) -> f64 {
    let within = answers.iter().filter(|answer| period.contains(&answer.at_us));
    let mut took_us: Vec<u64> = within.map(|answer| answer.took_us).collect();
    took_us.sort_unstable();
    quantile_ms(&took_us, 0.99)
}

/// Queries the endpoint on threads of their own until the stream is stopped.
fn start_asking(address: &str, sent: &Arc<Sent>, orders: u64) -> Vec<JoinHandle<Result<Vec<Answer>>>> {
    let start = |reader| {
        let (address, sent) = (address.to_string(), sent.clone());
        std::thread::spawn(move || ask(&address, &sent, orders, reader))
    };
    (0..READERS).map(start).collect()
}

fn end_asking(asking: Vec<JoinHandle<Result<Vec<Answer>>>>) -> Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for reader in asking {
        answers.extend(reader.join().map_err(|_| "a reader panicked")??);
    }
    Ok(answers)
}

/// Reads one order after the other at a steady rate, whatever the projector does.
fn ask(address: &str, sent: &Sent, orders: u64, reader: u64) -> Result<Vec<Answer>> {
    let mut http = Http::connect(address)?;
    let mut answers = Vec::new();
    let start_us = sent.now_us();
    for query in (reader..).step_by(READERS as usize) {
        let due_us = start_us + query * 1_000_000 / QUERIES_PER_S;
        let early_us = due_us.saturating_sub(sent.now_us());
        std::thread::sleep(Duration::from_micros(early_us));
        if sent.is_stopped() {
            break;
        }
        // A query that had to wait for the answer before it is late; one whose reader overslept is not.
        let at_us = if early_us > 0 { sent.now_us() } else { due_us };
        let id = Order(mixed(query) % orders).id();
        let body = http.get(&format!("/bench_orders?order_id=eq.{id}"))?;
        answers.push(Answer { at_us, took_us: sent.now_us() - at_us });
        if !body.contains(&id) || !body.contains("delivered") {
            return Err(format!("the endpoint answers {body} when asked for order {id}").into());
        }
    }
    Ok(answers)
}
