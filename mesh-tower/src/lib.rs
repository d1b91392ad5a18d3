//! Tower layers that put the mesh inside an axum or hyper service.

pub mod connect;
mod connection;
pub mod tls;

pub use connection::Connection;
pub use mesh_core::{Config, Mesh};
