//! The history that the `locked` workload reads: baskets that goods are put into, taken out of and checked out. Records in an
//! array, and a handler that asks what the row is: neither can be written without loading the row.

use std::ops::Range;

use sqlx::postgres::PgConnection;

use crate::history::{History, amount, mixed};
use crate::{Result, kafka};

const EVENTS_PER_BASKET: u64 = 5;

const CREATE: &str = r#"CREATE TABLE bench_floor (
    basket_id text COLLATE "C" NOT NULL,
    state text COLLATE "C",
    goods jsonb,
    total numeric(12,2),
    attempts bigint,
    PRIMARY KEY (basket_id)
)"#;

const UPSERT: &str = "INSERT INTO bench_floor AS t (basket_id, state, goods, total, attempts)
    SELECT s.basket_id, s.state, s.goods::jsonb, s.total::numeric(12,2), s.attempts
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
        AS s(basket_id, state, goods, total, attempts)
    ON CONFLICT (basket_id) DO UPDATE SET
        state = excluded.state, goods = excluded.goods, total = excluded.total, attempts = excluded.attempts";

struct Basket(u64);

impl Basket {
    fn id(&self) -> String {
        format!("b-{:08}", self.0)
    }

    fn cents(&self, item: u64) -> u64 {
        50 + mixed(self.0 * 3 + item) % 20_000
    }

    /// The event of a round: three goods are put in, one is taken out again, and the basket is checked out once it is worth
    /// at least 100; what is below is turned away.
    fn payload(&self, round: u64) -> String {
        let id = self.id();
        let (name, data) = match round {
            0..=2 => (
                "ItemAdded",
                format!(
                    r#""item":{round},"name":"item number {round} of basket {}","price":{}"#,
                    self.0,
                    amount(self.cents(round))
                ),
            ),
            3 => ("ItemRemoved", format!(r#""item":1,"price":{}"#, amount(self.cents(1)))),
            _ => ("CheckoutTried", r#""least":100"#.to_string()),
        };
        format!(
            r#"{{"specversion":"1.0","id":"{id}-{round}","source":"/bench/baskets","type":"com.example.bench.{name}","time":"2026-01-01T00:00:0{round}Z","datacontenttype":"application/json","data":{{"basket_id":"{id}",{data}}}}}"#
        )
    }

    fn total_cents(&self) -> u64 {
        self.cents(0) + self.cents(2)
    }

    fn state(&self) -> &'static str {
        if self.total_cents() >= 10_000 { "bought" } else { "open" }
    }

    fn goods(&self) -> String {
        let item = |item: u64| {
            format!(
                r#"{{"item":{item},"name":"item number {item} of basket {}","price":{}}}"#,
                self.0,
                amount(self.cents(item))
            )
        };
        format!("[{},{}]", item(0), item(2))
    }
}

pub struct Baskets {
    baskets: u64,
}

impl Baskets {
    /// # Errors
    /// When so many events are no whole number of baskets.
    pub fn new(events: u64) -> Result<Baskets> {
        if events == 0 || !events.is_multiple_of(EVENTS_PER_BASKET) {
            return Err(format!("a basket has {EVENTS_PER_BASKET} events: {events} events do not come out even").into());
        }
        Ok(Baskets { baskets: events / EVENTS_PER_BASKET })
    }
}

impl History for Baskets {
    const WORKLOAD: &'static str = "locked";
    const TOPIC: &'static str = "bench.baskets";
    const PROJECTION: &'static str = "bench_baskets";
    const FOLDER: &'static str = "projections/locked";
    const CREATE_FLOOR: &'static str = CREATE;

    fn events(&self) -> u64 {
        self.baskets * EVENTS_PER_BASKET
    }

    fn rows(&self) -> usize {
        self.baskets as usize
    }

    /// Round by round, as the orders of the `fold` workload.
    fn produce(&self, brokers: &str) -> Result<u64> {
        let producer = kafka::bulk_producer(brokers)?;
        let mut bytes = 0;
        for round in 0..EVENTS_PER_BASKET {
            for basket in (0..self.baskets).map(Basket) {
                let payload = basket.payload(round);
                kafka::send(&producer, Self::TOPIC, &basket.id(), &payload)?;
                bytes += payload.len() as u64;
            }
        }
        kafka::finish(&producer)?;
        Ok(bytes)
    }

    async fn upsert(&self, connection: &mut PgConnection, chunk: Range<usize>) -> Result<()> {
        let baskets: Vec<Basket> = chunk.map(|number| Basket(number as u64)).collect();
        let all = || baskets.iter();
        sqlx::query(UPSERT)
            .bind(all().map(Basket::id).collect::<Vec<_>>())
            .bind(all().map(Basket::state).collect::<Vec<_>>())
            .bind(all().map(Basket::goods).collect::<Vec<_>>())
            .bind(all().map(|basket| amount(basket.total_cents())).collect::<Vec<_>>())
            .bind(all().map(|_| 1i64).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn check(&self, connection: &mut PgConnection) -> Result<()> {
        let found: (i64, i64, Option<String>, i64) = sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE state = 'bought'), sum(total)::text,
                 count(*) FILTER (WHERE jsonb_array_length(goods) = 2 AND attempts = 1)
             FROM views.bench_baskets",
        )
        .fetch_one(connection)
        .await?;
        let all = || (0..self.baskets).map(Basket);
        let count = self.baskets as i64;
        let bought = all().filter(|basket| basket.state() == "bought").count() as i64;
        let total: u64 = all().map(|basket| basket.total_cents()).sum();
        let expected = (count, bought, Some(amount(total)), count);
        if found != expected {
            let told = "(rows, bought, total, with two goods)";
            return Err(format!("the view is wrong: {told} are {found:?} instead of {expected:?}").into());
        }
        Ok(())
    }
}
