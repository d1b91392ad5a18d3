//! One reading of a request, so that policy, router, logs and limits cannot see different ones.
//!
//! Every bypass of this kind (Istio, Envoy, Consul and grpc-go, 2019 to 2026) came from two readers of the same bytes:
//! one saw `/public/../admin`, the other `/admin`. Here a request whose target has more than one reading is refused, or
//! gets the one that `authorization.canonical` gives it; from here on nobody sees another.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Request, Uri};
use mesh_core::policy::canonical::{CanonicalPath, Canonicalization, host, is_stripped};

/// Method, authority and path as everybody sees them.
#[derive(Debug)]
pub(crate) struct Canonical {
    method: Method,
    host: Box<str>,
    uri: Uri,
    /// What policy is asked about in place of the path: as sent, as resolved.
    readings: Option<Box<(String, String)>>,
}

impl Canonical {
    /// Reads a request, or says by a stable code why it has no single reading.
    pub(crate) fn of<B>(request: &Request<B>, grpc: bool, mode: Canonicalization) -> Result<Self, &'static str> {
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        singletons(headers)?;
        if method == Method::CONNECT || uri.path() == "*" {
            return Err("target_form");
        }
        if headers.contains_key(UPGRADE) {
            return Err("upgrade");
        }
        if !matches!(uri.scheme_str(), None | Some("https" | "http")) {
            return Err("scheme");
        }
        let host = authority(uri, headers)?;
        let CanonicalPath { path, views } = mode.path(uri.path())?;
        let readings = views.map(|(sent, resolved)| Box::new((sent.into_owned(), resolved.into_owned())));
        let uri = match path {
            Cow::Borrowed(_) => uri.clone(),
            Cow::Owned(path) => with_path(uri, path)?,
        };
        if grpc {
            if method != Method::POST {
                return Err("grpc_method");
            }
            if uri.query().is_some() || !grpc_path(uri.path()) {
                return Err("grpc_path");
            }
        }
        Ok(Self { method: method.clone(), host, uri, readings })
    }

    pub(crate) fn method(&self) -> &str {
        self.method.as_str()
    }

    /// Lower case, without a trailing dot, with the port if the request had one.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The target as everybody sees it.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The path that policy judges, and beside it in mode `dual` what else it may be read as.
    pub(crate) fn readings(&self) -> (&str, Option<&str>) {
        match self.readings.as_deref() {
            Some((sent, resolved)) => (sent, Some(resolved)),
            None => (self.path(), None),
        }
    }

    /// Without query; fragments never reach us: `http` cuts at `#`, for the router too.
    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }
}

/// Headers of which a second one changes the meaning of the message. (RFC 9110 5.3, RFC 9112 6.3)
fn singletons(headers: &HeaderMap) -> Result<(), &'static str> {
    const ONCE: [(HeaderName, &str); 4] = [
        (HOST, "duplicate_host"),
        (AUTHORIZATION, "duplicate_authorization"),
        (CONTENT_LENGTH, "duplicate_content_length"),
        (CONTENT_TYPE, "duplicate_content_type"),
    ];
    for (name, reason) in &ONCE {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(reason);
        }
    }
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        return Err("length_and_transfer_encoding");
    }
    Ok(())
}

/// The authority: `:authority` or that of an absolute target; a `Host` beside it must say the same. (RFC 9113 8.3.1,
/// RFC 9112 3.2.2)
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Box<str>, &'static str> {
    let target = uri.authority().map(|authority| host(authority.as_str()).ok_or("host")).transpose()?;
    let header = match headers.get(HOST) {
        Some(value) => Some(value.to_str().ok().and_then(host).ok_or("host")?),
        None => None,
    };
    match (target, header) {
        (Some(target), Some(header)) if target != header => Err("host_mismatch"),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err("host_missing"),
    }
}

/// The same target with another path.
fn with_path(uri: &Uri, mut path: String) -> Result<Uri, &'static str> {
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.try_into().map_err(|_| "path_form")?);
    Uri::from_parts(parts).map_err(|_| "path_form")
}

/// Exactly `/package.Service/Method`, in protobuf identifiers.
pub(crate) fn grpc_path(path: &str) -> bool {
    let identifier = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    path.strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .is_some_and(|(service, method)| service.split('.').all(identifier) && identifier(method))
}

/// Removes every header by which a caller could claim an identity, steer the mesh, or have another header removed.
///
/// Inbound, no peer is trusted with any of them: identity comes from the handshake and the token alone.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let doomed: Vec<HeaderName> = headers.keys().filter(|name| is_stripped(name.as_str())).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(request: http::request::Builder, grpc: bool) -> Result<Canonical, &'static str> {
        Canonical::of(&request.body(()).unwrap(), grpc, Canonicalization::Reject)
    }

    #[test]
    fn whole_requests() {
        let get = |uri: &str| Request::get(uri);
        let ok = |read: Result<Canonical, _>| read.map(|c| format!("{} {} {}", c.method(), c.host(), c.path()));
        for (name, request, expected) in [
            ("origin form", get("/a?q=//..").header("host", "O:1"), Ok("GET o:1 /a")),
            ("fragment cut for all", get("/a#/../admin").header("host", "o"), Ok("GET o /a")),
            (":authority", get("https://O.x/a"), Ok("GET o.x /a")),
            ("absolute form that agrees", get("http://o/a").header("host", "O."), Ok("GET o /a")),
            ("absolute form that differs", get("http://o/a").header("host", "p"), Err("host_mismatch")),
            ("another port", get("https://o/a").header("host", "o:1"), Err("host_mismatch")),
            ("no host", get("/a"), Err("host_missing")),
            ("two hosts", get("/a").header("host", "o").header("host", "o"), Err("duplicate_host")),
            ("user information", get("https://u@o/a"), Err("host")),
            ("other scheme", get("ftp://o/a"), Err("scheme")),
            ("CONNECT", Request::builder().method("CONNECT").uri("o:1"), Err("target_form")),
            ("asterisk", Request::options("*").header("host", "o"), Err("target_form")),
            ("upgrade", get("/a").header("host", "o").header("upgrade", "websocket"), Err("upgrade")),
            (
                "two tokens",
                get("https://o/").header("authorization", "a").header("authorization", "b"),
                Err("duplicate_authorization"),
            ),
            (
                "two types",
                get("https://o/").header("content-type", "a").header("content-type", "b"),
                Err("duplicate_content_type"),
            ),
            (
                "two lengths",
                get("https://o/").header("content-length", "1").header("content-length", "1"),
                Err("duplicate_content_length"),
            ),
            (
                "smuggling",
                get("https://o/").header("content-length", "1").header("transfer-encoding", "chunked"),
                Err("length_and_transfer_encoding"),
            ),
        ] {
            assert_eq!(ok(read(request, false)), expected.map(str::to_owned), "{name}");
        }
    }

    #[test]
    fn istio_modes_rewrite_the_target() {
        for (mode, uri, expected) in [
            (Canonicalization::Base, "https://o/a/../b?c=/../d", Ok("https://o/b?c=/../d")),
            (Canonicalization::Base, "/a/../b", Ok("/b")),
            (Canonicalization::Base, "/a/..//b", Ok("//b")),
            (Canonicalization::MergeSlashes, "https://o//a//b/?", Ok("https://o/a/b/?")),
            (Canonicalization::DecodeAndMergeSlashes, "https://o/a%2f..%5cb", Ok("https://o/b")),
            (Canonicalization::None, "https://o/a/../b%00", Ok("https://o/a/../b%00")),
            (Canonicalization::Base, "https://o/b%00", Err("path_control")),
        ] {
            let request = Request::get(uri).header("host", "o").body(()).unwrap();
            let read = Canonical::of(&request, false, mode).map(|canonical| canonical.uri().to_string());
            assert_eq!(read.as_deref(), expected.as_ref().copied(), "{uri} in {mode}");
        }
        // What is judged is what the handler gets.
        let call = |uri: &str| Request::post(uri).body(()).unwrap();
        let read = |uri: &str, mode| Canonical::of(&call(uri), true, mode).map(|canonical| canonical.path().to_owned());
        assert_eq!(read("https://o//s.P/./C", Canonicalization::MergeSlashes).as_deref(), Ok("/s.P/C"));
        assert_eq!(read("https://o//s.P/./C", Canonicalization::Base), Err("grpc_path"));
    }

    #[test]
    fn grpc_targets() {
        for (uri, expected) in [
            ("https://o/shop.Payments/Charge", None),
            ("https://o/Payments/Charge", None),
            ("https://o/shop.Payments", Some("grpc_path")),
            ("https://o/shop.Payments/Charge/", Some("grpc_path")),
            ("https://o/shop.Payments/Charge/x", Some("grpc_path")),
            ("https://o/shop..Payments/Charge", Some("grpc_path")),
            ("https://o/.Payments/Charge", Some("grpc_path")),
            ("https://o/shop.Payments/", Some("grpc_path")),
            ("https://o/shop.Payments/Ch-arge", Some("grpc_path")),
            ("https://o/shop.Payments/Charge?x", Some("grpc_path")),
            ("https://o//shop.Payments/Charge", Some("path_empty_segment")),
        ] {
            assert_eq!(read(Request::post(uri), true).err(), expected, "{uri}");
        }
        assert_eq!(read(Request::get("https://o/s.P/C"), true).err(), Some("grpc_method"));
    }

    #[test]
    fn claimed_identities_are_stripped() {
        let kept =
            ["authorization", "content-type", "traceparent", "grpc-timeout", "te", "x-request-id", "x-forwarded-for"];
        let stripped = [
            "x-forwarded-client-cert",
            "x_forwarded_client_cert",
            "X-Forwarded_Client-Cert",
            "l5d-client-id",
            "x-mesh-principal",
            "x_mesh_principal",
            "x-envoy-original-path",
            "x-envoy-expected-rq-timeout-ms",
            "client-cert",
            "connection",
            "x-http-method-override",
        ];
        let mut headers = HeaderMap::new();
        for name in kept.iter().chain(&stripped) {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_static("v"));
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_static("w"));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let mut kept = kept;
        kept.sort_unstable();
        assert_eq!(left, kept);
    }
}
