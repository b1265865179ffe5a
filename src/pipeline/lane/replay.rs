//! Messages kept in memory while a culprit is looked for: a batch that was refused is folded again from here, in parts,
//! and not fetched again with every part.

use std::collections::VecDeque;

use crate::parking::Message;

#[derive(Debug, Default)]
pub struct Replay {
    /// Messages of the open batch.
    kept: Vec<Message>,
    /// Messages to be folded again, before anything else that Kafka has.
    ahead: VecDeque<Message>,
    keeping: bool,
}

impl Replay {
    /// From here on messages are kept; all that is folded after the checkpoints is then at hand.
    pub fn keep(&mut self, keeping: bool) {
        self.keeping = keeping;
        if !keeping {
            self.kept.clear();
        }
    }

    pub fn is_keeping(&self) -> bool {
        self.keeping
    }

    /// These come before anything else that Kafka has.
    pub fn insert(&mut self, messages: Vec<Message>) {
        self.ahead.extend(messages);
    }

    /// A message was folded.
    pub fn folded(&mut self, message: Message) {
        if self.keeping {
            self.kept.push(message);
        }
    }

    /// Everything that was folded is committed.
    pub fn committed(&mut self) {
        self.kept.clear();
    }

    /// The next message to be folded again.
    pub fn next(&mut self) -> Option<Message> {
        self.ahead.pop_front()
    }

    pub fn is_empty(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Goes back to the checkpoints. False if what comes after them is not all here: it is to be fetched again.
    pub fn rewind(&mut self) -> bool {
        if !self.keeping {
            self.ahead.clear();
            return false;
        }
        for message in self.kept.drain(..).rev() {
            self.ahead.push_front(message);
        }
        true
    }

    /// Partitions came or went: what is here may be somebody else's.
    pub fn forget(&mut self) {
        *self = Replay::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Place;

    fn message(offset: i64) -> Message {
        let place = Place { topic: "t".into(), partition: 0, offset };
        Message { place, time: None, key: None, payload: None, headers: vec![] }
    }

    #[test]
    fn what_was_not_committed_comes_again_in_order() {
        let mut replay = Replay::default();
        replay.folded(message(1));
        assert!(!replay.rewind(), "nothing was kept");
        replay.keep(true);
        (2..5).for_each(|offset| replay.folded(message(offset)));
        assert!(replay.rewind());
        let first = replay.next().unwrap();
        assert_eq!(first.place.offset, 2);
        replay.folded(first);
        replay.committed();
        let second = replay.next().unwrap();
        replay.folded(second);
        assert!(replay.rewind());
        let offsets: Vec<i64> = std::iter::from_fn(|| replay.next()).map(|m| m.place.offset).collect();
        assert_eq!(offsets, [3, 4]);
    }
}
