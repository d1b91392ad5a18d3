//! The two bench programs, in pieces: the same small application and load, through three choices of stack.
//!
//! | mode | server | client |
//! |---|---|---|
//! | `bare` | axum and tonic on hyper, TCP | hyper connections, TCP |
//! | `mtls` | the same over tokio-rustls, client certificate demanded | the same over tokio-rustls |
//! | `mesh` | `mesh_tower::serve` with everything that its `mesh.yaml` says | `mesh_tower::Client`, `mesh_tonic::Channel` |

pub mod app;
pub mod client;
pub mod cpu;
pub mod handshake;
pub mod idle;
pub mod memory;
pub mod plain;
pub mod spiffe;
pub mod tls;

/// Generated from `proto/perf.proto`.
#[allow(missing_docs, clippy::all, unreachable_pub, reason = "generated code")]
pub mod perf {
    tonic::include_proto!("perf");
}

use std::path::PathBuf;

/// What may go wrong in a bench program; told to the user and the end of it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Which stack is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// No TLS, no mesh.
    Bare,
    /// Mutual TLS, no mesh.
    Mtls,
    /// The whole mesh.
    Mesh,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Proto {
    /// HTTP/1.1, `GET`.
    H1,
    /// HTTP/2, `GET`.
    H2,
    /// `perf.Echo/Unary` on HTTP/2.
    Grpc,
}

/// Files of mode `mtls`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Pem {
    /// PEM certificate chain, leaf first.
    #[arg(long)]
    pub cert: Option<PathBuf>,
    /// PEM private key.
    #[arg(long)]
    pub key: Option<PathBuf>,
    /// PEM certificate authorities that the other side is held against.
    #[arg(long)]
    pub ca: Option<PathBuf>,
}
