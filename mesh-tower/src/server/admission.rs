//! Sheds load before it costs anything.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use mesh_core::Mesh;
use tower_layer::Layer;

use super::exchange::Exchange;
use super::gate::{Gate, Gated};
use crate::places::{Place, Places};
use crate::reject::{Kind, Reject};

/// Refuses requests beyond `limits.max_concurrent_requests`, or its peer's share, with 503 / UNAVAILABLE.
///
/// The limit holds for all listeners of a mesh together and follows reloads. One peer gets
/// `max_concurrent_requests_per_peer` of it: whoever holds requests open, a byte at a time or by accident, leaves room for
/// others. A place is taken until the end of the
/// response body, or until the caller is gone; a refused request gives its place back at once.
///
/// # Position
/// Below the canonical request, whose refusals cost less than a place; above authentication, because a signature
/// check is the most expensive thing that a stranger can ask for.
#[derive(Debug, Clone)]
pub struct AdmissionLayer {
    mesh: Mesh,
    taken: Arc<Places>,
}

impl AdmissionLayer {
    /// The layer of this mesh; all layers of one mesh count together.
    pub fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone(), taken: mesh.extension(Places::default) }
    }
}

/// What [`AdmissionLayer`] makes of a service.
pub type Admission<S> = Gated<S, AdmissionLayer>;

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

impl Gate for AdmissionLayer {
    const NAME: &'static str = "admission";

    fn mesh(&self) -> Option<&Mesh> {
        Some(&self.mesh)
    }

    fn pass(&self, exchange: &Arc<Exchange>, _request: &mut Request<Body>) -> Result<(), Reject> {
        if exchange.canonical().is_none() || exchange.principal().is_some() {
            return Err(Reject::WIRING);
        }
        let limits = &exchange.revision.config.limits;
        let share = Place::take(exchange.connection.requests_of_peer(), limits.requests_per_peer())
            .ok_or(Reject::new(Kind::Overloaded, "peer_overloaded"))?;
        let place = Place::take(&self.taken, limits.max_concurrent_requests)
            .ok_or(Reject::new(Kind::Overloaded, "overloaded"))?;
        exchange.hold((share, place));
        Ok(())
    }
}
