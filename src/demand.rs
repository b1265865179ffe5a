//! Who needs an answer now, and how what can wait stands back for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// When somebody of this process last needed an answer: a reader, or a projection that follows live events.
#[derive(Debug)]
pub struct Demand {
    begun: Instant,
    /// Milliseconds since then; negative: never.
    last_ms: AtomicI64,
}

impl Default for Demand {
    fn default() -> Demand {
        Demand { begun: Instant::now(), last_ms: AtomicI64::new(i64::MIN) }
    }
}

impl Demand {
    /// Somebody needs an answer.
    pub fn note(&self) {
        self.last_ms.store(self.begun.elapsed().as_millis() as i64, Ordering::Relaxed);
    }

    fn is_recent(&self) -> bool {
        const RECENT_MS: i64 = 500;
        let now = self.begun.elapsed().as_millis() as i64;
        now.saturating_sub(self.last_ms.load(Ordering::Relaxed)) < RECENT_MS
    }
}

/// The part of the time in which work that can wait is done, while others need answers.
#[derive(Debug, Clone)]
pub struct Share {
    demand: Arc<Demand>,
    /// Above 0; 1 and more: it waits for nobody.
    of_time: f64,
}

impl Share {
    pub fn new(demand: Arc<Demand>, of_time: f64) -> Share {
        Share { demand, of_time: of_time.max(0.001) }
    }

    /// Whether others need answers now.
    pub fn is_shared(&self) -> bool {
        self.of_time < 1.0 && self.demand.is_recent()
    }

    /// How long to rest after so much work.
    pub fn rest(&self, worked: Duration) -> Duration {
        if self.is_shared() { worked.mul_f64(1.0 / self.of_time - 1.0) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_rests_only_while_others_ask() {
        let demand = Arc::new(Demand::default());
        let worked = Duration::from_millis(10);
        let share = Share::new(demand.clone(), 0.25);
        assert_eq!(share.rest(worked), Duration::ZERO);
        demand.note();
        assert_eq!(share.rest(worked), Duration::from_millis(30));
        assert_eq!(Share::new(demand, 1.0).rest(worked), Duration::ZERO);
    }
}
