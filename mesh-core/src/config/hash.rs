//! `hash:` of a cluster or route - what requests are told apart by.

use super::checker::Checker;
use super::issue::Errors;
use super::yaml::Decode;
use super::{Entry, Node, Value};

/// What of a request is hashed, so that requests that share it meet one endpoint.
///
/// In a file: `{ header: x-user }`, `{ cookie: session }`, `source_address` or `principal`; or a list, of which the
/// first that a request has counts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashKey {
    /// The value of this request header; of several values, all, in their sorted order. (Envoy)
    Header(String),
    /// The value of this cookie. It is never set: that is the service's affair.
    Cookie(String),
    /// The address of the caller whose request is being answered, without port; behind trusted proxies the client's.
    SourceAddress,
    /// The SPIFFE ID of the caller whose request is being answered.
    Principal,
}

impl Decode for HashKey {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        const EXPECTED: &str = "{ header: NAME }, { cookie: NAME }, source_address or principal";
        match &node.value {
            Value::String(word) if word == "source_address" => Some(Self::SourceAddress),
            Value::String(word) if word == "principal" => Some(Self::Principal),
            Value::Map(entries) => match entries.as_slice() {
                [Entry { key, value, .. }] if key == "header" => {
                    // Names of header fields have no case, and are compared in lower case.
                    String::decode(value, errors).map(|name| Self::Header(name.to_ascii_lowercase()))
                }
                [Entry { key, value, .. }] if key == "cookie" => String::decode(value, errors).map(Self::Cookie),
                _ => node.expected(EXPECTED, errors),
            },
            _ => node.expected(EXPECTED, errors),
        }
    }
}

impl HashKey {
    pub(super) fn check(&self, field: &str, at: &mut Checker<'_>) {
        let (what, name) = match self {
            Self::Header(name) => ("header", name),
            Self::Cookie(name) => ("cookie", name),
            Self::SourceAddress | Self::Principal => return,
        };
        // RFC 9110 5.6.2, RFC 6265 4.1.1
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) {
            at.error(field, format!("{name:?} is no name of a {what}"));
        }
    }
}
