//! Tokens whose signature was checked a moment ago.
//!
//! A caller sends the same token with each request for minutes, and checking an ES256 signature costs more than all else
//! that is done for a request together. What a cache must not do is to make a token live longer or reach further than
//! without it: so a whole token is compared and not its hash, only what was verified gets in, and an entry is dead as
//! soon as its issuer's keys change in any way, at the token's own end, and when the clock stands before the check.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use super::VerifiedToken;
use super::binding::Binding;

/// Sets of [`WAYS`] entries: 1,024 in all.
const SETS: usize = 256;
const WAYS: usize = 4;
/// Longer tokens are checked each time: at most 4 MiB of text is kept, beside the claims in it.
const MAX_TOKEN: usize = 4 * 1024;
/// However long a token lives, it is looked at anew after this time.
const MAX_AGE: Duration = Duration::from_secs(300);
/// What of a token is hashed: a part of its signature, which is as good as random.
const TAIL: usize = 16;

/// The cache of one verifier. Reading takes no lock.
#[derive(Debug)]
pub(super) struct TokenCache {
    /// Of this process alone, so that nobody can aim at the entries of others.
    seeds: [u64; 2],
    slots: Box<[Slot]>,
}

/// A place for an entry, and the hash of its token: of those that differ in it the entry is not looked at. A tag that
/// does not fit its entry, for the moment between two writes, is a miss.
#[derive(Debug, Default)]
struct Slot {
    tag: AtomicU64,
    entry: ArcSwapOption<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) token: Box<str>,
    pub(super) verified: Arc<VerifiedToken>,
    /// Which issuer of the verifier, and which generation of its keys.
    pub(super) issuer: usize,
    pub(super) binding: Binding,
    pub(super) generation: u64,
    /// When it was checked: later times can only end it, earlier ones were not asked about.
    pub(super) since: SystemTime,
    /// When it will no longer be accepted.
    pub(super) until: SystemTime,
}

/// What a token proved, of which issuer, and who may use it.
pub(super) struct Proved {
    pub(super) verified: Arc<VerifiedToken>,
    pub(super) issuer: usize,
    pub(super) binding: Binding,
}

impl Entry {
    fn holds(&self, now: SystemTime) -> bool {
        self.since <= now && now < self.until && now.duration_since(self.since).is_ok_and(|age| age < MAX_AGE)
    }
}

impl Default for TokenCache {
    fn default() -> Self {
        let random = RandomState::new();
        let slots = std::iter::repeat_with(Slot::default).take(SETS * WAYS).collect();
        Self { seeds: [random.hash_one(0), random.hash_one(1)], slots }
    }
}

impl TokenCache {
    /// What `token` of which issuer proved, if it would be found to prove the same now. `generation` tells that of an issuer's keys.
    pub(super) fn find(
        &self,
        token: &str,
        now: SystemTime,
        generation: impl Fn(usize) -> Option<u64>,
    ) -> Option<Proved> {
        let tag = self.hash(token);
        self.set(tag).iter().filter(|slot| slot.tag.load(Ordering::Acquire) == tag).find_map(|slot| {
            let entry = slot.entry.load();
            let entry = entry.as_ref().filter(|entry| *entry.token == *token)?;
            let holds = entry.holds(now) && generation(entry.issuer) == Some(entry.generation);
            holds.then(|| Proved {
                verified: Arc::clone(&entry.verified),
                issuer: entry.issuer,
                binding: entry.binding,
            })
        })
    }

    /// Keeps a verified token, in the place of one that is dead, the same, or the oldest of its set.
    pub(super) fn insert(&self, entry: Entry) {
        if entry.token.len() > MAX_TOKEN {
            return;
        }
        let tag = self.hash(&entry.token);
        let age = |slot: &&Slot| {
            let old = slot.entry.load();
            old.as_ref().filter(|old| old.holds(entry.since) && old.token != entry.token).map(|old| old.since)
        };
        // `None`, a free place, is less than any time.
        if let Some(slot) = self.set(tag).iter().min_by_key(age) {
            slot.entry.store(Some(Arc::new(entry)));
            slot.tag.store(tag, Ordering::Release);
        }
    }

    /// One multiplication of the seeded tail: what is hashed is random already, and is never compared by its hash alone.
    fn hash(&self, token: &str) -> u64 {
        let [first, second] = self.seeds;
        let Some(tail) = token.as_bytes().last_chunk::<TAIL>() else { return 0 };
        let [low, high] = [u128::from_le_bytes(*tail) as u64, (u128::from_le_bytes(*tail) >> 64) as u64];
        let product = u128::from(low ^ first) * u128::from(high ^ second);
        product as u64 ^ (product >> 64) as u64
    }

    fn set(&self, tag: u64) -> &[Slot] {
        let set = (tag % SETS as u64) as usize;
        self.slots.get(set * WAYS..(set + 1) * WAYS).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

    fn entry(token: &str, since: u64) -> Entry {
        let verified = VerifiedToken {
            issuer: "i".into(),
            subject: None,
            audiences: Vec::new(),
            expires: EPOCH,
            claims: serde_json::Map::new(),
        };
        let (since, until) = (EPOCH + Duration::from_secs(since), EPOCH + Duration::from_secs(10_000));
        Entry {
            token: token.into(),
            verified: Arc::new(verified),
            issuer: 0,
            binding: Binding::None,
            generation: 1,
            since,
            until,
        }
    }

    #[test]
    fn an_entry_answers_for_its_own_token_keys_and_time_only() {
        let cache = TokenCache::default();
        let (longest, longer) = ("x".repeat(MAX_TOKEN), "x".repeat(MAX_TOKEN + 1));
        cache.insert(entry("head.payload.signature", 100));
        let find = |token, now, generation| {
            cache.find(token, EPOCH + Duration::from_secs(now), |issuer| (issuer == 0).then_some(generation)).is_some()
        };
        assert!(find("head.payload.signature", 100, 1) && find("head.payload.signature", 399, 1));
        for (token, now, generation) in [
            ("Head.payload.signature", 100, 1),
            ("head.payload.signature ", 100, 1),
            ("payload.signature", 100, 1),
            ("", 100, 1),
            ("head.payload.signature", 99, 1),
            ("head.payload.signature", 400, 1),
            ("head.payload.signature", 100, 2),
        ] {
            assert!(!find(token, now, generation), "{token} at {now}, keys {generation}");
        }
        assert!(cache.find("head.payload.signature", EPOCH + Duration::from_secs(100), |_| None).is_none());
        // The token's own end, and the longest that is kept.
        cache.insert(Entry { until: EPOCH + Duration::from_secs(200), ..entry("head.payload.another-one", 100) });
        assert!(find("head.payload.another-one", 199, 1) && !find("head.payload.another-one", 200, 1));
        for (token, kept) in [(&longest, true), (&longer, false)] {
            cache.insert(entry(token, 100));
            assert_eq!(find(token, 100, 1), kept);
        }
    }

    /// Who could choose tokens of one set could throw the entries of others out.
    #[test]
    fn every_bit_of_the_tail_and_the_seeds_counts() {
        let seeded = |seeds| TokenCache { seeds, ..TokenCache::default() };
        let cache = seeded([0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03]);
        let tail = *b"0123456789abcdef";
        let mut tags = vec![cache.hash(std::str::from_utf8(&tail).unwrap())];
        for at in 0..TAIL {
            for bit in 0..7 {
                let mut other = tail;
                other[at] ^= 1 << bit;
                tags.push(cache.hash(std::str::from_utf8(&other).unwrap()));
            }
        }
        for seeds in [[0x9e37_79b9_7f4a_7c95, 0xd1b5_4a32_d192_ed03], [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed83]] {
            tags.push(seeded(seeds).hash("0123456789abcdef"));
        }
        let all = tags.len();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), all);
        // And so do all sets: of 4,096 tokens each gets some, of 16 on average.
        let mut sets = [0_u32; SETS];
        (0..4096).for_each(|n| sets[(cache.hash(&format!("{n:016}")) % SETS as u64) as usize] += 1);
        assert!(sets.iter().all(|count| (1..50).contains(count)), "{sets:?}");
    }

    #[test]
    fn a_full_set_forgets_its_oldest() {
        let cache = TokenCache::default();
        // The same tail, hence the same set.
        let token = |n: u64| format!("{n}.{}", "s".repeat(TAIL));
        for n in 0..=WAYS as u64 {
            cache.insert(entry(&token(n), 100 + n));
            cache.insert(entry(&token(n), 100 + n));
        }
        let now = EPOCH + Duration::from_secs(150);
        let found: Vec<u64> =
            (0..=WAYS as u64).filter(|n| cache.find(&token(*n), now, |_| Some(1)).is_some()).collect();
        assert_eq!(found, [1, 2, 3, 4]);
    }
}
