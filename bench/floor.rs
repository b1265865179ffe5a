//! What folding cannot be faster than: reading the topic once and writing the final rows once.

use std::time::Instant;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};

use crate::history::History;
use crate::{Result, Services, kafka, settle};

/// Rows a statement writes.
const CHUNK_ROWS: usize = 5_000;

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
pub async fn measure<H: History>(
    services: &Services,
    connection: &mut PgConnection,
    history: &H,
    produced: u64,
) -> Result<Floor> {
    let (read_s, bytes) = kafka::read_all(&services.brokers, H::TOPIC, history.events())?;
    if bytes != produced {
        return Err(format!("payloads of {produced} bytes were produced, {bytes} were read").into());
    }
    connection.execute(H::CREATE_FLOOR).await?;
    settle(connection).await?;
    let upsert_s = upsert(connection, history).await?;
    connection.execute("DROP TABLE bench_floor").await?;
    let floor = Floor { read_s, upsert_s };
    eprintln!("bench: floor {:.2} s: reading {read_s:.2} s, writing {upsert_s:.2} s", floor.seconds());
    Ok(floor)
}

async fn upsert<H: History>(connection: &mut PgConnection, history: &H) -> Result<f64> {
    let started = Instant::now();
    let mut transaction = connection.begin().await?;
    for first in (0..history.rows()).step_by(CHUNK_ROWS) {
        history.upsert(&mut transaction, first..(first + CHUNK_ROWS).min(history.rows())).await?;
    }
    transaction.commit().await?;
    Ok(started.elapsed().as_secs_f64())
}
