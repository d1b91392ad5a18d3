//! Tower layers that put the mesh inside an axum or hyper service.

pub use mesh_core::{Config, Mesh};

pub mod server;
