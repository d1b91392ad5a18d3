//! What the server stack makes of a request that nobody sent: for tools that ask policy about it.

use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri};
use mesh_core::policy::Headers;
use mesh_core::policy::canonical::Canonicalization;

use crate::canonical::{Canonical, strip};
use crate::server::HeaderView;

/// A request as its sender would write it.
///
/// `None` is what nobody knows: it is not judged, and policy sees nothing of it.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// Whether it is gRPC, whose methods and paths are narrower.
    pub grpc: bool,
    /// How its path becomes what policy matches.
    pub canonical: Canonicalization,
    /// Whether a bearer token was verified: it is taken out, as the server does.
    pub token: bool,
    /// `GET`, `POST`, ...
    pub method: Option<&'a str>,
    /// `:authority`, `HOST[:PORT]`.
    pub authority: Option<&'a str>,
    /// `/path?query`.
    pub target: Option<&'a str>,
    /// Name and value, in order.
    pub headers: &'a [(String, String)],
}

/// The one reading of a [`Sent`] request that every layer of a server would see.
#[derive(Debug)]
pub struct Reading {
    canonical: Canonical,
    headers: HeaderMap,
    method: bool,
    host: bool,
    path: bool,
}

impl Sent<'_> {
    /// Reads it as [`CanonicalLayer`](crate::server::CanonicalLayer) does, headers that nobody may claim taken out.
    ///
    /// # Errors
    ///
    /// The stable code of why a server would refuse it: 400, for gRPC `UNIMPLEMENTED`.
    pub fn read(self) -> Result<Reading, &'static str> {
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "header")?;
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| "header")?);
        }
        let host = self.authority.is_some() || headers.contains_key(HOST);
        let method = self.method.unwrap_or(if self.grpc { "POST" } else { "GET" });
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| "method")?;
        // Stands where nobody knows; it is shown to nobody.
        let unknown = if self.grpc { "/unknown/unknown" } else { "/" };
        let target = self.target.unwrap_or(unknown);
        let path = PathAndQuery::try_from(target).map_err(|_| {
            let path = target.split(['?', '#']).next().unwrap_or_default();
            self.canonical.path(path).err().unwrap_or("target_form")
        })?;
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(path);
        if let Some(authority) = self.authority.or((!host).then_some("unknown.invalid")) {
            parts.scheme = Some(Scheme::HTTPS);
            parts.authority = Some(authority.parse().map_err(|_| "host")?);
        }
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| "target_form")?;
        *request.headers_mut() = headers;
        let canonical = Canonical::of(&request, self.grpc, self.canonical)?;
        let mut headers = std::mem::take(request.headers_mut());
        strip(&mut headers);
        let bearer =
            |value: &HeaderValue| value.as_bytes().get(..7).is_some_and(|s| s.eq_ignore_ascii_case(b"bearer "));
        if self.token && headers.get(AUTHORIZATION).is_some_and(bearer) {
            headers.remove(AUTHORIZATION);
        }
        let method = self.method.is_some() || self.grpc;
        Ok(Reading { canonical, headers, method, host, path: self.target.is_some() })
    }
}

impl Reading {
    /// The method; empty where it is not known.
    pub fn method(&self) -> &str {
        if self.method { self.canonical.method() } else { "" }
    }

    /// The authority in its one form; empty where it is not known.
    pub fn host(&self) -> &str {
        if self.host { self.canonical.host() } else { "" }
    }

    /// The path that policy judges, without query.
    ///
    /// And in mode `dual` what else it may be read as; empty where it is not known.
    pub fn paths(&self) -> (&str, Option<&str>) {
        if self.path { self.canonical.readings() } else { ("", None) }
    }

    /// The headers that policy sees.
    pub fn headers(&self) -> impl Headers {
        HeaderView(&self.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_a_server_reads_it() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let plain = Sent {
            grpc: false,
            canonical: Canonicalization::Reject,
            token: false,
            method: Some("GET"),
            authority: Some("O.shop:0443"),
            target: Some("/a?b"),
            headers: &[],
        };
        let read = |sent: Sent<'_>| {
            sent.read().map(|r| {
                let (path, resolved) = r.paths();
                let resolved = resolved.map(|path| format!(" or {path}")).unwrap_or_default();
                format!("{} {} {path}{resolved}", r.method(), r.host())
            })
        };
        let host = [header("Host", "P")];
        let upgrade = [header("upgrade", "websocket")];
        for (name, sent, expected) in [
            ("whole", plain, Ok("GET o.shop:443 /a")),
            ("fragment", Sent { target: Some("/a#/../b?c"), ..plain }, Ok("GET o.shop:443 /a")),
            ("no host", Sent { authority: None, ..plain }, Ok("GET  /a")),
            ("host header", Sent { authority: None, headers: &host, ..plain }, Ok("GET p /a")),
            ("two hosts", Sent { headers: &host, ..plain }, Err("host_mismatch")),
            ("user information", Sent { authority: Some("u@o"), ..plain }, Err("host")),
            ("no path", Sent { target: None, ..plain }, Ok("GET o.shop:443 ")),
            ("no method", Sent { method: None, ..plain }, Ok(" o.shop:443 /a")),
            ("dots", Sent { target: Some("/a/../b"), ..plain }, Err("path_dot_segment")),
            (
                "dots in Istio's way",
                Sent { target: Some("/a/../b?c"), canonical: Canonicalization::Base, ..plain },
                Ok("GET o.shop:443 /b"),
            ),
            (
                "dots in both readings",
                Sent { target: Some("/a/../b?c"), canonical: Canonicalization::Dual, ..plain },
                Ok("GET o.shop:443 /a/../b or /b"),
            ),
            ("what no URI holds", Sent { target: Some("/a b"), ..plain }, Err("path_character")),
            ("a query that no URI holds", Sent { target: Some("/a?b c"), ..plain }, Err("target_form")),
            ("no path at all", Sent { target: Some(""), ..plain }, Err("path_form")),
            ("no slash", Sent { target: Some("admin"), ..plain }, Err("path_form")),
            ("asterisk", Sent { target: Some("*"), ..plain }, Err("target_form")),
            ("CONNECT", Sent { method: Some("CONNECT"), ..plain }, Err("target_form")),
            ("no method name", Sent { method: Some("G T"), ..plain }, Err("method")),
            ("upgrade", Sent { headers: &upgrade, ..plain }, Err("upgrade")),
            ("gRPC GET", Sent { grpc: true, target: Some("/p.S/M"), ..plain }, Err("grpc_method")),
            ("gRPC", Sent { grpc: true, method: None, target: Some("/p.S/M"), ..plain }, Ok("POST o.shop:443 /p.S/M")),
            ("gRPC unknown", Sent { grpc: true, method: None, target: None, ..plain }, Ok("POST o.shop:443 ")),
            ("gRPC path", Sent { grpc: true, method: None, ..plain }, Err("grpc_path")),
        ] {
            assert_eq!(read(sent), expected.map(str::to_owned), "{name}");
        }
        let all = [header("X-Team", "a"), header("x_mesh_principal", "b"), header("Authorization", "Bearer c")];
        let seen = |sent: Sent<'_>, name| {
            let (reading, mut count) = (sent.read().unwrap(), 0);
            reading.headers().values(name, &mut |_| count += 1);
            count
        };
        let sent = Sent { headers: &all, ..plain };
        for (name, token, count) in [
            ("x-team", true, 1),
            ("x_mesh_principal", true, 0),
            ("authorization", false, 1),
            ("authorization", true, 0),
        ] {
            assert_eq!(seen(Sent { token, ..sent }, name), count, "{name}");
        }
    }
}
