//! Tower layers that put the mesh inside an axum or hyper service.

pub mod accept;
pub mod admin;
mod axum;
mod canonical;
pub mod classify;
pub mod client;
pub mod connect;
mod connection;
pub mod context;
mod error;
#[cfg(test)]
mod fixture;
pub mod grpc;
#[cfg(feature = "otel")]
pub mod otel;
mod principal;
mod reject;
mod serve;
pub mod server;
#[cfg(feature = "test-util")]
pub mod test_util;
pub mod tls;
mod transport;

pub use axum::{PrincipalRejection, RouteLayer, RouteService};
pub use client::Client;
pub use connection::Connection;
pub use context::RequestContext;
pub use error::{BoxError, Error, ErrorKind};
pub use mesh_core::{Config, Mesh};
pub use principal::Principal;
pub use serve::{
    HttpApp, Opaque, Serve, ServeError, Stack, Web, bind, serve, serve_service, serve_stack, shutdown_signal,
};
