//! The history of `fold` with one bad event in a hundred, beside the same without: what is parked costs, and how much.

use serde_json::{Value, json};

use crate::fold::until_applied;
use crate::history::History;
use crate::orders::Orders;
use crate::product::Product;
use crate::{Result, Services, kafka, rounded, settle};

const TOPIC: &str = "bench.dirty";
/// Folders of projections and their topics: the clean history stands before and after the other.
const RUNS: [(&str, &str); 3] =
    [(Orders::FOLDER, Orders::TOPIC), ("projections/dirty", TOPIC), ("projections/again", "bench.again")];

pub async fn run(services: &Services, events: u64) -> Result<Value> {
    let orders = Orders::new(events)?;
    let mut connection = services.connect().await?;
    eprintln!("bench: producing {events} events to {}, and to {TOPIC} with bad ones among them", Orders::TOPIC);
    let mut bad = 0;
    for (_, topic) in RUNS {
        kafka::create_topic(&services.brokers, topic).await?;
        bad += orders.produce_to(&services.brokers, topic, topic == TOPIC)?;
    }
    let mut seconds = Vec::new();
    let mut memory = 0.0f64;
    // Nobody is to pay for a log that Kafka has not read yet.
    for (_, topic) in RUNS {
        kafka::read_all(&services.brokers, topic, events)?;
    }
    for (folder, topic) in RUNS {
        settle(&mut connection).await?;
        let mut product = Product::start(services, folder)?;
        let end = i64::try_from(events)?;
        seconds.push(until_applied(&mut product, &mut connection, topic, end).await?);
        memory = memory.max(product.peak_rss_mb()?);
        product.stop().await?;
    }
    orders.check_spoiled(&mut connection, bad).await?;
    eprintln!("bench: the view is right, and what is parked too");
    // The machine may have been slower or faster at one of the two times: the stricter comparison counts.
    let (clean, dirty) = (seconds[0].min(seconds[2]), seconds[1]);
    Ok(json!({
        "workload": "dirty",
        "events": events,
        "bad_events": bad,
        "clean_seconds": rounded(clean),
        "seconds": rounded(dirty),
        "events_per_s": (events as f64 / dirty).round() as u64,
        "of_clean_throughput": rounded(clean / dirty),
        "peak_rss_mb": rounded(memory),
    }))
}
