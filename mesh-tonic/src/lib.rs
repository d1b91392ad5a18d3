//! Where generated gRPC code meets the mesh.
//!
//! | to | use |
//! |---|---|
//! | call a service | [`Channel`], under a generated client |
//! | serve tonic services | [`serve`] |
//! | serve them beside axum's | [`router`], in [`mesh_tower::Serve::grpc`] |
//! | know the caller in a handler | [`RequestExt::principal`] |
//! | read the claims of its token | [`RequestExt::claims`] |
//! | ask for a scope or a role | [`mesh_tower::require`], around [`router`] |
//! | answer gRPC health checks, and make them | [`health`] |
//! | turn the mesh's errors into statuses | [`status()`] |
//!
//! Thin on purpose: gRPC's wire facts are [`mesh_tower::grpc`], so that another gRPC crate may take tonic's place.
//!
//! # Features
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | `dev-ca` | identity source `dev_ca`, a certificate authority on disk for development | yes |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod channel;
pub mod health;
mod request;
mod server;
mod status;

pub use channel::{Body, Channel, ResponseFuture};
pub use request::RequestExt;
pub use server::{router, serve};
pub use status::status;
