//! Polls a connection to its end, and asks its lifetime when that is.

use std::error::Error as _;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use mesh_core::clock::WallClock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::activity::Activity;
use super::lifetime::{CloseReason, Lifetime, Verdict};
use super::protocol::Graceful;
use super::standing::{Order, Standing};

/// Returns when the server is told to stop, or is gone.
pub(super) async fn stopping(stop: &mut watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        if stop.changed().await.is_err() {
            return;
        }
    }
}

/// h2 ends the connection of a peer that floods it with resets, small frames or headers.
fn reason_of(error: &hyper::Error) -> CloseReason {
    let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    let calm = h2.is_some_and(|error| error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM));
    if calm { CloseReason::Flood } else { CloseReason::Error }
}

/// Polls the connection, and after each poll asks its lifetime what to do.
pub(super) async fn drive<C: Graceful>(
    mut connection: Pin<Box<C>>,
    mut life: Lifetime,
    activity: &Activity,
    standing: &Standing,
    clock: &dyn WallClock,
    mut stop: watch::Receiver<bool>,
) -> CloseReason {
    let mut stopped = pin!(stopping(&mut stop));
    let mut timer = pin!(sleep_until(Instant::now()));
    // When an idle connection that is to go is closed, until that is done.
    let mut farewell = None;
    poll_fn(|cx| {
        loop {
            // Before a request of a peer that is trusted no more is read.
            let order = standing.poll_order(cx);
            if let Some(Order::Cut(reason)) = order {
                activity.end();
                return Poll::Ready(reason);
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                activity.end();
                let by_peer = ended.map_or_else(|error| reason_of(&error), |()| CloseReason::Peer);
                return Poll::Ready(life.draining().unwrap_or(by_peer));
            }
            let stopping = life.draining().is_none() && stopped.as_mut().poll(cx).is_ready();
            let verdict = match order {
                Some(Order::Drain(reason)) => Verdict::Drain(reason),
                _ if stopping => Verdict::Drain(CloseReason::Stopping),
                _ => life.verdict(Instant::now(), clock.now(), activity.watch(cx)),
            };
            match verdict {
                Verdict::Cut(reason) => {
                    activity.end();
                    return Poll::Ready(reason);
                }
                Verdict::Drain(reason) => {
                    let now = Instant::now();
                    life.drain(reason, now);
                    let idle = C::FAREWELL.min(life.patience() / 4);
                    if idle.is_zero() {
                        connection.as_mut().shut_down();
                    } else {
                        activity.leave();
                        farewell = Some(now + idle);
                    }
                }
                Verdict::Keep(mut until) => {
                    if let Some(end) = farewell {
                        if Instant::now() >= end {
                            farewell = None;
                            connection.as_mut().shut_down();
                            continue;
                        }
                        until = until.min(end);
                    }
                    // A timer that fires early only asks again; setting it for each request would cost more.
                    if timer.is_elapsed() || until < timer.deadline() {
                        timer.as_mut().reset(until);
                    }
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    })
    .await
}
