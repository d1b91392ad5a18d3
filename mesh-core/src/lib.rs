//! What the mesh knows and decides, without HTTP.

pub mod audit;
pub mod balance;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod deadline;
pub mod discover;
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

pub use config::Config;
pub use mesh::{CheckReport, ClusterReport, Mesh, MeshBuilder, NotReady, Revision, StartError, check, load};
pub use plugin::Plugin;
