//! How fast a lane is.

use std::time::Instant;

/// Events a second over the last ten or so.
#[derive(Debug, Default)]
pub struct Rate {
    per_second: f64,
    pending: u64,
    since: Option<Instant>,
}

impl Rate {
    pub fn add(&mut self, events: u64) {
        self.pending += events;
    }

    pub fn now(&mut self) -> f64 {
        const MEMORY_S: f64 = 10.0;
        let since = *self.since.get_or_insert_with(Instant::now);
        let elapsed = since.elapsed().as_secs_f64();
        if elapsed >= 0.5 {
            let weight = 1.0 - (-elapsed / MEMORY_S).exp();
            let newest = self.pending as f64 / elapsed;
            self.per_second =
                if self.per_second == 0.0 { newest } else { self.per_second * (1.0 - weight) + newest * weight };
            self.pending = 0;
            self.since = Some(Instant::now());
        }
        self.per_second
    }
}
