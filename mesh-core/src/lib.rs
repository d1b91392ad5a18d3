//! What the mesh knows and decides, without HTTP.
//!
//! A service rarely names this crate alone: `mesh_tower` puts it around axum and hyper, `mesh_tonic` around generated
//! gRPC code, and both start with a [`Mesh`]:
//!
//! ```no_run
//! # async fn start() -> Result<(), mesh_core::StartError> {
//! let mesh = mesh_core::Mesh::builder().config_file("mesh.yaml").start().await?;
//! println!("{} is ready: {:?}", mesh.workload().name, mesh.ready());
//! # Ok(()) }
//! ```
//!
//! | to | use |
//! |---|---|
//! | start a mesh, or only judge its configuration | [`Mesh::builder`], [`MeshBuilder::check`], [`check()`] |
//! | configure in code, or know what a field of `mesh.yaml` means | [`config`], [`Config`] |
//! | name workloads and callers | [`identity::SpiffeId`], [`identity::Principal`] |
//! | add a kind of identity source, resolver, key source, token source, health check or audit sink | [`plugin`], [`Plugin`] |
//! | read policies, ask them, explain what they say, lint them | [`policy`], [`policy::lint`] |
//! | be asked by CUSTOM policies | [`policy::ExternalAuthorizer`], [`MeshBuilder::authorizer`] |
//! | know who was let in, and whether a trail is whole | [`audit`], [`audit::AuditVerifier`] |
//! | fetch issuers' keys with an HTTP client of your own | [`fetch::Fetch`], [`Plugin::fetch`] |
//! | judge certificates and tokens yourself | [`identity::verify_svid`], [`token::TokenVerifier`] |
//!
//! The other modules are what `mesh_tower` is built of: [`balance`], [`cluster`], [`health`], [`retry`], [`route`],
//! [`snapshot`], [`telemetry`]. They know no socket and take the time as an argument, so that another transport can
//! stand on them; of all public items they change most between versions.
//!
//! # Features
//!
//! | feature | what it adds | default |
//! |---|---|---|
//! | `dev-ca` | identity source `dev_ca`, a certificate authority on disk for development; `identity::dev_ca` | yes |
//! | `dns` | resolver `dns`: endpoints from A, AAAA and SRV records; brings hickory-resolver | no |
//! | `test-util` | good and forged certificates for this project's own tests; not stable | no |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod atomic;
pub mod audit;
pub mod balance;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod deadline;
pub mod discover;
mod disk;
pub mod fetch;
pub mod health;
pub mod identity;
mod mesh;
pub mod plugin;
pub mod policy;
pub mod retry;
pub mod rng;
pub mod route;
pub mod snapshot;
mod stream;
pub mod telemetry;
pub mod token;
mod window;

pub use config::Config;
pub use mesh::{
    CheckReport, ClusterReport, Mesh, MeshBuilder, NotReady, Revision, Routeless, StartError, WeakMesh, check, load,
};
pub use plugin::Plugin;
