//! One connection from its handshake to its end.

mod activity;
mod drive;
mod edge;
mod lifetime;
mod sparing;
#[cfg(test)]
mod tests;

pub(crate) use drive::{Ground, Shared, serve_connection};
pub(crate) use edge::BodyLimit;
pub(crate) use sparing::Sparing;
