use super::*;
use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

fn counts(all: &[(u64, u64)]) -> Vec<Count> {
    all.iter().map(|(available, total)| Count { available: *available, total: *total }).collect()
}

fn percents(loads: &[Load]) -> Vec<u32> {
    loads.iter().map(|load| load.percent).collect()
}

const NO: bool = false;
const YES: bool = true;

/// Available of total by priority, overprovisioning, the threshold of panic; the loads, and who is in panic.
type Priorities<'a> = (&'a [(u64, u64)], u32, u32, &'a [u32], &'a [bool]);

/// By Envoy's documentation and its formulas.
const PRIORITIES: [Priorities<'_>; 29] = [
    // "Priority levels": two levels, by the health of the first.
    (&[(100, 100), (100, 100)], 140, 50, &[100, 0], &[NO, NO]),
    (&[(72, 100), (72, 100)], 140, 50, &[100, 0], &[NO, NO]),
    (&[(71, 100), (71, 100)], 140, 50, &[99, 1], &[NO, NO]),
    (&[(50, 100), (50, 100)], 140, 50, &[70, 30], &[NO, NO]),
    (&[(25, 100), (100, 100)], 140, 50, &[35, 65], &[NO, NO]),
    (&[(25, 100), (25, 100)], 140, 50, &[50, 50], &[YES, YES]),
    (&[(0, 100), (100, 100)], 140, 50, &[0, 100], &[NO, NO]),
    // The sum of health is below 100: loads are scaled up, what rounding leaves goes to the first.
    (&[(20, 100), (20, 100), (10, 100)], 100, 0, &[40, 40, 20], &[NO, NO, NO]),
    (&[(10, 100), (10, 100), (10, 100)], 100, 0, &[34, 33, 33], &[NO, NO, NO]),
    (&[(0, 100), (1, 100), (2, 100)], 100, 0, &[0, 34, 66], &[NO, NO, NO]),
    // Some are in panic, not all: only those whose share is below the threshold.
    (&[(5, 100), (60, 100)], 100, 50, &[8, 92], &[YES, NO]),
    // The first is almost gone, but the second can take it all: no panic.
    (&[(1, 100), (72, 100)], 140, 50, &[1, 99], &[NO, NO]),
    // All in panic: by the number of endpoints, whatever is available.
    (&[(0, 30), (0, 10)], 140, 50, &[75, 25], &[YES, YES]),
    (&[(1, 10), (1, 10), (1, 10)], 140, 50, &[34, 33, 33], &[YES, YES, YES]),
    (&[(0, 0), (0, 10)], 140, 50, &[0, 100], &[YES, YES]),
    (&[(0, 0), (0, 1), (0, 2)], 140, 50, &[0, 34, 66], &[YES, YES, YES]),
    // The threshold itself is no panic.
    (&[(49, 100)], 140, 50, &[100], &[YES]),
    (&[(50, 100)], 140, 50, &[100], &[NO]),
    (&[(0, 1)], 140, 50, &[100], &[YES]),
    (&[(0, 1)], 140, 100, &[100], &[YES]),
    // 0 %: never, not even when nothing is left.
    (&[(0, 100)], 140, 0, &[0], &[NO]),
    (&[(1, 100)], 140, 0, &[100], &[NO]),
    // 100 %: one that is out is one too many, but only when the sum of health is below 100.
    (&[(99, 100)], 140, 100, &[100], &[NO]),
    (&[(60, 100)], 140, 100, &[100], &[YES]),
    (&[(99, 100)], 100, 100, &[100], &[YES]),
    // An empty priority is passed over.
    (&[(0, 0), (5, 100)], 140, 50, &[0, 100], &[YES, YES]),
    (&[(0, 0), (5, 100)], 140, 0, &[0, 100], &[NO, NO]),
    (&[(0, 0), (10, 10)], 140, 50, &[0, 100], &[NO, NO]),
    (&[], 140, 50, &[], &[]),
];

fn by_the_table(row: &Priorities<'_>, found: &[Load]) -> bool {
    let (_, _, _, loads, panics) = row;
    percents(found) == *loads && found.iter().map(|load| load.panic).eq(panics.iter().copied())
}

#[test]
fn priorities_and_panic_by_the_table() {
    for row in &PRIORITIES {
        let (given, overprovisioning, threshold, ..) = row;
        let found = priorities(&counts(given), *overprovisioning, *threshold);
        assert!(by_the_table(row, &found), "{row:?}: {found:?}");
    }
    println!("seen: {} rows of priorities and panic", PRIORITIES.len());
}

type Formula = fn(&Priorities<'_>) -> Vec<Load>;

/// The table tells apart what it is for: each other formula is wrong in some row.
#[test]
fn other_formulas_differ() {
    let others: [(&str, Formula); 5] = [
        ("overprovisioning 100 %", |(given, _, threshold, ..)| priorities(&counts(given), 100, *threshold)),
        ("overprovisioning 200 %", |(given, _, threshold, ..)| priorities(&counts(given), 200, *threshold)),
        ("panic from 49 % on", |(given, over, threshold, ..)| priorities(&counts(given), *over, (*threshold).min(49))),
        ("panic from 51 % on", |(given, over, threshold, ..)| priorities(&counts(given), *over, threshold + 1)),
        ("no panic", |(given, over, ..)| priorities(&counts(given), *over, 0)),
    ];
    for (name, other) in others {
        let wrong = PRIORITIES.iter().filter(|row| !by_the_table(row, &other(row))).count();
        println!("control: {name}: {wrong} rows differ");
        assert!(wrong > 0, "{name}");
    }
}

#[test]
fn localities_by_the_formula() {
    for (weight, available, total, overprovisioning, expected) in [
        (2, 10, 10, 140, 2.0),
        (2, 8, 10, 140, 2.0),
        (2, 5, 10, 140, 1.4),
        (3, 1, 10, 140, 0.42),
        (3, 5, 10, 100, 1.5),
        (1, 0, 10, 140, 0.0),
        (1, 0, 0, 140, 0.0),
    ] {
        let found = locality(weight, Count { available, total }, overprovisioning);
        assert!((found - expected).abs() < 1e-9, "{weight} {available}/{total}: {found}");
    }
}

/// Callers and endpoints by zone, the own first; after Envoy's documentation of zone-aware routing.
#[test]
fn zones_by_the_table() {
    type Row<'a> = (&'a [u64], &'a [u64], Option<&'a [f64]>);
    let table: &[Row<'_>] = &[
        (&[1, 1], &[1, 1], Some(&[1.0, 0.0])),
        (&[1, 1], &[2, 1], Some(&[1.0, 0.0])),
        // Half of the callers and a quarter of the endpoints: half stays, the rest goes where there is more.
        (&[1, 1], &[1, 3], Some(&[0.5, 0.5])),
        (&[2, 1, 1], &[1, 2, 1], Some(&[0.5, 0.5, 0.0])),
        (&[4, 1, 1], &[2, 2, 2], Some(&[0.5, 0.25, 0.25])),
        (&[0, 1], &[1, 1], None),
        (&[1, 1], &[0, 1], None),
        (&[0, 0], &[1, 1], None),
        (&[], &[], None),
    ];
    for (callers, available, expected) in table {
        let found = zones(callers, available);
        let near = |found: &[f64], expected: &[f64]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
        match (&found, expected) {
            (Some(found), Some(expected)) => assert!(near(found, expected), "{callers:?} {available:?}: {found:?}"),
            (found, expected) => assert_eq!(found.is_some(), expected.is_some(), "{callers:?} {available:?}"),
        }
    }
}

/// The same in one naive loop after another: give out a hundred requests, one by one.
fn naive(given: &[Count], overprovisioning: u32, threshold: u32) -> (Vec<u32>, Vec<bool>) {
    let health = |count: &Count| (overprovisioning as u64 * count.available).checked_div(count.total).unwrap_or(0);
    let health: Vec<u64> = given.iter().map(|count| health(count).min(100)).collect();
    let sum: u64 = health.iter().sum();
    let short = |count: &Count| {
        let percent = if count.total == 0 { 0.0 } else { 100.0 * count.available as f64 / count.total as f64 };
        percent < f64::from(threshold)
    };
    let mut loads = vec![0; given.len()];
    let panics: Vec<bool> = given.iter().map(|count| sum < 100 && short(count)).collect();
    let (wish, first): (Vec<u64>, usize) = if panics.iter().all(|panic| *panic) {
        let total: u64 = given.iter().map(|count| count.total).sum();
        let wish = given.iter().map(|count| (100 * count.total).checked_div(total).unwrap_or(0)).collect();
        (wish, given.iter().position(|count| count.total > 0).unwrap_or(0))
    } else if sum == 0 {
        return (loads, panics);
    } else {
        let wish = health.iter().map(|health| health * 100 / sum.min(100)).collect();
        (wish, health.iter().position(|health| *health > 0).unwrap())
    };
    let mut left = 100;
    for (load, wish) in loads.iter_mut().zip(wish) {
        while left > 0 && u64::from(*load) < wish {
            *load += 1;
            left -= 1;
        }
    }
    loads[first] += left;
    (loads, panics)
}

proptest! {
    #[test]
    fn priorities_are_those_of_the_naive_model(
        given in proptest::collection::vec((0..40_u64, 0..40_u64), 1..6),
        overprovisioning in 100..300_u32,
        threshold in 0..=100_u32,
    ) {
        let given: Vec<Count> = given.iter().map(|(a, b)| Count { available: *a.min(b), total: *a.max(b) }).collect();
        let found = priorities(&given, overprovisioning, threshold);
        let (loads, panics) = naive(&given, overprovisioning, threshold);
        prop_assert_eq!(percents(&found), loads);
        prop_assert_eq!(found.iter().map(|load| load.panic).collect::<Vec<_>>(), panics);
        let sum: u32 = found.iter().map(|load| load.percent).sum();
        prop_assert!(sum == 100 || (sum == 0 && threshold == 0));
        for (load, count) in found.iter().zip(&given) {
            prop_assert!(load.panic || load.percent == 0 || count.available > 0, "load without endpoints");
        }
    }

    #[test]
    fn zones_never_ask_more_of_a_zone_than_its_share(
        given in proptest::collection::vec((1..30_u64, 1..30_u64), 2..6),
    ) {
        let (callers, available): (Vec<u64>, Vec<u64>) = given.into_iter().unzip();
        // Each zone's callers spread by the rule; together they give each zone its share of endpoints.
        let (all_callers, all_available) = (callers.iter().sum::<u64>() as f64, available.iter().sum::<u64>() as f64);
        let mut received = vec![0.0; callers.len()];
        for own in 0..callers.len() {
            let order: Vec<usize> = std::iter::once(own).chain((0..callers.len()).filter(|zone| *zone != own)).collect();
            let by = |counts: &[u64]| order.iter().map(|zone| counts[*zone]).collect::<Vec<u64>>();
            let shares = zones(&by(&callers), &by(&available)).unwrap();
            prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            for (zone, share) in order.iter().zip(shares) {
                received[*zone] += share * callers[own] as f64 / all_callers;
            }
        }
        for (received, available) in received.iter().zip(&available) {
            prop_assert!((received - *available as f64 / all_available).abs() < 1e-9, "every endpoint gets the same");
        }
    }
}
