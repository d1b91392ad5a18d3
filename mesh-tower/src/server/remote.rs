//! Whose address is at the far end of trusted proxies.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

use super::exchange::Exchange;
use crate::reject::{Kind, Reject};

const HEADER: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Notes whom trusted proxies in front of the listener name as the client, if there are any.
///
/// Fails closed: an entry that a trusted proxy should have written and that is no address refuses the request.
pub(super) fn note(exchange: &Exchange, headers: &HeaderMap) -> Result<(), Reject> {
    let connection = &exchange.connection;
    let listener = exchange.revision.config.listeners.get(connection.listener());
    let hops = listener.map_or(0, |listener| listener.trusted_hops);
    if hops == 0 || connection.peer().svid.is_none() {
        return Ok(());
    }
    match client(headers, hops) {
        Ok(None) => Ok(()),
        Ok(Some(ip)) => exchange.set_remote_ip(ip),
        Err(Unreadable) => Err(Reject::new(Kind::Malformed, "forwarded_for")),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Unreadable;

/// The entry `hops` from the right, over all lines of the header; `None` where there are fewer. (Envoy,
/// `xff_num_trusted_hops`)
fn client(headers: &HeaderMap, hops: u32) -> Result<Option<IpAddr>, Unreadable> {
    let mut left = hops;
    let lines: Vec<_> = headers.get_all(HEADER).iter().collect();
    for line in lines.into_iter().rev() {
        for entry in line.as_bytes().rsplit(|byte| *byte == b',') {
            left = left.saturating_sub(1);
            if left == 0 {
                return address(entry).map(Some).ok_or(Unreadable);
            }
        }
    }
    Ok(None)
}

/// An address, maybe with a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let ip = text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_ip_blocks_see_the_entry_that_the_outermost_trusted_proxy_wrote() {
        type Row = (u32, &'static [&'static str], Result<Option<&'static str>, Unreadable>);
        let table: [Row; 13] = [
            (1, &[], Ok(None)),
            (1, &["192.0.2.1"], Ok(Some("192.0.2.1"))),
            (1, &["198.51.100.7, 192.0.2.1"], Ok(Some("192.0.2.1"))),
            (2, &["198.51.100.7, 192.0.2.1"], Ok(Some("198.51.100.7"))),
            (2, &["forged, 198.51.100.7,192.0.2.1"], Ok(Some("198.51.100.7"))),
            (3, &["198.51.100.7, 192.0.2.1"], Ok(None)),
            (2, &["forged, 198.51.100.7", "192.0.2.1"], Ok(Some("198.51.100.7"))),
            (1, &["192.0.2.1:4711"], Ok(Some("192.0.2.1"))),
            (1, &["[2001:db8::1]:4711"], Ok(Some("2001:db8::1"))),
            (1, &["::ffff:192.0.2.1"], Ok(Some("192.0.2.1"))),
            (1, &["192.0.2.1, unknown"], Err(Unreadable)),
            (1, &["192.0.2.1, "], Err(Unreadable)),
            (1, &["192.0.2.1, fe80::1%eth0"], Err(Unreadable)),
        ];
        for (hops, lines, expected) in table {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(HEADER, line.parse().unwrap());
            }
            let expected = expected.map(|ip| ip.map(|ip| ip.parse::<IpAddr>().unwrap()));
            assert_eq!(client(&headers, hops), expected, "{hops} {lines:?}");
        }
    }
}
