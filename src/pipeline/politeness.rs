//! How a generation that is being built stands back for those that readers see.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How a generation is folded until it has caught up.
#[derive(Debug)]
pub struct Politeness {
    /// It has caught up: all lanes, as fast as can be.
    pub over: CancellationToken,
    /// So many lanes until then.
    pub lanes: usize,
    throttle: Option<Throttle>,
}

impl Politeness {
    pub fn new(lanes: usize, max_rate: Option<f64>) -> Politeness {
        Politeness { over: CancellationToken::new(), lanes, throttle: max_rate.map(Throttle::new) }
    }

    /// How long to wait before the next event.
    pub fn wait(&self) -> Duration {
        match &self.throttle {
            Some(throttle) if !self.over.is_cancelled() => throttle.wait(),
            _ => Duration::ZERO,
        }
    }

    /// Notes an event that was let through.
    pub fn passed(&self) {
        self.throttle.iter().for_each(Throttle::passed);
    }
}

/// Lets so many events through in a second, all lanes together.
#[derive(Debug)]
struct Throttle {
    an_event: Duration,
    /// What was let through is paid for by then.
    paid_at: Mutex<Instant>,
}

impl Throttle {
    fn new(events_per_s: f64) -> Throttle {
        let an_event = Duration::from_secs_f64(1.0 / events_per_s.max(0.001));
        Throttle { an_event, paid_at: Mutex::new(Instant::now()) }
    }

    fn passed(&self) {
        let mut paid_at = self.paid_at.lock().unwrap_or_else(|e| e.into_inner());
        *paid_at = (*paid_at).max(Instant::now()) + self.an_event;
    }

    fn wait(&self) -> Duration {
        // Batches are let through whole, and paid for afterwards.
        const AHEAD: Duration = Duration::from_millis(50);
        let paid_at = *self.paid_at.lock().unwrap_or_else(|e| e.into_inner());
        paid_at.saturating_duration_since(Instant::now() + AHEAD)
    }
}
