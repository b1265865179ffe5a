//! Folding a long history: from the start of the process until all of it is committed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::postgres::PgConnection;

use crate::history::History;
use crate::product::{self, Product};
use crate::{Result, Services, floor, kafka, rounded, settle};

const POLL_EVERY: Duration = Duration::from_millis(20);
/// Without any progress for this long, something is broken.
const STALL: Duration = Duration::from_secs(120);

pub async fn run<H: History>(services: &Services, history: &H) -> Result<Value> {
    let events = history.events();
    let mut connection = services.connect().await?;
    eprintln!("bench: producing {events} events to {}, which come to {} rows", H::TOPIC, history.rows());
    kafka::create_topic(&services.brokers, H::TOPIC).await?;
    let bytes = history.produce(&services.brokers)?;
    let end = kafka::ends(&services.brokers, H::TOPIC)?;
    if end != i64::try_from(events)? {
        return Err(format!("{events} events were produced, but {end} are there").into());
    }
    let before = floor::measure(services, &mut connection, history, bytes).await?;
    settle(&mut connection).await?;

    let mut product = Product::start(services, H::FOLDER)?;
    let seconds = until_applied(&mut product, &mut connection, H::TOPIC, end).await?;
    let peak_rss_mb = product.peak_rss_mb()?;
    product.stop().await?;
    eprintln!("bench: folded in {seconds:.2} s, {:.0} events/s, at most {peak_rss_mb:.0} MiB", events as f64 / seconds);
    history.check(&mut connection).await?;
    eprintln!("bench: the view is right");
    let rows_written = product::rows_written(&mut connection, H::PROJECTION).await?;

    // The machine may have been slower or faster at one of the two times: the stricter comparison counts.
    let after = floor::measure(services, &mut connection, history, bytes).await?;
    let floor = before.lower(after);
    Ok(json!({
        "workload": H::WORKLOAD,
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
pub async fn until_applied(product: &mut Product, connection: &mut PgConnection, topic: &str, end: i64) -> Result<f64> {
    let mut last = 0;
    let mut progressed = Instant::now();
    loop {
        let applied = product.applied(connection, topic).await?.next_offsets;
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
