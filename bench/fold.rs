//! The `fold` workload: a long history, from the start of the process until all of it is committed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::postgres::PgConnection;

use crate::orders::{EVENTS_PER_ORDER, FinalRows, TOPIC};
use crate::product::{self, Product};
use crate::{Result, Services, floor, kafka, orders, rounded, settle};

const PROJECTION: &str = "bench_orders";
const POLL_EVERY: Duration = Duration::from_millis(20);
/// Without any progress for this long, something is broken.
const STALL: Duration = Duration::from_secs(120);

pub async fn run(services: &Services, events: u64) -> Result<Value> {
    let count = events / EVENTS_PER_ORDER;
    if count == 0 || !events.is_multiple_of(EVENTS_PER_ORDER) {
        return Err(format!("an order has {EVENTS_PER_ORDER} events: {events} events do not come out even").into());
    }
    let mut connection = services.connect().await?;
    eprintln!("bench: producing {events} events of {count} orders to {TOPIC}");
    kafka::create_topic(&services.brokers, TOPIC).await?;
    orders::produce(&services.brokers, count)?;
    let end = kafka::ends(&services.brokers, TOPIC)?;
    if end != i64::try_from(events)? {
        return Err(format!("{events} events were produced, but {end} are there").into());
    }
    let rows = FinalRows::of(count);
    let before = floor::measure(services, &mut connection, events, &rows).await?;
    settle(&mut connection).await?;

    let mut product = Product::start(services, "projections")?;
    let seconds = until_applied(&mut product, &mut connection, end).await?;
    let peak_rss_mb = product.peak_rss_mb()?;
    product.stop().await?;
    eprintln!("bench: folded in {seconds:.2} s, {:.0} events/s, at most {peak_rss_mb:.0} MiB", events as f64 / seconds);
    check(&mut connection, &rows).await?;
    let rows_written = product::rows_written(&mut connection, PROJECTION).await?;

    // The machine may have been slower or faster at one of the two times: the stricter comparison counts.
    let after = floor::measure(services, &mut connection, events, &rows).await?;
    let floor = before.lower(after);
    Ok(json!({
        "workload": "fold",
        "events": events,
        "seconds": rounded(seconds),
        "events_per_s": (events as f64 / seconds).round() as u64,
        "floor_s": rounded(floor.seconds()),
        "floor_read_s": rounded(floor.read_s),
        "floor_upsert_s": rounded(floor.upsert_s),
        "ratio_to_floor": rounded(seconds / floor.seconds()),
        "peak_rss_mb": rounded(peak_rss_mb),
        "rows_written": rows_written,
    }))
}

/// Seconds from the start of the process until every event is committed.
async fn until_applied(product: &mut Product, connection: &mut PgConnection, end: i64) -> Result<f64> {
    let mut last = 0;
    let mut progressed = Instant::now();
    loop {
        let applied = product.applied(connection, TOPIC).await?.next_offsets;
        if applied == end {
            return Ok(product.started.elapsed().as_secs_f64());
        }
        if applied != last {
            eprintln!("bench: {:.1} s: {applied} of {end} events", product.started.elapsed().as_secs_f64());
            (last, progressed) = (applied, Instant::now());
        } else if progressed.elapsed() > STALL {
            return Err(product.failure(&format!("no progress for {} s at {applied} of {end} events", STALL.as_secs())));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// A fast wrong answer is none.
async fn check(connection: &mut PgConnection, rows: &FinalRows) -> Result<()> {
    let found: (i64, i64, Option<String>) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE status = 'delivered'), sum(paid)::text FROM views.bench_orders",
    )
    .fetch_one(connection)
    .await?;
    let count = i64::try_from(rows.len())?;
    let expected = (count, count, Some(rows.paid_in_all.clone()));
    if found != expected {
        let told = "(rows, delivered, paid in all)";
        return Err(format!("the view is wrong: {told} are {found:?} instead of {expected:?}").into());
    }
    eprintln!("bench: the view is right: {count} orders delivered, {} paid", rows.paid_in_all);
    Ok(())
}
