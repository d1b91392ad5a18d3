//! What a request is told apart by, where its cluster goes by a key.

use std::net::IpAddr;

use http::{HeaderMap, header};
use mesh_core::balance::xxh64;
use mesh_core::config::HashKey;

use crate::context::RequestContext;

/// The hash of the first key that the request has. Allocates nothing but for a header with several values.
pub(super) fn hash(keys: &[HashKey], headers: &HeaderMap) -> Option<u64> {
    if keys.is_empty() {
        return None;
    }
    let context = RequestContext::current();
    keys.iter().find_map(|key| match key {
        HashKey::Header(name) => of_header(headers, name),
        HashKey::Cookie(name) => of_cookie(headers, name),
        HashKey::SourceAddress => context.as_ref().and_then(RequestContext::client).map(of_address),
        HashKey::Principal => {
            context.as_ref().and_then(RequestContext::caller).map(|caller| xxh64(caller.as_str().as_bytes(), 0))
        }
        // A key that a newer configuration knows: the next one may be there.
        _ => None,
    })
}

/// Of several values the order does not matter: each is the seed of the next, in sorted order. (Envoy)
fn of_header(headers: &HeaderMap, name: &str) -> Option<u64> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(xxh64(first.as_bytes(), 0)) };
    let mut all: Vec<&[u8]> = [first, second].into_iter().chain(values).map(http::HeaderValue::as_bytes).collect();
    all.sort_unstable();
    Some(all.into_iter().fold(0, |seed, value| xxh64(value, seed)))
}

/// The first cookie of this name that is not empty. (RFC 6265 4.2.1)
fn of_cookie(headers: &HeaderMap, name: &str) -> Option<u64> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    let value = pairs.find_map(|pair| {
        let (key, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
        let value = value.get(1..).filter(|value| !value.is_empty())?;
        (key == name.as_bytes()).then_some(value)
    });
    value.map(|value| xxh64(value, 0))
}

/// Written out, as Envoy hashes it.
fn of_address(ip: IpAddr) -> u64 {
    xxh64(ip.to_string().as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use mesh_core::rng::Rng;

    use super::*;
    use crate::context::TraceContext;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    fn appended(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_first_key_that_a_request_has_counts() {
        let (user, session) = (HashKey::Header("x-user".into()), HashKey::Cookie("session".into()));
        let of = |text: &str| Some(xxh64(text.as_bytes(), 0));
        let cookies = headers(&[("cookie", "a=1; session=s=7 ;session2=x; empty=")]);
        for (keys, headers, expected) in [
            (vec![user.clone()], headers(&[("x-user", "ada")]), of("ada")),
            (vec![user.clone(), session.clone()], cookies.clone(), of("s=7")),
            (vec![HashKey::Cookie("empty".into())], cookies.clone(), None),
            (vec![HashKey::Cookie("sess".into())], cookies.clone(), None),
            (vec![session.clone(), user.clone()], headers(&[("x-user", "ada")]), of("ada")),
            (vec![HashKey::Principal, user.clone()], headers(&[("x-user", "ada")]), of("ada")),
            (vec![HashKey::SourceAddress], headers(&[("x-user", "ada")]), None),
            (vec![], headers(&[("x-user", "ada")]), None),
        ] {
            assert_eq!(hash(&keys, &headers), expected, "{keys:?}");
        }
        let (one, other) = ([("x-user", "a"), ("x-user", "b")], [("x-user", "b"), ("x-user", "a")]);
        let of = |all: &[_]| hash(std::slice::from_ref(&user), &appended(all));
        assert_eq!(of(&one), of(&other));
        assert_ne!(of(&one), of(&one[..1]));
        let twice = appended(&[("cookie", "x=1"), ("cookie", "session=9")]);
        assert_eq!(hash(&[session], &twice), Some(xxh64(b"9", 0)));
    }

    #[test]
    fn the_caller_is_that_of_the_request_being_answered() {
        let trace = TraceContext::root(&Rng::seeded(1));
        let caller = "spiffe://td/ns/shop/sa/web".parse().unwrap();
        let context = RequestContext::of_request(trace, None, Some(caller));
        context.came_from([10, 0, 0, 7].into());
        let hashes = context
            .sync_scope(|| [HashKey::Principal, HashKey::SourceAddress].map(|key| hash(&[key], &HeaderMap::new())));
        assert_eq!(hashes, [Some(xxh64(b"spiffe://td/ns/shop/sa/web", 0)), Some(xxh64(b"10.0.0.7", 0))]);
    }
}
