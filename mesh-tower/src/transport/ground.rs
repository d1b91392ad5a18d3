//! What connections share: with the mesh, and with each other on one listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::clock::WallClock;
use mesh_core::config::ListenerConfig;
use mesh_core::identity::Identity;
use mesh_core::rng::Rng;
use mesh_core::snapshot::Snapshot;
use mesh_core::telemetry::Metrics;
use mesh_core::{Mesh, Revision, WeakMesh};
use tokio::runtime::Handle;

use super::half_open::HalfOpen;
use super::mode::Mode;
use super::peers::{Addresses, Peers};
use super::roster::Roster;
use super::seats::Seats;
use super::sparing::Sparing;
use super::turns::Turns;
use crate::tls::ServerTls;

/// What connections need of a mesh.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) tls: ServerTls,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn WallClock>,
    pub(crate) rng: Rng,
    /// Whom we trust, and who we are ourselves.
    pub(crate) identity: Snapshot<Identity>,
    /// What peers may do.
    pub(crate) revision: Snapshot<Revision>,
    /// To have newer trust looked for; `None` only in tests.
    pub(crate) mesh: Option<WeakMesh>,
}

impl Ground {
    pub(crate) fn of(mesh: &Mesh) -> Self {
        Self {
            tls: ServerTls::new(mesh),
            metrics: Arc::clone(mesh.metrics()),
            clock: Arc::clone(mesh.clock()),
            rng: mesh.rng().clone(),
            identity: mesh.identity().clone(),
            revision: mesh.revision().clone(),
            mesh: Some(mesh.downgrade()),
        }
    }

    /// Has newer trust looked for, without waiting. Whoever connects may cause it, so it is limited by the mesh.
    pub(super) fn refresh(&self) {
        if let Some(mesh) = self.mesh.as_ref().and_then(WeakMesh::upgrade) {
            drop(mesh.refresh_identity());
        }
    }
}

/// What all connections of one listener share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ground: Ground,
    /// Places of connections.
    pub(crate) connections: Arc<Seats>,
    pub(crate) handshakes: Arc<Seats>,
    /// Who asks for the next of `handshakes`, when there are too few.
    pub(super) newcomers: Turns,
    /// Who goes on with its handshake.
    pub(super) steps: Turns,
    /// Places of connections in plaintext: half of all, so that the nameless leave room for the named.
    pub(super) plaintext: Arc<Seats>,
    pub(crate) half_open: Arc<HalfOpen>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) refusals: Arc<Sparing>,
    pub(crate) local_addr: SocketAddr,
    /// In `listeners:`.
    pub(crate) name: Arc<str>,
    /// What it demands, and reminders.
    pub(super) mode: Mode,
    /// To judge open connections again when trust or policy changes.
    pub(crate) roster: Roster,
}

impl Shared {
    pub(crate) fn new(ground: Ground, name: Arc<str>, start: &ListenerConfig, local_addr: SocketAddr) -> Self {
        Self {
            connections: Seats::new(start.max_connections),
            handshakes: Seats::new(start.max_handshakes),
            newcomers: Turns::new(1),
            steps: Turns::new(workers()),
            plaintext: Seats::new(start.max_connections.div_ceil(2)),
            half_open: HalfOpen::new(Arc::clone(&ground.metrics)),
            addresses: Arc::default(),
            peers: Arc::default(),
            refusals: Arc::default(),
            local_addr,
            mode: Mode::new(Arc::clone(&name), local_addr, start.mtls),
            name,
            roster: Roster::default(),
            ground,
        }
    }

    /// Makes as many places as `config` says, after a reload.
    pub(crate) fn resize(&self, config: &ListenerConfig) {
        let (places, handshakes) = (config.max_connections, config.max_handshakes);
        self.plaintext.resize(places.div_ceil(2));
        if self.connections.resize(places) | self.handshakes.resize(handshakes) {
            let (listener, address) = (&*self.name, self.local_addr);
            tracing::info!(
                listener, %address, places, handshakes,
                "the listener has another number of places: open connections keep theirs"
            );
        }
    }

    /// How long this listener will take plaintext; `None` where it does not.
    pub(super) fn plaintext_left(&self) -> Option<Duration> {
        let (revision, now) = (self.ground.revision.load(), self.ground.clock.now());
        self.mode.plaintext_left(&revision, now, &self.ground.metrics)
    }
}

/// Threads that run connections.
fn workers() -> usize {
    Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers())
}
