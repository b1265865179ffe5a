//! The history of `fold` with one bad event in a hundred, beside the same without: what is parked costs, and how much.

use serde_json::{Value, json};
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;

use crate::fold::until_applied;
use crate::history::History;
use crate::orders::Orders;
use crate::product::Product;
use crate::{Result, Services, kafka, rounded, settle};

/// A folder of projections, the name of the one in it, and its topic.
type Kind = (&'static str, &'static str, &'static str);
const CLEAN: Kind = (Orders::FOLDER, Orders::PROJECTION, Orders::TOPIC);
const DIRTY: Kind = ("projections/dirty", "bench_dirty", "bench.dirty");
/// Runs of either kind, in turns: the machine may be slower or faster at times.
const ROUNDS: usize = 5;

pub async fn run(services: &Services, events: u64) -> Result<Value> {
    let orders = Orders::new(events)?;
    let mut connection = services.connect().await?;
    let end = i64::try_from(events)?;
    let mut bad = 0;
    for (_, _, topic) in [CLEAN, DIRTY] {
        eprintln!("bench: producing {events} events to {topic}");
        kafka::create_topic(&services.brokers, topic).await?;
        bad += orders.produce_to(&services.brokers, topic, topic == DIRTY.2)?;
    }
    // Nobody is to pay for a log that Kafka has not read yet.
    for (_, _, topic) in [CLEAN, DIRTY] {
        kafka::read_all(&services.brokers, topic, events)?;
    }
    let mut seconds: [Vec<f64>; 2] = Default::default();
    let mut memory = 0.0f64;
    for _ in 0..ROUNDS {
        for (which, (folder, projection, topic)) in [CLEAN, DIRTY].into_iter().enumerate() {
            forget(&mut connection, projection).await?;
            settle(&mut connection).await?;
            let mut product = Product::start(services, folder)?;
            seconds[which].push(until_applied(&mut product, &mut connection, topic, end).await?);
            memory = memory.max(product.peak_rss_mb()?);
            product.stop().await?;
        }
        orders.check_spoiled(&mut connection, bad).await?;
    }
    eprintln!("bench: the view is right, and what is parked too");
    let [clean, dirty] = seconds.map(median);
    Ok(json!({
        "workload": "dirty",
        "events": events,
        "bad_events": bad,
        "rounds": ROUNDS,
        "clean_seconds": rounded(clean),
        "seconds": rounded(dirty),
        "events_per_s": (events as f64 / dirty).round() as u64,
        "of_clean_throughput": rounded(clean / dirty),
        "peak_rss_mb": rounded(memory),
    }))
}

/// Takes away what an earlier run has left.
pub async fn forget(connection: &mut PgConnection, projection: &str) -> Result<()> {
    let generations: Vec<String> =
        sqlx::query_scalar("SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname::text, $1)")
            .bind(format!("{projection}@"))
            .fetch_all(&mut *connection)
            .await?;
    for schema in ["projector", "views"].into_iter().chain(generations.iter().map(String::as_str)) {
        connection.execute(sqlx::AssertSqlSafe(format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE"))).await?;
    }
    Ok(())
}

pub fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    eprintln!("bench: {seconds:.2?}");
    seconds[seconds.len() / 2]
}
