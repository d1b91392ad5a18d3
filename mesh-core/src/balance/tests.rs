//! The peak EWMA by its formula, and from several threads. (`tests/interleavings.rs` includes its file, so they are not in
//! it.)

use std::time::Duration;

use super::{Decay, PeakEwma, Tick};

const TAU: Duration = Duration::from_secs(10);

fn tick(millis: u32) -> Tick {
    Tick::of_millis(millis.into())
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn near(actual: f32, expected: f32) -> bool {
    (actual - expected).abs() <= expected * 1e-3
}

#[test]
fn jumps_up_at_once_and_comes_down_slowly() {
    let decay = Decay::new(TAU);
    let ewma = PeakEwma::new(ms(30), tick(0));
    assert!(near(ewma.seconds(tick(0), decay), 0.030));
    assert!(near(ewma.seconds(tick(10_000), decay), 0.030 / std::f32::consts::E), "idle time decays");
    ewma.record(ms(500), tick(0), decay);
    assert!(near(ewma.seconds(tick(0), decay), 0.5), "a peak counts at once");
    ewma.record(ms(10), tick(10_000), decay);
    let weight = 1.0 / std::f32::consts::E;
    assert!(near(ewma.seconds(tick(10_000), decay), 0.5 * weight + 0.010 * (1.0 - weight)));
}

#[test]
fn a_lower_bound_never_lowers_and_an_older_clock_never_turns_time_back() {
    let decay = Decay::new(TAU);
    let ewma = PeakEwma::new(ms(100), tick(5_000));
    ewma.record_at_least(ms(1), tick(5_000), decay);
    assert!(near(ewma.seconds(tick(5_000), decay), 0.1));
    ewma.record_at_least(ms(300), tick(4_000), decay);
    assert!(near(ewma.seconds(tick(5_000), decay), 0.3));
    ewma.record(ms(1), tick(1_000), decay);
    assert!(near(ewma.seconds(tick(5_000), decay), 0.3), "no time passed, so no decay");
    let wrapped = PeakEwma::new(ms(100), tick(u32::MAX - 4_999));
    assert!(near(wrapped.seconds(tick(5_000), decay), 0.1 / std::f32::consts::E), "the tick wraps");
}

#[test]
fn no_concurrent_peak_is_lost() {
    let decay = Decay::new(TAU);
    let ewma = PeakEwma::new(ms(1), tick(0));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let ewma = &ewma;
            scope.spawn(move || {
                for n in 0..5_000 {
                    ewma.record(ms((n * 4 + thread) % 20_000), tick(0), decay);
                }
            });
        }
    });
    assert!(near(ewma.seconds(tick(0), decay), 19.999));
}
