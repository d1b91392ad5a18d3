//! Judges an open connection again by the trust and the policy that are in force now.
//!
//! The handshake judges a peer once, and its connection goes on for half an hour. Whoever takes a root or a policy away
//! means those that are open, too. (SPIFFE Workload API 4.4: what is absent is revoked)
//!
//! | found | the connection |
//! |---|---|
//! | no bundle vouches for the peer's chain any more | is cut, its streams with it |
//! | policy has room for no request of the peer, and had before | is asked to go, and cut 2 s later |
//! | plaintext, and the listener is strict by now | is asked to go |
//! | our own certificate has expired, and none followed | is cut |
//!
//! A peer that never had a request to make stays: each of its requests gets its refusal and its audit record.
//!
//! Ten thousand tasks that all wake at a new revision and verify signatures would stop every request for half a second.
//! So one task walks from connection to connection, and takes a second for all of them.
//!
//! It is begun again when it panics. Until it has walked, every connection that was not judged by what is in force is cut: a
//! judgement that nobody can make any more is no reason to go on.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use mesh_core::policy::Reach;
use tokio::time::{Instant, sleep};

use super::ground::Shared;
use super::standing::{Finding, Standing};
use crate::Connection;

/// How long one walk through all connections takes at least, if they are many: 36 us of each second's work for each
/// of 10,000 are 0.4 s.
const SPREAD: Duration = Duration::from_secs(1);
/// Connections that are judged in one go, about 0.6 ms.
const BATCH: usize = 16;
/// Timers are no finer than a millisecond: more pauses would take longer than [`SPREAD`].
const MAX_PAUSES: usize = 500;
/// Calendar time may jump while timers do not: our own certificate is looked at this often.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// The pause after a panic; it doubles with each that follows within [`CALM`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Whoever ran for so long before it panicked begins with the shortest pause again.
const CALM: Duration = Duration::from_secs(60);

impl Shared {
    /// [`patrol`](Self::patrol), begun again whenever it panics. Each panic is counted and logged, and cuts the connections
    /// that have not been judged by the trust and the policy in force.
    ///
    /// Runs until it is dropped.
    pub(crate) async fn supervise(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            {
                let mut patrol = pin!(self.patrol());
                // Unwind safe: nothing of the task is used again after a panic, and what it shares is judged anew.
                poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| patrol.as_mut().poll(cx))) {
                    Ok(poll) => poll,
                    Err(_) => Poll::Ready(()),
                })
                .await;
            }
            self.ground.metrics.runtime.task_panics.inc();
            let cut = self.cut_unjudged();
            if begun.elapsed() >= CALM {
                pause = FIRST_PAUSE;
            }
            let listener = &*self.name;
            tracing::error!(
                listener,
                cut,
                ?pause,
                "the task that judges open connections again panicked: those it had not come to are cut, and it is begun again"
            );
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Cuts every connection that was not judged by the trust and the policy in force. How many those were.
    ///
    /// Asks nothing but generations: whatever has just panicked is not called again.
    fn cut_unjudged(&self) -> usize {
        let (identity, revision) = (self.ground.identity.generation(), self.ground.revision.generation());
        let (mut cut, mut last) = (0, 0);
        loop {
            let standings = self.roster.after(last, BATCH);
            let Some((id, _)) = standings.last() else { return cut };
            last = *id;
            for (_, standing) in standings {
                if !standing.is_judged_by(identity, revision) {
                    standing.give(Finding::Unknown.order());
                    cut += 1;
                }
            }
        }
    }

    /// Judges every open connection again whenever trust or policy changed, when our own certificate expires, and when
    /// plaintext is taken no more.
    ///
    /// Runs until it is dropped.
    pub(crate) async fn patrol(&self) {
        let mut identities = self.ground.identity.subscribe();
        let mut revisions = self.ground.revision.subscribe();
        loop {
            // At the start, too: connections may have come before this task was subscribed.
            self.walk().await;
            loop {
                let left = self.own_time_left();
                let plaintext = self.plaintext_left();
                let left = left.into_iter().chain(plaintext).min();
                tokio::select! {
                    biased;
                    _ = identities.changed() => break,
                    _ = revisions.changed() => break,
                    () = sleep(left.map_or(SPREAD, |left| left.min(CLOCK_CHECK))) => {}
                }
                if self.own_time_left().is_none() || (plaintext.is_some() && self.plaintext_left().is_none()) {
                    break;
                }
            }
        }
    }

    /// How long our own certificate is good for; `None` once it has expired.
    fn own_time_left(&self) -> Option<Duration> {
        let end = self.ground.identity.load().svid()?.not_after();
        end.duration_since(self.ground.clock.now()).ok().filter(|left| !left.is_zero())
    }

    /// A revision that comes meanwhile is used at once, and brings the next walk.
    async fn walk(&self) {
        let open = self.roster.len();
        let batches = open.div_ceil(BATCH);
        let pause = SPREAD / u32::try_from(batches.clamp(1, MAX_PAUSES)).unwrap_or(u32::MAX);
        let paused = batches.div_ceil(MAX_PAUSES).max(1);
        let mut last = 0;
        for batch in 1.. {
            let standings = self.roster.after(last, BATCH);
            for (id, standing) in &standings {
                self.recheck(standing);
                last = *id;
            }
            self.ground.metrics.transport.rechecked(standings.len());
            if standings.len() < BATCH {
                break;
            }
            if batch % paused == 0 {
                sleep(pause).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Judges a connection by what is in force now, and orders what follows. Costs nothing where nothing is newer.
    pub(super) fn recheck(&self, standing: &Standing) {
        let (identity, revision) = (self.ground.identity.load(), self.ground.revision.load());
        let now = self.ground.clock.now();
        let plaintext = self.mode.of(&revision).plaintext_until(now).is_some();
        // A panic over one connection must not keep the others from being judged.
        let judged = catch_unwind(AssertUnwindSafe(|| standing.judge(&identity, &revision, plaintext, now)));
        let finding = judged.unwrap_or_else(|_| {
            self.ground.metrics.runtime.task_panics.inc();
            Some(Finding::Unknown)
        });
        let Some(finding) = finding else { return };
        standing.give(finding.order());
        self.log(&finding, &standing.connection);
    }

    /// One line a second for each reason: a removed root may end thousands of connections.
    fn log(&self, finding: &Finding, connection: &Connection) {
        let closed = finding.order().reason().as_str();
        let Some(left_out) = self.refusals.line(closed, Instant::now()) else { return };
        let peer = connection.peer();
        let (address, peer_id) = (peer.address, peer.svid.as_deref().map(|svid| svid.id.as_str()));
        match finding {
            Finding::OwnExpired => {
                tracing::error!(%address, peer_id, left_out, "connection cut: our own certificate expired and none followed");
            }
            Finding::Distrusted(error) => {
                let reason = error.reason();
                tracing::warn!(%address, peer_id, reason, left_out, "connection cut: its peer is trusted no more");
            }
            Finding::PolicyRemoved(Reach::Impossible { reason, policy, rule }) => {
                let (reason, policy) = (reason.as_str(), policy.as_deref().unwrap_or("-"));
                let rule = rule.map_or(-1, i64::from);
                tracing::info!(%address, peer_id, policy, rule, reason, left_out,
                    "connection closed: policy has room for no request of its peer any more");
            }
            Finding::PermissiveEnded => {
                tracing::info!(%address, left_out, "connection closed: plaintext, and the listener is strict by now");
            }
            Finding::PolicyRemoved(_) | Finding::Unknown => {
                tracing::error!(%address, peer_id, left_out, "connection cut: judging it panicked");
            }
        }
    }
}
