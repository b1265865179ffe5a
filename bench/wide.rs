//! The history that the `wide` workload reads: readings, each of a key of its own, twelve columns of mixed types wide.

use std::ops::Range;

use jiff::Timestamp;
use projector::store::bind::Instant as Timestamptz;
use sqlx::postgres::PgConnection;

use crate::history::{History, amount, mixed};
use crate::{Result, kafka};

const CREATE: &str = r#"CREATE TABLE bench_floor (
    id text COLLATE "C" NOT NULL,
    device text COLLATE "C",
    place text COLLATE "C",
    unit text COLLATE "C",
    count bigint,
    level integer,
    price numeric(12,2),
    share numeric,
    ratio double precision,
    valid boolean,
    taken_at timestamptz,
    stored_on date,
    detail jsonb,
    PRIMARY KEY (id)
)"#;

const UPSERT: &str = "INSERT INTO bench_floor AS t
        (id, device, place, unit, count, level, price, share, ratio, valid, taken_at, stored_on, detail)
    SELECT s.id, s.device, s.place, s.unit, s.count, s.level::integer, s.price::numeric(12,2), s.share::numeric, s.ratio,
        s.valid, s.taken_at, s.stored_on::date, s.detail::jsonb
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[],
        $9::double precision[], $10::boolean[], $11::timestamptz[], $12::text[], $13::text[])
        AS s(id, device, place, unit, count, level, price, share, ratio, valid, taken_at, stored_on, detail)
    ON CONFLICT (id) DO UPDATE SET
        device = excluded.device, place = excluded.place, unit = excluded.unit, count = excluded.count,
        level = excluded.level, price = excluded.price, share = excluded.share, ratio = excluded.ratio,
        valid = excluded.valid, taken_at = excluded.taken_at, stored_on = excluded.stored_on, detail = excluded.detail";

const PLACES: [&str; 5] = ["boiler room", "roof", "second floor", "yard", "gate"];
const UNITS: [&str; 3] = ["kWh", "m3", "pulse"];
/// 2026-01-01T00:00:00Z.
const FIRST_US: i64 = 1_767_225_600_000_000;

struct Reading(u64);

impl Reading {
    /// In no order that an index would like better than another.
    fn id(&self) -> String {
        format!("{:016x}", mixed(self.0))
    }

    fn device(&self) -> String {
        format!("meter-{:05}", mixed(self.0 ^ 0x11) % 20_000)
    }

    fn place(&self) -> &'static str {
        PLACES[(self.0 % 5) as usize]
    }

    fn unit(&self) -> &'static str {
        UNITS[(self.0 % 3) as usize]
    }

    fn count(&self) -> i64 {
        (mixed(self.0 ^ 0x22) >> 20) as i64
    }

    fn level(&self) -> i64 {
        (mixed(self.0 ^ 0x33) % 100_000) as i64
    }

    fn price(&self) -> String {
        amount(mixed(self.0 ^ 0x44) % 1_000_000)
    }

    fn share(&self) -> String {
        format!("0.{:06}", mixed(self.0 ^ 0x55) % 999_999 + 1).trim_end_matches('0').to_string()
    }

    fn ratio(&self) -> f64 {
        (mixed(self.0 ^ 0x66) % 4096) as f64 / 64.0
    }

    fn valid(&self) -> bool {
        !self.0.is_multiple_of(7)
    }

    fn taken_us(&self) -> i64 {
        FIRST_US + self.0 as i64 * 40_000
    }

    fn stored_on(&self) -> String {
        format!("2026-01-{:02}", 1 + self.0 % 28)
    }

    fn detail(&self) -> String {
        format!(r#"{{"firmware":"{}.{}","flags":[{},{}]}}"#, self.0 % 9, self.0 % 40, self.0 % 2, self.0 % 3)
    }

    fn payload(&self) -> Result<String> {
        let time = Timestamp::from_microsecond(self.taken_us())?;
        let id = self.id();
        Ok(format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/bench/meters","type":"com.example.bench.ReadingTaken","time":"{time}","datacontenttype":"application/json","data":{{"id":"{id}","device":"{}","place":"{}","unit":"{}","count":{},"level":{},"price":{},"share":{},"ratio":{},"valid":{},"taken_at":"{time}","stored_on":"{}","detail":{}}}}}"#,
            self.device(),
            self.place(),
            self.unit(),
            self.count(),
            self.level(),
            self.price(),
            self.share(),
            self.ratio(),
            self.valid(),
            self.stored_on(),
            self.detail(),
        ))
    }
}

pub struct Readings {
    readings: u64,
}

impl Readings {
    pub fn new(events: u64) -> Readings {
        Readings { readings: events }
    }
}

impl History for Readings {
    const WORKLOAD: &'static str = "wide";
    const TOPIC: &'static str = "bench.readings";
    const PROJECTION: &'static str = "bench_readings";
    const FOLDER: &'static str = "projections/wide";
    const CREATE_FLOOR: &'static str = CREATE;

    fn events(&self) -> u64 {
        self.readings
    }

    fn rows(&self) -> usize {
        self.readings as usize
    }

    fn produce(&self, brokers: &str) -> Result<u64> {
        let producer = kafka::bulk_producer(brokers)?;
        let mut bytes = 0;
        for reading in (0..self.readings).map(Reading) {
            let payload = reading.payload()?;
            kafka::send(&producer, Self::TOPIC, &reading.id(), &payload)?;
            bytes += payload.len() as u64;
        }
        kafka::finish(&producer)?;
        Ok(bytes)
    }

    async fn upsert(&self, connection: &mut PgConnection, chunk: Range<usize>) -> Result<()> {
        // In the order of their keys, as the projector writes them.
        let mut readings: Vec<Reading> = chunk.map(|number| Reading(number as u64)).collect();
        readings.sort_by_key(|reading| mixed(reading.0));
        let all = || readings.iter();
        sqlx::query(UPSERT)
            .bind(all().map(Reading::id).collect::<Vec<_>>())
            .bind(all().map(Reading::device).collect::<Vec<_>>())
            .bind(all().map(Reading::place).collect::<Vec<_>>())
            .bind(all().map(Reading::unit).collect::<Vec<_>>())
            .bind(all().map(Reading::count).collect::<Vec<_>>())
            .bind(all().map(Reading::level).collect::<Vec<_>>())
            .bind(all().map(Reading::price).collect::<Vec<_>>())
            .bind(all().map(Reading::share).collect::<Vec<_>>())
            .bind(all().map(Reading::ratio).collect::<Vec<_>>())
            .bind(all().map(Reading::valid).collect::<Vec<_>>())
            .bind(all().map(|reading| Timestamptz(reading.taken_us())).collect::<Vec<_>>())
            .bind(all().map(Reading::stored_on).collect::<Vec<_>>())
            .bind(all().map(Reading::detail).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn check(&self, connection: &mut PgConnection) -> Result<()> {
        let found: (i64, Option<String>, i64) = sqlx::query_as(
            "SELECT count(*), sum(count)::text, count(*) FILTER (WHERE valid AND detail ? 'flags') FROM views.bench_readings",
        )
        .fetch_one(connection)
        .await?;
        let all = || (0..self.readings).map(Reading);
        let count: i128 = all().map(|reading| i128::from(reading.count())).sum();
        let valid = all().filter(Reading::valid).count();
        let expected = (self.readings as i64, Some(count.to_string()), valid as i64);
        if found != expected {
            return Err(format!("the view is wrong: (rows, count, valid) are {found:?} instead of {expected:?}").into());
        }
        Ok(())
    }
}
