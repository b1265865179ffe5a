//! What folding cannot be faster than: reading the topic once and writing the final rows once.

use std::time::Instant;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};

use crate::orders::{FinalRows, PAYLOAD_BYTES, TOPIC};
use crate::{Result, Services, kafka, settle};

/// Rows a statement writes.
const CHUNK_ROWS: usize = 5_000;

/// The columns and types of the table that the projector makes for `bench_orders`.
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

#[derive(Debug, Clone, Copy)]
pub struct Floor {
    pub read_s: f64,
    pub upsert_s: f64,
}

impl Floor {
    pub fn seconds(&self) -> f64 {
        self.read_s + self.upsert_s
    }

    /// The faster of two.
    pub fn lower(self, other: Floor) -> Floor {
        if other.seconds() < self.seconds() { other } else { self }
    }
}

/// Reads all events with a bare consumer, then writes all rows to a fresh table.
pub async fn measure(
    services: &Services,
    connection: &mut PgConnection,
    events: u64,
    rows: &FinalRows,
) -> Result<Floor> {
    let (read_s, bytes) = kafka::read_all(&services.brokers, TOPIC, events)?;
    if bytes != events * PAYLOAD_BYTES as u64 {
        return Err(format!("the payloads of {events} events have {bytes} bytes, not {PAYLOAD_BYTES} each").into());
    }
    connection.execute(CREATE).await?;
    settle(connection).await?;
    let upsert_s = upsert(connection, rows).await?;
    connection.execute("DROP TABLE bench_floor").await?;
    let floor = Floor { read_s, upsert_s };
    eprintln!("bench: floor {:.2} s: reading {read_s:.2} s, writing {upsert_s:.2} s", floor.seconds());
    Ok(floor)
}

async fn upsert(connection: &mut PgConnection, rows: &FinalRows) -> Result<f64> {
    let started = Instant::now();
    let mut transaction = connection.begin().await?;
    for first in (0..rows.len()).step_by(CHUNK_ROWS) {
        let chunk = first..(first + CHUNK_ROWS).min(rows.len());
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
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(started.elapsed().as_secs_f64())
}
