//! An outage is told when it begins and when it is over, not with every attempt in between.

use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub struct Outage {
    since: Option<Instant>,
    attempts: u32,
}

impl Outage {
    /// Notes a failed attempt and says how long to wait before the next one.
    pub fn failed(&mut self, what: &dyn std::fmt::Display, why: &dyn std::fmt::Display) -> Duration {
        if self.since.is_none() {
            tracing::warn!("{what}: {why}; trying on");
            self.since = Some(Instant::now());
        }
        self.attempts += 1;
        Duration::from_millis(50 << self.attempts.min(7))
    }

    pub fn over(&mut self, what: &dyn std::fmt::Display) {
        if let Some(since) = self.since.take() {
            tracing::info!("{what}: back after {:.1} s and {} attempts", since.elapsed().as_secs_f64(), self.attempts);
        }
        self.attempts = 0;
    }
}
