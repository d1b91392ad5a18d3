//! One connection from its handshake to its end.

mod activity;
mod drive;
mod edge;
mod lifetime;

pub(crate) use drive::{Shared, serve_connection};
