//! Control arms: the same read and written in two steps. Of two threads one is overwritten, and loom finds when.

#![allow(clippy::unwrap_used)] // a test

use std::sync::Arc;

use loom::thread;

use crate::atomic::{AtomicU64, Ordering::Relaxed};

/// A change in two steps.
fn change(word: &AtomicU64, next: impl Fn(u64) -> Option<u64>) -> bool {
    let seen = word.load(Relaxed);
    next(seen).map(|next| word.store(next, Relaxed)).is_some()
}

/// Both threads' changes, from `start`; what is in the word then.
fn both(start: u64, next: fn(u64) -> Option<u64>) -> (bool, bool, u64) {
    let word = Arc::new(AtomicU64::new(start));
    let other = Arc::clone(&word);
    let thread = thread::spawn(move || change(&other, next));
    let mine = change(&word, next);
    (mine, thread.join().unwrap(), word.load(Relaxed))
}

/// As `standing`: half-open is 0, probing 1.
#[test]
#[should_panic(expected = "two probes")]
fn two_requests_probe() {
    loom::model(|| {
        let (mine, theirs, _) = both(0, |state| (state == 0).then_some(1));
        assert!(mine ^ theirs, "two probes");
    });
}

/// As `window` and `statistics`.
#[test]
#[should_panic(expected = "one is lost")]
fn a_count_is_lost() {
    loom::model(|| assert_eq!(both(0, |count| Some(count + 1)).2, 2, "one is lost"));
}

/// As `budget`: how many retries are left.
#[test]
#[should_panic(expected = "paid twice")]
fn a_budget_is_overdrawn() {
    loom::model(|| {
        let (mine, theirs, _) = both(1, |left| left.checked_sub(1));
        assert!(!(mine && theirs), "paid twice");
    });
}

/// As `peak_ewma`: one thread has seen 5 s, the other 2 ms.
#[test]
#[should_panic(expected = "the peak is lost")]
fn a_peak_is_lost() {
    loom::model(|| {
        let word = Arc::new(AtomicU64::new(1));
        let other = Arc::clone(&word);
        let thread = thread::spawn(move || change(&other, |value| Some(value.max(5_000))));
        change(&word, |value| Some(value.max(2)));
        thread.join().unwrap();
        assert_eq!(word.load(Relaxed), 5_000, "the peak is lost");
    });
}
