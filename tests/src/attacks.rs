//! Certificates of attackers, in real handshakes: as a client against a served mesh, as a server against its client.
//!
//! The table is mesh-core's; here it is proved that nothing between socket and verdict changes a verdict or its reason.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use mesh_core::Mesh;
use mesh_core::clock::ManualClock;
use mesh_core::config::{ClusterConfig, Config, HttpVersion, IdentityConfig, NoPolicy, PlugConfig, Workload};
use mesh_core::identity::forge::{ACCEPTED, Forgery, PARTNER, TRUST_DOMAIN, WEB, Workshop, noon};
use mesh_core::identity::{Identity, MemorySource, SpiffeId, TrustDomain};
use mesh_tower::connect::{ConnectError, Dialer};
use mesh_tower::{Client, ErrorKind};
use rustls::ServerConfig;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::kit::{PATIENCE, Reached, read_answer, soon, tls_with, until};

const ORDERS: &str = "spiffe://td/ns/shop/sa/orders";

/// A chain and its key, presented without a look at either.
#[derive(Debug, Clone)]
struct Presents(Arc<Mutex<Option<Arc<CertifiedKey>>>>);

impl Presents {
    fn nothing() -> Self {
        Self(Arc::default())
    }

    fn these(forgery: &Forgery) -> Self {
        let presents = Self::nothing();
        presents.change(forgery);
        presents
    }

    fn change(&self, forgery: &Forgery) {
        let key = PrivateKeyDer::try_from(forgery.key.serialize_der()).unwrap();
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let chain = forgery.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        *self.0.lock().unwrap() = Some(Arc::new(CertifiedKey::new(chain, key)));
    }

    fn now(&self) -> Option<Arc<CertifiedKey>> {
        self.0.lock().unwrap().clone()
    }
}

impl ResolvesClientCert for Presents {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.now()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Presents {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.now()
    }
}

/// Every row, and one that is too large to be written into a TLS message.
fn table(workshop: &Workshop) -> Vec<Forgery> {
    let mut table = workshop.attacks();
    table.extend(workshop.variants());
    let Forgery { mut chain, key, .. } = workshop.attacks().swap_remove(0);
    chain.push(vec![0; 64 * 1024].into());
    table.push(Forgery { name: "a chain of more than 64 KiB", verdict: "handshake_too_large", chain, key });
    table
}

/// A mesh at [`noon`] that trusts whom the workshop says.
async fn mesh(workshop: &Workshop, id: &str, edit: impl FnOnce(&mut Config)) -> Mesh {
    let id = SpiffeId::parse(id).unwrap();
    let name = id.workload().unwrap().service_account;
    let domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
    let source = PlugConfig::new("memory", &Value::Null);
    let mut config = Config::new(Workload::new(name, "shop"), IdentityConfig { trust_domain: domain, source });
    config.no_policy = NoPolicy::Allow;
    edit(&mut config);
    let svids = vec![Arc::new(workshop.root.svid(id.as_str()))];
    let identity = Identity { svids, bundles: Arc::new(workshop.trust()) };
    let builder = Mesh::builder().config(config).clock(Arc::new(ManualClock::new(noon())));
    builder.identity_source(Arc::new(MemorySource::new(identity))).start().await.unwrap()
}

#[tokio::test]
async fn a_server_refuses_each_attack_for_its_own_reason() {
    let workshop = Workshop::default();
    let orders = mesh(&workshop, ORDERS, |_| {}).await;
    let reached = Reached::default();
    let handler = reached.clone();
    let app = Router::new().fallback(move || async move { handler.note() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(mesh_tower::serve(&orders, listener, app).into_future());

    let handshakes = |reason| orders.metrics().transport.handshakes(reason);
    let mut accepted = 0;
    for attack in table(&workshop) {
        let good = attack.verdict == ACCEPTED;
        let counted: &'static str = if good { "ok" } else { attack.verdict };
        let before = handshakes(counted);
        let answer = async {
            let mut stream = tls_with(address, Presents::these(&attack), "http/1.1").await?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n").await?;
            read_answer(&mut stream).await
        };
        match answer.await {
            Ok(answer) => assert!(good && answer.starts_with("HTTP/1.1 200"), "{}: {answer}", attack.name),
            Err(error) => assert!(!good, "{}: {error}", attack.name),
        }
        until(attack.name, async || (handshakes(counted) == before + 1).then_some(())).await;
        accepted += usize::from(good);
        assert_eq!((reached.count(), handshakes("ok")), (accepted, accepted as u64), "{}", attack.name);
    }
    server.abort();
}

/// A server that presents whatever it is told to, and answers whoever takes it for good.
async fn hostile(presents: Presents, reached: Reached) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(presents));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            if stream.read(&mut [0; 4096]).await.is_ok_and(|bytes| bytes > 0) {
                reached.note();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            }
        }
    });
    address
}

#[tokio::test]
async fn a_client_refuses_each_attack_for_its_own_reason() {
    let workshop = Workshop::default();
    let (presents, reached) = (Presents::nothing(), Reached::default());
    let address = hostile(presents.clone(), reached.clone()).await;
    let ids = [WEB.to_owned(), format!("spiffe://{PARTNER}/ns/shop/sa/web")];
    let mut accepted = 0;
    for attack in table(&workshop) {
        presents.change(&attack);
        // A mesh of its own for each: no endpoint is out because of the attack before.
        let caller = mesh(&workshop, ORDERS, |config| {
            let discover = PlugConfig::new("static", &json!([address.to_string()]));
            let identities = ids.iter().map(|id| SpiffeId::parse(id).unwrap()).collect();
            config.clusters.insert("web".to_owned(), ClusterConfig::new(discover, identities));
        });
        let caller = caller.await;
        let expected = ids.iter().map(|id| SpiffeId::parse(id).unwrap()).collect();
        let dialer = Dialer::new(&caller, expected, HttpVersion::Auto, PATIENCE);
        let dialled = dialer.dial(address).await.map(drop);
        let refused = dialled.as_ref().err();
        assert_eq!(refused.map_or(ACCEPTED, ConnectError::reason), attack.verdict, "{}: {refused:?}", attack.name);
        // What TLS itself refuses is no verdict on an identity.
        let judged = refused.is_some() && attack.verdict != "handshake_too_large";
        let verdict = refused.and_then(ConnectError::peer_refused).map(|refused| refused.reason());
        assert_eq!(verdict, judged.then_some(attack.verdict), "{}", attack.name);

        // With no second left there is a connection, and none that the pool would use.
        if attack.name == "valid for its last second" {
            continue;
        }
        let answer = soon(attack.name, Client::new(&caller, "web").unwrap().get("/").send()).await;
        accepted += usize::from(attack.verdict == ACCEPTED);
        assert_eq!(reached.count(), accepted, "{}: {answer:?}", attack.name);
        match answer {
            Ok(answer) => assert_eq!((answer.status().as_u16(), attack.verdict), (200, ACCEPTED), "{}", attack.name),
            Err(error) => {
                let kind = if judged { ErrorKind::PeerIdentity } else { ErrorKind::Connect };
                assert_eq!((error.kind(), error.is_never_sent()), (kind, true), "{}: {error}", attack.name);
                assert!(error.to_string().contains(&format!("({})", attack.verdict)), "{}: {error}", attack.name);
            }
        }
    }
}
