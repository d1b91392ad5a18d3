//! Headers by which a caller could claim an identity, steer the mesh, or have another header removed.

/// Whether the mesh takes this header (lower case) from every request, before policy sees it.
pub fn is_stripped(name: &str) -> bool {
    // hyper has acted on `connection` already; passed on, it can only have headers removed by whoever honours it.
    const NAMES: [&str; 15] = [
        "client-cert",
        "client-cert-chain",
        "connection",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "ssl-client-cert",
        "x-client-cert",
        "x-forwarded-client-cert",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x-ssl-client-cert",
    ];
    const PREFIXES: [&str; 3] = ["l5d-", "x-envoy-", "x-mesh-"];
    // Gateways and CGI-like frameworks read `_` as `-`.
    let dashed;
    let name = if name.contains('_') {
        dashed = name.replace('_', "-");
        &dashed
    } else {
        name
    };
    match name.as_bytes().first() {
        Some(b'c' | b'k' | b'l' | b'p' | b's' | b'x') => {
            NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        }
        _ => false,
    }
}

/// Whether this field (lower case) has no place in trailers.
///
/// What frames, routes, authenticates or reads the message may not change behind the body, and nobody may claim an
/// identity there. (RFC 9110 6.5.1)
pub fn is_forbidden_trailer(name: &str) -> bool {
    const HEAD_ONLY: [&str; 16] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "host",
        "max-forwards",
        "range",
        "te",
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let dashed = name.replace('_', "-");
    HEAD_ONLY.contains(&&*dashed) || is_stripped(&dashed)
}
