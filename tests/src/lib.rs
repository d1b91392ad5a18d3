//! The whole mesh over real sockets: what no crate can prove alone.
//!
//! One test binary; every test binds port 0 on loopback and mints its own authority.
#![cfg(test)]

mod envoy;
mod kit;
mod otlp;
mod probe;
mod reload;
mod security;
mod traffic;
mod wiring;
