//! The life of certificates, proved in virtual time: real handshakes and real HTTP over pipes in memory.
//!
//! | file | claim |
//! |---|---|
//! | `rotation` | forty lifetimes pass and no request notices |
//! | `alone` | each end of a connection ends it with its peer's certificate, whatever the other end does |
//! | `outage` | without an issuer everything goes on to the last second, then nothing does; it is back within 5 s |
//! | `clocks` | clocks that differ a little refuse nobody, clocks that differ much say so, jumps break nothing |
//! | `bundles` | a root can be replaced under twenty workloads in any order that keeps add, overlap, remove |
#![cfg(feature = "dev-ca")]

#[cfg(test)]
mod alone;
#[cfg(test)]
mod bundles;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod rotation;
