//! Servers that are replaced while requests come without a pause: real certificates, real sockets.

use std::future::IntoFuture;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::routing::post;
use mesh_core::Mesh;
use mesh_core::identity::SpiffeId;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::*;
use crate::fixture::{Ca, ca, mesh};

const CALLERS: usize = 8;

/// One endpoint that can be replaced.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
    _mesh: Mesh,
}

impl Server {
    async fn start(ca: &Ca, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let orders = mesh(ca, "orders", |_| {}).await;
        let charge = |body: String| async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            body
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let server = crate::serve(&orders, listener, Router::new().route("/charge", post(charge)));
        let server = server.with_graceful_shutdown(async { drop(stopped.await) }).into_future();
        let running = tokio::spawn(async move { server.await.unwrap() });
        Self { address, stop, running, _mesh: orders }
    }

    /// Another one in its place.
    async fn replace(self, ca: &Ca, graceful: bool) -> Self {
        if graceful {
            self.stop.send(()).unwrap();
            self.running.await.unwrap();
        } else {
            self.running.abort();
            drop(self.running.await);
        }
        Self::start(ca, self.address).await
    }
}

/// Replaces both of two endpoints under load; what failed of how many charges, none of which may be sent twice.
async fn replace_both(graceful: bool) -> (Vec<String>, usize) {
    let ca = ca();
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut servers = vec![Server::start(&ca, anywhere).await, Server::start(&ca, anywhere).await];
    let addresses: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
    let web = mesh(&ca, "web", |config| {
        let orders = SpiffeId::parse("spiffe://td/ns/shop/sa/orders").unwrap();
        let discover = PlugConfig::new("static", &serde_json::json!(addresses));
        config.clusters.insert("orders".to_owned(), ClusterConfig::new(discover, vec![orders]));
    })
    .await;
    let client = Client::new(&web, "orders").unwrap();
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = JoinSet::new();
    for _ in 0..CALLERS {
        let (client, over, done) = (client.clone(), Arc::clone(&over), Arc::clone(&done));
        load.spawn(async move {
            let mut failed = Vec::new();
            while !over.load(SeqCst) {
                let charge = async { client.post("/charge").body("1 EUR").send().await?.text().await };
                match charge.await {
                    Ok(body) => assert_eq!(body, "1 EUR"),
                    Err(error) => failed.push(format!("{error:?}")),
                }
                done.fetch_add(1, SeqCst);
            }
            failed
        });
    }
    let more = async || {
        let target = done.load(SeqCst) + 200;
        let reached = timeout(Duration::from_secs(20), async {
            while done.load(SeqCst) < target {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        reached.await.expect("the load stands still");
    };
    for _ in 0..servers.len() {
        more().await;
        let server = servers.remove(0).replace(&ca, graceful).await;
        servers.push(server);
    }
    more().await;
    over.store(true, SeqCst);
    (load.join_all().await.concat(), done.load(SeqCst))
}

#[tokio::test]
async fn servers_that_drain_fail_no_charge() {
    let (failed, of) = replace_both(true).await;
    assert!(failed.is_empty(), "{} of {of}: {:?}", failed.len(), failed.first());
}

#[tokio::test]
async fn servers_that_crash_do_fail_charges() {
    let (failed, of) = replace_both(false).await;
    assert!(!failed.is_empty(), "none of {of}: the test above proves nothing");
}
