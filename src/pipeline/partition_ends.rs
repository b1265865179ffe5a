//! When the end of a partition is reached, though its last offsets are no messages.
//!
//! Transaction markers take offsets and are never delivered. librdkafka's statistics say how far fetching has come, but
//! they overtake the messages that still stand in its queue, and after a seek they go on telling of the place before it
//! until a broker is fetched from again. So what lies before a reported end may be passed only
//!
//! 1. when something of the partition has come since the last seek, pause or rebalance: a message, or word of its end.
//!    librdkafka drops from its queue what an older fetch brought, and resets the partition's statistics before it fetches
//!    anew. A rebalance does that to all partitions, those that stay too: they are paused, and what nobody has taken out
//!    of the queue is fetched again. The report has to be made after that: one from before is heard with the first message
//!    at times;
//! 2. and the queue was seen empty after the report: two polls in a row that waited and brought nothing. A poll that brings
//!    word of something else (an end, a missing topic, an error) proves nothing, because messages may stand behind it;
//! 3. and all of 2. was seen twice, of the same end, the second report having been made after the first emptiness. A report
//!    that is heard together with a message may have been made before it; and at a rebalance librdkafka drops what is
//!    queued a moment before its word of it can be heard: the first emptiness may be of that moment. The thread that makes
//!    the word makes the reports too, so that the word was there before the second report; it is heard before the queue
//!    is seen empty again, and takes all of this back.
//!
//! Word of an end names the partition's number and not its topic. Where a lane owns several partitions of that number it
//! is no sign of any of them; a partition that ends in markers alone then counts as reached with its next message.

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
    /// The last report, and when it was made.
    reported: Option<(i64, HashMap<Partition, Watched>)>,
    vain_polls: u32,
    /// Ends behind which the queue was seen empty, and when.
    emptied: Option<(i64, HashMap<Partition, Watched>)>,
    /// Partitions of which something has come since their fetching began anew, and when the first of it did.
    heard: HashMap<Partition, i64, ahash::RandomState>,
}

impl Ends {
    /// A message of the partition came. Times are those of [`crate::source::clock`], here and below.
    pub fn delivered(&mut self, partition: &Partition, now: impl FnOnce() -> i64) {
        if !self.heard.contains_key(partition) {
            self.heard.insert(partition.clone(), now());
        }
    }

    /// The end of a partition of this number came.
    pub fn reached<'p>(&mut self, number: i32, owned: impl Iterator<Item = &'p Partition>, now: impl FnOnce() -> i64) {
        let mut of_number = owned.filter(|partition| partition.partition == number);
        if let (Some(only), None) = (of_number.next(), of_number.next()) {
            self.delivered(only, now);
        }
    }

    /// Fetching of these begins anew: nothing that was heard of them before counts.
    pub fn moved<'p>(&mut self, partitions: impl Iterator<Item = &'p Partition>) {
        self.reported = None;
        self.emptied = None;
        if !proof::sabotaged(Sabotage::StaleEnds) {
            for partition in partitions {
                self.heard.remove(partition);
            }
        }
    }

    /// Takes a report, and the time it was made at; an earlier one is forgotten.
    pub fn report(&mut self, made: i64, mut watched: HashMap<Partition, Watched>) {
        watched.retain(|partition, _| self.heard.get(partition).is_some_and(|heard| *heard < made));
        self.reported = Some((made, watched));
        self.vain_polls = 0;
    }

    /// Takes the outcome of a poll. The reported ends that are proven now.
    pub fn polled(&mut self, fetched: Fetched, now: impl FnOnce() -> i64) -> HashMap<Partition, Watched> {
        const PROOF: u32 = 2;
        let word_is_proof = proof::sabotaged(Sabotage::QueueProof);
        let vain = fetched == Fetched::Nothing || (word_is_proof && fetched == Fetched::Word);
        self.vain_polls = if vain { self.vain_polls + 1 } else { 0 };
        let mut proven = HashMap::new();
        if let Some((made, ends)) = self.reported.take_if(|_| self.vain_polls >= PROOF) {
            proven.clone_from(&ends);
            if !proof::sabotaged(Sabotage::SingleReport) {
                let before = self.emptied.take().filter(|(seen, _)| *seen < made).map(|(_, ends)| ends);
                proven.retain(|partition, end| {
                    let known = before.as_ref().and_then(|ends| ends.get(partition));
                    known.is_some_and(|known| known.end_reached == end.end_reached)
                });
            }
            self.emptied = Some((now(), ends));
        }
        proven
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
        /// The broker is fetched from, as far as it is; it may be away.
        Fetch,
        /// The same, and it gives one message only.
        FetchOne,
        /// Word of something else stands in the queue.
        Word,
        /// Statistics are made, and heard in their turn.
        Statistics,
        Poll,
        Glance,
        /// The lane goes back to what is committed.
        Seek,
        /// Other partitions come or go: what stands in the queue is dropped, to be fetched again.
        Barrier,
    }

    fn step() -> impl Strategy<Value = Step> {
        use Step::*;
        prop::sample::select(vec![
            Message, Message, Marker, Fetch, Fetch, FetchOne, Word, Statistics, Statistics, Poll, Poll, Poll, Glance,
            Seek, Barrier,
        ])
    }

    /// What librdkafka knows of a partition.
    #[derive(Default)]
    struct Fetcher {
        /// `None`: a marker.
        log: Vec<bool>,
        queue: VecDeque<Queued>,
        /// Where the next fetch begins, if the place was moved since the last.
        sought: Option<i64>,
        position: i64,
        /// What the statistics tell: reset by the fetch after a seek, not by the seek.
        end_told: i64,
        /// A rebalance has begun, and its word has not been heard.
        rebalancing: bool,
    }

    enum Queued {
        Message(i64),
        End,
        Word,
        Rebalance,
        Statistics(i64, Watched),
    }

    impl Fetcher {
        fn drop_messages(&mut self) {
            self.queue.retain(|queued| !matches!(queued, Queued::Message(_) | Queued::End));
        }

        fn fetch(&mut self, most: usize) {
            if self.rebalancing {
                return;
            }
            if let Some(place) = self.sought.take() {
                (self.position, self.end_told) = (place, -1001);
            }
            let mut given = 0;
            while let Some(is_message) = self.log.get(self.position as usize) {
                if *is_message && given == most {
                    return;
                }
                if *is_message {
                    self.queue.push_back(Queued::Message(self.position));
                    given += 1;
                }
                self.position += 1;
            }
            if self.end_told != self.position {
                self.end_told = self.position;
                self.queue.push_back(Queued::End);
            }
        }
    }

    /// Plays one partition. The end that the lane passes must never lie behind a message that it has not seen.
    fn play(steps: &[Step]) -> Result<(), String> {
        let partition = Partition::new("t", 0);
        let mut fetcher = Fetcher { end_told: -1001, ..Fetcher::default() };
        let (mut next, mut committed) = (0i64, 0i64);
        let mut ends = Ends::default();
        // The moment between what a rebalance drops and its word.
        let mut word_is_due = false;
        for (at, step) in steps.iter().enumerate() {
            let now = at as i64;
            match step {
                Step::Message => fetcher.log.push(true),
                Step::Marker => fetcher.log.push(false),
                Step::Fetch => fetcher.fetch(usize::MAX),
                Step::FetchOne => fetcher.fetch(1),
                Step::Word => fetcher.queue.push_back(Queued::Word),
                Step::Statistics => {
                    if std::mem::take(&mut word_is_due) {
                        fetcher.queue.push_back(Queued::Rebalance);
                    }
                    let watched =
                        Watched { high: fetcher.log.len() as i64, end_reached: fetcher.end_told, silent_us: 0 };
                    // Reports overtake what is queued.
                    fetcher.queue.push_front(Queued::Statistics(now, watched));
                }
                Step::Seek => {
                    // Every other time nothing was committed since the last.
                    if at % 2 == 0 {
                        committed = next;
                    }
                    next = committed;
                    fetcher.drop_messages();
                    fetcher.sought = Some(next);
                    ends.moved([&partition].into_iter());
                }
                Step::Barrier if !fetcher.rebalancing => {
                    fetcher.drop_messages();
                    (fetcher.rebalancing, word_is_due) = (true, true);
                }
                Step::Barrier => {}
                Step::Poll | Step::Glance => {
                    let (mut fetched, mut report, mut rebalance) = (None, None, false);
                    while fetched.is_none() {
                        match fetcher.queue.pop_front() {
                            Some(Queued::Message(offset)) => {
                                if offset >= next {
                                    next = offset + 1;
                                    ends.delivered(&partition, || now);
                                }
                                fetched = Some(Fetched::Message);
                            }
                            Some(Queued::End) => {
                                ends.reached(0, [&partition].into_iter(), || now);
                                fetched = Some(Fetched::Word);
                            }
                            Some(Queued::Word) => fetched = Some(Fetched::Word),
                            Some(Queued::Statistics(made, watched)) => report = Some((made, watched)),
                            Some(Queued::Rebalance) => rebalance = true,
                            None if rebalance => fetched = Some(Fetched::Word),
                            None if *step == Step::Glance => fetched = Some(Fetched::Glance),
                            None => fetched = Some(Fetched::Nothing),
                        }
                    }
                    if rebalance {
                        fetcher.rebalancing = false;
                        fetcher.sought = Some(next);
                        ends.moved([&partition].into_iter());
                        continue;
                    }
                    if let Some((made, watched)) = report {
                        ends.report(made, HashMap::from([(partition.clone(), watched)]));
                    }
                    let proven = fetched.map(|fetched| ends.polled(fetched, || now)).unwrap_or_default();
                    let end = proven.get(&partition).map_or(-1, |watched| watched.end_reached);
                    let passed = next..end.max(next);
                    if let Some(lost) = passed.clone().find(|offset| fetcher.log[*offset as usize]) {
                        return Err(format!("passed {passed:?}, and {lost} is a message"));
                    }
                    next = passed.end;
                }
            }
        }
        Ok(())
    }

    /// A step that is left out has to be missed for certain: of 20,000 plays it is not always.
    fn cases() -> u32 {
        if std::env::var_os("PROJECTOR_SABOTAGE").is_some() { 2_000_000 } else { 20_000 }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_message_is_passed(steps in prop::collection::vec(step(), 1..60)) {
            prop_assert_eq!(play(&steps), Ok(()));
        }
    }

    /// The report was made before the seek's first fetch and heard with that fetch's first message; the next report says
    /// the same end, and what it was made of is dropped by a rebalance whose word is not heard yet.
    #[test]
    fn a_report_from_before_a_seek_counts_for_nothing() {
        use Step::*;
        let before = [Message, Message, Message, Fetch, Fetch, Seek];
        let after = [Statistics, FetchOne, Poll, Poll, Poll, Fetch, Statistics, Barrier, Poll, Poll];
        assert_eq!(play(&[&before[..], &after].concat()), Ok(()));
    }

    #[test]
    fn the_proof_can_fail() {
        for sabotage in [Sabotage::QueueProof, Sabotage::StaleEnds, Sabotage::SingleReport] {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["pipeline::partition_ends::tests::no_message_is_passed", "--exact"]);
            let output = command.env("PROJECTOR_SABOTAGE", sabotage.name()).output().unwrap();
            assert!(!output.status.success(), "{sabotage:?}: {}", String::from_utf8_lossy(&output.stdout));
        }
    }

    /// Two polls that bring nothing.
    fn empty(ends: &mut Ends, time: i64) -> HashMap<Partition, Watched> {
        assert!(ends.polled(Fetched::Nothing, || time).is_empty());
        ends.polled(Fetched::Nothing, || time)
    }

    #[test]
    fn an_end_behind_markers_is_reached() {
        let partition = Partition::new("t", 0);
        let watched = || HashMap::from([(partition.clone(), Watched { high: 3, end_reached: 3, silent_us: 0 })]);
        let mut ends = Ends::default();
        ends.report(1, watched());
        assert!(empty(&mut ends, 2).is_empty());
        ends.reached(0, [&partition].into_iter(), || 3);
        ends.report(4, watched());
        assert!(empty(&mut ends, 5).is_empty(), "nothing of it had come before the first emptiness");
        ends.report(6, watched());
        assert!(ends.polled(Fetched::Message, || 7).is_empty());
        assert_eq!(empty(&mut ends, 8), watched());
    }

    #[test]
    fn the_end_of_one_of_two_topics_is_a_sign_of_neither() {
        let partitions = [Partition::new("a", 0), Partition::new("b", 0)];
        let mut ends = Ends::default();
        ends.reached(0, partitions.iter(), || 1);
        for time in [2, 4, 6] {
            ends.report(
                time,
                partitions.iter().map(|p| (p.clone(), Watched { high: 3, end_reached: 3, silent_us: 0 })).collect(),
            );
            assert!(empty(&mut ends, time + 1).is_empty());
        }
    }
}
