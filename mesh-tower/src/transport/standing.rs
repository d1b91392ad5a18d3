//! One open connection, and what the trust and the policy in force say of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::SystemTime;

use mesh_core::Revision;
use mesh_core::identity::{Identity, PeerRole, SvidError, verify_svid};
use mesh_core::policy::Reach;
use mesh_core::snapshot::Versioned;

use super::lifetime::CloseReason;
use crate::Connection;

/// What a connection is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Ask the peer to go.
    Drain(CloseReason),
    /// End at once.
    Cut(CloseReason),
}

/// Why a connection may not go on.
#[derive(Debug)]
pub(super) enum Finding {
    OwnExpired,
    Distrusted(SvidError),
    PolicyRemoved(Reach),
    PermissiveEnded,
    /// Judging it panicked: fails closed.
    Unknown,
}

/// One open connection as re-checks see it. The lock is this connection's own.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) connection: Arc<Connection>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The generation of identity that its peer was found good under last.
    identity: u64,
    /// The generation of policy that `reach` is of.
    policy: u64,
    /// Whether policy had room for some request of its peer. `None` before it was asked.
    reach: Option<bool>,
    order: Option<Order>,
    waker: Option<Waker>,
}

impl Standing {
    /// `identity`: a generation that is not newer than the one its handshake was judged under.
    pub(super) fn new(connection: Arc<Connection>, identity: u64) -> Arc<Self> {
        let state = State { identity, policy: 0, reach: None, order: None, waker: None };
        Arc::new(Self { connection, state: Mutex::new(state) })
    }

    /// An order that came since it was asked last; the next one wakes the task.
    pub(super) fn poll_order(&self, cx: &Context<'_>) -> Option<Order> {
        let mut state = self.state();
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            waker => *waker = Some(cx.waker().clone()),
        }
        state.order.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was judged under these generations of identity and revision, or newer ones.
    pub(super) fn is_judged_by(&self, identity: u64, revision: u64) -> bool {
        let state = self.state();
        state.identity >= identity && state.policy >= revision
    }

    /// What newer revisions than those it was judged under say of it.
    pub(super) fn judge(
        &self,
        identity: &Versioned<Identity>,
        revision: &Versioned<Revision>,
        plaintext: bool,
        now: SystemTime,
    ) -> Option<Finding> {
        let mut state = self.state();
        if identity.svid().is_none_or(|own| own.not_after() <= now) {
            return Some(Finding::OwnExpired);
        }
        if self.connection.peer().svid.is_none() && !plaintext {
            return Some(Finding::PermissiveEnded);
        }
        if state.identity < identity.generation() {
            let chain = self.connection.chain();
            if self.connection.peer().svid.is_some()
                && let Err(error) = verify_svid(chain, &identity.bundles, PeerRole::Client, now)
            {
                return Some(Finding::Distrusted(error));
            }
            // Not before: whoever failed, or was not judged to the end, is judged again.
            state.identity = identity.generation();
        }
        if state.policy < revision.generation() {
            state.policy = revision.generation();
            // A gateway calls in the names of others: what it is itself says nothing of what it may.
            let speaks_for_others = self.connection.gateway(&revision.config).is_some();
            let reach =
                if speaks_for_others { Reach::Possible } else { revision.policy.reach(&self.connection.peer_view()) };
            if state.reach.replace(reach.is_possible()) == Some(true) && !reach.is_possible() {
                return Some(Finding::PolicyRemoved(reach));
            }
        }
        None
    }

    /// An order to end at once stands, whatever comes before it is carried out.
    pub(super) fn give(&self, order: Order) {
        let mut state = self.state();
        if !matches!(state.order, Some(Order::Cut(_))) {
            state.order = Some(order);
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Finding {
    pub(super) fn order(&self) -> Order {
        match self {
            Self::OwnExpired => Order::Cut(CloseReason::OwnCertificateExpired),
            Self::Distrusted(_) | Self::Unknown => Order::Cut(CloseReason::Distrusted),
            Self::PermissiveEnded => Order::Drain(CloseReason::PermissiveEnded),
            Self::PolicyRemoved(_) => Order::Drain(CloseReason::PolicyRemoved),
        }
    }
}

impl Order {
    pub(super) fn reason(self) -> CloseReason {
        match self {
            Self::Drain(reason) | Self::Cut(reason) => reason,
        }
    }
}
