//! What chooses a server for an attempt: the shipped picker, or tower's as it comes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mesh_core::cluster::{Cluster, Pick, PickError, Readiness, Tried};
use mesh_core::health::Outcome;
use tokio::time::Instant;

use super::tower::{TowerBalancer, TowerPick};

/// What stands for the connection pool of an endpoint.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) server: usize,
    pub(super) readiness: Readiness,
}

#[derive(Debug)]
pub(super) enum Balancer {
    Mesh(Cluster<Wire>),
    Tower(Box<TowerBalancer>),
}

/// An endpoint that was chosen for one attempt.
#[derive(Debug)]
pub(super) enum Chosen {
    Mesh(Pick<Wire>),
    Tower(TowerPick),
}

/// The address of a server: its number, in 10.0.0.0/8.
pub(super) fn address(server: usize) -> SocketAddr {
    let [_, a, b, c] = (server as u32).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, a, b, c)), 8443)
}

/// The server at an address.
pub(super) fn server_at(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => (u32::from_be_bytes(ip.octets()) & 0x00FF_FFFF) as usize,
        IpAddr::V6(_) => 0, // none has such an address
    }
}

impl Balancer {
    pub(super) fn pick(
        &mut self,
        hash: Option<u64>,
        tried: &Tried,
        now: Instant,
    ) -> Result<(usize, Chosen), PickError> {
        match self {
            Self::Mesh(cluster) => {
                let pick = cluster.pick_by(hash, tried, now)?;
                Ok((pick.endpoint().transport().server, Chosen::Mesh(pick)))
            }
            Self::Tower(balancer) => {
                balancer.pick().map(|(server, pick)| (server, Chosen::Tower(pick))).ok_or(PickError::Empty)
            }
        }
    }
}

impl Chosen {
    /// The headers came, and with them all of the answer.
    pub(super) fn answered(self, outcome: Outcome, now: Instant) {
        match self {
            Self::Mesh(mut pick) => {
                pick.headers(outcome, now);
                pick.finish(outcome, now);
            }
            Self::Tower(pick) => pick.answered(outcome == Outcome::Success),
        }
    }

    /// No answer will come.
    pub(super) fn finish(self, outcome: Outcome, now: Instant) {
        match self {
            Self::Mesh(pick) => pick.finish(outcome, now),
            Self::Tower(pick) if outcome == Outcome::Unreachable => pick.answered(false),
            // Dropped, as a future is whose time is up.
            Self::Tower(pick) => drop(pick),
        }
    }
}
