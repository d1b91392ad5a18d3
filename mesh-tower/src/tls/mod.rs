//! rustls over live identity.
//!
//! Certificates and roots are replaced while the process runs, and a handshake must use those of the moment. So no
//! rustls configuration is built around a certificate: a resolver presents the current SVID, a verifier judges the
//! peer against the current bundles, and both read one atomic snapshot.
//!
//! Every handshake gets a verifier of its own, which keeps what it proved: the chain is judged once, by
//! [`mesh_core::identity::verify_svid`], and the result belongs to exactly one connection. Clients that resume sessions
//! share one verifier for each generation, because rustls resumes under no other; it keeps nothing, and judges each peer
//! again when its handshake has ended.
//!
//! | choice | why |
//! |---|---|
//! | TLS 1.3; 1.2 only if a listener or cluster says so, with extended master secret | no renegotiation, no static RSA, encrypted certificates |
//! | explicit [`CryptoProvider`](rustls::crypto::CryptoProvider), X25519MLKEM768 first | a process-wide one would be shared with strangers |
//! | no 0-RTT, no stateless tickets; resumption only if a listener or cluster says so | rustls restores a stored identity without running the verifier again |
//! | time from [`WallClock`](mesh_core::clock::WallClock) | expiry can be replayed |
//!
//! With TLS 1.3 a client learns that its own certificate was refused only at its first read; the client's pool reads it then.

mod client;
mod identity;
#[cfg(feature = "keylog")]
mod key_log;
mod refusal;
mod resumption;
mod server;
#[cfg(test)]
mod tests;
mod verifier;

pub use client::ClientTls;
pub(crate) use identity::MeshTime;
pub use refusal::{HandshakeRefused, OwnRefused, PeerRefused};
pub(crate) use refusal::{alert_in, refuses_certificate};
pub use server::ServerTls;

use std::sync::Arc;

use mesh_core::audit::AuditOrigin;
use mesh_core::config::{TlsConfig, TlsVersion};
use mesh_core::identity::VerifiedSvid;
use rustls::version::{TLS12, TLS13};
use rustls::{CommonState, NamedGroup, SupportedProtocolVersion};

/// The peer of one finished handshake.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifiedPeer {
    /// What its chain proved.
    pub svid: Arc<VerifiedSvid>,
    /// Its certificates as DER, leaf first.
    pub chain: Vec<Arc<[u8]>>,
    /// The protocol that ALPN chose.
    pub http: http::Version,
    /// The version of TLS.
    pub version: TlsVersion,
    /// Whether an earlier session was resumed; its certificates were judged again.
    pub resumed: bool,
    /// The group of the key exchange, by its name in TLS.
    pub group: Option<&'static str>,
    /// The server name that a client asked us for.
    pub server_name: Option<Box<str>>,
}

impl VerifiedPeer {
    fn new(svid: Arc<VerifiedSvid>, tls: &CommonState, resumed: bool) -> Self {
        let chain = tls.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|der| Arc::from(der.as_ref())).collect();
        // HTTP/1.1 where the peer offered no ALPN at all.
        let http = if tls.alpn_protocol() == Some(H2) { http::Version::HTTP_2 } else { http::Version::HTTP_11 };
        let tls12 = tls.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_2);
        let version = if tls12 { TlsVersion::V1_2 } else { TlsVersion::V1_3 };
        let group = tls.negotiated_key_exchange_group().map(|group| group_name(group.name()));
        Self { svid, chain, http, version, resumed, group, server_name: None }
    }

    /// What audit records say of it.
    pub(crate) fn origin(&self) -> AuditOrigin {
        let mut origin = AuditOrigin::default();
        origin.peer_sha256 = Some(self.svid.fingerprint);
        origin.tls_version = Some(self.version.as_str());
        origin.tls_group = self.group;
        origin.tls_resumed = Some(self.resumed);
        origin.sni = self.server_name.clone();
        origin
    }
}

/// As IANA registers it.
fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::X25519 => "x25519",
        NamedGroup::secp256r1 => "secp256r1",
        NamedGroup::secp384r1 => "secp384r1",
        NamedGroup::secp256r1MLKEM768 => "SecP256r1MLKEM768",
        _ => "other",
    }
}

fn versions(options: TlsConfig) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match options.min_version {
        TlsVersion::V1_2 => &BOTH,
        // A newer one than these would have to be spoken here first.
        _ => BOTH.get(..1).unwrap_or_default(),
    }
}

/// ALPN protocol names. (RFC 7301 6, RFC 9113 3.1)
const H2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

/// Both sides over an identity that belongs to no mesh.
#[cfg(test)]
pub(crate) mod for_test {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use mesh_core::clock::WallClock;
    use mesh_core::config::HttpVersion;
    use mesh_core::identity::{Identity, SpiffeId, VerifiedSvid};
    use mesh_core::snapshot::Snapshot;

    use super::identity::Live;
    use super::{ClientTls, ServerTls};

    /// What a peer is taken for by a test that takes the judging of resumed sessions away.
    pub(super) fn unjudged() -> VerifiedSvid {
        VerifiedSvid {
            id: SpiffeId::parse("spiffe://td/unjudged").unwrap(),
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000),
            serial: String::new(),
            fingerprint: [0; 32],
        }
    }

    pub(crate) fn server(identity: &Snapshot<Identity>, clock: &Arc<dyn WallClock>) -> ServerTls {
        ServerTls::over(Arc::new(Live::new(identity.clone(), Arc::clone(clock))))
    }

    pub(crate) fn client(
        identity: &Snapshot<Identity>,
        clock: &Arc<dyn WallClock>,
        expected: &[&str],
        http: HttpVersion,
    ) -> ClientTls {
        let expected = expected.iter().map(|id| SpiffeId::parse(id).unwrap()).collect();
        ClientTls::over(Arc::new(Live::new(identity.clone(), Arc::clone(clock))), expected, http)
    }
}
