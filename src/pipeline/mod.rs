//! Lanes: fetch, fold and commit as a pipeline, and the supervisor that keeps them running.
//!
//! A lane is a member of its projection's consumer group on a thread of its own. It polls, decodes and folds there; while
//! one batch is committed on the runtime, the next one is folded.

mod assignment;
mod commit;
mod end;
mod lane;
mod message;
mod outage;
mod pace;
mod partition_ends;
mod politeness;
mod propagator;
mod publish;
mod rate;
pub mod retry;
mod supervisor;

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::config::Settings;
use crate::demand::Demand;
use crate::plan::Plan;
use crate::source::Admin;
use crate::store::Generation;
pub use politeness::Politeness;

pub use outage::Outage;
pub use supervisor::{Ended, Supervisor};

/// What the lanes of one projection share.
#[derive(Debug)]
pub struct Running {
    pub plan: Plan,
    pub generation: Generation,
    pub settings: Settings,
    pub pool: sqlx::PgPool,
    pub admin: Arc<Admin>,
    /// Held while an event is stepped over singly: should the process die of it, nothing else is suspected.
    pub stepping: Arc<Mutex<()>>,
    /// Told when a lane has left marks.
    pub marked: Notify,
    pub demand: Arc<Demand>,
    /// Of one that is being built.
    pub politeness: Option<Politeness>,
}

impl Running {
    /// How its lanes stand back for others, while it has not caught up.
    pub fn polite(&self) -> Option<&Politeness> {
        self.politeness.as_ref().filter(|polite| !polite.over.is_cancelled())
    }
}
