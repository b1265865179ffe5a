//! Orders with their customers' names, which change: from the log, and live. What it is measured against is reading the
//! topics once and one hand-written statement over what was read.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::history::{amount, event, mixed};
use crate::product::{self, Product};
use crate::{Result, Services, kafka, rounded, settle};

pub const ORDERS: &str = "bench.join.orders";
pub const CUSTOMERS: &str = "bench.join.customers";
const FOLDER: &str = "projections/join";
const PROJECTION: &str = "bench_join";

/// How many there are of each.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub orders: u64,
    pub customers: u64,
}

impl Sizes {
    fn customer_of(self, order: u64) -> u64 {
        mixed(order) % self.customers
    }
}

fn order_id(order: u64) -> String {
    format!("o-{order:08}")
}

fn customer_id(customer: u64) -> String {
    format!("c-{customer:06}")
}

/// The name after so many renames.
fn name(customer: u64, renames: u64) -> String {
    format!("Customer {customer} of the {renames}th name")
}

fn total(order: u64) -> String {
    amount(100 + mixed(order ^ 0xA5A5) % 100_000)
}

pub fn produce_orders(brokers: &str, sizes: Sizes) -> Result<()> {
    let producer = kafka::bulk_producer(brokers)?;
    for order in 0..sizes.orders {
        let (id, customer, total) = (order_id(order), customer_id(sizes.customer_of(order)), total(order));
        let data = format!(
            r#""order_id":"{id}","customer_id":"{customer}","total":{total},"placed_at":"2026-01-01T00:00:00Z""#
        );
        kafka::send(&producer, ORDERS, &id, &event("join", "OrderPlaced", &id, &data))?;
    }
    kafka::finish(&producer)
}

pub fn produce_names(brokers: &str, sizes: Sizes, renames: u64) -> Result<()> {
    let producer = kafka::bulk_producer(brokers)?;
    send_names(&producer, sizes, renames)?;
    kafka::finish(&producer)
}

/// Hands over the names that all customers have after so many renames.
pub fn send_names(producer: &kafka::Producer, sizes: Sizes, renames: u64) -> Result<()> {
    let type_ = if renames == 0 { "CustomerRegistered" } else { "CustomerRenamed" };
    for customer in 0..sizes.customers {
        let id = customer_id(customer);
        let data = format!(r#""customer_id":"{id}","name":"{}""#, name(customer, renames));
        kafka::send(producer, CUSTOMERS, &id, &event("join", type_, &format!("{id}-{renames}"), &data))?;
    }
    Ok(())
}

pub async fn run(services: &Services, orders: u64, customers: u64) -> Result<Value> {
    let sizes = Sizes { orders, customers };
    let brokers = &services.brokers;
    let mut connection = services.connect().await?;
    eprintln!("bench: producing {orders} orders, {customers} customers and as many renames");
    for topic in [ORDERS, CUSTOMERS] {
        kafka::create_topic(brokers, topic).await?;
    }
    produce_orders(brokers, sizes)?;
    for renames in 0..=1 {
        produce_names(brokers, sizes, renames)?;
    }
    let read = || -> Result<f64> {
        Ok(kafka::read_all(brokers, ORDERS, orders)?.0 + kafka::read_all(brokers, CUSTOMERS, 2 * customers)?.0)
    };
    read()?;
    let before = read()? + statement(&mut connection, sizes).await?;
    settle(&mut connection).await?;

    let mut product = Product::start(services, FOLDER)?;
    let ends = |renames: u64| [(ORDERS, orders), (CUSTOMERS, (1 + renames) * customers)];
    until_followed(&mut product, &mut connection, PROJECTION, &ends(1)).await?;
    let seconds = product.started.elapsed().as_secs_f64();
    check(&mut connection, PROJECTION, sizes, 1).await?;
    eprintln!("bench: {seconds:.2} s from the log; the view is right");
    let after = read()? + statement(&mut connection, sizes).await?;
    let floor = before.min(after);

    // The same number of renames, of rows that are there.
    settle(&mut connection).await?;
    let started = Instant::now();
    produce_names(brokers, sizes, 2)?;
    until_followed(&mut product, &mut connection, PROJECTION, &ends(2)).await?;
    let live_s = started.elapsed().as_secs_f64();
    check(&mut connection, PROJECTION, sizes, 2).await?;
    let peak_rss_mb = product.peak_rss_mb()?;
    product.stop().await?;
    let written = product::rows_written(&mut connection, PROJECTION).await?;
    let events = orders + 2 * customers;
    Ok(json!({
        "workload": "join",
        "events": events,
        "seconds": rounded(seconds),
        "events_per_s": (events as f64 / seconds).round() as u64,
        "floor_s": rounded(floor),
        "ratio_to_floor": rounded(seconds / floor),
        "live_renames_s": rounded(live_s),
        "live_rows_per_s": (orders as f64 / live_s).round() as u64,
        "rows_rewritten": written - i64::try_from(orders)?,
        "peak_rss_mb": rounded(peak_rss_mb),
    }))
}

/// Waits until topics are applied and all that follows has followed.
pub async fn until_followed(
    product: &mut Product,
    connection: &mut PgConnection,
    projection: &str,
    ends: &[(&str, u64)],
) -> Result<()> {
    const STALL: Duration = Duration::from_secs(120);
    let deadline = Instant::now() + STALL;
    loop {
        let mut missing = 0;
        for (topic, end) in ends {
            let applied = product.applied(connection, topic).await?;
            missing += i64::try_from(*end)? - applied.next_offsets;
        }
        if missing == 0 {
            let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM \"{projection}@1\".projector_marks)");
            if sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await? {
                return Ok(());
            }
        }
        if Instant::now() > deadline {
            return Err(product.failure(&format!("{missing} events are missing after {} s", STALL.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether all orders are there, and have the names after so many renames.
pub async fn check(connection: &mut PgConnection, view: &str, sizes: Sizes, renames: u64) -> Result<()> {
    let sql = format!(
        "SELECT count(*), count(*) FILTER (
             WHERE customer_name = 'Customer ' || substr(customer_id, 3)::int || ' of the ' || $1::text || 'th name')
         FROM views.{view}"
    );
    let query = sqlx::query_as(AssertSqlSafe(sql)).bind(renames.to_string());
    let found: (i64, i64) = query.fetch_one(connection).await?;
    let all = i64::try_from(sizes.orders)?;
    if found != (all, all) {
        return Err(format!("of {all} orders {found:?} are there and have the right name").into());
    }
    Ok(())
}

/// Seconds that the hand-written statement takes. Its input is staged beforehand, for nothing.
async fn statement(connection: &mut PgConnection, sizes: Sizes) -> Result<f64> {
    const STAGE: &str = "
        CREATE UNLOGGED TABLE bench_orders_read (order_id text, customer_id text, total text, placed_at text);
        CREATE UNLOGGED TABLE bench_customers_read (customer_id text, name text, place bigint);
        CREATE TABLE bench_floor (order_id text COLLATE \"C\" PRIMARY KEY, customer_id text COLLATE \"C\",
            total numeric(12,2), placed_at timestamptz, customer_name text COLLATE \"C\");
        CREATE INDEX ON bench_floor (customer_id, order_id)";
    const STATEMENT: &str = "
        INSERT INTO bench_floor
        SELECT o.order_id, o.customer_id, o.total::numeric(12,2), o.placed_at::timestamptz, c.name
        FROM bench_orders_read o
        LEFT JOIN (SELECT DISTINCT ON (customer_id) customer_id, name FROM bench_customers_read
            ORDER BY customer_id, place DESC) c USING (customer_id)";
    connection.execute(STAGE).await?;
    let mut transaction = connection.begin().await?;
    let orders: Vec<u64> = (0..sizes.orders).collect();
    for some in orders.chunks(20_000) {
        sqlx::query("INSERT INTO bench_orders_read SELECT *, '2026-01-01T00:00:00Z' FROM unnest($1::text[], $2::text[], $3::text[])")
            .bind(some.iter().map(|order| order_id(*order)).collect::<Vec<_>>())
            .bind(some.iter().map(|order| customer_id(sizes.customer_of(*order))).collect::<Vec<_>>())
            .bind(some.iter().map(|order| total(*order)).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .await?;
    }
    for renames in 0..=1 {
        let customers = 0..sizes.customers;
        sqlx::query("INSERT INTO bench_customers_read SELECT *, $3 FROM unnest($1::text[], $2::text[])")
            .bind(customers.clone().map(customer_id).collect::<Vec<_>>())
            .bind(customers.map(|customer| name(customer, renames)).collect::<Vec<_>>())
            .bind(i64::try_from(renames)?)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    connection.execute("ANALYZE bench_orders_read; ANALYZE bench_customers_read").await?;
    settle(connection).await?;
    let started = Instant::now();
    connection.execute(STATEMENT).await?;
    let seconds = started.elapsed().as_secs_f64();
    connection.execute("DROP TABLE bench_floor, bench_orders_read, bench_customers_read").await?;
    eprintln!("bench: the statement takes {seconds:.2} s");
    Ok(seconds)
}
