//! How often a caller may ask.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Limits;

/// Callers whose buckets are known at once; those beyond share one.
const MOST: usize = 50_000;

/// Buckets that are full again are forgotten no more often than this.
const SWEEP: Duration = Duration::from_secs(1);

/// A token bucket for each caller, as large as the caller's role has it.
///
/// A bucket is one instant: when it is full again. A request moves it on by the time that one token takes, and may not
/// move it further ahead than the whole bucket takes. A bucket that is full is the same as none.
pub struct Rates {
    every: Option<Bucket>,
    by_role: BTreeMap<String, Option<Bucket>>,
    known: Mutex<Known>,
}

/// The request comes too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// Whole seconds after which one more is let in, for `Retry-After`.
    pub retry_after_s: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// What one token takes.
    each: Duration,
    /// What all of them take.
    whole: Duration,
}

#[derive(Default)]
struct Known {
    full_at: HashMap<String, Instant, ahash::RandomState>,
    others: Option<Instant>,
    swept: Option<Instant>,
}

impl Rates {
    pub fn new(limits: &Limits) -> Rates {
        Rates {
            every: Bucket::new(limits.requests_per_s, limits.burst),
            // One that says nothing of it has the rate of all.
            by_role: limits
                .by_role
                .iter()
                .filter_map(|(role, rate)| Some((role.clone(), Bucket::new(rate.requests_per_s?, rate.burst))))
                .collect(),
            known: Mutex::default(),
        }
    }

    /// Takes one token of a caller's bucket.
    ///
    /// # Errors
    /// When there is none, and when there will be.
    pub fn take(&self, role: &str, name: &str) -> Result<(), TooMany> {
        let Some(bucket) = *self.by_role.get(role).unwrap_or(&self.every) else { return Ok(()) };
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(full_at) = known.full_at.get_mut(name) {
            return bucket.take(full_at, now);
        }
        known.sweep(now);
        if known.full_at.len() < MOST {
            let mut full_at = now;
            let taken = bucket.take(&mut full_at, now);
            known.full_at.insert(name.to_string(), full_at);
            return taken;
        }
        bucket.take(known.others.get_or_insert(now), now)
    }
}

impl Known {
    fn sweep(&mut self, now: Instant) {
        if self.full_at.len() >= MOST && self.swept.is_none_or(|swept| now - swept >= SWEEP) {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.swept = Some(now);
        }
    }
}

impl Bucket {
    fn new(requests_per_s: f64, burst: u32) -> Option<Bucket> {
        if !requests_per_s.is_finite() || requests_per_s <= 0.0 {
            return None;
        }
        // One request in a century is as good as none; more does not fit.
        let each = Duration::from_secs_f64((1.0 / requests_per_s).clamp(1e-9, 3e9));
        let tokens = if burst > 0 { burst } else { requests_per_s.ceil() as u32 };
        Some(Bucket { each, whole: each.saturating_mul(tokens.max(1)) })
    }

    fn take(self, full_at: &mut Instant, now: Instant) -> Result<(), TooMany> {
        let after = (*full_at).max(now) + self.each;
        let early = after.saturating_duration_since(now).saturating_sub(self.whole);
        if early.is_zero() {
            *full_at = after;
            return Ok(());
        }
        Err(TooMany { retry_after_s: early.as_secs() + u64::from(early.subsec_nanos() > 0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rate;

    fn rates(requests_per_s: f64, burst: u32) -> Rates {
        let by_role = BTreeMap::from([
            ("slow".to_string(), Rate { requests_per_s: Some(0.1), burst: 1, ..Rate::default() }),
            ("free".to_string(), Rate { requests_per_s: Some(0.0), ..Rate::default() }),
        ]);
        Rates::new(&Limits { requests_per_s, burst, by_role, ..Limits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_empties_and_fills_again() {
        let rates = rates(2.0, 3);
        let ask = || rates.take("web", "a");
        assert_eq!([ask(), ask(), ask(), ask()], [Ok(()), Ok(()), Ok(()), Err(TooMany { retry_after_s: 1 })]);
        assert_eq!(rates.take("web", "b"), Ok(()), "another caller has another bucket");
        tokio::time::advance(Duration::from_millis(499)).await;
        assert!(ask().is_err());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([ask().is_ok(), ask().is_ok()], [true, false]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!([ask(), ask(), ask(), ask()].iter().filter(|asked| asked.is_ok()).count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn roles_have_rates_of_their_own() {
        let rates = rates(0.0, 0);
        assert!((0..1_000).all(|_| rates.take("web", "a").is_ok()));
        assert!(rates.take("slow", "b").is_ok());
        assert_eq!(rates.take("slow", "b"), Err(TooMany { retry_after_s: 10 }));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(rates.take("slow", "b"), Err(TooMany { retry_after_s: 10 }), "rounded up");
        tokio::time::advance(Duration::from_millis(9_500)).await;
        assert!(rates.take("slow", "b").is_ok());
        let limited = self::rates(1.0, 0);
        assert!((0..1_000).all(|_| limited.take("free", "a").is_ok()));
        assert_eq!([limited.take("web", "a").is_ok(), limited.take("web", "a").is_ok()], [true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn buckets_are_bounded_and_full_ones_forgotten() {
        let rates = rates(1.0, 1);
        let held = || rates.known.lock().unwrap().full_at.len();
        assert!((0..MOST).all(|number| rates.take("web", &number.to_string()).is_ok()));
        assert!(rates.take("web", "one more").is_ok());
        assert!(rates.take("web", "another").is_err(), "those beyond share one");
        assert_eq!(held(), MOST);
        tokio::time::advance(SWEEP).await;
        assert!(rates.take("web", "one more").is_ok());
        assert_eq!(held(), 1);
    }

    #[test]
    fn odd_rates_do_no_harm() {
        for rate in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(rates(rate, 1).take("web", "a").is_ok());
        }
        for rate in [f64::MIN_POSITIVE, 1e-30, 1e30, f64::MAX] {
            let rates = rates(rate, u32::MAX);
            assert!(rates.take("web", "a").is_ok() && rates.take("web", "a").is_ok());
        }
    }
}
