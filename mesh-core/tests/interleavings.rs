//! Every interleaving of the threads that share an endpoint's standing, the time of the next look and a window: loom runs
//! them all. The files are the crate's own, over loom's atomics.

#![allow(dead_code, missing_docs, unreachable_pub)]

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[path = "../src/cluster/next_return.rs"]
mod next_return;
#[path = "../src/health/standing.rs"]
mod standing;
#[path = "../src/window.rs"]
mod window;

use std::sync::Arc;

use atomic::{AtomicU64, Ordering};
use loom::thread;
use next_return::NextReturn;
use standing::{Claim, Standing, StandingCell};
use window::Window;

fn out(until: u64) -> Arc<StandingCell> {
    let cell = Arc::new(StandingCell::default());
    assert!(cell.trip(until));
    cell
}

/// Of two threads that find the same endpoint wanting, one ejects it.
#[test]
fn one_ejection_counts() {
    loom::model(|| {
        let cell = Arc::new(StandingCell::default());
        let other = Arc::clone(&cell);
        let thread = thread::spawn(move || other.trip(5));
        let mine = cell.trip(7);
        let theirs = thread.join().unwrap();
        assert!(mine ^ theirs);
        assert_eq!(cell.load(), Standing::Out { until: if mine { 7 } else { 5 } });
    });
}

/// A half-open breaker lets one request through, whoever looks and whoever claims.
#[test]
fn one_request_probes() {
    loom::model(|| {
        let cell = out(5);
        let claim = |cell: &StandingCell| {
            cell.half_open(9);
            cell.claim()
        };
        let other = Arc::clone(&cell);
        let thread = thread::spawn(move || claim(&other));
        let claims = [claim(&cell), thread.join().unwrap()];
        let probes = claims.iter().filter(|claim| matches!(claim, Claim::Probe(_))).count();
        assert_eq!(probes, 1, "{claims:?}");
        assert!(matches!(cell.load(), Standing::Probing { .. }));
    });
}

/// The probe's end, the look that finds it proven by its age, and an operator's letting in: the endpoint ends where one of
/// them put it, and a probe that was overtaken moves nothing.
#[test]
fn a_probe_ends_once() {
    loom::model(|| {
        let cell = out(5);
        assert!(cell.half_open(9));
        let Claim::Probe(probe) = cell.claim() else { panic!("nobody probes") };
        let (proven, let_in) = (Arc::clone(&cell), Arc::clone(&cell));
        let proven = thread::spawn(move || proven.pass(probe));
        let let_in = thread::spawn(move || let_in.let_in());
        let failed = cell.fail(probe, 20);
        let (proven, let_in) = (proven.join().unwrap(), let_in.join().unwrap());
        assert!(!(failed && proven), "both ended it");
        assert_eq!(cell.load() == Standing::Out { until: 20 }, failed && !let_in);
        assert!(!cell.give_back(probe), "it is over");
    });
}

/// A probe that is given up while others claim: never two at once, and never none for good.
#[test]
fn a_place_given_back_is_taken_by_one() {
    loom::model(|| {
        let cell = out(5);
        assert!(cell.half_open(9));
        let Claim::Probe(probe) = cell.claim() else { panic!("nobody probes") };
        let others: Vec<_> = (0..2)
            .map(|_| {
                let cell = Arc::clone(&cell);
                thread::spawn(move || cell.claim())
            })
            .collect();
        assert!(cell.give_back(probe));
        let taken = others.into_iter().map(|other| other.join().unwrap());
        let probes = taken.filter(|claim| matches!(claim, Claim::Probe(_))).count();
        assert!(probes <= 1);
        assert_eq!(cell.load() == Standing::HalfOpen, probes == 0);
    });
}

/// A probe that fails while somebody else settles the time of the next look: its end is not forgotten.
#[test]
fn no_end_is_overwritten() {
    loom::model(|| {
        let cell = out(5);
        assert!(cell.half_open(9));
        let Claim::Probe(probe) = cell.claim() else { panic!("nobody probes") };
        let next = Arc::new(NextReturn::default());
        let (other_cell, other_next) = (Arc::clone(&cell), Arc::clone(&next));
        let thread = thread::spawn(move || {
            assert!(other_cell.fail(probe, 20));
            other_next.by(20);
        });
        next.settle(|| match cell.latest() {
            Standing::Out { until } => Some(until),
            _ => None,
        });
        thread.join().unwrap();
        assert_eq!(next.get(), Some(20));
        assert_eq!((next.due(19), next.due(20)), (None, Some(20)));
    });
}

/// Whoever goes in or out while somebody else settles the time and then plans: the plan has seen it, or is made anew.
#[test]
fn no_change_is_neither_planned_nor_due() {
    loom::model(|| {
        let (change, next) = (Arc::new(AtomicU64::new(0)), Arc::new(NextReturn::default()));
        let threads: Vec<_> = [1, 2]
            .into_iter()
            .map(|own| {
                let (change, next) = (Arc::clone(&change), Arc::clone(&next));
                thread::spawn(move || {
                    change.fetch_add(own, Ordering::Relaxed);
                    next.now();
                })
            })
            .collect();
        next.settle(|| None);
        let planned = change.load(Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(planned == 3 || next.due(0).is_some(), "{planned}");
    });
}

/// Two count in a slot that a third round begins: what both counted is there.
#[test]
fn a_window_loses_nothing() {
    loom::model(|| {
        let window = Arc::new(Window::default());
        window.add(3);
        let other = Arc::clone(&window);
        // The same place in the ring, ten slots on.
        let thread = thread::spawn(move || other.add(13));
        window.add(13);
        thread.join().unwrap();
        assert_eq!(window.sum(13), 2);
    });
}
