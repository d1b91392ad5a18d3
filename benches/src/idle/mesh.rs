//! The mesh's client with one endpoint for each connection.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use mesh_core::config::{HttpVersion, PlugConfig};
use mesh_core::{Mesh, Plugin};
use mesh_tower::Client;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::Service as _;

use super::announced::Announced;
use super::{AT_ONCE, address};
use crate::Error;
use crate::client::hello;

/// The cluster of `bench-setup`'s `client.yaml`.
const SERVICE: &str = "bench";

/// A mesh's client, and the endpoints that it is told of.
#[derive(Debug)]
pub struct Meshed {
    mesh: Mesh,
    client: Client,
    endpoints: Announced,
    port: u16,
    known: usize,
    requests: Arc<AtomicUsize>,
}

impl Meshed {
    /// `client.yaml` in `dir`, with no endpoint yet.
    pub async fn new(dir: &Path, port: u16) -> Result<Self, Error> {
        let endpoints = Announced::default();
        let resolver = endpoints.clone();
        let plugin = Plugin::new("bench").resolver("announced", move |_, _, _| Some(resolver.resolver()));
        let mesh = Mesh::builder().config_file(dir.join("client.yaml")).with(plugin).edit(|config| {
            if let Some(cluster) = config.clusters.get_mut(SERVICE) {
                cluster.discover = PlugConfig::new("announced", &serde_json::Value::Null);
                cluster.pool.http = HttpVersion::Http2;
                cluster.pool.connect_timeout = Duration::from_secs(30);
                // Idle is what is measured, and what was never tried is tried first.
                cluster.pool.idle_timeout = Duration::from_secs(3600);
                cluster.balance.default_rtt = Duration::from_micros(1);
            }
        });
        let mesh = mesh.start().await?;
        let client = Client::new(&mesh, SERVICE)?;
        Ok(Self { mesh, client, endpoints, port, known: 0, requests: Arc::default() })
    }

    /// Announces `count` endpoints more. None of them is connected to.
    pub async fn announce(&mut self, count: usize) {
        let first = self.known;
        self.known += count;
        self.endpoints.announce((first..self.known).map(|n| address(self.port, n)));
        while self.client.endpoints().len() < self.known {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Sends requests until each endpoint has its connection. The balancer chooses, so some get more than one.
    pub async fn open(&self) -> Result<(), Error> {
        let mut callers = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (mut client, mesh) = (self.client.clone(), self.mesh.clone());
            let (requests, wanted) = (Arc::clone(&self.requests), self.known);
            callers.spawn(async move {
                while connections(&mesh) < wanted {
                    let request = Request::get("/hello").body(Empty::<Bytes>::new())?;
                    hello(client.call(request).await?).await?;
                    requests.fetch_add(1, Relaxed);
                }
                Ok::<_, Error>(())
            });
        }
        while let Some(done) = callers.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        connections(&self.mesh)
    }

    /// Requests that were answered.
    pub fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }
}

fn connections(mesh: &Mesh) -> usize {
    usize::try_from(mesh.metrics().client.cluster(SERVICE).connections.get()).unwrap_or(0)
}
