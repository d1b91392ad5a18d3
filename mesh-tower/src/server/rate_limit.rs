//! Keeps one caller from spending what all callers share.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http::Request;
use mesh_core::Mesh;
use mesh_core::config::RateLimitConfig;
use tokio::time::Instant;
use tower_layer::Layer;

use super::exchange::{Exchange, Spend};
use super::gate::{Gate, Gated};
use crate::reject::{Kind, Reject};

/// Refuses a principal that spends more than `limits.rate` with 429 / RESOURCE_EXHAUSTED and `Retry-After`.
///
/// The generic cell rate algorithm (ITU-T I.371): a token bucket whose whole state is one instant. All listeners of a
/// mesh count together and follow reloads; anonymous callers share one bucket. Without `limits.rate` nothing is
/// limited. Callers are remembered up to `max_principals`; the one seen least recently is forgotten first, counted, and
/// starts with a full bucket when it returns.
///
/// # Position
/// Below authorization: only callers who may call spend quota, so nobody can fill the memory or another's bucket with
/// refused requests. Above the handler.
#[derive(Debug, Clone)]
pub struct RateLimitLayer {
    mesh: Mesh,
    buckets: Arc<Buckets>,
}

impl RateLimitLayer {
    /// The layer of this mesh; all layers of one mesh count together.
    pub fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone(), buckets: mesh.extension(Buckets::new) }
    }
}

/// What [`RateLimitLayer`] makes of a service.
pub type RateLimit<S> = Gated<S, RateLimitLayer>;

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

impl Gate for RateLimitLayer {
    const NAME: &'static str = "rate_limit";

    fn mesh(&self) -> Option<&Mesh> {
        Some(&self.mesh)
    }

    fn pass(&self, exchange: &Arc<Exchange>, _request: &mut Request<Body>) -> Result<(), Reject> {
        if !exchange.awaits_handler() {
            return Err(Reject::WIRING);
        }
        if exchange.put_off_rate_limit(self) { Ok(()) } else { self.spend(exchange) }
    }
}

impl Spend for RateLimitLayer {
    fn spend(&self, exchange: &Exchange) -> Result<(), Reject> {
        let principal = exchange.principal().ok_or(Reject::WIRING)?;
        let Some(rate) = &exchange.revision.config.limits.rate else { return Ok(()) };
        let spent = match principal.spiffe_id() {
            Some(id) => self.buckets.spend(id.as_str(), rate, exchange.started),
            None => self.buckets.spend(&principal.to_string(), rate, exchange.started),
        };
        self.mesh.metrics().server.rate_limit_evictions.inc_by(spent.evicted);
        match spent.retry_after {
            None => Ok(()),
            retry_after => Err(Reject { retry_after, ..Reject::new(Kind::RateLimited, "rate_limited") }),
        }
    }
}

/// Locks are held for a look-up each; sixteen of them keep cores apart.
const SHARDS: usize = 16;

/// The buckets of all callers.
#[derive(Debug)]
struct Buckets {
    start: Instant,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<Arc<str>, Bucket>,
    /// Callers by when they were seen last.
    seen: BTreeMap<u64, Arc<str>>,
    clock: u64,
}

#[derive(Debug)]
struct Bucket {
    /// The theoretical arrival time: when the bucket will be full again.
    full_at: Duration,
    seen: u64,
}

/// What became of one request.
#[derive(Debug, PartialEq, Eq)]
struct Spent {
    /// `None`: it may go on.
    retry_after: Option<Duration>,
    evicted: u64,
}

impl Buckets {
    fn new() -> Self {
        Self { start: Instant::now(), hasher: RandomState::new(), shards: Default::default() }
    }

    fn spend(&self, caller: &str, rate: &RateLimitConfig, now: Instant) -> Spent {
        let at = usize::try_from(self.hasher.hash_one(caller) % SHARDS as u64).unwrap_or_default();
        let Some(shard) = self.shards.get(at) else { return Spent { retry_after: None, evicted: 0 } };
        let now = now.saturating_duration_since(self.start);
        shard.lock().unwrap_or_else(PoisonError::into_inner).spend(caller, rate, now)
    }
}

impl Shard {
    fn spend(&mut self, caller: &str, rate: &RateLimitConfig, now: Duration) -> Spent {
        self.clock += 1;
        let mut evicted = 0;
        let bucket = match self.buckets.get_mut(caller) {
            Some(bucket) => {
                let key = self.seen.remove(&bucket.seen);
                self.seen.insert(self.clock, key.unwrap_or_else(|| Arc::from(caller)));
                bucket.seen = self.clock;
                bucket
            }
            None => {
                let room = rate.max_principals.div_ceil(SHARDS);
                while self.buckets.len() >= room {
                    let Some((_, oldest)) = self.seen.pop_first() else { break };
                    self.buckets.remove(&oldest);
                    evicted += 1;
                }
                let key: Arc<str> = Arc::from(caller);
                self.seen.insert(self.clock, Arc::clone(&key));
                self.buckets.entry(key).or_insert(Bucket { full_at: now, seen: self.clock })
            }
        };
        let each = Duration::try_from_secs_f64(rate.per_second.recip()).unwrap_or(Duration::MAX);
        let tolerance = each.saturating_mul(rate.burst.saturating_sub(1));
        let full_at = bucket.full_at.max(now);
        let wait = (full_at - now).saturating_sub(tolerance);
        if wait.is_zero() {
            bucket.full_at = full_at.saturating_add(each);
        }
        Spent { retry_after: (!wait.is_zero()).then_some(wait), evicted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: f64, burst: u32, max_principals: usize) -> RateLimitConfig {
        RateLimitConfig::per_second(per_second).burst(burst).max_principals(max_principals)
    }

    /// A bucket that counts tokens, as one would write it down.
    struct Naive {
        tokens: f64,
        at: Duration,
    }

    impl Naive {
        fn spend(&mut self, rate: &RateLimitConfig, now: Duration) -> bool {
            let refill = (now - self.at).as_secs_f64() * rate.per_second;
            self.tokens = (self.tokens + refill).min(f64::from(rate.burst));
            self.at = now;
            // Binary fractions only in this test, so that both count exactly.
            let enough = self.tokens >= 1.0;
            self.tokens -= f64::from(u8::from(enough));
            enough
        }
    }

    #[test]
    fn it_grants_what_a_counting_bucket_grants() {
        let rng = mesh_core::rng::Rng::seeded(3);
        for (per_second, burst) in [(4.0, 1), (4.0, 3), (64.0, 10), (0.5, 2)] {
            let rate = rate(per_second, burst, 16);
            let (mut shard, mut naive) = (Shard::default(), Naive { tokens: f64::from(burst), at: Duration::ZERO });
            let mut now = Duration::ZERO;
            for step in 0..2_000 {
                // Multiples of 1/1024 s: exact in nanoseconds after rounding to 1/64 s.
                now += Duration::from_micros(15_625 * rng.below(20) as u64);
                let spent = shard.spend("a", &rate, now);
                assert_eq!(spent.retry_after.is_none(), naive.spend(&rate, now), "step {step} at {now:?}, {rate:?}");
                if let Some(after) = spent.retry_after {
                    let mut later = Shard::default();
                    later.buckets.insert(Arc::from("a"), Bucket { full_at: shard.buckets["a"].full_at, seen: 0 });
                    assert!(later.spend("a", &rate, now + after).retry_after.is_none());
                }
            }
        }
    }

    #[test]
    fn the_caller_seen_least_recently_is_forgotten_first() {
        let (rate, mut shard) = (rate(0.001, 1, SHARDS * 2), Shard::default());
        let mut spend = |caller: &str| shard.spend(caller, &rate, Duration::ZERO);
        let (granted, refused) = (None, Some(Duration::from_secs(1000)));
        for (caller, retry_after, evicted) in [
            ("a", granted, 0),
            ("b", granted, 0),
            ("a", refused, 0),
            ("c", granted, 1), // b leaves: a was seen after it
            ("a", refused, 0),
            ("b", granted, 1), // c leaves
        ] {
            assert_eq!(spend(caller), Spent { retry_after, evicted }, "{caller}");
        }
        assert_eq!((shard.buckets.len(), shard.seen.len()), (2, 2));
    }
}
