//! A row that every event changes, beside rows that few change, and a row that is aggregated from all of them: with one
//! lane, and with several that meet there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use crate::dirty::{forget, median};
use crate::fold::until_applied;
use crate::history::{amount, event, mixed};
use crate::join::until_followed;
use crate::latency::until_owned;
use crate::product::Product;
use crate::{Result, Services, kafka, settle};

const TOPIC: &str = "bench.hot";
const LANES: [usize; 3] = [1, 2, 4];
/// Times that the events are produced and folded with each number of lanes; the median counts.
const ROUNDS: u64 = 3;

/// How the sales are spread, and what is made of them.
struct Case {
    name: &'static str,
    folder: &'static str,
    projection: &'static str,
    products: u64,
    /// Products follow from sales, which are rows of their own.
    is_rollup: bool,
}

const CASES: [Case; 3] = [
    Case { name: "hot", folder: "projections/hot", projection: "bench_hot", products: 1, is_rollup: false },
    Case { name: "uniform", folder: "projections/hot", projection: "bench_hot", products: 10_000, is_rollup: false },
    Case {
        name: "hot_rollup",
        folder: "projections/hot_rollup",
        projection: "bench_hot_rollup",
        products: 1,
        is_rollup: true,
    },
];

fn cents(sale: u64) -> u64 {
    100 + mixed(sale ^ 0xA5A5) % 10_000
}

pub async fn run(services: &Services, events: u64) -> Result<Value> {
    let mut connection = services.connect().await?;
    kafka::create_topic(&services.brokers, TOPIC).await?;
    let mut result = json!({ "workload": "hot", "events": events, "rounds": ROUNDS });
    for case in &CASES {
        let mut rates = Map::new();
        for lanes in LANES {
            eprintln!("bench: {} with {lanes} lanes, {ROUNDS} times {events} events", case.name);
            let seconds = case.seconds(services, &mut connection, lanes, events).await?;
            rates.insert(lanes.to_string(), json!((events as f64 / seconds).round() as u64));
        }
        result[case.name] = rates.into();
    }
    Ok(result)
}

impl Case {
    /// From an empty database. The topic has the events of earlier runs; sources start behind them.
    async fn seconds(
        &self,
        services: &Services,
        connection: &mut PgConnection,
        lanes: usize,
        events: u64,
    ) -> Result<f64> {
        forget(connection, self.projection).await?;
        // A lane that knew itself far behind would fold for seconds before it writes; here all write all the time.
        let settings = json!({ "fold": { "lanes": lanes, "far_behind": 1_000_000_000 } });
        let mut product = Product::start_with(services, self.folder, settings)?;
        until_owned(&mut product, connection, TOPIC).await?;
        let mut seconds = Vec::new();
        for round in 0..ROUNDS {
            // It sleeps meanwhile, so that the producer's pace is not what is measured.
            product.signal(Signal::SIGSTOP)?;
            self.produce(&services.brokers, round * events..(round + 1) * events)?;
            let end = kafka::ends(&services.brokers, TOPIC)?;
            settle(connection).await?;
            let started = Instant::now();
            product.signal(Signal::SIGCONT)?;
            if self.is_rollup {
                until_followed(&mut product, connection, self.projection, &[(TOPIC, u64::try_from(end)?)]).await?;
            } else {
                until_applied(&mut product, connection, TOPIC, end).await?;
            }
            seconds.push(started.elapsed().as_secs_f64());
        }
        product.stop().await?;
        self.check(connection, ROUNDS * events).await?;
        Ok(median(seconds))
    }

    fn product_id(&self, sale: u64) -> String {
        format!("p-{:05}", mixed(sale) % self.products)
    }

    fn produce(&self, brokers: &str, sales: Range<u64>) -> Result<()> {
        let producer = kafka::bulk_producer(brokers)?;
        for sale in sales {
            let id = format!("s-{sale:08}");
            let product_id = self.product_id(sale);
            let data = format!(r#""sale_id":"{id}","product_id":"{product_id}","amount":{}"#, amount(cents(sale)));
            // Keyed by sale: those of one product are in all partitions, and so with all lanes.
            kafka::send(&producer, TOPIC, &id, &event("hot", "ProductSold", &id, &data))?;
        }
        kafka::finish(&producer)
    }

    async fn check(&self, connection: &mut PgConnection, sales: u64) -> Result<()> {
        let mut products: BTreeMap<String, (i64, u64)> = BTreeMap::new();
        for sale in 0..sales {
            let (count, sum) = products.entry(self.product_id(sale)).or_default();
            *count += 1;
            *sum += cents(sale);
        }
        let expected: Vec<(String, i64, String)> =
            products.into_iter().map(|(id, (count, sum))| (id, count, amount(sum))).collect();
        let view = self.projection;
        let sql =
            format!("SELECT product_id, sales, amount::numeric(14,2)::text FROM views.{view} ORDER BY product_id");
        let found: Vec<(String, i64, String)> = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(connection).await?;
        if found != expected {
            let wrong = expected.iter().filter(|row| !found.contains(row)).count();
            let (rows, all) = (found.len(), expected.len());
            return Err(format!("the view has {rows} of {all} products, {wrong} of them wrong or missing").into());
        }
        eprintln!("bench: the view is right");
        Ok(())
    }
}
