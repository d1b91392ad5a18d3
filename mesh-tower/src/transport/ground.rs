//! What connections share: with the mesh, and with each other on one listener.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::Mesh;
use mesh_core::clock::WallClock;
use mesh_core::rng::Rng;
use mesh_core::telemetry::Metrics;
use tokio::sync::Semaphore;

use super::sparing::Sparing;
use crate::tls::ServerTls;

/// What connections need of a mesh.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) tls: ServerTls,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn WallClock>,
    pub(crate) rng: Rng,
}

impl Ground {
    pub(crate) fn of(mesh: &Mesh) -> Self {
        Self {
            tls: ServerTls::new(mesh),
            metrics: Arc::clone(mesh.metrics()),
            clock: Arc::clone(mesh.clock()),
            rng: mesh.rng().clone(),
        }
    }
}

/// What all connections of one listener share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ground: Ground,
    pub(crate) handshakes: Semaphore,
    pub(crate) refusals: Sparing,
    pub(crate) local_addr: SocketAddr,
}
