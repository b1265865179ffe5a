//! One message, from Kafka's bytes into the batch.

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use super::Running;
use crate::batch::Batch;
use crate::decode::decode;
use crate::event::{Place, Record};
use crate::fold::{Unapplied, fold};
use crate::store::partitions::Halt;

/// What became of a message.
pub enum Folded {
    Taken,
    /// The event cannot be applied; nothing of it is in the batch.
    Untouched(Halt),
    /// The same, but a part of it may be in the batch.
    Halfway(Halt),
}

/// Decodes and folds a message. An event that stands at `before` is not touched: it is known not to be applicable.
pub fn fold_message(
    running: &Running,
    source: usize,
    message: &BorrowedMessage<'_>,
    before: Option<(&Place, &Halt)>,
    batch: &mut Batch,
) -> Folded {
    let record = record_of(message);
    if let Some((place, halt)) = before
        && record.offset == place.offset
        && record.partition == place.partition
        && record.topic == place.topic
    {
        return Folded::Untouched(halt.clone());
    }
    let halt = |code: &str, message: String| Halt { code: code.into(), message, place: Some(record.place()) };
    let plan = &running.plan;
    let folded = decode(&plan.sources[source], &record)
        .map_err(|failure| halt(failure.code, failure.message))
        .and_then(|event| {
            fold(plan, source, &event).map_err(|unapplied: Unapplied| halt(unapplied.code, unapplied.to_string()))
        });
    match folded {
        Err(halt) => Folded::Untouched(halt),
        Ok(patches) => match batch.absorb(plan, patches) {
            Ok(()) => Folded::Taken,
            Err((table, overflow)) => {
                let table = &plan.tables[table];
                let column = &table.columns[usize::from(overflow.column)].name;
                Folded::Halfway(halt("overflow", format!("{}.{column}: {}", table.name, overflow.message)))
            }
        },
    }
}

fn record_of<'m>(message: &'m BorrowedMessage<'_>) -> Record<'m> {
    let headers = match message.headers() {
        None => Vec::new(),
        Some(headers) => headers.iter().map(|header| (header.key, header.value)).collect(),
    };
    Record {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        time: message.timestamp().to_millis().map(|millis| millis * 1000),
        key: message.key(),
        payload: message.payload(),
        headers,
    }
}
