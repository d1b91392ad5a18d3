//! The shipped client and server on a simulated network: real HTTP/2 and TLS bytes, virtual time, seeded.
//!
//! Hosts, links and their failures are [turmoil]'s. The mesh runs in them as it is shipped, with four things injected that
//! any program may inject: the listener ([`mesh_tower::accept::Accept`]), the connector ([`mesh_tower::connect::Connector`]), the
//! calendar ([`mesh_core::clock::WallClock`]) and chance ([`mesh_core::rng::Rng`]). A second costs as long as its requests
//! take to encrypt; whoever only waits costs nothing.
//!
//! A packet is under way for a whole number of milliseconds, and processors are infinitely fast: what is measured here is
//! who waits for whom, never how long code takes.
//!
//! [turmoil]: https://docs.rs/turmoil

mod load;
mod net;
mod rows;
mod tap;
mod world;

pub use rows::rows;

/// What goes wrong with a simulation itself, as turmoil wants it.
type Fault = Box<dyn std::error::Error>;
