//! How many connections and requests one address and one identity have, and how often an identity has given up its requests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::identity::SpiffeId;
use tokio::time::Instant;

use crate::places::Places;

/// Identities without a connection are forgotten beyond so many.
const REMEMBERED: usize = 16 * 1024;
/// A bucket holds this many seconds of its rate.
const BURST_SECONDS: f64 = 10.0;

/// Connections by address; a place is given back on drop. The lock is held for a look-up.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// The place of one connection in the tally of its address.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    addresses: Arc<Addresses>,
    key: IpAddr,
}

impl Addresses {
    /// A place, unless the address has `limit` connections.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<AddressPlace> {
        let key = counted(address);
        let mut counts = lock(&self.0);
        let count = counts.entry(key).or_insert(0);
        if *count >= limit {
            return None; // `limit` is at least 1: no entry stays at 0
        }
        *count += 1;
        Some(AddressPlace { addresses: Arc::clone(self), key })
    }
}

/// An IPv6 client owns a /64, so that is what counts.
pub(super) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut counts = lock(&self.addresses.0);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1; // `take` added it
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// Why an authenticated peer gets no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerRefusal {
    /// It has as many as it may have.
    TooMany,
    /// Its reset budget is overdrawn.
    Resets,
}

impl PeerRefusal {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TooMany => "per_peer",
            Self::Resets => "reset_budget",
        }
    }
}

/// Whose connections and resets are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Id(SpiffeId),
    /// A peer in plaintext has no name.
    Address(IpAddr),
}

impl From<&SpiffeId> for Who {
    fn from(id: &SpiffeId) -> Self {
        Self::Id(id.clone())
    }
}

impl From<IpAddr> for Who {
    fn from(address: IpAddr) -> Self {
        Self::Address(counted(address))
    }
}

/// What is known of each identity over all of its connections. The lock is held for a look-up.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<HashMap<Who, Known>>);

#[derive(Debug)]
struct Known {
    connections: usize,
    resets: Arc<Resets>,
    requests: Arc<Places>,
}

/// The place of one connection in the tally of its peer.
#[derive(Debug)]
pub(crate) struct PeerPlace {
    peers: Arc<Peers>,
    who: Who,
    resets: Arc<Resets>,
    requests: Arc<Places>,
}

impl Peers {
    /// A place, unless the peer has `limit` connections or has overdrawn `rate`, its resets a second.
    pub(crate) fn admit(
        self: &Arc<Self>,
        who: impl Into<Who>,
        limit: usize,
        rate: u32,
        now: Instant,
    ) -> Result<PeerPlace, PeerRefusal> {
        let who = who.into();
        let mut peers = lock(&self.0);
        if peers.len() >= REMEMBERED && !peers.contains_key(&who) {
            peers.retain(|_, known| known.connections > 0);
        }
        let fresh = || Known { connections: 0, resets: Arc::new(Resets::new(rate, now)), requests: Arc::default() };
        let known = peers.entry(who.clone()).or_insert_with(fresh);
        if known.resets.overdrawn(rate, now) {
            return Err(PeerRefusal::Resets);
        }
        if known.connections >= limit {
            return Err(PeerRefusal::TooMany);
        }
        known.connections += 1;
        let (resets, requests) = (Arc::clone(&known.resets), Arc::clone(&known.requests));
        Ok(PeerPlace { peers: Arc::clone(self), who, resets, requests })
    }
}

impl PeerPlace {
    pub(super) fn resets(&self) -> &Arc<Resets> {
        &self.resets
    }

    /// What all connections of this peer count their requests in.
    pub(super) fn requests(&self) -> &Arc<Places> {
        &self.requests
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let mut peers = lock(&self.peers.0);
        if let Some(known) = peers.get_mut(&self.who) {
            known.connections -= 1; // `admit` added it
            if known.connections == 0 && known.resets.is_full(Instant::now()) {
                peers.remove(&self.who);
            }
        }
    }
}

/// A token bucket of requests that one peer may give up, whichever connection they come over. (CVE-2023-44487)
///
/// h2 bounds resets for each connection, and a peer can have many. The lock is this peer's own.
#[derive(Debug)]
pub(super) struct Resets(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    rate: f64,
    tokens: f64,
    at: Instant,
}

impl Resets {
    pub(super) fn new(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate);
        Self(Mutex::new(Bucket { rate, tokens: rate * BURST_SECONDS, at: now }))
    }

    /// Spends a token, after `finished` responses that were sent to their end earned one each; whether it was there.
    pub(super) fn spend(&self, finished: u64, now: Instant) -> bool {
        let mut bucket = lock(&self.0);
        bucket.refill(now);
        let earned = bucket.tokens + finished as f64;
        // In debt for a second at most: a peer that mends its ways is let in again soon.
        bucket.tokens = (earned.min(bucket.rate * BURST_SECONDS) - 1.0).max(-bucket.rate);
        bucket.tokens >= 0.0
    }

    fn overdrawn(&self, rate: u32, now: Instant) -> bool {
        let mut bucket = lock(&self.0);
        bucket.rate = f64::from(rate); // a reload may have changed it
        bucket.refill(now);
        bucket.tokens < 0.0
    }

    fn is_full(&self, now: Instant) -> bool {
        let mut bucket = lock(&self.0);
        bucket.refill(now);
        bucket.tokens >= bucket.rate * BURST_SECONDS
    }
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.rate * BURST_SECONDS);
        self.at = now;
    }
}

/// What a panic left is whole: nothing is changed in two steps that could be torn apart.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://td/{name}")).unwrap()
    }

    #[test]
    fn places_of_an_address_are_given_back() {
        let addresses = Arc::new(Addresses::default());
        let take = |address: &str| addresses.take(address.parse().unwrap(), 2);
        let (one, two) = (take("10.0.0.1").unwrap(), take("::ffff:10.0.0.1").unwrap());
        assert!(take("10.0.0.1").is_none());
        let other = take("10.0.0.2").unwrap();
        drop(one);
        let three = take("10.0.0.1").unwrap();
        let six = [take("2001:db8::1").unwrap(), take("2001:db8::ffff:1").unwrap()];
        assert!(take("2001:db8::2").is_none(), "one client has a /64");
        let neighbour = take("2001:db8:0:1::1").unwrap();
        drop((two, three, other, six, neighbour));
        assert!(lock(&addresses.0).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn places_of_a_peer_are_given_back_and_others_have_theirs() {
        let peers = Arc::new(Peers::default());
        let now = Instant::now();
        let admit = |name: &str| peers.admit(&id(name), 1, 100, now);
        let one = admit("a").unwrap();
        assert_eq!(admit("a").unwrap_err(), PeerRefusal::TooMany);
        let other = admit("b").unwrap();
        drop(one);
        drop((admit("a").unwrap(), other));
        assert!(lock(&peers.0).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn resets_are_counted_over_all_connections_and_remembered_without_any() {
        let peers = Arc::new(Peers::default());
        let start = Instant::now();
        let admit = |at| peers.admit(&id("a"), 9, 10, at);
        let (one, two) = (admit(start).unwrap(), admit(start).unwrap());
        let spent = (0..).take_while(|n| [&one, &two][n % 2].resets.spend(0, start)).count();
        assert_eq!(spent, 100, "ten seconds of the rate at once");
        assert_eq!(admit(start).unwrap_err(), PeerRefusal::Resets);
        drop((one, two));
        assert_eq!(admit(start).unwrap_err(), PeerRefusal::Resets, "coming back does not help");
        assert!(peers.admit(&id("b"), 9, 10, start).is_ok());
        let again = admit(start + S).unwrap();
        for _ in 0..1000 {
            again.resets.spend(0, start + S);
        }
        assert!(admit(start + 2 * S + S / 10).is_ok(), "in debt for a second at most");
    }

    #[test]
    fn whoever_also_waits_for_answers_may_cancel_as_often() {
        let start = Instant::now();
        let resets = Resets::new(1, start);
        assert!((0..10_000).all(|_| resets.spend(1, start)));
        assert!((0..10_000).any(|_| !resets.spend(0, start)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let peers = Arc::new(Peers::default());
        let now = Instant::now();
        for n in 0..REMEMBERED + 10 {
            let place = peers.admit(&id(&n.to_string()), 1, 1, now).unwrap();
            assert!(place.resets.spend(0, now));
        }
        assert!(lock(&peers.0).len() <= REMEMBERED);
    }
}
