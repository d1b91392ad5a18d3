//! Whom a pinned gateway names as its client.

use http::{HeaderMap, HeaderName};
use mesh_core::identity::{SpiffeId, forwarded_identity};

use super::exchange::Exchange;
use crate::reject::{Kind, Reject};

const HEADER: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// The client that the peer names, if the listener takes its word and there is such a header.
///
/// Fails closed: what a pinned gateway sends and cannot be read is refused, never passed over. From anybody else, and
/// over plaintext, the header is not looked at.
pub(super) fn client(exchange: &Exchange, headers: &HeaderMap) -> Result<Option<SpiffeId>, Reject> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let Some(gateway) = exchange.connection.gateway(&exchange.revision.config) else { return Ok(None) };
    if values.next().is_some() {
        return Err(Reject::new(Kind::Malformed, "forwarded_duplicate"));
    }
    let client = forwarded_identity(value.as_bytes(), gateway).map_err(|error| {
        tracing::debug!(%gateway, %error, "x-forwarded-client-cert of a pinned gateway is not taken");
        Reject::new(Kind::Malformed, error.reason())
    })?;
    // A gateway speaks for those that we could have judged ourselves.
    match exchange.mesh.identity().peek().bundles.get(client.trust_domain()) {
        Some(_) => Ok(Some(client)),
        None => Err(Reject::new(Kind::Forbidden, "forwarded_trust_domain")),
    }
}
