//! Tower layers that put the mesh inside an axum or hyper service.

pub mod connect;
mod connection;
pub mod context;
pub mod grpc;
pub mod server;
pub mod tls;

pub use connection::Connection;
pub use context::RequestContext;
pub use mesh_core::{Config, Mesh};
