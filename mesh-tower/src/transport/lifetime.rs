//! When a connection must end, and how: pure arithmetic over the times it is given.
//!
//! ```text
//!            idle, max_age, certificate near its end, policy removed, stopping
//!   Open ---------------------------------------------------------------------> Draining
//!     |                                                                            |
//!     | no request head in time, certificate expired, distrusted                   | drain_timeout, certificate expired,
//!     +-----------------------------------> Cut <----------------------------------+ distrusted
//! ```
//!
//! Draining asks the peer to go (GOAWAY, `Connection: close`) and lets requests in flight finish; a cut does not wait.

use std::time::{Duration, SystemTime};

use mesh_core::config::ListenerConfig;
use mesh_core::rng::Rng;
use tokio::time::Instant;

use super::activity::Quiet;
use crate::ages::spread;

/// Calendar time may jump while timers do not: it is looked at this often.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// How long a peer that policy has shut out may take to go. What policy no longer allows is over within 5 s of its
/// removal: half a second until the change is read, a second until every connection is looked at, and this.
const SHUT_OUT: Duration = Duration::from_secs(2);

/// Why a connection was closed. The words are stable, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// The peer or the protocol ended it.
    Peer,
    /// The transport or the protocol failed.
    Error,
    /// The peer sent a message that has no single reading. (HTTP/1.1)
    Unreadable,
    Idle,
    HeaderTimeout,
    MaxAge,
    CertificateExpired,
    Stopping,
    DrainTimeout,
    /// No bundle vouches for the peer any more.
    Distrusted,
    /// Policy has room for no request of the peer any more.
    PolicyRemoved,
    /// The peer speaks plaintext, and the listener is strict by now.
    PermissiveEnded,
    /// Our own certificate expired without a successor.
    OwnCertificateExpired,
    /// The socket took nothing of what was to be sent.
    SendTimeout,
    /// The peer broke one of HTTP/2's own limits on floods.
    Flood,
    /// The peer cancelled more requests than it may.
    ResetBudget,
}

impl CloseReason {
    /// Whether the peer went beyond what peers may do.
    pub(super) fn is_abuse(self) -> bool {
        matches!(self, Self::HeaderTimeout | Self::ResetBudget | Self::SendTimeout | Self::Flood)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Error => "error",
            Self::Unreadable => "unreadable",
            Self::Idle => "idle",
            Self::HeaderTimeout => "header_timeout",
            Self::MaxAge => "max_age",
            Self::CertificateExpired => "certificate_expired",
            Self::Stopping => "stopping",
            Self::DrainTimeout => "drain_timeout",
            Self::Distrusted => "distrusted",
            Self::PolicyRemoved => "policy_removed",
            Self::PermissiveEnded => "permissive_ended",
            Self::OwnCertificateExpired => "own_certificate_expired",
            Self::SendTimeout => "send_timeout",
            Self::Flood => "flood",
            Self::ResetBudget => "reset_budget",
        }
    }
}

/// What to do with a connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing; ask again at this time, or earlier.
    Keep(Instant),
    /// Ask the peer to go.
    Drain(CloseReason),
    /// Close at once.
    Cut(CloseReason),
}

/// The limits of one connection's life.
#[derive(Debug)]
pub(super) struct Lifetime {
    header_timeout: Duration,
    idle_timeout: Duration,
    drain_timeout: Duration,
    too_old: Instant,
    /// `None` for a peer without a certificate.
    not_after: Option<SystemTime>,
    /// How long before `not_after` draining begins.
    lead: Duration,
    /// While draining: why, and when patience ends.
    draining: Option<(CloseReason, Instant)>,
}

impl Lifetime {
    /// Begins at the end of the handshake.
    pub(super) fn new(
        config: &ListenerConfig,
        not_after: Option<SystemTime>,
        now: Instant,
        wall: SystemTime,
        rng: &Rng,
    ) -> Self {
        let age = spread(config.max_connection_age, rng);
        let left = time_left(not_after, wall);
        Self {
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            drain_timeout: config.drain_timeout,
            too_old: now + age,
            not_after,
            lead: config.drain_timeout.min(left / 10),
            draining: None,
        }
    }

    /// Why the connection is being drained, if it is.
    pub(super) fn draining(&self) -> Option<CloseReason> {
        self.draining.map(|(reason, _)| reason)
    }

    /// How long draining may take.
    pub(super) fn patience(&self) -> Duration {
        self.drain_timeout
    }

    /// Starts the patience of draining. The first reason stays, and patience only shrinks.
    pub(super) fn drain(&mut self, reason: CloseReason, now: Instant) {
        let patience = match reason {
            CloseReason::PolicyRemoved => self.drain_timeout.min(SHUT_OUT),
            _ => self.drain_timeout,
        };
        let (_, end) = self.draining.get_or_insert((reason, now + patience));
        *end = (*end).min(now + patience);
    }

    /// What holds at `now` (timers) and `wall` (calendar).
    pub(super) fn verdict(&self, now: Instant, wall: SystemTime, quiet: Quiet) -> Verdict {
        match (self.by_age(now, wall, quiet), quiet.sent_by) {
            (Verdict::Keep(_), Some(end)) if now >= end => Verdict::Cut(CloseReason::SendTimeout),
            (Verdict::Keep(next), Some(end)) => Verdict::Keep(next.min(end)),
            (verdict, _) => verdict,
        }
    }

    fn by_age(&self, now: Instant, wall: SystemTime, quiet: Quiet) -> Verdict {
        let left = time_left(self.not_after, wall);
        if left.is_zero() {
            return Verdict::Cut(CloseReason::CertificateExpired);
        }
        if quiet.overdrawn {
            return Verdict::Cut(CloseReason::ResetBudget);
        }
        if let Some((reason, patience)) = self.draining {
            return if now >= patience {
                let shut_out = reason == CloseReason::PolicyRemoved;
                Verdict::Cut(if shut_out { reason } else { CloseReason::DrainTimeout })
            } else {
                Verdict::Keep(patience.min(now + left.min(CLOCK_CHECK)))
            };
        }
        if left <= self.lead {
            return Verdict::Drain(CloseReason::CertificateExpired);
        }
        if now >= self.too_old {
            return Verdict::Drain(CloseReason::MaxAge);
        }
        let next = self.too_old.min(now + (left - self.lead).min(CLOCK_CHECK));
        match self.quiet_end(quiet) {
            Some((end, verdict)) if now >= end => verdict,
            Some((end, _)) => Verdict::Keep(next.min(end)),
            None => Verdict::Keep(next),
        }
    }

    /// When the present silence has lasted too long, and what follows.
    fn quiet_end(&self, quiet: Quiet) -> Option<(Instant, Verdict)> {
        let slow_head = |since| (since + self.header_timeout, Verdict::Cut(CloseReason::HeaderTimeout));
        match quiet {
            Quiet { in_flight: 1.., .. } => None,
            Quiet { head_since: Some(since), .. } => Some(slow_head(since)),
            // h2 has no timeout of its own for its preface, nor for a client that never asks for anything.
            Quiet { served: false, since, .. } => Some(slow_head(since)),
            Quiet { since, .. } => Some((since + self.idle_timeout, Verdict::Drain(CloseReason::Idle))),
        }
    }
}

/// How long a certificate is good for; without one there is nothing that could end.
fn time_left(not_after: Option<SystemTime>, wall: SystemTime) -> Duration {
    not_after.map_or(Duration::MAX, |end| end.duration_since(wall).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_limit_ends_a_connection_at_its_time() {
        use CloseReason::*;
        let (start, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 1_000_000 * S);
        let mut config = ListenerConfig::new(([127, 0, 0, 1], 0).into());
        config.drain_timeout = 30 * S;
        let life = |ttl: u32| Lifetime::new(&config, Some(wall + ttl * S), start, wall, &Rng::seeded(1));
        let unused = Quiet::new(start);
        let idle = Quiet { served: true, ..unused };
        let busy = Quiet { in_flight: 1, ..idle };
        let deaf = Quiet { sent_by: Some(start + 7 * S), ..busy };
        let greedy = Quiet { overdrawn: true, ..busy };
        let slow = Quiet { head_since: Some(start + 50 * S), ..idle };
        let day = 86_400;
        // (what it is doing, lifetime of the certificate, when it ends, how)
        let table = [
            (unused, day, 10, Verdict::Cut(HeaderTimeout)),
            (idle, day, 300, Verdict::Drain(Idle)),
            (slow, day, 60, Verdict::Cut(HeaderTimeout)),
            (greedy, day, 0, Verdict::Cut(ResetBudget)),
            (deaf, day, 7, Verdict::Cut(SendTimeout)),
            (busy, 3600, 1620, Verdict::Drain(MaxAge)), // at most 10 % early, checked below
            (busy, 1200, 1170, Verdict::Drain(CertificateExpired)), // drain_timeout before the end
            (busy, 100, 90, Verdict::Drain(CertificateExpired)), // a tenth of a short life
        ];
        for (quiet, ttl, end, how) in table {
            let life = life(ttl);
            let (mut at, mut checks) = (0, 0);
            let verdict = loop {
                match life.verdict(start + at * S, wall + at * S, quiet) {
                    Verdict::Keep(next) => {
                        assert!(next > start + at * S, "no progress: {quiet:?}");
                        at = (next - start).as_secs_f64().ceil() as u32;
                        checks += 1;
                    }
                    verdict => break verdict,
                }
            };
            assert_eq!(verdict, how, "{quiet:?} {ttl}");
            let late = if how == Verdict::Drain(MaxAge) { 180 } else { 0 };
            assert!((end..=end + late).contains(&at), "{how:?} at {at}, expected {end}");
            assert!(checks < 100);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn draining_ends_by_patience_or_by_the_certificate_whichever_is_first() {
        let (start, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 1_000_000 * S);
        let config = ListenerConfig::new(([127, 0, 0, 1], 0).into());
        let busy = Quiet { in_flight: 1, served: true, ..Quiet::new(start) };
        let mut life = Lifetime::new(&config, Some(wall + 600 * S), start, wall, &Rng::seeded(1));
        life.drain(CloseReason::Stopping, start);
        life.drain(CloseReason::Idle, start + 20 * S);
        assert_eq!(life.draining(), Some(CloseReason::Stopping));
        assert_eq!(life.verdict(start + 29 * S, wall, busy), Verdict::Keep(start + 30 * S));
        assert_eq!(life.verdict(start + 30 * S, wall, busy), Verdict::Cut(CloseReason::DrainTimeout));
        // Whom policy shuts out meanwhile gets no more than 2 s, and no more time than was left.
        life.drain(CloseReason::PolicyRemoved, start + 10 * S);
        assert_eq!(life.verdict(start + 11 * S, wall, busy), Verdict::Keep(start + 12 * S));
        assert_eq!(life.verdict(start + 12 * S, wall, busy), Verdict::Cut(CloseReason::DrainTimeout));
        life.drain(CloseReason::PolicyRemoved, start + 11 * S);
        assert_eq!(life.verdict(start + 11 * S, wall, busy), Verdict::Keep(start + 12 * S));
        // The calendar jumped past the end of the certificate while the timers stood still.
        assert_eq!(life.verdict(start + S, wall + 600 * S, busy), Verdict::Cut(CloseReason::CertificateExpired));
    }
}
