//! Failpoints and sabotage switches: how the tests show that the promises are kept, and that they could be broken.
//!
//! Both exist in builds with debug assertions only; in a release build every function here is an empty one.

/// A step that keeps a promise, which a test can have left out to see its own check go red.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The checkpoint moves whatever it was before.
    CheckpointCompare,
    /// The checkpoint commits in a transaction of its own, before the rows.
    CheckpointApart,
    /// Rows are read for patching without a lock.
    RowLocks,
    /// Rows are written in no particular order.
    KeyOrder,
    /// A COMMIT whose answer was lost counts as failed, and the batch is folded into rows again.
    LostCommit,
    /// A batch that met a bad event is committed with what the event had already put into it.
    Refold,
    /// Columns that an event does not name are set to NULL.
    AbsentIsNull,
    /// Word of something else counts as proof that the queue is empty.
    QueueProof,
    /// After a seek, what was heard before it goes on to count.
    StaleEnds,
    /// One report and one emptiness are proof enough of an end.
    SingleReport,
    /// Events that were counted before are counted again.
    Dedupe,
    /// Events go on though something before them is parked.
    ParkedOrder,
    /// What is parked, and that it is, commit apart from the rows and the checkpoint of their batch.
    ParkedApart,
    /// A retried event is un-parked in a transaction of its own, before its rows.
    RetryApart,
    /// What people decided is not looked at.
    Decisions,
    /// What is newer does not win over what is older.
    Versions,
    /// Lanes read joined rows without standing in the gate.
    Gate,
    /// Marks are removed by their key, those too that were not seen.
    MarkUnseen,
    /// What follows from rows that were propagated to is not marked with them.
    NextHop,
    /// Rows that are aggregated are looked at without a lock.
    ChildLocks,
    /// A row that moves is not taken out of the one that it was aggregated into.
    OldParent,
    /// Two propagators work at the same time.
    PropagatorLock,
    /// A generation is promoted though it has not passed where the live one is.
    PromoteBehind,
    /// Generations are compared wherever they are.
    MeetingPlace,
    /// Who waits for an event is answered before it is applied.
    WaitApplied,
    /// Rows count as complete before what follows from their events has followed: for who waits, and for who asks how
    /// fresh they are.
    WaitFollowed,
}

impl Sabotage {
    pub fn name(self) -> &'static str {
        match self {
            Sabotage::CheckpointCompare => "checkpoint-compare",
            Sabotage::CheckpointApart => "checkpoint-apart",
            Sabotage::RowLocks => "row-locks",
            Sabotage::KeyOrder => "key-order",
            Sabotage::LostCommit => "lost-commit",
            Sabotage::Refold => "refold",
            Sabotage::AbsentIsNull => "absent-is-null",
            Sabotage::QueueProof => "queue-proof",
            Sabotage::StaleEnds => "stale-ends",
            Sabotage::SingleReport => "single-report",
            Sabotage::Dedupe => "dedupe",
            Sabotage::ParkedOrder => "parked-order",
            Sabotage::ParkedApart => "parked-apart",
            Sabotage::RetryApart => "retry-apart",
            Sabotage::Decisions => "decisions",
            Sabotage::Versions => "versions",
            Sabotage::Gate => "gate",
            Sabotage::MarkUnseen => "mark-unseen",
            Sabotage::NextHop => "next-hop",
            Sabotage::ChildLocks => "child-locks",
            Sabotage::OldParent => "old-parent",
            Sabotage::MeetingPlace => "meeting-place",
            Sabotage::PromoteBehind => "promote-behind",
            Sabotage::PropagatorLock => "propagator-lock",
            Sabotage::WaitApplied => "wait-applied",
            Sabotage::WaitFollowed => "wait-followed",
        }
    }
}

pub const AFTER_FOLD: &str = "after-fold";
pub const AFTER_CHECKPOINT: &str = "after-checkpoint";
pub const BETWEEN_CHUNKS: &str = "between-chunks";
pub const BEFORE_COMMIT: &str = "before-commit";
pub const AFTER_COMMIT: &str = "after-commit";
/// While parked events are un-parked: not one of [`FAILPOINTS`], which every batch passes.
pub const BETWEEN_RELEASE_AND_ROWS: &str = "between-release-and-rows";
/// When parked events were retried, and others may have to be; not one of them either.
pub const AFTER_RETRY: &str = "after-retry";
/// When the late indexes of a generation are there and not committed; not one of [`FAILPOINTS`] either.
pub const INDEXING: &str = "indexing";
pub const FAILPOINTS: &[&str] = &[AFTER_FOLD, AFTER_CHECKPOINT, BETWEEN_CHUNKS, BEFORE_COMMIT, AFTER_COMMIT];

/// Whether a step is to be left out: `PROJECTOR_SABOTAGE=name`.
pub fn sabotaged(step: Sabotage) -> bool {
    #[cfg(debug_assertions)]
    {
        static CHOSEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        CHOSEN.get_or_init(|| std::env::var("PROJECTOR_SABOTAGE").unwrap_or_default()) == step.name()
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = step;
        false
    }
}

/// Dies by SIGKILL here, at the n-th time: `PROJECTOR_FAILPOINT=name:n`.
pub fn failpoint(name: &'static str) {
    #[cfg(debug_assertions)]
    {
        use std::sync::OnceLock;
        use std::sync::atomic::{AtomicI64, Ordering};
        static CHOSEN: OnceLock<(String, AtomicI64)> = OnceLock::new();
        let (chosen, left) = CHOSEN.get_or_init(|| {
            let text = std::env::var("PROJECTOR_FAILPOINT").unwrap_or_default();
            let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
            (name.to_string(), AtomicI64::new(times.parse().unwrap_or(1)))
        });
        if chosen == name && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// Plays an event that brings the process down: one whose payload contains `PROJECTOR_LETHAL` dies by SIGKILL, one that
/// contains `PROJECTOR_ENDLESS` never ends.
pub fn suffer(payload: Option<&[u8]>) {
    #[cfg(debug_assertions)]
    {
        static WORDS: std::sync::OnceLock<[Option<String>; 2]> = std::sync::OnceLock::new();
        let [lethal, endless] =
            WORDS.get_or_init(|| ["PROJECTOR_LETHAL", "PROJECTOR_ENDLESS"].map(|name| std::env::var(name).ok()));
        let contains = |word: &Option<String>| {
            let (Some(word), Some(payload)) = (word, payload) else { return false };
            payload.windows(word.len().max(1)).any(|window| window == word.as_bytes())
        };
        if contains(lethal) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        }
        while contains(endless) {
            std::thread::park();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = payload;
}

/// One of several that a test lets go step by step, in an order of its choice.
#[cfg(debug_assertions)]
#[derive(Debug)]
pub struct Script {
    /// Told where it stands.
    pub arrived: tokio::sync::mpsc::UnboundedSender<&'static str>,
    /// A permit a step.
    pub go: tokio::sync::Semaphore,
}

#[cfg(debug_assertions)]
tokio::task_local! {
    pub static SCRIPT: std::sync::Arc<Script>;
}

/// Stands here until it may go on, where a test plays interleavings.
pub async fn step(name: &'static str) {
    #[cfg(debug_assertions)]
    if let Ok(script) = SCRIPT.try_with(std::sync::Arc::clone) {
        let _ = script.arrived.send(name);
        if let Ok(permit) = script.go.acquire().await {
            permit.forget();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// A step at which one waits for others.
pub const AT_THE_GATE: &str = "at the gate";
