//! `tls:` of listeners and clusters - what may be less than TLS 1.3 with a full handshake each time.

use super::checker::Checker;
use super::issue::Errors;
use super::walk::Fields;
use super::yaml::{Decode, Node};

/// What one listener or cluster asks of TLS.
///
/// The default is the strictest; each opt-in is logged at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TlsConfig {
    /// The oldest version that is spoken: `"1.3"` (default) or `"1.2"`, in quotes. TLS 1.2 is spoken only with extended
    /// master secret (RFC 7627), ECDHE and AEAD; it sends certificates unencrypted.
    pub min_version: TlsVersion,
    /// Whether sessions are resumed, which saves both sides the signatures of a handshake. Default false.
    ///
    /// Sessions are kept in memory, never in tickets, apart for each listener and cluster, and forgotten when identity,
    /// trust, configuration or policy change. The peer's certificate is judged again at each resumption. Never 0-RTT.
    pub resumption: bool,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2. (RFC 5246)
    V1_2,
    /// TLS 1.3. (RFC 8446)
    #[default]
    V1_3,
}

impl TlsVersion {
    /// As configurations write it: `1.2` or `1.3`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}

impl TlsConfig {
    /// Notes what is less than the default.
    pub(super) fn warn(self, at: &mut Checker<'_>) {
        if self.min_version == TlsVersion::V1_2 {
            at.error("tls.min_version", "TLS 1.2 is spoken: certificates are sent unencrypted");
        }
        if self.resumption {
            at.error("tls.resumption", "sessions are resumed: the peer does not prove again that it holds its key");
        }
    }
}

impl Decode for TlsConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let tls = Self {
            min_version: fields.or("min_version", default.min_version),
            resumption: fields.or("resumption", default.resumption),
        };
        fields.finish();
        Some(tls)
    }
}

impl Decode for TlsVersion {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match node.as_str() {
            Some("1.2") => Some(Self::V1_2),
            Some("1.3") => Some(Self::V1_3),
            _ => node.expected("\"1.2\" or \"1.3\", in quotes", errors),
        }
    }
}
