//! Tokens that were verified a moment ago.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex};

use super::Caller;

/// SHA-256 of a token. The tokens themselves are not kept.
pub(super) type Fingerprint = [u8; 32];

/// Half of the tokens that are remembered at most; some 500 bytes and the claims each.
const HALF: usize = 8_192;

/// A genuine token is verified again after so many seconds.
const LONGEST_S: i64 = 60;

/// Callers of the tokens that were verified, for as long as the keys stay the same.
///
/// There are two halves: when the newer is full it becomes the older, and the older is forgotten. Whoever asks again
/// is put into the newer one, so the forgotten ones are those that did not.
#[derive(Default)]
pub(super) struct Verified(Mutex<Halves>);

#[derive(Default)]
struct Halves {
    /// How often the keys had changed when these were verified.
    changes: u64,
    newer: HashMap<Fingerprint, Known>,
    older: HashMap<Fingerprint, Known>,
}

#[derive(Clone)]
struct Known {
    caller: Arc<Caller>,
    /// The last second at which it counts.
    until: i64,
}

impl Verified {
    /// The caller of a token.
    pub(super) fn get(&self, token: &Fingerprint, changes: u64, now: i64) -> Option<Arc<Caller>> {
        let mut halves = self.0.lock().unwrap_or_else(|e| e.into_inner());
        halves.of(changes);
        if let Some(known) = halves.newer.get(token) {
            return (now <= known.until).then(|| known.caller.clone());
        }
        let known = halves.older.remove(token).filter(|known| now <= known.until)?;
        halves.put(*token, known.clone());
        Some(known.caller)
    }

    /// Remembers the caller of a token that was verified by keys that had changed so often, and counts until then.
    pub(super) fn put(&self, token: Fingerprint, changes: u64, caller: Arc<Caller>, until: i64, now: i64) {
        let mut halves = self.0.lock().unwrap_or_else(|e| e.into_inner());
        // The keys may have changed while it was verified.
        if halves.changes <= changes {
            halves.of(changes);
            halves.put(token, Known { caller, until: until.min(now + LONGEST_S) });
        }
    }
}

impl Halves {
    fn of(&mut self, changes: u64) {
        if self.changes < changes {
            *self = Halves { changes, ..Halves::default() };
        }
    }

    fn put(&mut self, token: Fingerprint, known: Known) {
        if self.newer.len() >= HALF {
            self.older = mem::take(&mut self.newer);
        }
        self.newer.insert(token, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: usize) -> Fingerprint {
        let mut token = [0; 32];
        token[..8].copy_from_slice(&number.to_le_bytes());
        token
    }

    fn caller() -> Arc<Caller> {
        Arc::new(Caller { role: "web".into(), claims: "{}".into(), name: "jwt:a".into() })
    }

    #[test]
    fn it_counts_until_its_end_and_a_minute_at_most() {
        let verified = Verified::default();
        verified.put(token(1), 0, caller(), 110, 100);
        verified.put(token(2), 0, caller(), i64::MAX, 100);
        assert!(verified.get(&token(1), 0, 110).is_some());
        assert!(verified.get(&token(1), 0, 111).is_none());
        assert!(verified.get(&token(2), 0, 160).is_some());
        assert!(verified.get(&token(2), 0, 161).is_none());
        assert!(verified.get(&token(3), 0, 100).is_none());
    }

    #[test]
    fn other_keys_make_it_forget_and_old_verdicts_come_too_late() {
        let verified = Verified::default();
        verified.put(token(1), 1, caller(), 110, 100);
        assert!(verified.get(&token(1), 1, 100).is_some());
        assert!(verified.get(&token(1), 2, 100).is_none());
        verified.put(token(1), 1, caller(), 110, 100);
        assert!(verified.get(&token(1), 2, 100).is_none());
    }

    #[test]
    fn it_remembers_so_many_and_those_who_ask_again() {
        let verified = Verified::default();
        verified.put(token(0), 0, caller(), 110, 100);
        for number in 1..10 * HALF {
            verified.put(token(number), 0, caller(), 110, 100);
            if number % (HALF / 2) == 0 {
                assert!(verified.get(&token(0), 0, 100).is_some(), "{number}");
            }
        }
        assert!(verified.get(&token(1), 0, 100).is_none());
        let halves = verified.0.lock().unwrap();
        assert!(halves.newer.len() <= HALF && halves.older.len() <= HALF);
    }
}
