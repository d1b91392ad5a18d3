//! TLS options on the wire, and the guards of resumption with each of them taken away.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::Mesh;
use mesh_core::clock::{ManualClock, SystemClock, WallClock};
use mesh_core::config::{HttpVersion, TlsConfig, TlsVersion};
use mesh_core::identity::{Identity, SpiffeId};
use mesh_core::snapshot::Snapshot;
use rustls::pki_types::UnixTime;
use rustls::server::Acceptor;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS12;
use rustls::{NamedGroup, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::client::TlsStream;

use super::identity::Live;
use super::resumption::Without;
use super::{ClientTls, HandshakeRefused, ServerTls, VerifiedPeer};
use crate::fixture::{self, Ca, DAY};

const WEB: &str = "spiffe://td/ns/shop/sa/web";
const ORDERS: &str = "spiffe://td/ns/shop/sa/orders";
const PAYMENTS: &str = "spiffe://td/ns/shop/sa/payments";
static ONLY_TLS12: &[&SupportedProtocolVersion] = &[&TLS12];
const HOUR: Duration = Duration::from_secs(3600);

fn resuming() -> TlsConfig {
    TlsConfig::default().resumption(true)
}

/// A client and a server with everything that may change between two of their connections.
struct World {
    /// Each side's own: an honest peer would not present what has ended by its clock.
    client_clock: Arc<ManualClock>,
    server_clock: Arc<ManualClock>,
    ca: Ca,
    web: Snapshot<Identity>,
    orders: Snapshot<Identity>,
    /// Only for its policy generation.
    mesh: Mesh,
    client: ClientTls,
    server: ServerTls,
    options: TlsConfig,
}

impl World {
    async fn new(client_without: Without, server_without: Without, options: TlsConfig) -> Self {
        let now = SystemClock.now();
        let (client_clock, server_clock) = (Arc::new(ManualClock::new(now)), Arc::new(ManualClock::new(now)));
        let clock: Arc<dyn WallClock> = server_clock.clone();
        let ca = Ca::new("root", &clock);
        let (web, orders) = (Snapshot::new(ca.issue(WEB, DAY)), Snapshot::new(ca.issue(ORDERS, DAY)));
        let mesh = fixture::mesh(&ca, "orders", |_| {}).await;
        let live = |identity: &Snapshot<Identity>, clock: &Arc<ManualClock>, without| {
            let mut live = Live::new(identity.clone(), clock.clone());
            (live.without, live.revision) = (without, Some(mesh.revision().clone()));
            Arc::new(live)
        };
        let client = live(&web, &client_clock, client_without);
        let client = ClientTls::over(client, ids(&[ORDERS]), HttpVersion::Http2).options(options);
        let server = ServerTls::over(live(&orders, &server_clock, server_without));
        Self { client_clock, server_clock, ca, web, orders, mesh, client, server, options }
    }

    /// Another client of the same process.
    fn client_of(&self, expected: &[&str]) -> ClientTls {
        ClientTls::over(Arc::clone(&self.client.live), ids(expected), HttpVersion::Http2).options(self.options)
    }

    async fn meet(&self) -> Met {
        meet(&self.client, &self.server, self.options).await
    }
}

fn ids(ids: &[&str]) -> Vec<SpiffeId> {
    ids.iter().map(|id| SpiffeId::parse(id).unwrap()).collect()
}

fn address() -> SocketAddr {
    ([10, 0, 0, 1], 8443).into()
}

/// What both sides made of one connection.
struct Met {
    client: Result<(TlsStream<DuplexStream>, VerifiedPeer), HandshakeRefused>,
    server: Result<VerifiedPeer, HandshakeRefused>,
}

impl Met {
    fn told(peer: Result<&VerifiedPeer, &HandshakeRefused>) -> &'static str {
        match peer {
            Ok(peer) if peer.resumed => "resumed",
            Ok(_) => "full",
            Err(refused) => refused.reason(),
        }
    }

    fn by_server(&self) -> &'static str {
        Self::told(self.server.as_ref())
    }

    fn by_client(&self) -> &'static str {
        Self::told(self.client.as_ref().map(|(_, peer)| peer))
    }
}

/// One connection, and one byte on it, with which a client of TLS 1.3 gets its sessions.
async fn meet(client: &ClientTls, server: &ServerTls, options: TlsConfig) -> Met {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let accept = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), theirs).await?;
        let (mut stream, peer) = server.handshake(hello, options).await?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        Ok::<_, HandshakeRefused>((stream, peer))
    };
    let connect = async {
        let (mut stream, peer) = client.handshake(ours, address()).await?;
        let _ = stream.read_u8().await;
        Ok((stream, peer))
    };
    let (client, server) = tokio::join!(connect, accept);
    Met { client, server: server.map(|(_, peer)| peer) }
}

const GUARDS: [Without; 4] = [
    Without { generations: false, judging: false },
    Without { generations: true, judging: false },
    Without { generations: false, judging: true },
    Without { generations: true, judging: true },
];

/// (what happens between two connections, what becomes of the second with: both guards, no generations, no judging,
/// neither)
type Row = (&'static str, fn(&World), [&'static str; 4]);

#[tokio::test]
async fn a_server_resumes_nobody_whom_it_would_not_accept_now() {
    let table: [Row; 5] = [
        ("nothing", |_| {}, ["resumed"; 4]),
        (
            "the root is removed",
            |world| {
                let clock: Arc<dyn WallClock> = world.server_clock.clone();
                let bundles = Ca::new("other", &clock).issue(ORDERS, DAY).bundles;
                let svids = world.orders.load().svids.clone();
                world.orders.publish(Identity { svids, bundles });
            },
            ["unknown_issuer", "unknown_issuer", "unknown_issuer", "resumed"],
        ),
        (
            "our SVID is renewed",
            |world| {
                world.orders.publish(world.ca.issue(ORDERS, DAY));
            },
            ["full", "resumed", "full", "resumed"],
        ),
        (
            "policy changes",
            |world| {
                let revision = world.mesh.revision();
                revision.publish(revision.load().value().clone());
            },
            ["full", "resumed", "full", "resumed"],
        ),
        (
            "the client's certificate expires",
            |world| world.server_clock.advance(2 * HOUR),
            ["expired", "expired", "resumed", "resumed"],
        ),
    ];
    for version in [TlsVersion::V1_3, TlsVersion::V1_2] {
        for (event, happens, expected) in table {
            for (without, expected) in GUARDS.into_iter().zip(expected) {
                let what = format!("{event}, {without:?}, {version:?}");
                let options = resuming().min_version(version);
                let mut world = World::new(Without { generations: true, judging: true }, without, options).await;
                if version == TlsVersion::V1_2 {
                    world.client = world.client.only(ONLY_TLS12);
                }
                world.web.publish(world.ca.issue(WEB, HOUR));
                assert_eq!(world.meet().await.by_server(), "full", "{what}");
                let again = world.meet().await;
                assert_eq!(again.by_server(), "resumed", "{what}");
                assert_eq!(again.server.unwrap().version, version, "{what}");
                happens(&world);
                assert_eq!(world.meet().await.by_server(), expected, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_resumes_no_server_that_it_would_not_accept_now() {
    let table: [Row; 4] = [
        ("nothing", |_| {}, ["resumed"; 4]),
        (
            "the root is removed",
            |world| {
                let clock: Arc<dyn WallClock> = world.server_clock.clone();
                let bundles = Ca::new("other", &clock).issue(WEB, DAY).bundles;
                let svids = world.web.load().svids.clone();
                world.web.publish(Identity { svids, bundles });
            },
            ["unknown_issuer", "unknown_issuer", "unknown_issuer", "resumed"],
        ),
        (
            "our SVID is renewed",
            |world| {
                world.web.publish(world.ca.issue(WEB, DAY));
            },
            ["full", "resumed", "full", "resumed"],
        ),
        (
            "the server's certificate expires",
            |world| world.client_clock.advance(2 * HOUR),
            ["expired", "expired", "resumed", "resumed"],
        ),
    ];
    for (event, happens, expected) in table {
        for (without, expected) in GUARDS.into_iter().zip(expected) {
            let what = format!("{event}, {without:?}");
            let world = World::new(without, Without { generations: true, judging: true }, resuming()).await;
            world.orders.publish(world.ca.issue(ORDERS, HOUR));
            assert_eq!(world.meet().await.by_client(), "full", "{what}");
            assert_eq!(world.meet().await.by_client(), "resumed", "{what}");
            happens(&world);
            assert_eq!(world.meet().await.by_client(), expected, "{what}");
        }
    }
}

#[tokio::test]
async fn sessions_stay_with_their_listener_and_their_cluster() {
    let world = World::new(Without::default(), Without::default(), resuming()).await;
    assert_eq!(world.meet().await.by_server(), "full");

    // The same identity on another port.
    let mut other = ServerTls::over(Arc::clone(&world.server.live));
    assert_eq!(meet(&world.client, &other, world.options).await.by_server(), "full");
    // The control: with the sessions of the first.
    let client = world.client_of(&[ORDERS]);
    assert_eq!(meet(&client, &world.server, world.options).await.by_server(), "full");
    other.kept = Arc::clone(&world.server.kept);
    assert_eq!(meet(&client, &other, world.options).await.by_server(), "resumed");

    // Another cluster of the same process.
    let mut till = world.client_of(&[PAYMENTS]);
    assert_eq!(meet(&till, &world.server, world.options).await.by_client(), "peer_id_mismatch");
    // The control: with the sessions of the first.
    till.resumable = Arc::clone(&client.resumable);
    assert_eq!(meet(&till, &world.server, world.options).await.by_client(), "resumed");

    // Another service at the address of the first.
    let clock: Arc<dyn WallClock> = world.server_clock.clone();
    let payments = super::for_test::server(&Snapshot::new(world.ca.issue(PAYMENTS, DAY)), &clock);
    assert_eq!(meet(&world.client, &payments, world.options).await.by_client(), "peer_id_mismatch");

    // A listener that does not resume gives no sessions, and knows none.
    let fresh = world.client_of(&[ORDERS]);
    for _ in 0..2 {
        let met = meet(&fresh, &world.server, TlsConfig::default()).await;
        assert_eq!(met.by_server(), "full");
        assert_eq!(met.client.unwrap().0.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn handshakes_in_each_others_midst_keep_their_own_verdicts() {
    let world = World::new(Without::default(), Without::default(), TlsConfig::default()).await;
    let clock: Arc<dyn WallClock> = world.client_clock.clone();
    let stranger = Ca::new("stranger", &clock);
    let caller = |number: usize| {
        let id = format!("spiffe://td/ns/shop/sa/caller-{number}");
        let welcome = number % 3 != 1;
        let ca = if welcome { &world.ca } else { &stranger };
        let identity = Identity { bundles: Arc::new(Ca::trust(&[&world.ca])), ..ca.issue(&id, DAY) };
        let client = super::for_test::client(&Snapshot::new(identity), &clock, &[ORDERS], HttpVersion::Http2);
        (client, id, welcome)
    };
    let callers: Vec<_> = (0..24).map(caller).collect();
    // In one task: each flight of one is answered between those of all others.
    let met = callers.iter().map(|(client, ..)| meet(client, &world.server, world.options));
    for (met, (_, id, welcome)) in futures_util::future::join_all(met).await.into_iter().zip(&callers) {
        match met.server {
            Ok(peer) => assert!(*welcome && peer.svid.id.as_str() == id, "{id} is taken for {}", peer.svid.id),
            Err(refused) => assert!(!welcome && matches!(refused, HandshakeRefused::Peer(_)), "{id}: {refused}"),
        }
    }
    // Asked by nobody's handshake, the verifier vouches for nobody.
    let (verifier, _) = world.server.setup(world.options).unwrap();
    let chain = world.web.load().svid().unwrap().chain().to_vec();
    let leaf = rustls::pki_types::CertificateDer::from(chain[0].to_vec());
    let asked = ClientCertVerifier::verify_client_cert(&*verifier, &leaf, &[], UnixTime::now());
    assert!(matches!(asked, Err(rustls::Error::General(_))), "{asked:?}");
}

#[tokio::test]
async fn kept_sessions_are_bounded() {
    let world = World::new(Without::default(), Without::default(), resuming()).await;
    assert_eq!(world.meet().await.by_server(), "full");
    let sessions = Arc::clone(&world.server.setup(world.options).unwrap().1.session_storage);
    assert!(Arc::ptr_eq(&sessions, &world.server.setup(world.options).unwrap().1.session_storage));
    let name = |n: u32| n.to_be_bytes().to_vec();
    for n in 0..4_000 {
        sessions.put(name(n), vec![0; 8]);
    }
    let kept = (0..4_000).filter(|n| sessions.get(&name(*n)).is_some()).count();
    assert!((1_000..=1_100).contains(&kept), "{kept}");
}

/// The extensions of a ClientHello or ServerHello record, in order.
fn extensions(record: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let u16_at = |at: usize| u16::from_be_bytes([record[at], record[at + 1]]);
    let client = record[5] == 1;
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(record[at]); // session ID
    at += if client { 2 + usize::from(u16_at(at)) } else { 2 }; // cipher suites, or the one
    at += if client { 1 + usize::from(record[at]) } else { 1 }; // compression
    let end = at + 2 + usize::from(u16_at(at));
    at += 2;
    let mut found = Vec::new();
    while at < end {
        let length = usize::from(u16_at(at + 2));
        found.push((u16_at(at), record[at + 4..at + 4 + length].to_vec()));
        at += 4 + length;
    }
    found
}

/// The first flight of `client`.
async fn client_hello(client: &ClientTls) -> Vec<u8> {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let mut hello = vec![0; 64 * 1024];
    let length = tokio::select! {
        _ = client.handshake(ours, address()) => panic!("nobody answered"),
        length = theirs.read(&mut hello) => length.unwrap(),
    };
    hello.truncate(length);
    hello
}

/// What `server` says to a first flight, and why it refuses it, if it does.
async fn answer(server: &ServerTls, options: TlsConfig, hello: &[u8]) -> (Vec<u8>, Option<&'static str>) {
    let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
    ours.write_all(hello).await.unwrap();
    let accept = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), theirs).await?;
        server.handshake(hello, options).await
    };
    let mut answer = vec![0; 64 * 1024];
    let mut refused = None;
    {
        let mut accept = std::pin::pin!(accept);
        let read = async {
            let length = ours.read(&mut answer).await.unwrap();
            answer.truncate(length);
        };
        let mut read = std::pin::pin!(read);
        tokio::select! {
            biased;
            ended = accept.as_mut() => {
                refused = Some(ended.unwrap_err().reason());
                read.await;
            }
            () = read.as_mut() => {}
        }
    }
    (answer, refused)
}

const SERVER_NAME: u16 = 0;
const GROUPS: u16 = 10;
const EXTENDED_MASTER_SECRET: u16 = 23;
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;
const VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

#[tokio::test]
async fn the_first_flights_say_what_is_offered_and_what_is_not() {
    let mlkem = u16::from(NamedGroup::X25519MLKEM768).to_be_bytes();
    for (options, versions, resumes) in [
        (TlsConfig::default(), &[2, 3, 4][..], false),
        (TlsConfig::default().min_version(TlsVersion::V1_2), &[4, 3, 4, 3, 3], false),
        (resuming(), &[2, 3, 4], true),
    ] {
        let world = World::new(Without::default(), Without::default(), options).await;
        assert_eq!(world.meet().await.by_server(), "full");
        let hello = client_hello(&world.client).await;
        let offered = extensions(&hello);
        let find = |wanted| offered.iter().find(|(kind, _)| *kind == wanted).map(|(_, data)| &data[..]);
        assert_eq!(find(VERSIONS), Some(versions), "{options:?}");
        assert_eq!(find(GROUPS).unwrap()[2..4], mlkem, "preferred");
        assert_eq!(find(KEY_SHARE).unwrap()[2..4], mlkem, "and begun with");
        assert_eq!(find(PRE_SHARED_KEY).is_some(), resumes, "{options:?}");
        for never in [EARLY_DATA, SERVER_NAME, SESSION_TICKET] {
            assert_eq!(find(never), None, "{options:?}");
        }
        let (flight, refused) = answer(&world.server, options, &hello).await;
        assert_eq!(refused, None);
        let chosen = extensions(&flight);
        let key_share = chosen.iter().find(|(kind, _)| *kind == KEY_SHARE).unwrap();
        assert_eq!(key_share.1[..2], mlkem);
    }
}

#[tokio::test]
async fn tls_12_is_spoken_where_it_is_opted_in_and_never_without_extended_master_secret() {
    let opted = TlsConfig::default().min_version(TlsVersion::V1_2);
    let mut world = World::new(Without::default(), Without::default(), opted).await;
    assert_eq!(world.meet().await.server.unwrap().version, TlsVersion::V1_3, "the newer one wins");
    world.client = world.client.only(ONLY_TLS12);
    let met = world.meet().await;
    assert_eq!(met.client.as_ref().unwrap().1.version, TlsVersion::V1_2);
    assert_eq!(met.server.unwrap().svid.id.as_str(), WEB);
    assert_eq!(meet(&world.client, &world.server, TlsConfig::default()).await.by_server(), "incompatible");

    let mut hello = client_hello(&world.client).await;
    assert_eq!(answer(&world.server, opted, &hello).await.1, None);
    let at = hello.windows(4).position(|bytes| bytes == [0, EXTENDED_MASTER_SECRET as u8, 0, 0]).unwrap();
    hello[at] = 0xfa; // an extension that nobody knows
    assert_eq!(answer(&world.server, opted, &hello).await.1, Some("incompatible"));

    for suite in &world.server.live.provider.cipher_suites {
        let name = format!("{:?}", suite.suite());
        let ephemeral = name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_");
        assert!(ephemeral && (name.contains("_GCM_") || name.contains("_CHACHA20_POLY1305_")), "{name}");
    }
}

#[tokio::test]
async fn secrets_cannot_be_extracted() -> io::Result<()> {
    let world = World::new(Without::default(), Without::default(), resuming()).await;
    let (stream, _) = world.meet().await.client.unwrap();
    let (_, connection) = stream.into_inner();
    assert!(connection.dangerous_extract_secrets().is_err());
    Ok(())
}
