//! Keeps the lanes of all projections running, stops a projection that halts, and stops everything when asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::end::End;
use super::lane::Lane;
use super::{Outage, Running};
use crate::config::Settings;
use crate::plan::Plan;
use crate::source::Admin;
use crate::store::Generation;
use crate::store::partitions::{Halt, halt, unhalt};

/// How a projection's lanes ended.
#[derive(Debug)]
pub struct Ended {
    pub projection: String,
    /// `None` when it was asked to stop.
    pub halt: Option<Halt>,
}

/// The running projections of a process.
pub struct Supervisor {
    stop: CancellationToken,
    ended: mpsc::Receiver<Ended>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    patience: Duration,
}

impl Supervisor {
    /// Starts the lanes of every projection.
    pub fn start(
        plans: Vec<Plan>,
        generations: Vec<Generation>,
        settings: &Settings,
        pool: &sqlx::PgPool,
        admin: Admin,
        stop: CancellationToken,
    ) -> Supervisor {
        let admin = Arc::new(admin);
        let (sender, ended) = mpsc::channel(plans.len().max(1));
        let mut tasks = Vec::new();
        for (plan, generation) in plans.into_iter().zip(generations) {
            let running = Arc::new(Running {
                plan,
                generation,
                settings: settings.clone(),
                pool: pool.clone(),
                admin: admin.clone(),
            });
            tasks.push(tokio::spawn(supervise(running, stop.clone(), sender.clone())));
        }
        // The lanes' own patience is shutdown_s; leaving the group takes a moment more.
        let patience = Duration::from_secs(settings.shutdown_s + 3);
        Supervisor { stop, ended, tasks, patience }
    }

    /// The next projection that ended; `None` when all have.
    pub async fn next_ended(&mut self) -> Option<Ended> {
        self.ended.recv().await
    }

    /// Stops all lanes and waits for them, within the configured time. False when some were left behind.
    pub async fn shut_down(mut self) -> bool {
        self.stop.cancel();
        let deadline = Instant::now() + self.patience;
        while let Some(task) = self.tasks.pop() {
            let left = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, task).await.is_err() {
                tracing::warn!("{} projections were still stopping when the time was up", self.tasks.len() + 1);
                return false;
            }
        }
        true
    }
}

async fn supervise(running: Arc<Running>, stop: CancellationToken, ended: mpsc::Sender<Ended>) {
    let projection = running.plan.name.clone();
    let mut outage = Outage::default();
    while let Err(error) = unhalt(&running.pool, &running.generation).await {
        let wait = outage.failed(&format!("{projection}: starting"), &error);
        if tokio::time::timeout(wait, stop.cancelled()).await.is_ok() {
            return;
        }
    }
    outage.over(&format!("{projection}: starting"));
    let own_stop = stop.child_token();
    let lanes: Vec<_> = (0..running.settings.fold.lanes)
        .map(|at| tokio::spawn(keep_running(running.clone(), at, own_stop.clone())))
        .collect();
    let mut first_halt = None;
    for lane in lanes {
        if let Ok(Some(halted)) = lane.await
            && first_halt.is_none()
        {
            first_halt = Some(halted);
        }
    }
    if let Some(reason) = &first_halt
        && let Err(error) = halt(&running.pool, &running.generation, reason).await
    {
        tracing::warn!("{projection}: the halt could not be recorded: {error}");
    }
    // Nobody may be listening any more.
    let _ = ended.send(Ended { projection, halt: first_halt }).await;
}

/// Runs a lane, and a new one after each outage, until it is to stop. A halt stops the other lanes too.
async fn keep_running(running: Arc<Running>, at: usize, stop: CancellationToken) -> Option<Halt> {
    let name = running.plan.name.clone();
    let mut outage = Outage::default();
    loop {
        let started = Instant::now();
        let end = run_lane(running.clone(), at, stop.clone()).await;
        match end {
            End::Finished => return None,
            End::Halted(halt) => {
                let place = halt.place.as_ref().map(|place| format!(" at {place}")).unwrap_or_default();
                tracing::error!("{name} stands still{place}: {} [{}]", halt.message, halt.code);
                stop.cancel();
                return Some(halt);
            }
            End::Retry(why) => {
                if started.elapsed() > Duration::from_secs(30) {
                    outage.over(&name);
                }
                let wait = outage.failed(&name, &why);
                if tokio::time::timeout(wait, stop.cancelled()).await.is_ok() {
                    return None;
                }
            }
        }
    }
}

async fn run_lane(running: Arc<Running>, at: usize, stop: CancellationToken) -> End {
    let runtime = Handle::current();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let name = format!("{}-{at}", running.plan.name);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let end = match Lane::new(running, runtime, stop) {
            Ok(lane) => lane.run(),
            Err(end) => end,
        };
        // The supervisor waits for this answer for as long as it lives.
        let _ = sender.send(end);
    });
    match thread {
        Ok(_) => receiver.await.unwrap_or_else(|_| End::Retry("a lane died; see the panic above".into())),
        Err(error) => End::Retry(format!("no thread for a lane: {error}")),
    }
}
