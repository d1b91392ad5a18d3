//! The budget against a model, and from several threads. (`tests/interleavings.rs` includes its file, so they are not in it.)

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::budget::RetryBudget;
use crate::config::BudgetConfig;
use crate::window::SLOTS;

/// The same rule with lists of slot numbers.
#[derive(Default)]
struct Model {
    deposits: Vec<u64>,
    withdrawals: Vec<u64>,
}

impl Model {
    fn withdraw(&mut self, ratio_percent: u64, floor: u64, number: u64) -> bool {
        let count = |list: &[u64]| list.iter().filter(|n| number - **n < SLOTS as u64).count() as u64;
        let granted = (count(&self.withdrawals) + 1) * 100 <= ratio_percent * count(&self.deposits) + floor * 100;
        if granted {
            self.withdrawals.push(number);
        }
        granted
    }
}

proptest! {
    #[test]
    fn grants_exactly_what_the_model_grants(
        ratio_percent in prop_oneof![Just(0_u64), Just(20), Just(29), Just(70), Just(250), 0_u64..1000],
        min_per_second in 0..3_u32,
        steps in proptest::collection::vec((any::<bool>(), prop_oneof![4 => 0_u64..30, 1 => 0_u64..30_000]), 1..300),
    ) {
        let window = Duration::from_secs(10);
        let config = BudgetConfig { ratio: ratio_percent as f64 / 100.0, min_per_second, window };
        let start = Instant::now();
        let (budget, mut model) = (RetryBudget::new(config, start), Model::default());
        let mut elapsed = 0;
        for (deposit, millis) in steps {
            elapsed += millis;
            let now = start + Duration::from_millis(elapsed);
            if deposit {
                budget.deposit(now);
                model.deposits.push(elapsed / 1000);
            } else {
                let left = budget.state(now).left;
                let expected = model.withdraw(ratio_percent, u64::from(min_per_second) * 10, elapsed / 1000);
                prop_assert_eq!(left > 0, expected);
                prop_assert_eq!(budget.withdraw(now), expected, "at {} ms", elapsed);
            }
        }
    }
}

#[test]
fn threads_together_get_no_more_than_one_alone() {
    let now = Instant::now();
    let config = BudgetConfig { ratio: 0.7, min_per_second: 0, window: Duration::from_secs(10) };
    let budget = RetryBudget::new(config, now);
    let granted = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1_000).for_each(|_| budget.deposit(now)));
        }
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mine = (0..2_000).filter(|_| budget.withdraw(now)).count();
                granted.fetch_add(mine as u32, Relaxed);
            });
        }
    });
    assert_eq!(granted.into_inner(), 2_800);
}

#[test]
fn a_clock_that_lags_behind_another_thread_loses_nothing() {
    let start = Instant::now();
    let config = BudgetConfig { ratio: 1.0, min_per_second: 0, window: Duration::from_secs(10) };
    let budget = RetryBudget::new(config, start);
    let ahead = start + Duration::from_millis(10_000);
    budget.deposit(ahead);
    budget.deposit(start + Duration::from_millis(9_999));
    budget.deposit(start + Duration::from_millis(500));
    assert!((0..3).all(|_| budget.withdraw(ahead)));
    assert!(!budget.withdraw(ahead));
}
