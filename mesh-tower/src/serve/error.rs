//! Why a server did not start.

use std::io;
use std::net::SocketAddr;

use mesh_core::Mesh;
use mesh_core::config::{ConfigError, suggestion};

/// Why a server did not start.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address could not be bound.
    #[error("{what}: cannot bind {address}: {source}; is it in use, or not an address of this machine?")]
    Bind {
        /// Which part of the configuration names the address.
        what: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A name that `listeners:` does not have.
    #[error("no listener `{name}` in `listeners:`{hint}")]
    UnknownListener {
        /// The name.
        name: String,
        /// The nearest name, or all.
        hint: String,
    },
    /// A policy names a `route`, and what is served is no router.
    #[error(transparent)]
    Routes(ConfigError),
    /// The listener is unusable.
    #[error("the listener has no local address: {0}")]
    Listener(#[source] io::Error),
}

impl std::fmt::Debug for ServeError {
    /// As for people: it is what `main` shows of an error that it returns.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl ServeError {
    pub(super) fn unknown(mesh: &Mesh, name: &str) -> Self {
        let revision = mesh.revision().load();
        let hint = suggestion(name, revision.config.listeners.keys().map(String::as_str));
        Self::UnknownListener { name: name.to_owned(), hint }
    }
}
