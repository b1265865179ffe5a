//! The history that the `fold` workload reads: orders, each with five events.
//!
//! Everything about an order follows from its number, so that the rows that have to come out are known beforehand.

use std::fmt::Write as _;
use std::ops::Range;

use jiff::Timestamp;
use projector::store::bind::Instant as Timestamptz;
use sqlx::postgres::PgConnection;

use crate::history::{History, amount, mixed};
use crate::{Result, kafka};

/// Every event's payload has exactly this size.
const PAYLOAD_BYTES: usize = 490;
const EVENTS_PER_ORDER: u64 = 5;

const CURRENCY: &str = "EUR";
const CARRIERS: [&str; 4] = ["bicycle", "railway", "lorry", "barge"];
/// 2026-01-01T00:00:00Z.
const FIRST_PLACED_US: i64 = 1_767_225_600_000_000;
const BETWEEN_ORDERS_US: i64 = 250_000;
const BETWEEN_ROUNDS_US: i64 = 7 * 3_600_000_000;

/// Text that a compressor finds neither trivial nor hopeless.
const PHRASES: [&str; 12] = [
    "leave it ",
    "with the neighbour ",
    "please ring ",
    "twice ",
    "second floor ",
    "on the left ",
    "fragile ",
    "gift wrap ",
    "no invoice inside ",
    "call before delivery ",
    "not before six ",
    "thank you ",
];

pub struct Order(pub u64);

impl Order {
    /// Ids are as long as one another, so that their order is the order of their numbers.
    pub fn id(&self) -> String {
        format!("o-{:08}", self.0)
    }

    fn customer_id(&self) -> String {
        format!("c-{:06}", mixed(self.0) % 50_000)
    }

    fn total_cents(&self) -> u64 {
        100 + mixed(self.0 ^ 0xA5A5) % 100_000
    }

    fn parcels(&self) -> i64 {
        1 + (mixed(self.0 ^ 0x5A5A) % 4) as i64
    }

    fn carrier(&self) -> &'static str {
        CARRIERS[(mixed(self.0 ^ 0x3C3C) % CARRIERS.len() as u64) as usize]
    }

    /// When the event of a round happened, in microseconds since the Unix epoch.
    fn time_us(&self, round: u64) -> i64 {
        FIRST_PLACED_US + self.0 as i64 * BETWEEN_ORDERS_US + round as i64 * BETWEEN_ROUNDS_US
    }

    /// Replaces `payload` by the event of a round: a CloudEvent in structured mode.
    fn write_event(&self, round: u64, payload: &mut String) -> Result<()> {
        let id = self.id();
        let time = Timestamp::from_microsecond(self.time_us(round))?;
        let total = amount(self.total_cents());
        let (name, data) = match round {
            0 => (
                "OrderPlaced",
                format!(
                    r#""customer_id":"{}","total":{total},"currency":"{CURRENCY}","placed_at":"{time}""#,
                    self.customer_id()
                ),
            ),
            1 => ("PaymentTaken", format!(r#""amount":{total}"#)),
            2 => ("OrderPacked", format!(r#""parcels":{}"#, self.parcels())),
            3 => ("OrderShipped", format!(r#""carrier":"{}""#, self.carrier())),
            _ => ("OrderDelivered", format!(r#""delivered_at":"{time}""#)),
        };
        payload.clear();
        write!(
            payload,
            r#"{{"specversion":"1.0","id":"{id}-{round}","source":"/bench/orders","type":"com.example.bench.{name}","#
        )?;
        write!(payload, r#""subject":"{id}","time":"{time}","datacontenttype":"application/json","#)?;
        write!(payload, r#""data":{{"order_id":"{id}",{data},"note":""#)?;
        let end = r#""}}"#;
        let note_end = PAYLOAD_BYTES - end.len();
        if payload.len() > note_end {
            return Err(format!("an event has more than {PAYLOAD_BYTES} bytes before it is padded").into());
        }
        let mut state = self.0 * EVENTS_PER_ORDER + round;
        while payload.len() < note_end {
            state = mixed(state);
            payload.push_str(PHRASES[(state % PHRASES.len() as u64) as usize]);
        }
        payload.truncate(note_end);
        payload.push_str(end);
        Ok(())
    }
}

const CREATE: &str = r#"CREATE TABLE bench_floor (
    order_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C",
    total numeric(12,2),
    currency text COLLATE "C",
    status text COLLATE "C",
    paid numeric(12,2),
    parcels integer,
    carrier text COLLATE "C",
    delivered_at timestamptz,
    PRIMARY KEY (order_id)
)"#;

const UPSERT: &str = "INSERT INTO bench_floor AS t
        (order_id, customer_id, total, currency, status, paid, parcels, carrier, delivered_at)
    SELECT s.order_id, s.customer_id, s.total::numeric(12,2), s.currency, s.status, s.paid::numeric(12,2),
        s.parcels::integer, s.carrier, s.delivered_at
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[],
        $9::timestamptz[])
        AS s(order_id, customer_id, total, currency, status, paid, parcels, carrier, delivered_at)
    ON CONFLICT (order_id) DO UPDATE SET
        customer_id = excluded.customer_id, total = excluded.total, currency = excluded.currency,
        status = excluded.status, paid = excluded.paid, parcels = excluded.parcels, carrier = excluded.carrier,
        delivered_at = excluded.delivered_at";

/// Orders with five events each, and the rows they come to.
pub struct Orders {
    orders: u64,
    rows: FinalRows,
}

impl Orders {
    /// # Errors
    /// When so many events are no whole number of orders.
    pub fn new(events: u64) -> Result<Orders> {
        if events == 0 || !events.is_multiple_of(EVENTS_PER_ORDER) {
            return Err(format!("an order has {EVENTS_PER_ORDER} events: {events} events do not come out even").into());
        }
        let orders = events / EVENTS_PER_ORDER;
        Ok(Orders { orders, rows: FinalRows::of(orders) })
    }
}

/// How an event is spoiled, if it is: one in a hundred, and one at most of an order.
fn spoiled(order: u64, round: u64, payload: &str) -> Option<String> {
    let dice = mixed(order ^ 0xD1D1);
    if !dice.is_multiple_of(100 / EVENTS_PER_ORDER) || (dice >> 32) % EVENTS_PER_ORDER != round {
        return None;
    }
    Some(match (dice >> 40) % 3 {
        0 => payload[..payload.len() / 2].to_string(),
        1 => payload.replace(r#""specversion":"1.0""#, r#""specversion":"9.9""#),
        _ => payload.replace(r#""order_id":"#, r#""order_no":"#),
    })
}

impl Orders {
    /// Produces the history, round by round: the events of an order lie as far apart as there are orders, so that few of
    /// them meet in one batch unless batches are long. With `spoil` some of it is bad; returns how many events.
    pub fn produce_to(&self, brokers: &str, topic: &str, spoil: bool) -> Result<u64> {
        let producer = kafka::bulk_producer(brokers)?;
        let mut payload = String::with_capacity(2 * PAYLOAD_BYTES);
        let mut bad = 0;
        for round in 0..EVENTS_PER_ORDER {
            for number in 0..self.orders {
                let order = Order(number);
                order.write_event(round, &mut payload)?;
                let spoiled = if spoil { spoiled(number, round, &payload) } else { None };
                bad += u64::from(spoiled.is_some());
                kafka::send(&producer, topic, &order.id(), spoiled.as_deref().unwrap_or(&payload))?;
            }
        }
        kafka::finish(&producer)?;
        Ok(bad)
    }

    /// The rows that the history comes to, as the text that `COPY` reads.
    pub fn copied(&self) -> Result<String> {
        let rows = &self.rows;
        let mut text = String::new();
        for at in 0..self.rows() {
            let delivered_at = Timestamp::from_microsecond(rows.delivered_at[at].0)?;
            write!(text, "{}\t{}\t{}\t", rows.order_id[at], rows.customer_id[at], rows.total[at])?;
            write!(text, "{}\t{}\t{}\t", rows.currency[at], rows.status[at], rows.paid[at])?;
            writeln!(text, "{}\t{}\t{delivered_at}", rows.parcels[at], rows.carrier[at])?;
        }
        Ok(text)
    }

    /// Whether the bad events are parked, and the rows of all orders without one are there.
    pub async fn check_spoiled(&self, connection: &mut PgConnection, bad: u64) -> Result<()> {
        let found: (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM views.bench_dirty WHERE status = 'delivered'),
                    (SELECT count(*) FROM projector.dead_letters WHERE NOT waits)",
        )
        .fetch_one(connection)
        .await?;
        let expected = (i64::try_from(self.orders - bad)?, i64::try_from(bad)?);
        if found != expected {
            return Err(format!("(orders delivered, events parked) are {found:?} instead of {expected:?}").into());
        }
        Ok(())
    }
}

impl History for Orders {
    const WORKLOAD: &'static str = "fold";
    const TOPIC: &'static str = "bench.orders";
    const PROJECTION: &'static str = "bench_orders";
    const FOLDER: &'static str = "projections";
    const CREATE_FLOOR: &'static str = CREATE;

    fn events(&self) -> u64 {
        self.orders * EVENTS_PER_ORDER
    }

    fn rows(&self) -> usize {
        self.rows.order_id.len()
    }

    fn produce(&self, brokers: &str) -> Result<u64> {
        self.produce_to(brokers, Self::TOPIC, false)?;
        Ok(self.events() * PAYLOAD_BYTES as u64)
    }

    async fn upsert(&self, connection: &mut PgConnection, chunk: Range<usize>) -> Result<()> {
        let rows = &self.rows;
        sqlx::query(UPSERT)
            .bind(&rows.order_id[chunk.clone()])
            .bind(&rows.customer_id[chunk.clone()])
            .bind(&rows.total[chunk.clone()])
            .bind(&rows.currency[chunk.clone()])
            .bind(&rows.status[chunk.clone()])
            .bind(&rows.paid[chunk.clone()])
            .bind(&rows.parcels[chunk.clone()])
            .bind(&rows.carrier[chunk.clone()])
            .bind(&rows.delivered_at[chunk])
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn check(&self, connection: &mut PgConnection) -> Result<()> {
        let found: (i64, i64, Option<String>) = sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE status = 'delivered'), sum(paid)::text FROM views.bench_orders",
        )
        .fetch_one(connection)
        .await?;
        let count = i64::try_from(self.rows())?;
        let expected = (count, count, Some(self.rows.paid_in_all.clone()));
        if found != expected {
            let told = "(rows, delivered, paid in all)";
            return Err(format!("the view is wrong: {told} are {found:?} instead of {expected:?}").into());
        }
        Ok(())
    }
}

/// The rows that the history comes to, column by column, in the order of their keys. Numbers with decimals are text,
/// as they travel to Postgres.
#[derive(Default)]
struct FinalRows {
    order_id: Vec<String>,
    customer_id: Vec<String>,
    total: Vec<String>,
    currency: Vec<&'static str>,
    status: Vec<&'static str>,
    paid: Vec<String>,
    parcels: Vec<i64>,
    carrier: Vec<&'static str>,
    delivered_at: Vec<Timestamptz>,
    /// The sum of all that was paid.
    paid_in_all: String,
}

impl FinalRows {
    fn of(orders: u64) -> FinalRows {
        let mut rows = FinalRows::default();
        let mut paid_cents = 0;
        for order in (0..orders).map(Order) {
            let total = amount(order.total_cents());
            paid_cents += order.total_cents();
            rows.order_id.push(order.id());
            rows.customer_id.push(order.customer_id());
            rows.total.push(total.clone());
            rows.currency.push(CURRENCY);
            rows.status.push("delivered");
            rows.paid.push(total);
            rows.parcels.push(order.parcels());
            rows.carrier.push(order.carrier());
            rows.delivered_at.push(Timestamptz(order.time_us(EVENTS_PER_ORDER - 1)));
        }
        rows.paid_in_all = amount(paid_cents);
        rows
    }
}
