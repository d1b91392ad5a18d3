//! Real requests to a real Envoy.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::StreamExt;
use mesh_core::clock::{SystemClock, WallClock};
use mesh_core::config::{IssuerConfig, PlugConfig};
use mesh_core::identity::dev_ca::{DevCa, SvidPem};
use mesh_core::identity::{SpiffeId, TrustDomain};
use mesh_core::token::{IssuerKeys, Jwks, TokenVerifier};
use mesh_tower::test_util::TestIssuer;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::super::envoy_process::Envoy;
use super::generate::{AUDIENCES, Connection, DOMAINS, Flaw, ISSUERS, PEERS, Sent, Token};
use super::translate::Filters;
use crate::kit::{soon, tls_over};

/// Everything that both sides believe in.
pub(super) struct World {
    pub(super) peers: Vec<SpiffeId>,
    svids: Vec<SvidPem>,
    issuers: Vec<TestIssuer>,
    /// Has another key for the same name.
    forger: TestIssuer,
    pub(super) verifier: TokenVerifier,
}

impl World {
    pub(super) fn new() -> Self {
        let authority = |domain: &&str| {
            let domain = TrustDomain::parse(domain).unwrap();
            DevCa::in_memory(&domain, Arc::new(SystemClock)).unwrap()
        };
        let authorities: Vec<DevCa> = DOMAINS.iter().map(authority).collect();
        let peers: Vec<SpiffeId> =
            PEERS.iter().map(|peer| SpiffeId::parse(&format!("spiffe://{peer}")).unwrap()).collect();
        let issued = |id: &SpiffeId| {
            let authority = authorities.iter().find(|authority| authority.trust_domain().as_str() == id.trust_domain());
            authority.unwrap().issue_pem(id, Duration::from_secs(3_600)).unwrap()
        };
        let svids = peers.iter().map(issued).collect();
        let issuers: Vec<TestIssuer> = ISSUERS.iter().map(|name| TestIssuer::new(*name).unwrap()).collect();
        let verifier = ISSUERS.iter().zip(&issuers).fold(TokenVerifier::default(), |verifier, (name, issuer)| {
            let audiences = AUDIENCES.iter().map(|audience| (*audience).to_owned()).collect();
            let config = IssuerConfig::new(*name, audiences, PlugConfig::new("file", &json!(issuer.keys())));
            let keys = Jwks::parse(&std::fs::read(issuer.keys()).unwrap()).unwrap();
            verifier.with(config, IssuerKeys::new(Arc::new(keys)))
        });
        Self { peers, svids, issuers, forger: TestIssuer::new("forger").unwrap(), verifier }
    }

    /// The compact form, signed and flawed.
    pub(super) fn token(&self, token: &Token) -> String {
        let now = SystemClock.now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let issuer = ISSUERS.iter().position(|name| *name == token.issuer).unwrap();
        let mut claims = token.claims.clone();
        claims["iss"] = token.issuer.into();
        claims["iat"] = now.into();
        claims["exp"] = (now + 600).into();
        match token.flaw {
            None | Some(Flaw::Signature | Flaw::NoToken) => {}
            Some(Flaw::Expired) => (claims["iat"], claims["exp"]) = ((now - 7_200).into(), (now - 3_600).into()),
            Some(Flaw::NoExpiry) => drop(claims.as_object_mut().unwrap().remove("exp")),
            Some(Flaw::LongLife) => claims["exp"] = (now + 10 * 86_400).into(),
            Some(Flaw::NoAudience) => drop(claims.as_object_mut().unwrap().remove("aud")),
            Some(Flaw::OtherAudience) => claims["aud"] = "else".into(),
            Some(Flaw::UnknownIssuer) => claims["iss"] = "https://c.example".into(),
        }
        match token.flaw {
            Some(Flaw::NoToken) => "abc".to_owned(),
            Some(Flaw::Signature) => self.forger.sign(&claims).unwrap(),
            _ => self.issuers[issuer].sign(&claims).unwrap(),
        }
    }

    /// The filter for tokens, as Istio makes it for `RequestAuthentication`: one that comes must be good.
    fn jwt_authn(&self) -> Value {
        let name = |index: usize| format!("origins-{index}");
        let provider = |(index, issuer): (usize, &TestIssuer)| {
            let provider = json!({
                "issuer": ISSUERS[index], "audiences": AUDIENCES, "payload_in_metadata": "payload",
                "normalize_payload_in_metadata": { "space_delimited_claims": ["scope", "permission"] },
                "local_jwks": { "inline_string": std::fs::read_to_string(issuer.keys()).unwrap() },
            });
            (name(index), provider)
        };
        let providers: serde_json::Map<String, Value> = self.issuers.iter().enumerate().map(provider).collect();
        let mut any: Vec<Value> = (0..ISSUERS.len()).map(|index| json!({ "provider_name": name(index) })).collect();
        let each =
            |provider: &Value| json!({ "requires_any": { "requirements": [provider, { "allow_missing": {} }] } });
        any.push(json!({ "requires_all": { "requirements": any.iter().map(each).collect::<Vec<_>>() } }));
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": providers,
            "rules": [{ "match": { "prefix": "/" }, "requires": { "requires_any": { "requirements": any } } }],
        })
    }

    async fn envoy(&self, binary: &Path, sets: &[Filters]) -> Envoy {
        let route = |(index, filters): (usize, &Filters)| {
            let rules = [("deny", &filters.deny), ("allow", &filters.allow)];
            let configs: serde_json::Map<String, Value> = rules
                .into_iter()
                .filter_map(|(name, rules)| {
                    let config = json!({
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
                        "rbac": { "rules": rules.as_ref()? },
                    });
                    Some((name.to_owned(), config))
                })
                .collect();
            json!({
                "match": { "prefix": "/", "headers": [{ "name": "x-set", "string_match": { "exact": index.to_string() } }] },
                "direct_response": { "status": 200 }, "typed_per_filter_config": configs,
            })
        };
        let routes = Value::Array(sets.iter().enumerate().map(route).collect());
        let dir = tempfile::tempdir().unwrap();
        self.svids[0].write(&dir.path().join("server")).unwrap();
        let roots: BTreeSet<&str> = self.svids.iter().map(|svid| svid.bundle.as_str()).collect();
        let roots: String = roots.into_iter().collect();
        std::fs::write(dir.path().join("roots.pem"), roots).unwrap();
        let tokens = self.jwt_authn();
        Envoy::configured(binary, dir, "envoy-rbac.yaml", &[("@JWT@", &tokens), ("@ROUTES@", &routes)]).await
    }

    /// The status of each request, where the policies `n` are behind the route `n`.
    pub(super) async fn ask(
        &self,
        binary: &Path,
        sets: &[Filters],
        connections: &[Connection],
        sent: &[(Sent, Option<String>)],
    ) -> Vec<u16> {
        let envoy = self.envoy(binary, sets).await;
        let each = connections.iter().enumerate().map(|(index, connection)| {
            let mine = sent.iter().enumerate().filter(move |(_, (sent, _))| sent.connection == index);
            let mine: Vec<(usize, String)> =
                mine.map(|(at, (sent, token))| (at, head(sent, token.as_deref()))).collect();
            self.one_by_one(envoy.address, connection, mine)
        });
        let answers: Vec<Vec<(usize, u16)>> = futures_util::stream::iter(each).buffer_unordered(8).collect().await;
        let mut statuses = vec![0; sent.len()];
        for (at, status) in answers.into_iter().flatten() {
            statuses[at] = status;
        }
        statuses
    }

    async fn one_by_one(
        &self,
        envoy: SocketAddr,
        connection: &Connection,
        heads: Vec<(usize, String)>,
    ) -> Vec<(usize, u16)> {
        let mut open: Option<Box<dyn Stream>> = None;
        let mut statuses = Vec::new();
        for (at, head) in heads {
            let mut tries = 0;
            let (status, closes) = loop {
                let mut stream = match open.take() {
                    Some(stream) => stream,
                    None => self.open(envoy, connection).await,
                };
                let written = stream.write_all(head.as_bytes()).await;
                let answer =
                    soon(&head, answer(&mut stream, head.starts_with("HEAD "))).await.filter(|_| written.is_ok());
                if let Some((status, closes)) = answer {
                    open = Some(stream);
                    break (status, closes);
                }
                tries += 1;
                assert!(tries < 3, "no answer to {head}");
            };
            if closes {
                open = None;
            }
            statuses.push((at, status));
        }
        statuses
    }

    async fn open(&self, envoy: SocketAddr, connection: &Connection) -> Box<dyn Stream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((connection.source, 0))).unwrap();
        let mut stream = soon("a connection", socket.connect(envoy)).await.unwrap();
        let Connection { client, destination: (address, port), .. } = connection;
        let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        let proxy = format!("PROXY {family} {client} {address} 40000 {port}\r\n");
        stream.write_all(proxy.as_bytes()).await.unwrap();
        if !connection.tls {
            return Box::new(stream);
        }
        // An address is no server name, and none is sent.
        let name = connection.sni.map_or(ServerName::from(envoy.ip()), |name| ServerName::try_from(name).unwrap());
        let svid = connection.peer.map(|peer| &self.svids[peer]);
        Box::new(tls_over(stream, svid, name, "http/1.1").await.unwrap())
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

fn head(sent: &Sent, token: Option<&str>) -> String {
    let Sent { set, method, target, host, colours, forwarded, .. } = sent;
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\nx-set: {set}\r\n");
    for colour in colours {
        head += &format!("x-colour: {colour}\r\n");
    }
    if let Some(forwarded) = forwarded {
        head += &format!("x-forwarded-for: {forwarded}\r\n");
    }
    if let Some(token) = token {
        head += &format!("authorization: Bearer {token}\r\n");
    }
    head + "\r\n"
}

/// A status, and whether the connection ends with it; `None` where it ended before. No body follows where the head says how
/// long it would be, if that is all that was asked for.
async fn answer(stream: &mut Box<dyn Stream>, head_alone: bool) -> Option<(u16, bool)> {
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.filter(|_| !head_alone).map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Some((status, head.contains("connection: close")));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
