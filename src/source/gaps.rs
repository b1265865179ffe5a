//! Where reading begins, and when it must not: history that is gone, offsets that cannot be. Pure decisions.

use crate::checkpoint::Partition;
use crate::plan::Start;

/// What a partition holds: the first offset still there, and the next one to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offsets {
    pub low: i64,
    pub high: i64,
}

/// A partition that cannot be read as asked. `code` is stable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub code: &'static str,
    pub message: String,
}

/// Where a generation that knows nothing of a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    pub offset: i64,
    /// History before it is gone, and a person has accepted that.
    pub truncated: bool,
}

/// The first offset to read. `at_start` is the offset of the first message at or after the time that the source
/// starts at, if it starts at one.
///
/// # Errors
/// When early history is gone and nobody has accepted that.
pub fn begin(
    partition: &Partition,
    start: Start,
    offsets: Offsets,
    at_start: Option<i64>,
    compacted: bool,
    accepted: bool,
) -> Result<Begin, Gap> {
    match start {
        Start::Latest => Ok(Begin { offset: offsets.high, truncated: false }),
        Start::At(_) => Ok(Begin { offset: at_start.unwrap_or(offsets.high), truncated: false }),
        Start::Earliest if (offsets.low == 0 && !compacted) || accepted => {
            Ok(Begin { offset: offsets.low, truncated: offsets.low > 0 || compacted })
        }
        Start::Earliest if compacted => Err(Gap {
            code: "truncated-history",
            message: format!(
                "the topic {} is compacted: older events of a key may be gone. If the view is right without them, say so \
                 in the source: accept_truncated: REASON",
                partition.topic
            ),
        }),
        Start::Earliest => Err(Gap {
            code: "truncated-history",
            message: format!(
                "{partition} begins at offset {}: {} earlier events are gone. If the view is right without them, say so \
                 in the source: accept_truncated: REASON",
                offsets.low, offsets.low
            ),
        }),
    }
}

/// Whether a checkpoint still fits the partition.
///
/// # Errors
/// When events between the checkpoint and the log are gone, or the log ends before the checkpoint.
pub fn resume(partition: &Partition, checkpoint: i64, offsets: Offsets) -> Result<(), Gap> {
    if checkpoint < offsets.low {
        return Err(Gap {
            code: "gap",
            message: format!(
                "{partition}: events {checkpoint} to {} ({} of them) were deleted from the topic before they were applied. \
                 Restore them, or build the view anew from what is left",
                offsets.low - 1,
                offsets.low - checkpoint
            ),
        });
    }
    if checkpoint > offsets.high {
        return Err(Gap {
            code: "offset-beyond-end",
            message: format!(
                "{partition}: the checkpoint is {checkpoint}, but the topic ends at {}. Was the topic made anew, or the \
                 cluster restored from an older copy?",
                offsets.high
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> Partition {
        Partition::new("orders", 3)
    }

    #[test]
    fn gaps_are_told_in_numbers() {
        let gap = resume(&partition(), 10, Offsets { low: 15, high: 20 }).unwrap_err();
        assert!(gap.message.contains("orders/3: events 10 to 14 (5 of them)"), "{}", gap.message);
        assert_eq!(resume(&partition(), 21, Offsets { low: 15, high: 20 }).unwrap_err().code, "offset-beyond-end");
        assert_eq!(resume(&partition(), 20, Offsets { low: 15, high: 20 }), Ok(()));
    }

    #[test]
    fn truncated_history_needs_a_person() {
        let offsets = Offsets { low: 4, high: 9 };
        let begin = |start, compacted, accepted| begin(&partition(), start, offsets, None, compacted, accepted);
        assert_eq!(begin(Start::Earliest, false, false).unwrap_err().code, "truncated-history");
        assert_eq!(begin(Start::Earliest, false, true), Ok(Begin { offset: 4, truncated: true }));
        assert_eq!(begin(Start::Latest, false, false), Ok(Begin { offset: 9, truncated: false }));
        let whole = Offsets { low: 0, high: 9 };
        assert!(super::begin(&partition(), Start::Earliest, whole, None, true, false).is_err());
        assert_eq!(
            super::begin(&partition(), Start::Earliest, whole, None, false, false),
            Ok(Begin { offset: 0, truncated: false })
        );
    }
}
