//! One customer whose name stands in very many orders is renamed, while other events keep coming: how long that takes,
//! and what the others notice of it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::postgres::PgConnection;

use crate::dirty::median;
use crate::join::{self, CUSTOMERS, ORDERS, Sizes};
use crate::latency::{self, Sent, WARM_UP_S, quantile_ms};
use crate::product::{self, Product};
use crate::{Result, Services, kafka, rounded, settle};

const PROJECTION: &str = "bench_fanout";
const TICKS_PER_S: u64 = 2_000;
/// Seconds of the stream without a rename, to compare with.
const BASE_S: u64 = 10;
const RENAMES: u64 = 5;
/// A rename that takes longer is broken.
const STALL_S: u64 = 100;
const LONGEST_STREAM_S: u64 = WARM_UP_S + BASE_S + RENAMES * STALL_S;

/// What came of the renames.
struct Renamed {
    seconds: Vec<f64>,
    /// When there was none yet, and from the first to the last, on the clock of the stream.
    base_us: Range<u64>,
    renames_us: Range<u64>,
}

pub async fn run(services: &Services, orders: u64) -> Result<Value> {
    let sizes = Sizes { orders, customers: 1 };
    let brokers = &services.brokers;
    let mut connection = services.connect().await?;
    eprintln!("bench: producing {orders} orders of one customer");
    for topic in [ORDERS, CUSTOMERS, latency::TOPIC] {
        kafka::create_topic(brokers, topic).await?;
    }
    join::produce_orders(brokers, sizes)?;
    join::produce_names(brokers, sizes, 0)?;
    settle(&mut connection).await?;
    let mut product = Product::start(services, "projections/fanout")?;
    join::until_followed(&mut product, &mut connection, PROJECTION, &[(ORDERS, orders), (CUSTOMERS, 1)]).await?;
    join::check(&mut connection, PROJECTION, sizes, 0).await?;
    latency::until_owned(&mut product, &mut connection, latency::TOPIC).await?;
    settle(&mut connection).await?;
    let peak_rss_before_mb = product.peak_rss_mb()?;

    eprintln!("bench: producing {TICKS_PER_S} events/s, and after {} s {RENAMES} renames", WARM_UP_S + BASE_S);
    // Lives as long as the stream: letting go of a producer takes a moment, in which nobody would look at the view.
    let names = kafka::producer(brokers, &[("linger.ms", "0")])?;
    let (mut reader, mut sampler) = (services.connect().await?, services.connect().await?);
    let sent = Arc::new(Sent::new(TICKS_PER_S * LONGEST_STREAM_S));
    let producing = latency::start_producing(brokers, &sent, TICKS_PER_S);
    let outcome = tokio::try_join!(
        latency::watch(&mut product, &mut reader, &sent),
        rename(&mut connection, &names, sizes, &sent),
        longest_lock_ms(&mut sampler, &sent),
    );
    sent.stop();
    latency::end_producing(producing)?;
    let (seen_us, renamed, longest_lock_ms) = outcome?;

    let peak_rss_mb = product.peak_rss_mb()?;
    product.stop().await?;
    join::check(&mut connection, PROJECTION, sizes, RENAMES).await?;
    eprintln!("bench: the view is right");
    let written = product::rows_written(&mut connection, PROJECTION).await?;

    let seconds = median(renamed.seconds);
    let base_us = sent.latencies_within_us(&seen_us, &renamed.base_us);
    let renames_us = sent.latencies_within_us(&seen_us, &renamed.renames_us);
    let [base_p99_ms, p99_ms] = [&base_us, &renames_us].map(|latencies| quantile_ms(latencies, 0.99));
    eprintln!("bench: p99 {p99_ms} ms, without renames {base_p99_ms} ms; rows locked {longest_lock_ms:.1} ms at most");
    Ok(json!({
        "workload": "fanout",
        "orders": orders,
        "renames": RENAMES,
        "events": renames_us.len(),
        "seconds": rounded(seconds),
        "rows_per_s": (orders as f64 / seconds).round() as u64,
        "p99_ms": p99_ms,
        "base_p99_ms": base_p99_ms,
        "longest_lock_ms": rounded(longest_lock_ms),
        "rows_rewritten": written - i64::try_from(orders)?,
        "peak_rss_before_mb": rounded(peak_rss_before_mb),
        "peak_rss_mb": rounded(peak_rss_mb),
    }))
}

/// Renames the customer over and over, once the stream runs steadily, and then ends the stream.
async fn rename(connection: &mut PgConnection, names: &kafka::Producer, sizes: Sizes, sent: &Sent) -> Result<Renamed> {
    tokio::time::sleep(Duration::from_secs(WARM_UP_S)).await;
    let base_from_us = sent.now_us();
    tokio::time::sleep(Duration::from_secs(BASE_S)).await;
    let renames_from_us = sent.now_us();
    let mut seconds = Vec::new();
    for renames in 1..=RENAMES {
        let started = Instant::now();
        join::send_names(names, sizes, renames)?;
        until_renamed(connection, 1 + renames).await?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    let renames_us = renames_from_us..sent.now_us();
    sent.stop();
    Ok(Renamed { seconds, base_us: base_from_us..renames_from_us, renames_us })
}

/// Waits until so many events of customers are applied and all orders have followed. Who watches the stream notices
/// when the projector ends.
async fn until_renamed(connection: &mut PgConnection, events: u64) -> Result<()> {
    const FOLLOWED: &str = "SELECT (SELECT sum(next_offset) FROM projector.checkpoints WHERE topic = $1) = $2
            AND NOT EXISTS (SELECT 1 FROM \"bench_fanout@1\".projector_marks)";
    let deadline = Instant::now() + Duration::from_secs(STALL_S);
    loop {
        let query = sqlx::query_scalar(FOLLOWED).bind(CUSTOMERS).bind(i64::try_from(events)?);
        if query.fetch_one(&mut *connection).await? {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("a rename has not reached all orders after {STALL_S} s").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The longest time that a transaction lasted which rewrote orders, until the stream ends: so long at most were they
/// locked. To try for their locks would be in the way of what is measured.
async fn longest_lock_ms(connection: &mut PgConnection, sent: &Sent) -> Result<f64> {
    const EVERY: Duration = Duration::from_millis(2);
    const OPEN: &str = "SELECT pid, (extract(epoch FROM xact_start) * 1000000)::bigint,
            (extract(epoch FROM clock_timestamp() - xact_start) * 1000)::double precision,
            starts_with(query, 'UPDATE \"bench_fanout@1\".\"bench_fanout\" AS t SET ')
        FROM pg_stat_activity WHERE application_name = 'projector' AND xact_start IS NOT NULL";
    let (mut rewriting, mut longest_ms) = (None, 0.0f64);
    while !sent.is_stopped() {
        let open: Vec<(i32, i64, f64, bool)> = sqlx::query_as(OPEN).fetch_all(&mut *connection).await?;
        for (pid, begun_us, ms, rewrites) in open {
            if rewrites {
                rewriting = Some((pid, begun_us));
            }
            // Also while it does what comes after that: removing marks, committing.
            if rewriting == Some((pid, begun_us)) {
                longest_ms = longest_ms.max(ms);
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    match rewriting {
        Some(_) => Ok(longest_ms),
        None => Err("no transaction was seen to rewrite orders".into()),
    }
}
