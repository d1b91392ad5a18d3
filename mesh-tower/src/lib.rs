//! Tower layers that put the mesh inside an axum or hyper service.
//!
//! ```no_run
//! use axum::extract::{Path, State};
//! use axum::{Router, routing::get};
//! use mesh_tower::{Client, Mesh, Principal};
//!
//! async fn show(
//!     peer: Principal, // who called, proved by the handshake
//!     Path(id): Path<u64>,
//!     State(payments): State<Client>,
//! ) -> Result<String, mesh_tower::Error> {
//!     let paid: bool = payments.get(format!("/paid/{id}")).send().await?.json().await?;
//!     Ok(format!("order {id} for {peer}, paid: {paid}"))
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let mesh = Mesh::builder().config_file("mesh.yaml").start().await?;
//! let payments = Client::new(&mesh, "payments")?;
//! let app = Router::new().route("/orders/{id}", get(show)).with_state(payments);
//! let listener = mesh_tower::bind(&mesh, "default").await?;
//! mesh_tower::serve(&mesh, listener, app).with_graceful_shutdown(mesh_tower::shutdown_signal()).await?;
//! # Ok(()) }
//! ```
//!
//! | to | use |
//! |---|---|
//! | serve an axum router, and gRPC beside it | [`serve()`], [`Serve::grpc`] with `mesh_tonic::router` |
//! | serve any other tower service | [`serve_service`] |
//! | know the caller in a handler | [`Principal`], as an extractor |
//! | read the claims of the caller's token | [`Claims`], as an extractor |
//! | ask for a scope or a role where the route is | [`require::scope`], [`require::any_scope`], [`require::role`] |
//! | call another service | [`Client`]: builds requests, and is a `tower::Service` |
//! | know why a call failed, or pass it on with `?` | [`Error`], [`ErrorKind`] |
//! | keep trace and deadline in spawned work | [`context::spawn`], [`RequestContext`] |
//! | bound what a route takes: body size and type, depth of JSON, query | [`server::ValidateLayer`] |
//! | put the layers together yourself | [`server`] with [`serve_stack`]; [`client`] |
//! | listen on, or connect over, something other than TCP | [`accept::Accept`], [`connect::Connector`] |
//! | test a service with its policies | `test_util::TestMesh` (feature `test-util`) |
//! | fetch issuers' keys over HTTPS | [`fetch::plugin`] |
//! | ask policy about requests that nobody sent, in a tool | [`offline`] |
//! | export spans | `otel::Otlp` (feature `otel`) |
//! | configure in code, write a plugin | [`mesh_core`], exported from here |
//!
//! The layers of [`server`] work on `Request<axum::body::Body>` and `Response<axum::body::Body>`, because policy is
//! asked again while a body streams; those of [`client`] take [`client::RequestBody`], and [`Client`] any body.
//!
//! # Features
//!
//! Each only adds; none is needed by another crate of the mesh.
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | `dev-ca` | identity source `dev_ca`, a certificate authority on disk for development | yes |
//! | `keylog` | TLS secrets written to the file that `SSLKEYLOGFILE` names, for debugging | no |
//! | `otel` | spans over OTLP, joined across services | no |
//! | `test-util` | `TestMesh`: real certificates and sockets for a service's own tests; brings `dev-ca` | no |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod accept;
pub mod admin;
mod ages;
mod axum;
mod canonical;
mod claims;
pub mod classify;
pub mod client;
pub mod connect;
mod connection;
pub mod context;
mod empty;
mod error;
pub mod fetch;
#[cfg(test)]
mod fixture;
pub mod grpc;
pub mod offline;
#[cfg(feature = "otel")]
pub mod otel;
mod places;
mod principal;
mod reject;
mod serve;
pub mod server;
#[cfg(feature = "test-util")]
pub mod test_util;
pub mod tls;
mod transport;

pub use axum::PrincipalRejection;
pub use claims::{Claims, ClaimsRejection};
pub use client::Client;
pub use connection::Connection;
pub use context::RequestContext;
pub use error::{BoxError, Error, ErrorKind};
pub use mesh_core::{self, Config, Mesh};
pub use principal::Principal;
pub use serve::{
    HttpApp, Opaque, Serve, ServeError, Stack, Web, bind, serve, serve_service, serve_stack, shutdown_signal,
};
pub use server::require;
