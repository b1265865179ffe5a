//! When the end of a partition is reached, though its last offsets are no messages.
//!
//! Transaction markers take offsets and are never delivered. librdkafka's statistics say how far fetching has come, but
//! they overtake the messages that still stand in its queue. What lies before a reported end may be passed only once the
//! queue was seen empty after the report: two polls in a row that waited and brought nothing. A poll that brings word of
//! something else (an end, a missing topic, an error) proves nothing, because messages may stand behind it.

use std::collections::HashMap;

use crate::checkpoint::Partition;
use crate::proof::{self, Sabotage};
use crate::source::Watched;

/// What one poll brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    Message,
    /// Something about the topics or the brokers; messages may stand behind it in the queue.
    Word,
    /// The queue was empty for the whole wait.
    Nothing,
    /// The queue was empty, but nobody waited.
    Glance,
}

/// Ends that were reported and are not proven yet.
#[derive(Debug, Default)]
pub struct Ends {
    reported: Option<HashMap<Partition, Watched>>,
    vain_polls: u32,
}

impl Ends {
    /// Takes a report; an earlier one is forgotten.
    pub fn report(&mut self, watched: HashMap<Partition, Watched>) {
        self.reported = Some(watched);
        self.vain_polls = 0;
    }

    /// Takes the outcome of a poll. The reported ends, when they are proven now.
    pub fn polled(&mut self, fetched: Fetched) -> Option<HashMap<Partition, Watched>> {
        const PROOF: u32 = 2;
        self.reported.as_ref()?;
        let word_is_proof = proof::sabotaged(Sabotage::QueueProof);
        let vain = fetched == Fetched::Nothing || (word_is_proof && fetched == Fetched::Word);
        self.vain_polls = if vain { self.vain_polls + 1 } else { 0 };
        if self.vain_polls < PROOF {
            return None;
        }
        self.reported.take()
    }

    pub fn forget(&mut self) {
        self.reported = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Step {
        /// A message or a marker is written; markers take an offset and never reach the queue.
        Message,
        Marker,
        Word,
        Statistics,
        Poll,
        Glance,
    }

    fn step() -> impl Strategy<Value = Step> {
        use Step::*;
        prop::sample::select(vec![Message, Message, Marker, Word, Word, Statistics, Poll, Poll, Poll, Glance])
    }

    /// Plays librdkafka's queue. The end that the lane passes must never lie behind a message that it has not seen.
    fn play(steps: &[Step]) -> Result<(), String> {
        let partition = Partition::new("t", 0);
        let mut queue: VecDeque<Option<i64>> = VecDeque::new();
        let (mut end, mut seen) = (0, Vec::new());
        let mut ends = Ends::default();
        for step in steps {
            let fetched = match step {
                Step::Message => {
                    queue.push_back(Some(end));
                    end += 1;
                    continue;
                }
                Step::Marker => {
                    end += 1;
                    continue;
                }
                Step::Word => {
                    queue.push_back(None);
                    continue;
                }
                Step::Statistics => {
                    ends.report(HashMap::from([(partition.clone(), Watched { high: end, end_reached: end })]));
                    continue;
                }
                Step::Poll | Step::Glance => match queue.pop_front() {
                    Some(Some(offset)) => {
                        seen.push(offset);
                        Fetched::Message
                    }
                    Some(None) => Fetched::Word,
                    None if *step == Step::Glance => Fetched::Glance,
                    None => Fetched::Nothing,
                },
            };
            if let Some(proven) = ends.polled(fetched) {
                let end = proven[&partition].end_reached;
                if let Some(lost) = queue.iter().flatten().find(|offset| **offset < end) {
                    return Err(format!("passed to {end}, but {lost} is still in the queue; seen {seen:?}"));
                }
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_in_the_queue_is_passed(steps in prop::collection::vec(step(), 1..40)) {
            prop_assert_eq!(play(&steps), Ok(()));
        }
    }

    #[test]
    fn the_proof_can_fail() {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["pipeline::partition_ends::tests::nothing_in_the_queue_is_passed", "--exact"]);
        let output = command.env("PROJECTOR_SABOTAGE", Sabotage::QueueProof.name()).output().unwrap();
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    #[test]
    fn an_end_behind_markers_is_reached() {
        use Step::*;
        let partition = Partition::new("t", 0);
        let mut ends = Ends::default();
        ends.report(HashMap::from([(partition, Watched { high: 3, end_reached: 3 })]));
        assert!(ends.polled(Fetched::Message).is_none());
        assert!(ends.polled(Fetched::Nothing).is_none());
        assert!(ends.polled(Fetched::Nothing).is_some());
        assert_eq!(play(&[Message, Marker, Statistics, Poll, Poll, Poll]), Ok(()));
    }
}
