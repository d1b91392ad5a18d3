//! What a connection's futures take. They grow unnoticed: by a stream that is passed by value, by an async block that holds
//! what it awaits twice.

use std::net::IpAddr;

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;
use crate::transport::entry::told;
use crate::transport::half_open::Place;
use crate::transport::serve_connection;

fn size_of_future<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_connection_is_small_and_so_is_its_handshake() {
    type Handshake = (TcpStream, IpAddr, &'static ListenerConfig, &'static Shared, &'static Place);
    let handshake =
        size_of_future(|(io, address, config, shared, place): Handshake| told(io, address, config, shared, place));
    type Served = (
        TcpStream,
        Box<ListenerConfig>,
        Box<axum::Router>,
        Arc<Shared>,
        (Place, oneshot::Receiver<()>),
        watch::Receiver<bool>,
    );
    let connection = size_of_future(|(io, config, service, shared, place, stop): Served| {
        serve_connection(io, client_address(), config, service, shared, place, stop)
    });
    println!("{handshake} {connection}");
    // It is over before the first request, but what it touched stays resident: as the room that hyper's buffers take next,
    // of 8 and 16 KiB, of which an idle connection else touches a page. With 8,888 bytes it did not.
    assert!(handshake <= 1_536, "{handshake} bytes of a handshake");
    // For as long as the connection lives.
    assert!(connection <= 1_800, "{connection} bytes of a connection");
}
