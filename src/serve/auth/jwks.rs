//! A JWK set behind an address, fetched again from time to time.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use super::AuthError;
use super::keys::{self, Key};

/// However many tokens name keys that nobody knows, the address is asked no more often than this.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

const PATIENCE: Duration = Duration::from_secs(5);

/// Sets of keys are far smaller than this.
const LARGEST: usize = 256 << 10;

/// The keys of an address. The last good ones stay while it does not answer.
pub(super) struct Jwks {
    url: reqwest::Url,
    client: reqwest::Client,
    refresh: Duration,
    held: RwLock<Held>,
    /// Held while the address is asked.
    asked: Arc<Mutex<Asked>>,
}

/// What is known of the keys.
#[derive(Clone, Default)]
pub(super) struct Held {
    pub(super) keys: Arc<Vec<Key>>,
    /// When they came; never yet, if nothing is said.
    came: Option<Instant>,
    /// How often they have become others.
    pub(super) changes: u64,
}

#[derive(Default)]
struct Asked {
    at: Option<Instant>,
    /// Of the last good answer.
    digest: Option<[u8; 32]>,
    failed: bool,
}

impl Held {
    /// Whether they have ever come.
    pub(super) fn known(&self) -> bool {
        self.came.is_some()
    }
}

impl Jwks {
    /// Nothing is fetched before it is needed.
    ///
    /// # Errors
    /// When the address is none.
    pub(super) fn new(url: &str, refresh: Duration) -> Result<Jwks, AuthError> {
        let wrong = |reason: String| AuthError::Setting { setting: "serve.auth.jwks_url", reason };
        let url: reqwest::Url = url.parse().map_err(|error| wrong(format!("{error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("it begins with neither https:// nor http://".into()));
        }
        // Somebody else's that came first is `ring` as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Jwks { url, client, refresh, held: RwLock::default(), asked: Arc::default() })
    }

    /// The keys. Those that are due are fetched beside, and waited for only if they are twice as old as they may be.
    pub(super) async fn current(self: &Arc<Self>) -> Held {
        let held = self.held();
        match held.came.map(|came| came.elapsed()) {
            Some(age) if age < self.refresh => return held,
            Some(age) if age < self.refresh * 2 => {
                // Whoever holds the lock is fetching them.
                if let Ok(asked) = self.asked.clone().try_lock_owned() {
                    drop(self.ask(asked));
                }
                return held;
            }
            _ => {}
        }
        self.fetch().await
    }

    /// The keys, fetched now if they were not a moment ago.
    pub(super) async fn fetch(self: &Arc<Self>) -> Held {
        let asked = self.asked.clone().lock_owned().await;
        if let Some(asking) = self.ask(asked) {
            // It goes on without whoever waits here: nobody keeps new keys away by hanging up.
            let _ = asking.await;
        }
        self.held()
    }

    fn held(&self) -> Held {
        self.held.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn ask(self: &Arc<Self>, mut asked: OwnedMutexGuard<Asked>) -> Option<tokio::task::JoinHandle<()>> {
        if asked.at.is_some_and(|at| at.elapsed() < PAUSE) {
            return None;
        }
        asked.at = Some(Instant::now());
        let jwks = self.clone();
        Some(tokio::spawn(async move {
            match jwks.answer().await {
                Ok(answer) => jwks.take(&answer, &mut asked),
                Err(reason) => jwks.tell(reason, &mut asked),
            }
        }))
    }

    fn take(&self, answer: &[u8], asked: &mut Asked) {
        let digest: [u8; 32] = Sha256::digest(answer).into();
        let keys = if asked.digest == Some(digest) {
            None
        } else {
            match keys::from_set(answer) {
                Ok((keys, passed_over)) => Some(self.told(keys, passed_over)),
                Err(reason) => return self.tell(reason, asked),
            }
        };
        asked.digest = Some(digest);
        asked.failed = false;
        let mut held = self.held.write().unwrap_or_else(|e| e.into_inner());
        held.came = Some(Instant::now());
        if let Some(keys) = keys {
            held.keys = Arc::new(keys);
            held.changes += 1;
        }
    }

    fn told(&self, keys: Vec<Key>, passed_over: Vec<String>) -> Vec<Key> {
        for reason in passed_over {
            tracing::info!("{}: {reason}, and is passed over", self.url);
        }
        if keys.is_empty() {
            tracing::warn!("{} has no usable key; no token can be verified by it", self.url);
        }
        keys
    }

    fn tell(&self, reason: String, asked: &mut Asked) {
        if !asked.failed {
            tracing::warn!("{} cannot be used: {reason}; the last good keys stay in force", self.url);
        }
        asked.failed = true;
    }

    async fn answer(&self) -> Result<Vec<u8>, String> {
        let failed = |error: reqwest::Error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(" ({cause})")).unwrap_or_default();
            format!("{}{cause}", error.without_url())
        };
        let mut response = self.client.get(self.url.clone()).send().await.map_err(failed)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("it answers with {}", response.status()));
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            answer.extend_from_slice(&chunk);
            if answer.len() > LARGEST {
                return Err(format!("its answer is larger than {LARGEST} bytes"));
            }
        }
        Ok(answer)
    }
}
