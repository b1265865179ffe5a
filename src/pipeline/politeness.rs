//! How a generation that is being built stands back for those that readers see.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::batch::Building;
use crate::config::Rebuild;
use crate::demand::{Demand, Share};
use crate::plan::Plan;

/// How a generation is folded until it has caught up.
#[derive(Debug)]
pub struct Politeness {
    /// It has caught up: as fast as can be.
    pub over: CancellationToken,
    /// So many lanes read history at once.
    pub lanes: Arc<Semaphore>,
    pub building: Arc<Building>,
    /// Lanes of this process that have been given partitions, or were told that there are none for them.
    pub joined: AtomicUsize,
    throttle: Option<Throttle>,
}

impl Politeness {
    pub fn new(plan: &Plan, settings: &Rebuild, max_rate: Option<f64>, demand: Arc<Demand>) -> Politeness {
        // Of all its lanes together.
        let share = Share::new(demand, f64::from(settings.share_percent) / 100.0 / settings.lanes.max(1) as f64);
        Politeness {
            over: CancellationToken::new(),
            lanes: Arc::new(Semaphore::new(settings.lanes)),
            building: Arc::new(Building::new(plan, share)),
            joined: AtomicUsize::new(0),
            throttle: max_rate.map(Throttle::new),
        }
    }

    /// How long to wait before the next events.
    pub fn wait(&self) -> Duration {
        match &self.throttle {
            Some(throttle) => throttle.wait(),
            None => Duration::ZERO,
        }
    }

    /// Notes an event that was let through.
    pub fn passed(&self) {
        self.throttle.iter().for_each(Throttle::passed);
    }
}

/// What a lane has worked since its last rest.
#[derive(Debug, Default)]
pub struct Stretch(Duration);

impl Stretch {
    pub fn add(&mut self, worked: Duration) {
        self.0 += worked;
    }

    /// How long to rest now. Short stretches with short rests between them keep nobody waiting for long.
    pub fn rest(&mut self, share: &Share) -> Duration {
        const LONG_ENOUGH: Duration = Duration::from_millis(3);
        match self.0 < LONG_ENOUGH {
            true => Duration::ZERO,
            false => share.rest(std::mem::take(&mut self.0)),
        }
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
