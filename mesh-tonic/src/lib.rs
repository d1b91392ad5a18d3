//! Where generated gRPC code meets the mesh.
//!
//! Thin on purpose: gRPC's wire facts are [`mesh_tower::grpc`], so that another gRPC crate may take tonic's place.

mod channel;
mod status;

pub use channel::{Body, Channel, ResponseFuture};
pub use status::status;
