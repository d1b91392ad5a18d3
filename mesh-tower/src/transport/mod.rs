//! One connection from its handshake to its end.

mod activity;
mod drive;
mod edge;
mod entry;
mod flow;
mod ground;
mod half_open;
mod handshake;
mod http1;
mod lifetime;
mod mode;
mod pace;
mod peers;
mod protocol;
mod recheck;
mod roster;
mod seats;
mod serve;
mod sparing;
mod standing;
#[cfg(test)]
mod tests;
mod turns;

pub(crate) use edge::{BodyLimit, Decompress, MaxBody};
pub(crate) use ground::{Ground, Shared};
pub(crate) use half_open::HalfOpen;
pub(crate) use seats::{Seat, Seats};
pub(crate) use serve::serve_connection;
pub(crate) use sparing::Sparing;
