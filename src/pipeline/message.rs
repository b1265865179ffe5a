//! One message, from Kafka's bytes into the batch.

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use super::Running;
use super::end::Owned;
use crate::batch::Batch;
use crate::checkpoint::Partition;
use crate::event::{Place, Record};
use crate::fold::Identity;
use crate::intake::intake;
use crate::seen::Seen;
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
    owned: &mut Owned,
    message: &BorrowedMessage<'_>,
    partition: &Partition,
    before: Option<(&Place, &Halt)>,
    seen: &mut Seen,
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
    let known = |identity: &Identity, horizon: i64| seen.knows(partition, identity, horizon);
    let taken = match intake(plan, owned.source, &record, owned.clock, &known) {
        Ok(taken) => taken,
        Err(refused) => return Folded::Untouched(halt(refused.code, refused.message)),
    };
    match batch.absorb(plan, taken.patches) {
        Ok(()) => {
            owned.clock = taken.clock;
            taken.unhandled.iter().for_each(|type_| batch.pass_over(owned.source, type_));
            for counted in taken.counted {
                seen.count(&counted);
                batch.count(counted);
            }
            Folded::Taken
        }
        Err((table, misapplied)) => Folded::Halfway(halt(misapplied.code, misapplied.told(&plan.tables[table]))),
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
