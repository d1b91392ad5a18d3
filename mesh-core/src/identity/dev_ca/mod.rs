//! A certificate authority in a directory, so that mTLS works on a laptop before anything is installed.
//!
//! **For development only.** Whoever can read the directory can be any workload of the trust domain: there is no
//! attestation, a process is who it says it is. Several processes share one directory and may start at once; the first
//! makes the authority, the others find it.
//!
//! | file | mode | holds |
//! |---|---|---|
//! | `ca.pem` | 0600 | certificate and key of the authority, of its successor, and old roots, in one file so that they cannot come apart |
//! | `bundle.pem` | 0644 | the certificates alone, for `curl --cacert` and the like; the mesh does not read it |
//! | `lock` | 0600 | held while an authority is made |
//!
//! Two things keep it out of production. Where a production source is evidently at hand - `SPIFFE_ENDPOINT_SOCKET` is
//! set - the `dev_ca` source refuses to start. And every certificate says in its names who made it, so that the `files`
//! source refuses it unless told otherwise.

mod authority;
mod disk;
mod source;
mod store;

pub use authority::{DevCa, Rotation, SvidPem};
pub use source::{DevCaConfig, DevCaSource};

use std::time::Duration;

/// The shortest SVID, 2 s: validity is written in whole seconds.
pub const MIN_SVID_TTL: Duration = Duration::from_secs(2);
/// The longest SVID, 24 h.
pub const MAX_SVID_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The SVID that is made unless another is asked for, 1 h.
pub const DEFAULT_SVID_TTL: Duration = Duration::from_secs(60 * 60);

/// How long a new root is trusted before it signs, 60 s: the longest `poll_interval`.
pub const SPREAD: Duration = Duration::from_secs(60);

/// Why the development authority cannot be used: what, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DevCaError(pub(crate) String);

#[cfg(test)]
mod tests;
