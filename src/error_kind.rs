//! What can go wrong, by what is to be done about it: kind, policy, sentence.

use crate::codes::CODES;

/// Every error is of one of these kinds; its code says more exactly what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// The bytes are no event of the source's format, or of a version that nobody can bring up to date.
    Undecodable,
    /// The event lacks a field, or has a value that its column cannot take.
    Invalid,
    /// A condition under `require` does not hold.
    Requirement,
    /// The event is older than what is remembered.
    TooLate,
    /// Postgres refuses a row that the event makes.
    Refused,
    /// The event brings the process down, or runs out of time.
    Poison,
    /// No table handles the event's type.
    Unhandled,
    /// Goes away by itself: no connection, a deadlock, a full disk.
    Transient,
    /// Somebody else has gone on with the partition.
    Superseded,
    /// The log is not what it was, or not whole.
    History,
    /// Settings, rights, or a catalog that does not fit.
    Setup,
}

/// What becomes of an event that cannot be applied, or of the projection that meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Tried again, with growing waits, for as long as it takes. Never parks.
    Retry,
    /// The event is kept aside with those that have to stay behind it; all others go on.
    Park,
    /// The projection stands still before it.
    Halt,
    /// Passed over, and counted.
    Skip,
}

impl ErrorKind {
    /// The kinds that an event can be at fault for; a projection may choose their policy.
    pub const OF_EVENTS: [ErrorKind; 7] = [
        ErrorKind::Undecodable,
        ErrorKind::Invalid,
        ErrorKind::Requirement,
        ErrorKind::TooLate,
        ErrorKind::Refused,
        ErrorKind::Poison,
        ErrorKind::Unhandled,
    ];

    /// The kind of a code. Codes of files have none.
    pub fn of(code: &str) -> Option<ErrorKind> {
        let at = CODES.binary_search_by(|known| known.code.cmp(code)).ok()?;
        CODES[at].error
    }

    pub fn word(self) -> &'static str {
        match self {
            ErrorKind::Undecodable => "undecodable",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Requirement => "requirement",
            ErrorKind::TooLate => "too_late",
            ErrorKind::Refused => "refused",
            ErrorKind::Poison => "poison",
            ErrorKind::Unhandled => "unhandled",
            ErrorKind::Transient => "transient",
            ErrorKind::Superseded => "superseded",
            ErrorKind::History => "history",
            ErrorKind::Setup => "setup",
        }
    }

    /// What happens unless the projection says otherwise.
    pub fn default_policy(self) -> Policy {
        match self {
            ErrorKind::Undecodable
            | ErrorKind::Invalid
            | ErrorKind::Requirement
            | ErrorKind::TooLate
            | ErrorKind::Refused
            | ErrorKind::Poison => Policy::Park,
            // A service that begins to send one more type of event must not stop all who listen.
            ErrorKind::Unhandled => Policy::Skip,
            ErrorKind::Transient | ErrorKind::Superseded => Policy::Retry,
            ErrorKind::History | ErrorKind::Setup => Policy::Halt,
        }
    }

    /// What the operator can do.
    pub fn cure(self) -> &'static str {
        match self {
            ErrorKind::Undecodable => "correct the payload, discard the event, or let an upcaster read it and retry",
            ErrorKind::Invalid => {
                "correct the payload; or make the projection stand such events (`opt`, `coalesce`, a wider type) and build the view anew"
            }
            ErrorKind::Requirement => {
                "find out where the event came from; then correct its payload, or discard it with a reason"
            }
            ErrorKind::TooLate => {
                "find out whether it was counted before; then discard it, or retry it under a longer window in a view built anew"
            }
            ErrorKind::Refused => {
                "correct the payload, or change the constraint in Postgres that refuses the row, and retry"
            }
            ErrorKind::Poison => {
                "please report it with its payload; discard it or correct it, or retry it with a newer program"
            }
            ErrorKind::Unhandled => {
                "add a handler, or say `ignore: reason`, and build the view anew; or discard the event"
            }
            ErrorKind::Transient => "nothing: it is tried again",
            ErrorKind::Superseded => "nothing: the other process goes on",
            ErrorKind::History => "build the view anew, or accept with a reason that history is missing",
            ErrorKind::Setup => "mend what the message names; the projection then goes on with `projector resume`",
        }
    }
}

/// Why an event cannot be applied. `code` is stable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} [{code}]")]
pub struct Reason {
    pub code: &'static str,
    pub message: String,
}

impl Reason {
    pub fn new(code: &'static str, message: impl Into<String>) -> Reason {
        Reason { code, message: message.into() }
    }

    pub fn kind(&self) -> ErrorKind {
        ErrorKind::of(self.code).unwrap_or(ErrorKind::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::Kind;

    #[test]
    fn whatever_an_event_or_a_projection_can_be_at_fault_for_has_a_kind() {
        for code in CODES {
            let needs_one = matches!(code.kind, Kind::Event | Kind::Halt);
            assert!(code.error.is_some() || !needs_one, "{}", code.code);
            if code.error.is_some() && code.kind != Kind::Halt {
                assert!(code.error.is_some_and(|kind| ErrorKind::OF_EVENTS.contains(&kind)), "{}", code.code);
            }
            assert_eq!(ErrorKind::of(code.code), code.error);
        }
    }
}
