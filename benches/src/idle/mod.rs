//! Idle HTTP/2 connections after one request, held by either stack: what each costs in memory.

mod announced;
mod bare;
mod mesh;

pub use bare::Bare;
pub use mesh::Meshed;

use std::net::{Ipv4Addr, SocketAddr};

/// Requests, and so handshakes, under way at once while connections are opened.
const AT_ONCE: usize = 16;

/// Where the `n`-th connection goes: all of 127.0.0.0/8 is this machine, so one listener is as many endpoints as are wanted.
fn address(port: u16, n: usize) -> SocketAddr {
    let low = u32::try_from(n + 1).unwrap_or(u32::MAX) & 0x00ff_ffff;
    SocketAddr::from((Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() | low), port))
}
