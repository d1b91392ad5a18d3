use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{BreakerConfig, ClusterConfig, OutlierConfig, PlugConfig, SuccessRateConfig};
use crate::rng::Rng;
use crate::telemetry::EjectReason::{self, ConsecutiveFailures, FailurePercentage, SuccessRate, Timeouts};
use crate::telemetry::EjectReason::{ProbeFailed, WindowSuccessRate};

const FAILURE: Outcome = Outcome::Failure { retry_after: None };

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn config(outlier: OutlierConfig, breaker: Option<BreakerConfig>) -> ClusterConfig {
    let discover = PlugConfig::new("static", &serde_json::json!([]));
    ClusterConfig { outlier, breaker, ..ClusterConfig::new(discover, Vec::new()) }
}

fn exact() -> OutlierConfig {
    OutlierConfig { ejection_jitter: 0.0, ..OutlierConfig::default() }
}

fn breaker() -> BreakerConfig {
    BreakerConfig { jitter: 0.0, ..BreakerConfig::default() }
}

#[test]
fn trips_on_failures_in_a_row_and_sooner_on_silence() {
    use Outcome::{Cancelled, Success, Timeout, Unreachable};
    let cases: &[(&[Outcome], Option<EjectReason>)] = &[
        (&[FAILURE, FAILURE, FAILURE, FAILURE], None),
        (&[FAILURE, FAILURE, Unreachable, Timeout, FAILURE], Some(ConsecutiveFailures)),
        (&[FAILURE, FAILURE, FAILURE, FAILURE, Success, FAILURE], None),
        (&[FAILURE, FAILURE, FAILURE, FAILURE, Cancelled, FAILURE], Some(ConsecutiveFailures)),
        (&[Timeout], None),
        (&[Timeout, Timeout], Some(Timeouts)),
        (&[Timeout, Cancelled, Timeout], Some(Timeouts)),
        (&[Timeout, Success, Timeout], None),
        (&[Timeout, FAILURE, Timeout], None),
    ];
    for (outcomes, expected) in cases {
        let trip = |consecutive_failures, silent| {
            let detector = OutlierDetector::default();
            let rules = Rules::of(&config(OutlierConfig { consecutive_failures, ..exact() }, None));
            outcomes.iter().filter_map(|outcome| detector.observe(*outcome, silent, 0, &rules)).last()
        };
        assert_eq!(trip(5, false), *expected, "{outcomes:?}");
        assert_eq!(trip(0, true), None, "0 switches it off");
    }
}

#[test]
fn ejections_grow_are_bounded_and_are_forgiven() {
    let absence =
        Absence::of(&config(OutlierConfig { base_ejection: secs(30), max_ejection: secs(100), ..exact() }, None));
    let (detector, rng) = (OutlierDetector::default(), Rng::seeded(1));
    let rules = Rules::of(&config(exact(), None));
    let eject = |now| detector.eject(FailurePercentage, now, &absence, &rng);
    let mut now = 1_000;
    for expected in [30, 60, 90, 100, 100] {
        assert_eq!(eject(now), Some(secs(expected)));
        assert_eq!((eject(now), detector.reason()), (None, Some(FailurePercentage)), "out already");
        assert_eq!(detector.observe(FAILURE, false, now, &rules), None, "out: not counted");
        now += expected * 1000;
        assert_eq!(detector.look(now - 1, &absence), None);
        assert_eq!((detector.look(now, &absence), detector.look(now, &absence)), (Some(Return::LetIn), None), "once");
        assert_eq!(detector.reason(), None);
        now += 1_000;
    }
    // Five ejections; four healthy intervals take off four.
    assert_eq!(eject(now + 4 * 30_000), Some(secs(60)));
}

/// Whoever comes back has failed at nothing yet: what failed before keeps no other in.
#[test]
fn who_returns_fails_like_nobody() {
    let settings = config(OutlierConfig::default(), None);
    let (absence, rules, rng) = (Absence::of(&settings), Rules::of(&settings), Rng::seeded(1));
    let (detector, other) = (OutlierDetector::default(), OutlierDetector::default());
    for _ in 0..3 {
        detector.observe(FAILURE, false, 0, &rules);
    }
    assert!(detector.fails_like(&other));
    let out = detector.eject(ConsecutiveFailures, 0, &absence, &rng).unwrap();
    assert_eq!(detector.look(out.as_millis() as u64 + 1, &absence), Some(Return::LetIn));
    assert!(!detector.fails_like(&other));
}

#[test]
fn a_breaker_opens_for_twice_as_long_until_it_has_stayed_closed_for_as_long() {
    let absence = Absence::of(&config(exact(), Some(breaker())));
    let (detector, rng) = (OutlierDetector::default(), Rng::seeded(1));
    assert_eq!(detector.eject(WindowSuccessRate, 0, &absence, &rng), Some(secs(1)));
    let mut now = 0;
    for (last, next) in [(1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 60), (60, 60)] {
        now += last * 1000;
        assert_eq!(detector.look(now - 1, &absence), None);
        assert_eq!(detector.look(now, &absence), Some(Return::HalfOpen));
        let Claim::Probe(probe) = detector.claim() else { panic!("nobody probes") };
        assert_eq!(detector.claim(), Claim::Taken, "one request, not two");
        let until = now + next * 1000;
        assert_eq!(detector.probe_failed(probe, now, &absence, &rng), Some((secs(next), until)));
        assert_eq!(detector.reason(), Some(ProbeFailed));
    }
    now += 60_000;
    detector.look(now, &absence);
    let Claim::Probe(probe) = detector.claim() else { panic!("nobody probes") };
    assert!(detector.passed(probe, now) && !detector.passed(probe, now));
    assert_eq!((detector.claim(), detector.standing()), (Claim::Ordinary, Standing::In));
    // Eight times out; staying in for 2 x 60 s takes off two, so this is the seventh: 64 s, cut to 60.
    assert_eq!(detector.eject(WindowSuccessRate, now + 120_000, &absence, &rng), Some(secs(60)));
    assert_eq!(detector.ejections(), 7);
}

#[test]
fn a_breaker_that_opens_again_within_its_window_opens_for_longer() {
    let absence = Absence::of(&config(exact(), Some(breaker())));
    let (detector, rng) = (OutlierDetector::default(), Rng::seeded(1));
    let mut now = 0;
    // Up for 3 s each time, thrice as long as it was out at first; then for a window.
    for (up, expected) in [(0, 1), (3_000, 2), (3_000, 4), (3_000, 8), (10_000, 8), (20_000, 4)] {
        now += up;
        assert_eq!(detector.eject(Timeouts, now, &absence, &rng), Some(secs(expected)), "after {up} ms");
        now += expected * 1_000;
        detector.look(now, &absence);
        let Claim::Probe(probe) = detector.claim() else { panic!("nobody probes") };
        assert!(detector.passed(probe, now));
    }
}

#[test]
fn jitter_only_lengthens_and_a_breaker_stays_below_its_maximum() {
    let rng = Rng::seeded(3);
    let durations = |config: &ClusterConfig, n| {
        let absence = Absence::of(config);
        let all: Vec<f64> = (0..1_000).map(|_| absence.duration(n, &rng).as_secs_f64()).collect();
        let (least, most) = (all.iter().copied().fold(f64::MAX, f64::min), all.iter().copied().fold(0.0, f64::max));
        (least, most)
    };
    let timed = config(OutlierConfig { ejection_jitter: 0.5, ..OutlierConfig::default() }, None);
    let (least, most) = durations(&timed, 2);
    assert!((60.0..61.0).contains(&least) && (89.0..90.0).contains(&most), "{least} {most}");
    let probed = config(OutlierConfig::default(), Some(BreakerConfig::default()));
    let (least, most) = durations(&probed, 3);
    assert!((4.0..4.1).contains(&least) && (5.9..6.0).contains(&most), "{least} {most}");
    assert_eq!(durations(&probed, 90), (60.0, 60.0));
}

#[test]
fn a_transport_that_finds_it_again_ends_a_first_ejection_for_silence_only() {
    let two = |breaker: Option<BreakerConfig>| {
        let breaker = breaker.map(|own| BreakerConfig { consecutive_failures: 2, ..own });
        config(OutlierConfig { consecutive_failures: 2, ..exact() }, breaker)
    };
    let rng = Rng::seeded(1);
    for (config, back) in [(two(None), Return::LetIn), (two(Some(breaker())), Return::HalfOpen)] {
        let (rules, absence) = (Rules::of(&config), Absence::of(&config));
        let eject = |detector: &OutlierDetector, outcomes: [Outcome; 2]| {
            let reason = outcomes.map(|outcome| detector.observe(outcome, false, 1_000, &rules))[1].unwrap();
            detector.eject(reason, 1_000, &absence, &rng);
        };
        for (outcomes, lifted) in
            [([Outcome::Unreachable; 2], true), ([Outcome::Timeout; 2], true), ([Outcome::Unreachable, FAILURE], false)]
        {
            let detector = OutlierDetector::default();
            eject(&detector, outcomes);
            assert_eq!(detector.returned(1_500, &absence), lifted.then_some(back), "{outcomes:?}");
        }
        let compared = OutlierDetector::default();
        compared.eject(SuccessRate, 1_000, &absence, &rng);
        assert_eq!(compared.returned(1_500, &absence), None, "it answered, and badly");
        let flapping = OutlierDetector::default();
        eject(&flapping, [Outcome::Unreachable; 2]);
        assert_eq!(flapping.returned(1_100, &absence), Some(back));
        flapping.let_in(1_100);
        eject(&flapping, [Outcome::Unreachable; 2]);
        assert_eq!(flapping.returned(1_200, &absence), None, "the second time it has to wait");
    }
}

#[test]
fn the_share_is_tested_after_the_ejection() {
    let most = |total: usize, percent: u32| (0..total).take_while(|out| may_eject(*out, total, percent)).count();
    for (total, percent, expected) in [
        (1, 50, 0),
        (2, 50, 1),
        (3, 50, 1),
        (4, 50, 2),
        (3, 67, 2), // where gRPC ejects three
        (3, 100, 3),
        (1, 100, 1),
        (5, 10, 0),
        (5, 0, 0),
    ] {
        assert_eq!(most(total, percent), expected, "{percent} % of {total}");
    }
}

fn counts(requests: u32, failures: u32) -> Counts {
    Counts { requests, failures }
}

/// k dead of N, the rest well: found by success rate exactly if N > 4.61 k.
#[test]
fn the_dead_are_found_by_success_rate_while_they_are_few() {
    let mut thresholds = Vec::new();
    for dead in 1..=6_usize {
        let found = |total: usize| {
            let all: Vec<_> = (0..total).map(|n| counts(100, if n < dead { 100 } else { 0 })).collect();
            let mut config = exact();
            config.failure_percentage.threshold = 0;
            outliers(&all, &config) == (0..dead).map(|n| (n, SuccessRate)).collect::<Vec<_>>()
        };
        for total in dead + 1..60 {
            assert_eq!(found(total), total >= 5 && total as f64 > 4.61 * dead as f64, "{dead} of {total}");
        }
        thresholds.extend((1..60).find(|total| found(*total)));
    }
    assert_eq!(thresholds, [5, 10, 14, 19, 24, 28]);
}

/// What nobody compares is not counted either.
#[test]
fn endpoints_are_compared_if_a_rule_needs_it() {
    for (stdev_factor, threshold, expected) in [(1.9, 85, true), (1.9, 0, true), (0.0, 1, true), (0.0, 0, false)] {
        let mut outlier = exact();
        (outlier.success_rate.stdev_factor, outlier.failure_percentage.threshold) = (stdev_factor, threshold);
        let config = config(outlier, None);
        let (detector, rules) = (OutlierDetector::default(), Rules::of(&config));
        for outcome in [Outcome::Success, FAILURE, Outcome::Cancelled, Outcome::Timeout] {
            detector.observe(outcome, false, 0, &rules);
        }
        let counted = if expected { counts(3, 2) } else { Counts::default() };
        assert_eq!((compares(&config), detector.take_counts()), (expected, counted), "{stdev_factor} {threshold}");
        assert_eq!(detector.take_counts(), Counts::default(), "once");
    }
}

#[test]
fn outliers_by_table() {
    let off = SuccessRateConfig { stdev_factor: 0.0, ..SuccessRateConfig::default() };
    let only_percentage = OutlierConfig { success_rate: off, ..exact() };
    let well = |n: usize| vec![counts(1_000, 10); n];
    let with = |mut all: Vec<Counts>, more: &[Counts]| {
        all.extend_from_slice(more);
        all
    };
    type Case = (&'static str, OutlierConfig, Vec<Counts>, Vec<(usize, EjectReason)>);
    let cases: [Case; 10] = [
        ("all alike", exact(), well(10), vec![]),
        ("one much worse", exact(), with(well(9), &[counts(1_000, 300)]), vec![(9, SuccessRate)]),
        ("one a little worse, and not by chance", exact(), with(well(9), &[counts(1_000, 60)]), vec![(9, SuccessRate)]),
        ("one worse by chance", exact(), with(well(9), &[counts(1_000, 18)]), vec![]),
        ("too few hosts", exact(), with(well(3), &[counts(1_000, 800)]), vec![]),
        ("too few requests to compare", exact(), with(well(9), &[counts(99, 60)]), vec![]),
        ("enough to be judged", exact(), with(well(9), &[counts(50, 43)]), vec![(9, FailurePercentage)]),
        ("85 of 100 suffice", only_percentage, with(well(4), &[counts(100, 85)]), vec![(4, FailurePercentage)]),
        ("84 do not", only_percentage, with(well(4), &[counts(100, 84)]), vec![]),
        (
            "the worst first, the first rule's name",
            exact(),
            with(well(14), &[counts(100, 90), counts(100, 100)]),
            vec![(15, SuccessRate), (14, SuccessRate)],
        ),
    ];
    for (name, config, all, expected) in cases {
        assert_eq!(outliers(&all, &config), expected, "{name}");
    }
}

/// Ten endpoints that are all alike, 1,000 intervals: the reference's rule ejects many, and ours nobody.
#[test]
fn chance_ejects_nobody() {
    let rng = Rng::seeded(11);
    let mut found = [0; 2];
    for _ in 0..1_000 {
        let sick = |_| (0..300).filter(|_| rng.unit() < 0.02).count() as u32;
        let all: Vec<_> = (0..10).map(|n| counts(300, sick(n))).collect();
        for (found, significance) in found.iter_mut().zip([0.0, SuccessRateConfig::default().significance]) {
            let success_rate = SuccessRateConfig { significance, ..SuccessRateConfig::default() };
            *found += outliers(&all, &OutlierConfig { success_rate, ..exact() }).len();
        }
    }
    assert!(found[0] > 200, "the control arm has to show the danger: {found:?}");
    assert!(found[1] < 20, "{found:?}");
}

proptest! {
    /// Envoy's rules, written down once more in per cent and by the formula for a sample.
    #[test]
    fn outliers_are_those_of_a_naive_model(
        all in proptest::collection::vec((0..400_u32, 0..=100_u32), 0..30),
        stdev_factor in prop_oneof![Just(1.9), 0.1..3.0_f64],
        threshold in 1..=100_u32,
    ) {
        let mut config = exact();
        config.success_rate = SuccessRateConfig { stdev_factor, significance: 0.0, ..config.success_rate };
        config.failure_percentage.threshold = threshold;
        let all: Vec<_> = all.iter().map(|(requests, percent)| counts(*requests, requests * percent / 100)).collect();
        let rate = |c: &Counts| f64::from(c.requests - c.failures) * 100.0 / f64::from(c.requests);
        let of = |least: u32| all.iter().filter(|c| c.requests >= least).map(rate).collect::<Vec<_>>();
        let (compared, judged) = (of(100), of(50));
        let mean = compared.iter().sum::<f64>() / compared.len() as f64;
        let squares = compared.iter().map(|rate| rate * rate).sum::<f64>() / compared.len() as f64;
        let line = mean - stdev_factor * (squares - mean * mean).max(0.0).sqrt();
        let found = outliers(&all, &config);
        for (index, c) in all.iter().enumerate() {
            let reason = found.iter().find(|(found, _)| *found == index).map(|(_, reason)| *reason);
            let close = (rate(c) - line).abs() < 1e-4; // two formulas may round to different sides
            let by_rate = compared.len() >= 5 && c.requests >= 100 && rate(c) < line;
            let by_share =
                judged.len() >= 5 && c.requests >= 50 && c.failures * 100 >= threshold * c.requests;
            if !close {
                let expected = if by_rate { Some(SuccessRate) } else { by_share.then_some(FailurePercentage) };
                prop_assert_eq!(reason, expected, "{:?} {} line {}", c, rate(c), line);
            }
        }
        let rates: Vec<_> = found.iter().map(|(index, _)| rate(&all[*index])).collect();
        prop_assert!(rates.windows(2).all(|pair| pair[0] <= pair[1] + 1e-9), "the worst first: {:?}", rates);
    }

    /// The window by lists of times. A weighted average could not pass.
    #[test]
    fn a_breaker_trips_exactly_when_the_window_says_so(
        steps in proptest::collection::vec((0..4_u8, prop_oneof![4 => 0..2_000_u64, 1 => 0..40_000_u64]), 1..200),
        percent in 1..=100_u64,
    ) {
        let own = BreakerConfig { consecutive_failures: 0, success_rate: percent as f64 / 100.0, ..breaker() };
        let rules = Rules::of(&config(exact(), Some(own)));
        let (detector, mut now, mut model) = (OutlierDetector::default(), 0, Vec::new());
        for (kind, wait) in steps {
            now += wait;
            let outcome = [Outcome::Success, FAILURE, Outcome::Unreachable, Outcome::Cancelled][usize::from(kind)];
            let tripped = detector.observe(outcome, false, now, &rules);
            if outcome != Outcome::Cancelled {
                model.push((now / 1_000, outcome.speaks_against()));
            }
            let recent: Vec<_> = model.iter().filter(|(slot, _)| now / 1_000 - slot < 10).collect();
            let (all, failed) = (recent.len() as u64, recent.iter().filter(|(_, failed)| *failed).count() as u64);
            let expected = outcome.speaks_against() && all >= 5 && (all - failed) * 100 < percent * all;
            prop_assert_eq!(tripped, expected.then_some(WindowSuccessRate), "{} of {} at {}", failed, all, now);
        }
    }

    /// Every order of events against a model that knows only the diagram.
    #[test]
    fn a_breaker_goes_where_its_diagram_says(
        events in proptest::collection::vec((0..7_u8, 0..3_000_u64), 1..120),
    ) {
        let absence = Absence::of(&config(exact(), Some(breaker())));
        let (detector, rng) = (OutlierDetector::default(), Rng::seeded(5));
        let (mut state, mut now, mut held) = (Standing::In, 0, Vec::new());
        for (event, wait) in events {
            now += wait;
            let probe = held.last().copied();
            match (event, probe) {
                (0, _) => {
                    let ejected = detector.eject(ConsecutiveFailures, now, &absence, &rng);
                    prop_assert_eq!(ejected.is_some(), state == Standing::In);
                    if let Some(duration) = ejected {
                        state = Standing::Out { until: (now + duration.as_millis() as u64).max(1) };
                    }
                }
                (1, _) => {
                    let due = matches!(state, Standing::Out { until } if until <= now);
                    prop_assert_eq!(detector.look(now, &absence), due.then_some(Return::HalfOpen));
                    if due {
                        state = Standing::HalfOpen;
                    }
                }
                (2, _) => match (detector.claim(), state) {
                    (Claim::Probe(probe), Standing::HalfOpen) => {
                        state = Standing::Probing { probe };
                        held.push(probe);
                    }
                    (Claim::Taken, Standing::Probing { .. }) => {}
                    (Claim::Ordinary, Standing::In | Standing::Out { .. }) => {}
                    wrong => prop_assert!(false, "{:?}", wrong),
                },
                // A probe that events have overtaken changes nothing.
                (3, Some(probe)) => {
                    let counts = state == Standing::Probing { probe };
                    prop_assert_eq!(detector.passed(probe, now), counts);
                    if counts { state = Standing::In; }
                }
                (4, Some(probe)) => {
                    let counts = state == Standing::Probing { probe };
                    let failed = detector.probe_failed(probe, now, &absence, &rng);
                    prop_assert_eq!(failed.is_some(), counts);
                    if let Some((_, until)) = failed { state = Standing::Out { until }; }
                }
                (5, Some(probe)) => {
                    let counts = state == Standing::Probing { probe };
                    prop_assert_eq!(detector.give_back(probe), counts);
                    if counts { state = Standing::HalfOpen; }
                }
                (6, _) => {
                    if !held.is_empty() {
                        held.rotate_left(1);
                    }
                    continue;
                }
                _ => continue,
            }
            prop_assert_eq!(detector.standing(), state);
        }
    }
}
