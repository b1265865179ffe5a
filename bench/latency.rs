//! The `latency` workload: from producing an event until a reader's query shows it.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sqlx::postgres::PgConnection;

use crate::product::{self, Product};
use crate::{Result, Services, kafka, rounded, settle};

pub const TOPIC: &str = "bench.latency";
const PROJECTION: &str = "bench_latency";
/// Rows of the view. Event n is the (n / LANES)-th of lane n % LANES, and a lane's events stay in order, so that a
/// lane's row tells which of its events are visible.
const LANES: u64 = 64;
pub const WARM_UP_S: u64 = 3;
/// Members of a new consumer group share out the partitions anew with every member that comes, at the pace of their
/// heartbeats; that is not what is measured.
const GROUP_SETTLES: Duration = Duration::from_secs(10);
const READER_PAUSE: Duration = Duration::from_millis(1);
/// Without news for this long, something is broken.
const STALL: Duration = Duration::from_secs(60);

pub async fn run(services: &Services, events_per_s: u64, seconds: u64) -> Result<Value> {
    if seconds <= WARM_UP_S {
        return Err(format!("the first {WARM_UP_S} s are warm-up and do not count; --seconds has to be more").into());
    }
    let mut connection = services.connect().await?;
    kafka::create_topic(&services.brokers, TOPIC).await?;
    settle(&mut connection).await?;
    let mut product = Product::start(services, "projections/latency")?;
    until_owned(&mut product, &mut connection, TOPIC).await?;

    eprintln!("bench: producing {events_per_s} events/s for {seconds} s; the first {WARM_UP_S} s do not count");
    let sent = Arc::new(Sent::new(events_per_s * seconds));
    let producing = start_producing(&services.brokers, &sent, events_per_s);
    let watched = watch(&mut product, &mut connection, &sent).await;
    // What the producer complains of explains what the reader misses.
    end_producing(producing)?;
    let seen_us = watched?;

    let peak_rss_mb = product.peak_rss_mb()?;
    product.stop().await?;
    let rows_written = product::rows_written(&mut connection, PROJECTION).await?;

    let first = events_per_s * WARM_UP_S;
    let counted = first..events_per_s * seconds;
    let events = counted.end - counted.start;
    let latencies_us = sent.latencies_us(&seen_us, counted);
    let end_us = seen_us[first as usize..].iter().max().copied().unwrap_or_default();
    let measured_s = end_us.saturating_sub(sent.at_us(first)) as f64 / 1e6;
    let [p50_ms, p99_ms, p999_ms, max_ms] = [0.5, 0.99, 0.999, 1.0].map(|share| quantile_ms(&latencies_us, share));
    eprintln!("bench: p50 {p50_ms} ms, p99 {p99_ms} ms, p99.9 {p999_ms} ms, at most {max_ms} ms");
    Ok(json!({
        "workload": "latency",
        "events": events,
        "seconds": rounded(measured_s),
        "events_per_s": (events as f64 / measured_s).round() as u64,
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
        "p999_ms": p999_ms,
        "max_ms": max_ms,
        "warm_up_s": WARM_UP_S,
        "floor_s": null,
        "ratio_to_floor": null,
        "peak_rss_mb": rounded(peak_rss_mb),
        "rows_written": rows_written,
    }))
}

/// The least latency that this share of the events did not exceed (nearest rank).
pub fn quantile_ms(sorted_us: &[u64], share: f64) -> f64 {
    let rank = (share * sorted_us.len() as f64).ceil() as usize;
    let us = sorted_us.get(rank.max(1) - 1).copied().unwrap_or_default();
    rounded(us as f64 / 1000.0)
}

/// When each event was handed to the producer, on the clock that the reader uses too.
pub struct Sent {
    clock: Instant,
    at_us: Vec<AtomicU64>,
    /// How many there will be; fewer once the stream is stopped.
    events: AtomicU64,
    stopped: AtomicBool,
}

impl Sent {
    pub fn new(events: u64) -> Sent {
        Sent {
            clock: Instant::now(),
            at_us: (0..events).map(|_| AtomicU64::new(0)).collect(),
            events: AtomicU64::new(events),
            stopped: AtomicBool::new(false),
        }
    }

    /// Ends the stream before its time.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    pub fn now_us(&self) -> u64 {
        self.clock.elapsed().as_micros() as u64
    }

    fn stamp(&self, event: u64) -> u64 {
        let now_us = self.now_us();
        self.at_us[event as usize].store(now_us, Ordering::Release);
        now_us
    }

    pub fn at_us(&self, event: u64) -> u64 {
        self.at_us[event as usize].load(Ordering::Acquire)
    }

    /// How long it took until each of some events was seen; the least first.
    pub fn latencies_us(&self, seen_us: &[u64], events: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut latencies: Vec<u64> = events.map(|n| seen_us[n as usize].saturating_sub(self.at_us(n))).collect();
        latencies.sort_unstable();
        latencies
    }

    /// The same of those that were sent in a period of the clock.
    pub fn latencies_within_us(&self, seen_us: &[u64], period: &Range<u64>) -> Vec<u64> {
        let events = (0..seen_us.len() as u64).filter(|event| period.contains(&self.at_us(*event)));
        self.latencies_us(seen_us, events)
    }
}

/// Waits until the projector has found the partitions of a topic and its group has come to rest.
pub async fn until_owned(product: &mut Product, connection: &mut PgConnection, topic: &str) -> Result<()> {
    let deadline = Instant::now() + STALL;
    while product.applied(connection, topic).await?.partitions < i64::from(kafka::PARTITIONS) {
        if Instant::now() > deadline {
            return Err(product.failure(&format!("no checkpoints after {} s", STALL.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(GROUP_SETTLES).await;
    Ok(())
}

/// Produces on a thread of its own until everything is sent or the stream is stopped.
pub fn start_producing(brokers: &str, sent: &Arc<Sent>, events_per_s: u64) -> JoinHandle<Result<u64>> {
    let (brokers, sent) = (brokers.to_string(), sent.clone());
    std::thread::spawn(move || produce(&brokers, &sent, events_per_s))
}

/// Waits for the producer, and says by how much it was late.
pub fn end_producing(producing: JoinHandle<Result<u64>>) -> Result<()> {
    let latest_us = producing.join().map_err(|_| "the producer panicked")??;
    eprintln!("bench: the producer was at most {:.1} ms behind its schedule", latest_us as f64 / 1000.0);
    Ok(())
}

/// Produces at a steady rate, whatever the projector does: a stall shows in the latency of every event that falls into
/// it. Returns by how much the schedule was missed at most, in microseconds.
fn produce(brokers: &str, sent: &Sent, events_per_s: u64) -> Result<u64> {
    let producer = kafka::producer(brokers, &[("linger.ms", "1")])?;
    let mut payload = String::new();
    let mut latest_us = 0;
    let start_us = sent.now_us();
    for event in 0..sent.events() {
        if sent.is_stopped() {
            sent.events.store(event, Ordering::Release);
            break;
        }
        let due_us = start_us + event * 1_000_000 / events_per_s;
        while sent.now_us() < due_us {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (lane, seq) = (event % LANES, event / LANES);
        let produced_micros = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        payload.clear();
        write!(payload, r#"{{"specversion":"1.0","id":"{event}","source":"/bench/latency","#)?;
        write!(payload, r#""type":"com.example.bench.Ticked","datacontenttype":"application/json","#)?;
        write!(payload, r#""data":{{"lane":{lane},"seq":{seq},"produced_micros":{produced_micros}}}}}"#)?;
        let sent_us = sent.stamp(event);
        kafka::send(&producer, TOPIC, &format!("lane-{lane:02}"), &payload)?;
        latest_us = latest_us.max(sent_us.saturating_sub(due_us));
    }
    kafka::finish(&producer)?;
    Ok(latest_us)
}

/// Reads the view over and over until every event was seen. Returns when each was seen first.
pub async fn watch(product: &mut Product, connection: &mut PgConnection, sent: &Sent) -> Result<Vec<u64>> {
    let mut seen_us = vec![0; sent.events() as usize];
    // By lane, the event that is to be seen next.
    let mut next: Vec<u64> = (0..LANES).collect();
    let mut seen = 0;
    let mut news = Instant::now();
    while seen < sent.events() {
        product.check_runs()?;
        let rows: Vec<(i32, i64)> =
            sqlx::query_as("SELECT lane, seq FROM views.bench_latency").fetch_all(&mut *connection).await?;
        let now_us = sent.now_us();
        for (lane, seq) in rows {
            let (lane, seq) = (u64::try_from(lane)?, u64::try_from(seq)?);
            let visible = seq * LANES + lane;
            let next = &mut next[lane as usize];
            while *next <= visible {
                seen_us[*next as usize] = now_us;
                *next += LANES;
                seen += 1;
                news = Instant::now();
            }
        }
        if news.elapsed() > STALL {
            return Err(product.failure(&format!("{seen} events showed, and then none for {} s", STALL.as_secs())));
        }
        tokio::time::sleep(READER_PAUSE).await;
    }
    seen_us.truncate(seen as usize);
    Ok(seen_us)
}
