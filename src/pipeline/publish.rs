//! Parked events written to the dead-letter topic, where a projection has one.
//!
//! What is to be written is in the catalog, committed with the batch; it is marked when the broker has it. A crash in
//! between writes it twice, never not at all.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Outage, Running};
use crate::error_kind::ErrorKind;
use crate::source::{Failed, Publisher};
use crate::store::parked::outbox::{published, unpublished};

/// Writes until it is told to stop.
pub async fn publish(running: Arc<Running>, topic: String, stop: CancellationToken) {
    const EVERY: Duration = Duration::from_millis(500);
    let what = format!("{}: the dead-letter topic {topic}", running.generation);
    let publisher = match Publisher::new(&running.settings.kafka) {
        Ok(publisher) => publisher,
        Err(error) => return tracing::error!("{what}: {error}"),
    };
    let mut outage = Outage::default();
    loop {
        let some = tokio::select! {
            some = publish_some(&running, &publisher, &topic) => some,
            () = stop.cancelled() => return,
        };
        let wait = match some {
            Ok(0) => EVERY,
            Ok(_) => Duration::ZERO,
            Err(error) => outage.failed(&what, &error),
        };
        if wait <= EVERY {
            outage.over(&what);
        }
        if tokio::time::timeout(wait, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

async fn publish_some(running: &Running, publisher: &Publisher, topic: &str) -> Result<usize, String> {
    const AT_ONCE: i64 = 100;
    let Running { pool, generation, .. } = running;
    let letters = unpublished(pool, generation, AT_ONCE).await.map_err(|error| error.to_string())?;
    for letter in &letters {
        let stage = match ErrorKind::of(&letter.code) {
            Some(ErrorKind::Undecodable) => "VALUE_CONVERTER",
            Some(ErrorKind::Refused) => "TASK_PUT",
            _ => "TRANSFORMATION",
        };
        let failed = Failed {
            projection: &generation.projection,
            generation: generation.number,
            stage,
            code: &letter.code,
            message: &letter.message,
        };
        publisher.publish(topic, &letter.event, &failed).await?;
        published(pool, generation, &letter.event.place).await.map_err(|error| error.to_string())?;
    }
    Ok(letters.len())
}
