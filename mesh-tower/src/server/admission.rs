//! Sheds load before it costs anything.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use mesh_core::Mesh;
use tower_layer::Layer;

use super::exchange::Exchange;
use super::gate::{Gate, Gated};
use super::places::{AdmissionPermit, Places};
use crate::reject::{Kind, Reject};

/// Refuses requests beyond `limits.max_concurrent_requests` with 503 / UNAVAILABLE.
///
/// The limit holds for all listeners of a mesh together and follows reloads. A place is taken until the end of the
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

    fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    fn pass(&self, exchange: &Arc<Exchange>, _request: &mut Request<Body>) -> Result<(), Reject> {
        if exchange.canonical().is_none() || exchange.principal().is_some() {
            return Err(Reject::WIRING);
        }
        let limit = exchange.revision.config.limits.max_concurrent_requests;
        let permit = AdmissionPermit::take(&self.taken, limit).ok_or(Reject::new(Kind::Overloaded, "overloaded"))?;
        exchange.hold(permit);
        Ok(())
    }
}
