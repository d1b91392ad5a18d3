//! One connection from its handshake to its end.
//!
//! | question | file |
//! |---|---|
//! | whether there is a place, who gives way, whose handshake goes on next | `seats`, `half_open`, `turns`, `peers` |
//! | TLS or plaintext, and who is there | `entry`, `mode`, `handshake` |
//! | whether a message of HTTP/1.1 has one end | `http1` |
//! | what a request may bring and how slowly, and whether its answer is taken | `edge`, `pace`, `flow` |
//! | when a connection ends | `activity`, `lifetime`, `drive`, `protocol` |
//! | what newer trust and policy say of those that are open | `roster`, `standing`, `recheck` |
//! | what all of them share | `ground`, `sparing` |
//!
//! `serve` leads a connection through all of it.

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
