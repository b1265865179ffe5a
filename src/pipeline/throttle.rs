//! How fast a generation that is being built may be folded.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lets so many events through in a second, all lanes together.
#[derive(Debug)]
pub struct Throttle {
    an_event: Duration,
    /// What was let through is paid for by then.
    paid_at: Mutex<Instant>,
}

impl Throttle {
    pub fn new(events_per_s: f64) -> Throttle {
        Throttle {
            an_event: Duration::from_secs_f64(1.0 / events_per_s.max(0.001)),
            paid_at: Mutex::new(Instant::now()),
        }
    }

    /// Notes an event that was let through.
    pub fn passed(&self) {
        let mut paid_at = self.paid_at.lock().unwrap_or_else(|e| e.into_inner());
        *paid_at = (*paid_at).max(Instant::now()) + self.an_event;
    }

    /// How long to wait before the next one.
    pub fn wait(&self) -> Duration {
        // Batches are let through whole, and paid for afterwards.
        const AHEAD: Duration = Duration::from_millis(50);
        let paid_at = *self.paid_at.lock().unwrap_or_else(|e| e.into_inner());
        paid_at.saturating_duration_since(Instant::now() + AHEAD)
    }
}
