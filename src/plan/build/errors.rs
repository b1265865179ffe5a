//! Policies for events that cannot be applied.

use super::Build;
use crate::error_kind::{ErrorKind, Policy};
use crate::plan::Errors;
use crate::spec::{self, Located, OnError, OnUnhandled};

impl Build<'_> {
    pub(super) fn errors(&self, written: Option<&spec::Errors>) -> Errors {
        let mut errors = Errors::default();
        let Some(written) = written else { return errors };
        for kind in ErrorKind::OF_EVENTS {
            let word = match kind {
                ErrorKind::Undecodable => written.undecodable,
                ErrorKind::Invalid => written.invalid,
                ErrorKind::Requirement => written.requirement,
                ErrorKind::TooLate => written.too_late,
                ErrorKind::Refused => written.refused,
                ErrorKind::Poison => written.poison,
                _ => continue,
            };
            errors.chosen.extend(word.or(written.default).map(|word| (kind, policy(word))));
        }
        if let Some(word) = written.unhandled {
            let policy = match word {
                OnUnhandled::Ignore => Policy::Skip,
                OnUnhandled::Park => Policy::Park,
                OnUnhandled::Halt => Policy::Halt,
            };
            errors.chosen.push((ErrorKind::Unhandled, policy));
        }
        if let Some(word) = written.keyless {
            errors.keyless = policy(word);
        }
        let limit = |written: &Option<Located<u32>>, usual: u32| written.as_ref().map_or(usual, |limit| limit.value);
        errors.max_parked_events = limit(&written.max_parked_events, errors.max_parked_events);
        errors.max_parked_sequences = limit(&written.max_parked_sequences, errors.max_parked_sequences);
        errors.topic = written.topic.as_ref().map(|topic| topic.value.clone());
        if let Some(topic) = &written.topic {
            self.topic_name(topic);
        }
        errors
    }
}

fn policy(word: OnError) -> Policy {
    match word {
        OnError::Park => Policy::Park,
        OnError::Halt => Policy::Halt,
        OnError::Skip => Policy::Skip,
    }
}
