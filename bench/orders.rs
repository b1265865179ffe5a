//! The history that the `fold` workload reads: orders, each with five events.
//!
//! Everything about an order follows from its number, so that the rows that have to come out are known beforehand.

use std::fmt::Write as _;

use jiff::Timestamp;
use projector::store::bind::Instant as Timestamptz;

use crate::{Result, kafka};

pub const TOPIC: &str = "bench.orders";
/// Every event's payload has exactly this size.
pub const PAYLOAD_BYTES: usize = 490;
pub const EVENTS_PER_ORDER: u64 = 5;

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

struct Order(u64);

impl Order {
    /// Ids are as long as one another, so that their order is the order of their numbers.
    fn id(&self) -> String {
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

/// Spreads the bits of a number (the finaliser of SplitMix64).
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// An amount of money with two decimals.
fn amount(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// Produces the whole history, round by round: the events of an order lie as far apart as there are orders, so that
/// few of them meet in one batch unless batches are long.
pub fn produce(brokers: &str, orders: u64) -> Result<()> {
    let producer = kafka::producer(
        brokers,
        &[
            ("compression.type", "lz4"),
            ("linger.ms", "20"),
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "262144"),
        ],
    )?;
    let mut payload = String::with_capacity(2 * PAYLOAD_BYTES);
    for round in 0..EVENTS_PER_ORDER {
        for number in 0..orders {
            let order = Order(number);
            order.write_event(round, &mut payload)?;
            kafka::send(&producer, TOPIC, &order.id(), &payload)?;
        }
    }
    kafka::finish(&producer)
}

/// The rows that the history comes to, column by column, in the order of their keys. Numbers with decimals are text,
/// as they travel to Postgres.
#[derive(Default)]
pub struct FinalRows {
    pub order_id: Vec<String>,
    pub customer_id: Vec<String>,
    pub total: Vec<String>,
    pub currency: Vec<&'static str>,
    pub status: Vec<&'static str>,
    pub paid: Vec<String>,
    pub parcels: Vec<i64>,
    pub carrier: Vec<&'static str>,
    pub delivered_at: Vec<Timestamptz>,
    /// The sum of all that was paid.
    pub paid_in_all: String,
}

impl FinalRows {
    pub fn of(orders: u64) -> FinalRows {
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

    pub fn len(&self) -> usize {
        self.order_id.len()
    }
}
