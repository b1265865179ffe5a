//! Keeps the lanes of all projections running, stops a projection that halts, and stops everything when asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::end::End;
use super::lane::Lane;
use super::propagator::keep_propagating;
use super::publish::publish;
use super::retry::Retry;
use super::{Outage, Politeness, Running};
use crate::config::Settings;
use crate::demand::Demand;
use crate::plan::Plan;
use crate::source::Admin;
use crate::store::parked::retry::{Earnest, counts};
use crate::store::partitions::{Halt, halt, is_gone, is_halted, unhalt};
use crate::store::propagate::propagate;
use crate::store::{Generation, StoreError};

/// Exit code of a process that ends itself because a lane does not move (`EX_SOFTWARE` of sysexits).
const STUCK: i32 = 70;

/// How a projection's lanes ended.
#[derive(Debug)]
pub struct Ended {
    pub projection: String,
    /// `None` when it was asked to stop.
    pub halt: Option<Halt>,
}

/// The running generations of a process.
pub struct Supervisor {
    common: Arc<Common>,
    ended: mpsc::Receiver<Ended>,
    told: mpsc::Sender<Ended>,
    running: BTreeMap<i64, Runs>,
}

/// What all lanes of a process have in common.
struct Common {
    settings: Settings,
    pool: sqlx::PgPool,
    admin: Arc<Admin>,
    stepping: Arc<Mutex<()>>,
    demand: Arc<Demand>,
    stop: CancellationToken,
}

/// The tasks of one generation.
struct Runs {
    name: String,
    running: Arc<Running>,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Supervisor {
    pub fn new(settings: &Settings, pool: &sqlx::PgPool, admin: Admin, stop: CancellationToken) -> Supervisor {
        let (told, ended) = mpsc::channel(64);
        let common = Common {
            settings: settings.clone(),
            pool: pool.clone(),
            admin: Arc::new(admin),
            stepping: Arc::new(Mutex::new(())),
            demand: Arc::default(),
            stop,
        };
        Supervisor { common: Arc::new(common), ended, told, running: BTreeMap::new() }
    }

    /// Who needs answers of this process.
    pub fn demand(&self) -> Arc<Demand> {
        self.common.demand.clone()
    }

    /// Whether a generation is running, or stands still.
    pub fn has(&self, generation: i64) -> bool {
        self.running.contains_key(&generation)
    }

    /// Starts the lanes of a generation.
    pub fn start(&mut self, plan: Plan, generation: Generation, politeness: Option<Politeness>) {
        let Common { settings, pool, admin, stepping, demand, stop } = &*self.common;
        let (id, name) = (generation.id, generation.to_string());
        let own_stop = stop.child_token();
        let running = Arc::new(Running {
            plan,
            generation,
            settings: settings.clone(),
            pool: pool.clone(),
            admin: admin.clone(),
            stepping: stepping.clone(),
            marked: Notify::new(),
            demand: demand.clone(),
            politeness,
        });
        let mut tasks = Vec::new();
        if let Some(topic) = running.plan.errors.topic.clone() {
            tasks.push(tokio::spawn(publish(running.clone(), topic, own_stop.clone())));
        }
        tasks.push(tokio::spawn(supervise(running.clone(), own_stop.clone(), self.told.clone())));
        self.running.insert(id, Runs { name, running, stop: own_stop, tasks });
    }

    /// Lets a generation be folded as fast as can be: it has caught up.
    pub fn caught_up(&self, generation: i64) {
        let running = self.running.get(&generation);
        running.and_then(|runs| runs.running.politeness.as_ref()).into_iter().for_each(|polite| polite.over.cancel());
    }

    /// Stops the lanes of all generations but these. What they have not committed is not waited for: their generation is
    /// gone.
    pub fn keep_only(&mut self, generations: &BTreeSet<i64>) {
        self.running.retain(|id, runs| {
            let keep = generations.contains(id);
            if !keep {
                tracing::info!("{} is folded no more", runs.name);
                runs.stop.cancel();
            }
            keep
        });
    }

    /// The next projection that ended.
    pub async fn next_ended(&mut self) -> Option<Ended> {
        self.ended.recv().await
    }

    /// Stops all lanes and waits for them, within the configured time. False when some were left behind.
    pub async fn shut_down(self) -> bool {
        self.common.stop.cancel();
        // The lanes' own patience is shutdown_s; leaving the group takes a moment more.
        let deadline = Instant::now() + Duration::from_secs(self.common.settings.shutdown_s + 3);
        let mut tasks: Vec<_> = self.running.into_values().flat_map(|runs| runs.tasks).collect();
        while let Some(task) = tasks.pop() {
            let left = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, task).await.is_err() {
                tracing::warn!("{} projections were still stopping when the time was up", tasks.len() + 1);
                return false;
            }
        }
        true
    }
}

/// Runs a projection's lanes. When it stands still it is left so until somebody lets it go on: by retrying, discarding or
/// correcting what it stands before, or by `projector resume`.
async fn supervise(running: Arc<Running>, stop: CancellationToken, ended: mpsc::Sender<Ended>) {
    let name = running.generation.to_string();
    let mut outage = Outage::default();
    loop {
        while let Err(error) = unhalt(&running.pool, &running.generation).await {
            let wait = outage.failed(&format!("{name}: starting"), &error);
            if tokio::time::timeout(wait, stop.cancelled()).await.is_ok() {
                return;
            }
        }
        outage.over(&format!("{name}: starting"));
        let own_stop = stop.child_token();
        let mut workers: Vec<_> = (0..running.settings.fold.lanes)
            .map(|at| tokio::spawn(keep_running(running.clone(), at, own_stop.clone())))
            .collect();
        workers.push(tokio::spawn(keep_propagating(running.clone(), own_stop.clone())));
        let mut first_halt = None;
        for worker in workers {
            if let Ok(Some(halted)) = worker.await
                && first_halt.is_none()
            {
                first_halt = Some(halted);
            }
        }
        // Nobody has to be told of a generation that was dropped.
        if first_halt.is_some() && is_gone(&running.pool, &running.generation).await.unwrap_or(false) {
            return;
        }
        let halted = first_halt.clone();
        if let Some(halt) = &halted {
            let place = halt.place.as_ref().map(|place| format!(" at {place}")).unwrap_or_default();
            tracing::error!("{name} stands still{place}: {} [{}]", halt.message, halt.code);
        }
        // Nobody may be listening any more.
        let _ = ended.try_send(Ended { projection: running.plan.name.clone(), halt: halted });
        let Some(reason) = first_halt else { return };
        if stand_still(&running, &reason, &stop).await.is_err() {
            return;
        }
        tracing::info!("{name} goes on");
    }
}

/// The projection was told to stop for good.
struct Stopped;

/// Waits until the halt is taken back. Meanwhile nobody else carries out what people decide about parked events.
async fn stand_still(running: &Running, reason: &Halt, stop: &CancellationToken) -> Result<(), Stopped> {
    const EVERY: Duration = Duration::from_millis(500);
    let Running { pool, generation, plan, .. } = running;
    let mut recorded = false;
    loop {
        let looked = async {
            if !recorded {
                halt(pool, generation, reason).await?;
                return Ok(true);
            }
            retry_requested(running).await?;
            // What was applied before the halt still reaches the rows that follow from it.
            while let Ok(Some(_)) = propagate(pool, plan, generation).await {}
            is_halted(pool, generation).await
        };
        match looked.await {
            Ok(true) => recorded = true,
            Ok(false) => return Ok(()),
            Err(error) => tracing::debug!("{generation}: standing still: {error}"),
        }
        if tokio::time::timeout(EVERY, stop.cancelled()).await.is_ok() {
            return Err(Stopped);
        }
    }
}

async fn retry_requested(running: &Running) -> Result<(), StoreError> {
    let Running { pool, generation, plan, settings, .. } = running;
    for (partition, counts) in counts(pool, generation, 0).await? {
        let source = plan.sources.iter().position(|source| source.topics.matches(&partition.topic));
        let Some(source) = source.filter(|_| counts.requested > 0) else { continue };
        let (served_schema, poison_attempts) = (settings.serve.schema.as_str(), settings.fold.poison_attempts);
        let retry = Retry { pool, plan, generation, source, partition: &partition, served_schema, poison_attempts };
        retry.run(&BTreeSet::new(), &BTreeMap::new(), Earnest::Really).await?.tell(generation, &partition);
    }
    Ok(())
}

/// Runs a lane, and a new one after each outage, until it is to stop. A halt stops the other lanes too.
async fn keep_running(running: Arc<Running>, at: usize, stop: CancellationToken) -> Option<Halt> {
    let name = running.generation.to_string();
    let mut outage = Outage::default();
    loop {
        let started = Instant::now();
        let end = run_lane(running.clone(), at, stop.clone()).await;
        match end {
            End::Finished => return None,
            End::Halted(halt) => {
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
    let (sender, mut receiver) = tokio::sync::oneshot::channel();
    let name = format!("{}-{at}", running.generation);
    let pulse = Arc::new(AtomicU64::new(0));
    let stuck = Duration::from_secs(running.settings.fold.stuck_s);
    let of_lane = pulse.clone();
    let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
        let end = match Lane::new(running, runtime, stop, of_lane) {
            Ok(lane) => lane.run(),
            Err(end) => end,
        };
        // The supervisor waits for this answer for as long as it lives.
        let _ = sender.send(end);
    });
    if let Err(error) = thread {
        return End::Retry(format!("no thread for a lane: {error}"));
    }
    let mut last = (pulse.load(Ordering::Relaxed), Instant::now());
    loop {
        tokio::select! {
            end = &mut receiver => return end.unwrap_or_else(|_| End::Retry("a lane died; see the panic above".into())),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let now = pulse.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > stuck {
            // A thread cannot be stopped from outside. Whoever starts the process again finds the event.
            tracing::error!(
                "the lane {name} has not moved for {} s: something that it folds does not end. The process ends, to be \
                 started again and step over the event singly",
                stuck.as_secs()
            );
            std::process::exit(STUCK);
        }
    }
}
