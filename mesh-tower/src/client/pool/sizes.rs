//! What endpoints and connections take, whatever becomes of them. It grows unnoticed.

use std::future::Future;
use std::sync::Weak;

use super::drive::{Driven, drive};
use super::*;
use crate::places::Place as ConnectionPlace;

fn size_of_future<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn endpoints_connections_and_requests_are_small() {
    // Of each endpoint that is known: `mesh-core/tests/pick_alloc.rs` counts it as this much.
    assert!(size_of::<Pool>() <= 3 * size_of::<usize>(), "{} bytes of a pool", size_of::<Pool>());
    // 32 times for each HTTP/2 connection.
    assert_eq!(size_of::<ReplayBody>(), size_of::<usize>());
    type Connection = (Driven, Arc<Link>, Weak<Shared>, Arc<ClusterMetrics>, Option<ConnectionPlace>);
    let connection =
        size_of_future(|(driven, link, pool, metrics, place): Connection| drive(driven, link, pool, metrics, place));
    println!("{connection}");
    // For as long as the connection lives: twice as much where an async block awaits it.
    assert!(connection <= 1_200, "{connection} bytes of a connection");
}
