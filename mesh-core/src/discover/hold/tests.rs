use std::collections::BTreeSet;

use super::*;
use crate::rng::Rng;

fn endpoint(name: usize) -> Endpoint {
    Endpoint::new(([10, 0, (name >> 8) as u8, name as u8], 443).into())
}

fn set(names: impl IntoIterator<Item = usize>) -> EndpointSet {
    names.into_iter().map(endpoint).collect()
}

fn keys(endpoints: &[Endpoint]) -> BTreeSet<EndpointKey> {
    endpoints.iter().map(|endpoint| endpoint.key.clone()).collect()
}

/// A hold with the endpoints that it is asked about, as a cluster keeps them.
#[derive(Default)]
pub(in crate::discover) struct Kept {
    hold: Hold,
    in_force: Vec<Endpoint>,
}

impl Kept {
    pub(in crate::discover) fn begin(&mut self, endpoints: &[Endpoint]) {
        self.hold.begin(endpoints);
        self.in_force = endpoints.to_vec();
    }

    pub(in crate::discover) fn judge(&mut self, set: &EndpointSet, config: &HoldConfig, now: Instant) -> Verdict {
        let verdict = self.hold.judge(set, std::mem::take(&mut self.in_force), config, now);
        self.in_force = match &verdict {
            Verdict::Accepted => by_key(&set.endpoints).into_values().cloned().collect(),
            Verdict::Held { in_force, .. } => in_force.clone(),
        };
        verdict
    }

    pub(in crate::discover) fn confirm(&mut self, config: &HoldConfig, now: Instant) -> usize {
        self.hold.confirm(&mut self.in_force, config, now)
    }

    pub(in crate::discover) fn interrupt(&mut self) {
        self.hold.interrupt();
    }

    pub(in crate::discover) fn in_force(&self) -> &[Endpoint] {
        &self.in_force
    }
}

impl std::ops::Deref for Kept {
    type Target = Hold;

    fn deref(&self) -> &Hold {
        &self.hold
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn what_is_held_and_what_passes() {
    let gone = |set: EndpointSet, names: std::ops::Range<usize>| set.removed(names.map(|name| endpoint(name).key));
    // (before, after, accepted, how many are in force)
    let table = [
        ("the same", 0..10, set(0..10), true, 10),
        ("growth", 0..10, set(0..30), true, 30),
        ("one less", 0..10, set(0..9), true, 9),
        ("half", 0..10, set(0..5), true, 5),
        ("more than half", 0..10, set(0..4), false, 10),
        ("more than half, others come", 0..10, set(9..13), false, 13),
        ("a deployment that swaps all", 0..10, set(20..30), true, 10),
        ("a deployment that swaps all and halves", 0..10, set(20..25), true, 5),
        ("one of two", 0..2, set(0..1), true, 1),
        ("one of three", 0..3, set(0..1), false, 3),
        ("none of one", 0..1, set([]), false, 1),
        ("another for the only one", 0..1, set([7]), true, 1),
        ("none", 0..10, set([]), false, 10),
        ("none, all removed", 0..10, gone(set([]), 0..10), true, 0),
        ("none, one of them not removed", 0..10, gone(set([]), 0..9), false, 1),
        ("most removed", 0..10, gone(set(8..10), 0..8), true, 2),
        ("some removed, too many missing", 0..10, gone(set(9..10), 0..2), false, 8),
        ("a part, one missing", 0..10, set(0..9).partial(true), false, 10),
        ("a part that lacks nobody", 0..10, set(0..11).partial(true), true, 11),
        ("none of none", 0..0, set([]), true, 0),
    ];
    for (what, before, after, accepted, in_force) in table {
        let mut hold = Kept::default();
        let now = Instant::now();
        hold.judge(&set(before), &HoldConfig::default(), now);
        let verdict = hold.judge(&after, &HoldConfig::default(), now);
        assert_eq!((verdict == Verdict::Accepted, hold.in_force().len()), (accepted, in_force), "{what}: {verdict:?}");
        assert!(keys(hold.in_force()).is_superset(&keys(&after.endpoints)), "{what}: what is named is in force");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_long_enough_is_let_go_and_not_before() {
    let config = HoldConfig::default().confirm_after(secs(60));
    let now = Instant::now();
    let mut hold = Kept::default();
    hold.judge(&set(0..10), &config, now);
    hold.judge(&set(0..2), &config, now);
    assert_eq!(hold.due(&config), Some(now + secs(60)));
    assert_eq!((hold.confirm(&config, now + secs(59)), hold.in_force().len()), (0, 10));
    // One comes back, another stays away only from now on.
    hold.judge(&set(1..3), &config, now + secs(30));
    assert_eq!((hold.confirm(&config, now + secs(60)), hold.held()), (7, 1));
    assert_eq!((hold.confirm(&config, now + secs(90)), hold.in_force().len()), (1, 2));
    assert_eq!((hold.held(), hold.due(&config)), (0, None));
    assert_eq!(hold.judge(&set(1..2), &config, now + secs(90)), Verdict::Accepted, "measured by what was confirmed");

    // A source that cannot be read confirms nothing.
    hold.begin(&set(0..10).endpoints);
    hold.judge(&set(0..2), &config, now);
    hold.interrupt();
    assert_eq!((hold.due(&config), hold.confirm(&config, now + secs(600))), (None, 0));
    hold.judge(&set(0..2), &config, now + secs(600));
    assert_eq!(hold.due(&config), Some(now + secs(660)));

    // An empty set waits for its own time, which by default never comes.
    hold.begin(&set(0..10).endpoints);
    hold.judge(&set([]), &config, now);
    assert_eq!((hold.due(&config), hold.confirm(&config, now + secs(1_000_000)), hold.held()), (None, 0, 10));
    let config = config.empty_after(secs(3600));
    assert_eq!((hold.confirm(&config, now + secs(3599)), hold.confirm(&config, now + secs(3600))), (0, 10));
}

#[tokio::test(start_paused = true)]
async fn a_set_that_bleeds_to_death_is_noticed_and_a_slow_decline_passes() {
    let config = HoldConfig::default().confirm_after(secs(60));
    let start = Instant::now();
    let mut hold = Kept::default();
    hold.judge(&set(0..10), &config, start);
    for left in (5..10).rev() {
        assert_eq!(hold.judge(&set(0..left), &config, start + secs(9 - left as u64)), Verdict::Accepted, "{left}");
    }
    assert!(matches!(hold.judge(&set(0..4), &config, start + secs(10)), Verdict::Held { kept: 1, .. }));
    // Whoever comes instead pays for one that went.
    assert_eq!(hold.judge(&set(0..7), &config, start + secs(11)), Verdict::Accepted);
    assert_eq!(hold.judge(&set(0..5), &config, start + secs(12)), Verdict::Accepted);

    hold.begin(&set(0..10).endpoints);
    for (minute, left) in (1..10).rev().enumerate() {
        assert_eq!(hold.judge(&set(0..left), &config, start + secs(60 * minute as u64)), Verdict::Accepted, "{left}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_names_others_each_time_does_not_fill_the_memory() {
    let (config, now) = (HoldConfig::default(), Instant::now());
    let mut hold = Kept::default();
    hold.judge(&set(0..100), &config, now);
    let mut crowded = 0;
    for round in 1..1_000 {
        match hold.judge(&set(round * 100..round * 100 + 40), &config, now + secs(round as u64 % 200)) {
            Verdict::Held { crowded_out, .. } => crowded += crowded_out,
            Verdict::Accepted => panic!("{round}"),
        }
        assert!(hold.in_force().len() <= 240, "{}", hold.in_force().len());
    }
    assert!(crowded > 30_000);
}

/// The rules told in another way: from the whole history, without keeping anything up to date.
#[derive(Default)]
struct Naive {
    /// What was said, and when; `None`: nothing could be read.
    words: Vec<(Instant, Option<BTreeSet<EndpointKey>>)>,
    accepted: usize,
    in_force: BTreeSet<EndpointKey>,
    /// One entry for each endpoint that was lost.
    losses: Vec<Instant>,
}

impl Naive {
    fn judge(&mut self, set: &EndpointSet, config: &HoldConfig, now: Instant) {
        let named = keys(&set.endpoints);
        let gone = self.in_force.difference(&named).filter(|key| set.removed.contains(key)).count();
        let vanished = self.in_force.difference(&named).count() - gone;
        self.words.push((now, Some(named.clone())));
        let loss = self.accepted as i64 - named.len() as i64 - gone as i64;
        self.losses.retain(|at| now.duration_since(*at) < config.confirm_after);
        let recent = self.losses.len() as i64;
        let small = (loss + recent) as f64 <= config.shrink * (self.accepted as i64 + recent) as f64 && !set.partial;
        if !(named.is_empty() && vanished > 0) && (loss <= 0 || small) {
            let growth = (named.len() as i64 - self.accepted as i64).max(0) as usize;
            self.losses.truncate(self.losses.len().saturating_sub(growth));
            self.losses.extend((0..loss.max(0)).map(|_| now));
            self.accepted = named.len();
            self.in_force = named;
        } else {
            self.accepted = self.accepted.saturating_sub(gone);
            self.in_force.retain(|key| named.contains(key) || !set.removed.contains(key));
            self.in_force.extend(named);
            let mut missing: Vec<_> =
                self.in_force.iter().filter_map(|key| Some((self.missing_since(key)?, key))).collect();
            missing.sort();
            let room = usize::max(2 * self.accepted, 16);
            let crowded: Vec<_> =
                missing.iter().take(missing.len().saturating_sub(room)).map(|(_, key)| (*key).clone()).collect();
            self.in_force.retain(|key| !crowded.contains(key));
        }
    }

    /// Since when it is missing: the first of the last words in a row that lack it and were not interrupted.
    fn missing_since(&self, key: &EndpointKey) -> Option<Instant> {
        let run = self.words.iter().rev().take_while(|(_, word)| word.as_ref().is_some_and(|word| !word.contains(key)));
        run.last().map(|(at, _)| *at)
    }

    fn confirm(&mut self, config: &HoldConfig, now: Instant) {
        let missing = |key: &EndpointKey| self.missing_since(key);
        let nobody = self.in_force.iter().all(|key| missing(key).is_some());
        let Some(wait) = (if nobody { config.empty_after } else { Some(config.confirm_after) }) else { return };
        let stays = |key: &&EndpointKey| missing(key).is_none_or(|since| now < since + wait);
        let left: BTreeSet<_> = self.in_force.iter().filter(stays).cloned().collect();
        if left.iter().all(|key| missing(key).is_none()) && !matches!(self.words.last(), Some((_, None))) {
            self.losses.clear();
            self.accepted = left.len();
        }
        self.in_force = left;
    }
}

/// A word as a registry in trouble might say it.
fn mutant(good: &EndpointSet, rng: &Rng) -> Option<EndpointSet> {
    let mut set = good.clone();
    let some = |rng: &Rng, set: &EndpointSet| rng.below(set.endpoints.len() + 1);
    match rng.below(12) {
        0 => return None,
        1 => set.endpoints.clear(),
        2 => set.endpoints.truncate(some(rng, good)),
        3 => _ = set.endpoints.drain(..some(rng, good)),
        4 => set.endpoints.extend((0..rng.below(6)).map(|_| endpoint(rng.below(60)))),
        5 => set.endpoints.iter_mut().for_each(|known| *known = endpoint(rng.below(60))),
        6 => {
            let keep = rng.below(set.endpoints.len() + 1);
            let removed: Vec<_> = set.endpoints.drain(keep..).map(|endpoint| endpoint.key).collect();
            set = set.removed(removed);
        }
        7 => set.endpoints.extend(good.endpoints.clone()),
        8 => {
            set.endpoints.truncate(some(rng, good));
            set = set.partial(true);
        }
        9 => _ = set.endpoints.pop(),
        10 => set.endpoints.iter_mut().for_each(|endpoint| endpoint.weight = 1 + rng.below(9) as u32),
        _ => set = (0..1 + rng.below(8)).map(|_| endpoint(rng.below(60))).collect(),
    }
    Some(set)
}

/// `MESH_MUTATED_UPDATES` of them, 20,000 if it is not said: none panics, none empties a set in silence, and all are
/// judged as the naive model does.
#[test]
fn mutated_updates_empty_nothing_and_agree_with_the_naive_model() {
    let number: usize = std::env::var("MESH_MUTATED_UPDATES").map_or(20_000, |number| number.parse().unwrap());
    let seed = Rng::from_entropy().next_u64();
    println!("seed {seed}");
    let rng = Rng::seeded(seed);
    let (mut held, mut accepted, mut confirmed, mut emptied) = (0, 0, 0, 0);
    for _ in 0..number.div_ceil(40) {
        let shrink = [0.0, 0.25, 0.5, 1.0][rng.below(4)];
        let mut config = HoldConfig::default().shrink(shrink).confirm_after(secs(30));
        if rng.below(3) == 0 {
            config = config.empty_after(secs(90));
        }
        let (mut hold, mut naive, mut now) = (Kept::default(), Naive::default(), Instant::now());
        let mut good = set(0..1 + rng.below(7));
        for step in 0..40 {
            now += secs(rng.below(25) as u64);
            let before = naive.in_force.len();
            confirmed += hold.confirm(&config, now);
            naive.confirm(&config, now);
            let by_time = before > 0 && hold.in_force().is_empty();
            assert!(!by_time || config.empty_after.is_some(), "seed {seed}: emptied by time");
            let known = hold.in_force().len();
            let word = if step == 0 { Some(good.clone()) } else { mutant(&good, &rng) };
            match &word {
                Some(word) => {
                    match hold.judge(word, &config, now) {
                        Verdict::Accepted => accepted += 1,
                        Verdict::Held { .. } => held += 1,
                    }
                    naive.judge(word, &config, now);
                    if rng.below(2) == 0 && !word.endpoints.is_empty() {
                        good = EndpointSet::from(word.endpoints.clone());
                    }
                }
                None => {
                    hold.interrupt();
                    naive.words.push((now, None));
                }
            }
            let in_force = hold.in_force();
            let removed = word.as_ref().is_some_and(|word| !word.removed.is_empty());
            assert!(known == 0 || !in_force.is_empty() || removed, "seed {seed}: emptied in silence by {word:?}");
            emptied += usize::from(known > 0 && in_force.is_empty());
            assert_eq!(keys(in_force), naive.in_force, "seed {seed}, step {step}: {word:?}");
        }
    }
    println!("{accepted} accepted, {held} held, {confirmed} let go, {emptied} emptied by tombstones");
    assert!(accepted > number / 5 && held > number / 5 && confirmed > 0 && emptied > 0);
}
