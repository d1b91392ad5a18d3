//! Callers of mode `mesh`: the mesh's client, with everything that its `mesh.yaml` says.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, Request, Uri};
use http_body_util::Empty;
use mesh_core::Mesh;
use mesh_core::config::{HttpVersion, PlugConfig};
use mesh_tonic::Channel;
use mesh_tower::Client;
use tower::Service as _;

use super::Caller;
use super::judge::{echoed, hello};
use crate::perf::echo_client::EchoClient;
use crate::{Error, Proto, app};

/// A service of a mesh that runs in this process.
#[derive(Debug)]
pub struct MeshTarget {
    client: Client,
    path: Uri,
    headers: HeaderMap,
}

impl MeshTarget {
    /// The cluster `service` of `config`, at the address of `url` and over at most `connections`.
    pub async fn start(
        config: &Path,
        service: &str,
        url: Uri,
        headers: HeaderMap,
        proto: Proto,
        connections: usize,
    ) -> Result<Self, Error> {
        let address: SocketAddr = url.authority().ok_or("--url needs a host")?.as_str().parse()?;
        let discover = PlugConfig::new("static", &serde_json::json!([address.to_string()]));
        let cluster = service.to_owned();
        let mesh = Mesh::builder().config_file(config).edit(move |config| {
            if let Some(cluster) = config.clusters.get_mut(&cluster) {
                cluster.discover = discover.clone();
                cluster.pool.max_connections = connections;
                cluster.pool.http = if proto == Proto::H1 { HttpVersion::Http1 } else { HttpVersion::Http2 };
            }
        });
        let client = Client::new(&mesh.start().await?, service)?;
        let path = url.path_and_query().ok_or("--url needs a path")?.as_str().parse()?;
        Ok(Self { client, path, headers })
    }

    /// Callers of `GET`.
    pub fn http(&self, concurrency: usize) -> Vec<MeshHttpCaller> {
        let caller =
            || MeshHttpCaller { client: self.client.clone(), path: self.path.clone(), headers: self.headers.clone() };
        (0..concurrency).map(|_| caller()).collect()
    }

    /// Callers of `perf.Echo/Unary`.
    pub fn grpc(&self, concurrency: usize) -> Vec<MeshGrpcCaller> {
        let channel = Channel::from(self.client.clone());
        let caller = || MeshGrpcCaller { client: EchoClient::new(channel.clone()), headers: self.headers.clone() };
        (0..concurrency).map(|_| caller()).collect()
    }
}

/// Sends `GET` and reads the whole answer.
#[derive(Debug)]
pub struct MeshHttpCaller {
    client: Client,
    path: Uri,
    headers: HeaderMap,
}

impl Caller for MeshHttpCaller {
    async fn call(&mut self) -> Result<(), Error> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = self.path.clone();
        request.headers_mut().clone_from(&self.headers);
        hello(self.client.call(request).await?).await
    }
}

/// Sends 1 KiB to the echo.
#[derive(Debug)]
pub struct MeshGrpcCaller {
    client: EchoClient<Channel>,
    headers: HeaderMap,
}

impl Caller for MeshGrpcCaller {
    async fn call(&mut self) -> Result<(), Error> {
        echoed(&self.client.unary(app::echo_request(&self.headers)).await?)
    }
}
