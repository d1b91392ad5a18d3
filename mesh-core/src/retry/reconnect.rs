//! When to look again for an endpoint that was lost.
//!
//! Whoever loses a server loses it together with all of its other clients, and if they come back together they overrun
//! it. What they come back with is the rest of the wait that the server's return fell into. Full jitter, which draws every
//! wait anew, makes most of those rests short and a few very long: the crowd comes at the beginning, and the last client a
//! multiple of the outage later. So here each client draws once, how patient it is: its waits double from there, and from
//! any moment on the next attempts of all clients lie side by side, over no more than the time that the outage has lasted.

use std::time::Duration;

use crate::rng::Rng;

/// After a failed connect, requests fail at once for this long instead of trying again.
pub const FAIL_FAST: Duration = Duration::from_millis(50);

/// The least that a wait may be: never at once, or a server that hangs up on every connection would be dialled in a tight
/// loop.
const BASE: Duration = Duration::from_millis(25);
/// No wait is longer, however long it lasts.
const MAX: Duration = Duration::from_secs(5);

/// One client's waits for one endpoint, until it is back.
///
/// Drawn anew each time that the endpoint is lost, and kept until it is connected again. Waits begin at 25 to 50 ms, the
/// second is as long as the first, and then they double, to 2.5 to 5 s.
#[derive(Debug, Clone, Copy)]
pub struct Reconnects {
    /// In `1.0..2.0`. Even by its logarithm, so that what doubles covers every length alike.
    patience: f64,
}

impl Reconnects {
    /// Draws how patient the client is this time.
    pub fn new(rng: &Rng) -> Self {
        Self { patience: rng.unit().exp2() }
    }

    /// The wait after this many failures in a row.
    ///
    /// None after none, because the endpoint may have been there all along.
    #[must_use]
    pub fn wait(self, failures: u32) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        // The first two are alike, so that the time since the endpoint was lost doubles with each.
        let doubled = 1_u32.checked_shl(failures.saturating_sub(2)).unwrap_or(u32::MAX);
        BASE.saturating_mul(doubled).min(MAX / 2).mul_f64(self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::Backoff;

    type Waits = Box<dyn FnMut(u32) -> Duration>;

    /// A server is away for `away`. The greatest number of clients in a twentieth of the time until all have found it again,
    /// by the mean; and that time.
    fn crowd(away: Duration, client: impl Fn(Rng) -> Waits) -> (f64, Duration) {
        let all = Rng::seeded(7);
        let rests: Vec<_> = (0..2_000)
            .map(|_| {
                let (mut wait, mut at, mut failures) = (client(all.fork()), Duration::ZERO, 0);
                while at <= away {
                    failures += 1;
                    at += wait(failures);
                }
                at - away
            })
            .collect();
        let last = rests.iter().max().copied().unwrap();
        let mut counts = [0_u32; 20];
        for rest in &rests {
            counts[((rest.as_secs_f64() / last.as_secs_f64() * 20.0) as usize).min(19)] += 1;
        }
        (f64::from(counts.into_iter().max().unwrap()) * 20.0 / rests.len() as f64, last)
    }

    #[test]
    fn whenever_a_server_returns_its_clients_come_evenly_and_soon() {
        let full_jitter = Backoff { base: 2 * BASE, max: MAX };
        let mut crowded = 0;
        for away in [30, 70, 100, 150, 300, 500, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000, 60_000, 3_600_000] {
            let away = Duration::from_millis(away);
            let (ratio, last) = crowd(away, |rng| {
                let reconnects = Reconnects::new(&rng);
                Box::new(move |failures| reconnects.wait(failures))
            });
            assert!(ratio <= 2.5, "away {away:?}: {ratio:.1}");
            assert!(last <= away.min(MAX), "away {away:?}: {last:?}");
            let (ratio, last) = crowd(away, |rng| Box::new(move |failures| full_jitter.wait(failures - 1, &rng)));
            println!("away {away:?}: full jitter {ratio:.1}, {last:?}");
            crowded += usize::from(ratio > 3.0 && last > 2 * away);
        }
        assert!(crowded >= 7, "full jitter does as well: {crowded}");
    }
}
