//! Every interleaving of the threads that share an endpoint's standing, its latency and what was counted of it, the time of
//! the next look, and a budget: loom runs them all. The files are the crate's own, over loom's atomics.
//!
//! [`naive`] has the same without compare-and-swap: each model finds what is wrong with that.

#![allow(dead_code, missing_docs, unreachable_pub)]

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

mod config {
    pub(crate) use mesh_core::config::{BudgetConfig, OutlierConfig};
}
mod telemetry {
    pub(crate) use mesh_core::telemetry::EjectReason;
}

#[path = "../src/retry/budget.rs"]
mod budget;
#[path = "interleavings/naive.rs"]
mod naive;
#[path = "../src/cluster/next_return.rs"]
mod next_return;
#[path = "../src/balance/peak_ewma.rs"]
mod peak_ewma;
#[path = "../src/health/standing.rs"]
mod standing;
#[path = "../src/health/statistics.rs"]
mod statistics;
#[path = "../src/window.rs"]
mod window;

use std::sync::Arc;

use std::time::Duration;

use atomic::{AtomicU64, Ordering};
use budget::RetryBudget;
use config::BudgetConfig;
use loom::thread;
use next_return::NextReturn;
use peak_ewma::{Decay, PeakEwma, Tick};
use standing::{Claim, Standing, StandingCell};
use statistics::{Counts, Tally};
use tokio::time::Instant;
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

/// Two retries want the one that the budget has, while a request pays in: nobody is paid with what is not there, and what
/// was paid in is not lost.
#[test]
fn a_budget_is_not_overdrawn() {
    // Outside of the model: time is the same in every run of it.
    let now = Instant::now();
    loom::model(move || {
        let config = BudgetConfig::default().ratio(1.0).min_per_second(0).window(Duration::from_secs(10));
        let budget = Arc::new(RetryBudget::new(config, now));
        budget.deposit(now);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let budget = Arc::clone(&budget);
                thread::spawn(move || budget.withdraw(now))
            })
            .collect();
        let granted = threads.into_iter().map(|thread| thread.join().unwrap());
        assert_eq!(granted.filter(|granted| *granted).count(), 1);
        budget.deposit(now);
        assert!(budget.withdraw(now) && !budget.withdraw(now));
    });
}

/// A request pays in while a retry is asked for: it is granted or not, and then there is one left or not.
#[test]
fn a_deposit_counts_once() {
    let now = Instant::now();
    loom::model(move || {
        let config = BudgetConfig::default().ratio(1.0).min_per_second(0).window(Duration::from_secs(10));
        let budget = Arc::new(RetryBudget::new(config, now));
        let other = Arc::clone(&budget);
        let thread = thread::spawn(move || other.deposit(now));
        let granted = budget.withdraw(now);
        thread.join().unwrap();
        assert_eq!(budget.withdraw(now), !granted);
    });
}

/// Two answers come at once, one of them late: the estimate is the slower one's.
#[test]
fn no_peak_is_lost() {
    loom::model(|| {
        let decay = Decay::new(Duration::from_secs(10));
        let ewma = Arc::new(PeakEwma::new(Duration::from_millis(1), Tick::of_millis(0)));
        let other = Arc::clone(&ewma);
        let peak = thread::spawn(move || other.record(Duration::from_secs(5), Tick::of_millis(7), decay));
        ewma.record(Duration::from_millis(2), Tick::of_millis(7), decay);
        peak.join().unwrap();
        assert!(ewma.seconds(Tick::of_millis(7), decay) > 4.9);
        assert!(ewma.changed_since(Tick::of_millis(0)));
    });
}

/// An interval ends while two attempts are counted: each is in this one or in the next, and in one alone.
#[test]
fn an_attempt_is_counted_in_one_interval() {
    loom::model(|| {
        let tally = Arc::new(Tally::default());
        let threads: Vec<_> = [true, false]
            .into_iter()
            .map(|failed| {
                let tally = Arc::clone(&tally);
                thread::spawn(move || tally.record(failed))
            })
            .collect();
        let first = tally.take();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let second = tally.take();
        let sum = (first.requests + second.requests, first.failures + second.failures);
        assert_eq!(sum, (2, 1), "{first:?} {second:?}");
    });
}

/// What broke with its connections is forgotten while others are counted: never fewer than none.
#[test]
fn what_is_forgotten_was_there() {
    loom::model(|| {
        let tally = Arc::new(Tally::default());
        tally.record(true);
        let (taking, counting) = (Arc::clone(&tally), Arc::clone(&tally));
        let taken = thread::spawn(move || taking.take());
        let counted = thread::spawn(move || counting.record(false));
        tally.forget(1);
        let (first, second) = (taken.join().unwrap(), {
            counted.join().unwrap();
            tally.take()
        });
        let all = first.requests + second.requests;
        assert!((1..=2).contains(&all) && first.failures + second.failures <= 1, "{first:?} {second:?}");
        assert!(second.failures <= second.requests && second != Counts { requests: 0, failures: 1 });
    });
}
