//! What a full mutual handshake costs each side: the mesh's beside bare rustls, in memory and in turn.
//!
//! Nothing waits: one thread polls the client, then the server, until both are done, and each poll counts for its side.
//! The arms take turns, so that what the machine does meanwhile meets both, and the middle of many pairs is taken.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mesh_core::Mesh;
use mesh_core::config::{HttpVersion, TlsConfig};
use mesh_core::identity::SpiffeId;
use mesh_tower::tls::{ClientTls, ServerTls};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{ClientConfig, ServerConfig};
use serde_json::{Value, json};
use tokio::io::duplex;
use tokio::time::Instant;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, TlsConnector};

use crate::{Error, spiffe};

/// Larger than any flight of a handshake: whoever is polled can say everything it has to say.
const PIPE: usize = 64 * 1024;
const ADDRESS: std::net::SocketAddr =
    std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1));

/// What one handshake took on each side.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    client: Duration,
    server: Duration,
}

impl Spent {
    fn micros(self) -> [f64; 3] {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        [micros(self.client), micros(self.server), micros(self.client + self.server)]
    }
}

/// Both arms with the certificates of one directory.
#[derive(Debug)]
pub struct Handshakes {
    bare: (Arc<ClientConfig>, Arc<ServerConfig>),
    mesh: (ClientTls, ServerTls),
    /// Background work ends with them.
    _meshes: [Mesh; 2],
}

impl Handshakes {
    /// Reads what `cargo xtask bench-setup` wrote to `dir`.
    pub async fn new(dir: &Path) -> Result<Self, Error> {
        let bare = (spiffe::client(&spiffe::pem(dir, "client"))?, spiffe::server(&spiffe::pem(dir, "server"))?);
        let start = |name: &str| Mesh::builder().config_file(dir.join(name)).start();
        let meshes = [start("client.yaml").await?, start("server.yaml").await?];
        let [client, server] = &meshes;
        let expected = vec![SpiffeId::parse(spiffe::SERVER)?];
        let mesh = (ClientTls::new(client, expected, HttpVersion::Http2), ServerTls::new(server));
        Ok(Self { bare, mesh, _meshes: meshes })
    }

    /// Medians over `pairs` of handshakes of both arms, in microseconds, and the medians of the ratios within each pair.
    pub fn measure(&self, pairs: usize) -> Result<Value, Error> {
        let (mut bare, mut mesh) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            // Each arm goes first as often as second.
            if pair % 2 == 0 {
                bare.push(self.bare()?.micros());
                mesh.push(self.mesh()?.micros());
            } else {
                mesh.push(self.mesh()?.micros());
                bare.push(self.bare()?.micros());
            }
        }
        let ratios = bare.iter().zip(&mesh).map(|(bare, mesh)| {
            let [client, server, both] = *bare;
            let [mesh_client, mesh_server, mesh_both] = *mesh;
            [mesh_client / client, mesh_server / server, mesh_both / both]
        });
        let ratio = sides(ratios.collect());
        Ok(json!({ "pairs": pairs, "bare": sides(bare), "mesh": sides(mesh), "ratio": ratio }))
    }

    fn bare(&self) -> Result<Spent, Error> {
        let (ours, theirs) = duplex(PIPE);
        let client = async {
            let connector = TlsConnector::from(Arc::clone(&self.bare.0));
            connector.connect(ServerName::from(ADDRESS.ip()), ours).await
        };
        let server = async {
            let stream = TlsAcceptor::from(Arc::clone(&self.bare.1)).accept(theirs).await?;
            let peer = spiffe::peer(stream.get_ref().1);
            Ok::<_, std::io::Error>((stream, peer))
        };
        let (client, server, spent) = in_turn(client, server)?;
        let (_client, (_server, peer)) = (client?, server?);
        known(peer.as_deref()).map(|()| spent)
    }

    fn mesh(&self) -> Result<Spent, Error> {
        let (ours, theirs) = duplex(PIPE);
        let client = self.mesh.0.handshake(ours, ADDRESS);
        let server = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), theirs).await?;
            self.mesh.1.handshake(hello, TlsConfig::default()).await
        };
        let (client, server, spent) = in_turn(client, server)?;
        let (_client, (_server, peer)) = (client?, server?);
        known(Some(peer.svid.id.as_str())).map(|()| spent)
    }
}

fn known(peer: Option<&str>) -> Result<(), Error> {
    if peer == Some(spiffe::CLIENT) { Ok(()) } else { Err(format!("the client is {peer:?}").into()) }
}

/// Polls client and server in turn until both are done.
fn in_turn<C, S>(client: impl Future<Output = C>, server: impl Future<Output = S>) -> Result<(C, S, Spent), Error> {
    let (mut client, mut server) = (pin!(client), pin!(server));
    let (mut client_done, mut server_done) = (None, None);
    let mut spent = Spent::default();
    let mut cx = Context::from_waker(Waker::noop());
    // Two round trips are all that TLS 1.3 needs.
    for _ in 0..10 {
        let start = Instant::now();
        if client_done.is_none()
            && let Poll::Ready(done) = client.as_mut().poll(&mut cx)
        {
            client_done = Some(done);
        }
        let middle = Instant::now();
        if server_done.is_none()
            && let Poll::Ready(done) = server.as_mut().poll(&mut cx)
        {
            server_done = Some(done);
        }
        spent.client += middle - start;
        spent.server += middle.elapsed();
        match (client_done.take(), server_done.take()) {
            (Some(client), Some(server)) => return Ok((client, server, spent)),
            (client, server) => (client_done, server_done) = (client, server),
        }
    }
    Err("the handshake did not end".into())
}

/// The medians of client, server and both together.
fn sides(rows: Vec<[f64; 3]>) -> Value {
    let median = |side: usize| {
        let mut values: Vec<f64> = rows.iter().filter_map(|row| row.get(side)).copied().collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    json!({ "client": median(0), "server": median(1), "both": median(2) })
}
