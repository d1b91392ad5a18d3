//! How long a connection takes streams, and when its successor must stand.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::link::Link;
use super::trust::Lost;

/// How long a connection to be replaced waits after its successor failed.
const SUCCESSOR_WAIT: Duration = Duration::from_secs(1);

/// Why a connection takes no more streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    Idle,
    /// Its certificates end.
    Retired,
    Aged,
    /// Too many of its streams were cancelled.
    Worn,
    /// The peer may not be talked to any more: streams are cut.
    Lost(Lost),
    PoolGone,
}

/// Waits until the connection should take no more streams.
pub(super) async fn live(link: &Link, pool: &Weak<Shared>) -> Closing {
    // The successor of a connection that is worn or old, and when to look for it again.
    let (mut successor, mut again): (Option<Arc<Link>>, Option<Instant>) = (None, None);
    loop {
        let idle_timeout = match pool.upgrade() {
            Some(pool) => pool.context.settings.load().idle_timeout,
            None => return Closing::PoolGone,
        };
        let now = Instant::now();
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        // What nobody uses needs no successor.
        let wanted = link.is_used() && pool.upgrade().is_some_and(|pool| pool.used_within(idle_timeout));
        if passed(link.retire_at) {
            // The successor first, so that no request waits for it.
            if wanted && let Some(pool) = pool.upgrade() {
                pool.connect().await;
            }
            return Closing::Retired;
        }
        let idle = link.idle_since();
        if idle.is_some_and(|since| since + idle_timeout <= now) {
            return Closing::Idle;
        }
        let (worn, aged) = (link.cancellations.too_many(), passed(link.aged_at));
        if aged && !wanted {
            return Closing::Aged;
        }
        if (worn || aged) && again.is_none_or(|at| at <= now) {
            let Some(pool) = pool.upgrade() else { return Closing::PoolGone };
            // The endpoint may refuse one more, and shows it only after the handshake. This one does well meanwhile.
            if successor.as_ref().is_none_or(|link| link.is_closing()) {
                successor = pool.connect().await;
            }
            // HTTP/1.1 has no settings to wait for.
            let http1 = pool.lock().http1;
            if let Some(successor) = &successor
                && (http1 || successor.settles().await)
            {
                return if worn { Closing::Worn } else { Closing::Aged };
            }
            again = Some(Instant::now() + SUCCESSOR_WAIT);
        }
        let look = idle.unwrap_or(now) + idle_timeout;
        let times = [link.retire_at, link.aged_at, again].into_iter().flatten();
        let look = times.filter(|at| *at > now).fold(look, Instant::min);
        tokio::select! {
            biased;
            () = sleep_until(look) => {}
            () = link.cancellations.reached() => {}
        }
    }
}
