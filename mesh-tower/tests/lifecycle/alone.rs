//! A connection between a mesh and somebody who never ends it: what is measured is what one end does by itself.
//!
//! The control arm has the same certificates, traffic and peers, and sets the mesh's clock back once the stream runs. It then
//! believes that the certificate is good for longer, and nobody ends the connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::{client, server};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::config::HttpVersion;
use mesh_core::identity::dev_ca::SvidPem;
use mesh_core::rng::Rng;
use mesh_tower::Client;
use mesh_tower::accept::Accept;
use mesh_tower::connect::Connector;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::time::{Instant, sleep};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::kit::{Agent, Authority, Calendar, Network, S, id, workload};

/// How long the certificate of the bare end is good for.
const TTL: Duration = Duration::from_secs(20);
/// The bound that `rotation` holds both ends to.
const BOUND: Duration = Duration::from_secs(2);
const ADDRESS: ([u8; 4], u16) = ([10, 0, 0, 1], 8443);

/// A stream that never ends by itself.
fn endless() -> Body {
    Body::from_stream(stream::unfold((), |()| async {
        sleep(S / 2).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b"tick")), ()))
    }))
}

/// The mesh, its certificate good for a day, and everybody's network. The mesh's clock is its own.
struct World {
    authority: Arc<Authority>,
    network: Network,
    clock: Arc<Calendar>,
}

impl World {
    fn new() -> Self {
        let real = Calendar::new();
        let authority = Authority::new(23 * 3600 * S, real.clone());
        Self { authority, network: Network::new(real), clock: Calendar::new() }
    }

    async fn mesh(&self, name: &str, calls: &[(&str, HttpVersion, SocketAddr, &str)]) -> mesh_core::Mesh {
        let (authority, clock) = (self.authority.clone(), self.clock.clone());
        let agent = Agent { authority, id: id(name), clock: clock.clone(), rng: Rng::seeded(1), renews: true };
        workload(name, Arc::new(agent), clock, calls).await
    }

    /// Waits until the stream runs, and then for three lifetimes. How long the one connection outlived its certificate, and
    /// whether it is open still.
    async fn overstay(&self, cuts: bool) -> (Duration, bool) {
        let begun = Instant::now();
        while self.network.open() == 0 {
            assert!(begun.elapsed() < TTL / 4, "no connection");
            sleep(S / 10).await;
        }
        sleep(S).await; // virtual: the handshake takes none of it
        if !cuts {
            self.clock.skew(-3600);
        }
        sleep(3 * TTL).await;
        let lives = self.network.lives.lock().unwrap().len();
        assert!(lives >= 1, "{lives} connections");
        (self.network.overstay(), self.network.open() > 0)
    }
}

/// A mesh serves; its client is hyper and rustls alone, and reads on for as long as it may.
async fn served(cuts: bool) -> (Duration, bool) {
    let world = World::new();
    let orders = world.mesh("orders", &[]).await;
    world.network.serve(&orders, ADDRESS.into(), Router::new().route("/endless", get(|| async { endless() })));
    let (identity, pem) = world.authority.bare(&id("web"), TTL);
    let io = world.network.dialler(identity).connect(ADDRESS.into()).await.unwrap();
    let tls = TlsConnector::from(Arc::new(client_config(&pem))).connect(ServerName::try_from("orders").unwrap(), io);
    let (mut send, connection) =
        client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls.await.unwrap())).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://orders/endless").version(Version::HTTP_2).body(Empty::<Bytes>::new()).unwrap();
    let mut body = send.send_request(request).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "tick");
    tokio::spawn(async move {
        let _open = send;
        while let Some(Ok(_)) = body.frame().await {}
    });
    world.overstay(cuts).await
}

/// A mesh calls; its server is hyper and rustls alone, and sends on for as long as it may.
async fn called(cuts: bool) -> (Duration, bool) {
    let world = World::new();
    let (identity, pem) = world.authority.bare(&id("orders"), TTL);
    let mut listener = world.network.listen(ADDRESS.into(), identity);
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&pem)));
    tokio::spawn(async move {
        while let Ok((wire, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(wire).await else { continue };
            let serve = hyper::service::service_fn(|_| async { Ok::<_, Infallible>(Response::new(endless())) });
            let connection =
                server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), serve);
            tokio::spawn(connection);
        }
    });
    let web = world.mesh("web", &[("orders", HttpVersion::Http2, ADDRESS.into(), "orders")]).await;
    world.network.join(&web);
    let client = Client::new(&web, "orders").unwrap();
    let response = client.get("/endless").timeout(TTL * 100).no_retry().send().await.unwrap();
    tokio::spawn(response.text());
    let overstay = world.overstay(cuts).await;
    drop(client);
    overstay
}

#[tokio::test(start_paused = true)]
async fn a_server_ends_by_itself_what_its_client_keeps_open() {
    let (overstay, open) = served(true).await;
    assert!(overstay <= BOUND && !open, "{overstay:?}, open: {open}");
    let (overstay, open) = served(false).await;
    assert!(overstay > BOUND && open, "control arm: somebody else ends it after {overstay:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_ends_by_itself_what_its_server_keeps_open() {
    let (overstay, open) = called(true).await;
    assert!(overstay <= BOUND && !open, "{overstay:?}, open: {open}");
    let (overstay, open) = called(false).await;
    assert!(overstay > BOUND && open, "control arm: somebody else ends it after {overstay:?}");
}

fn certificate(pem: &SvidPem) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(pem.certificate.as_bytes()).map(Result::unwrap).collect();
    (chain, PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap())
}

fn client_config(pem: &SvidPem) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (chain, key) = certificate(pem);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)))
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn server_config(pem: &SvidPem) -> ServerConfig {
    let (chain, key) = certificate(pem);
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Believes every server.
#[derive(Debug)]
struct Gullible(Arc<CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
