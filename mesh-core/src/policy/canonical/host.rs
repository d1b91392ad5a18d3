//! The one form of an authority.

/// `host [":" port]` in its one form; user information, empty parts, zone ids have none.
pub fn host(authority: &str) -> Option<Box<str>> {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let address: std::net::Ipv6Addr = address.parse().ok()?;
            (format!("[{address}]"), port)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (name, port) = authority.split_at(end);
            let name = name.strip_suffix('.').unwrap_or(name);
            let plain = |label: &str| {
                !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            };
            if !name.split('.').all(plain) {
                return None;
            }
            (name.to_ascii_lowercase(), port)
        }
    };
    if port.is_empty() {
        return Some(name.into());
    }
    let port = port.strip_prefix(':').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    Some(format!("{name}:{}", port.parse::<u16>().ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for (text, expected) in [
            ("Orders.Shop", Some("orders.shop")),
            ("orders.", Some("orders")),
            ("orders.:8443", Some("orders:8443")),
            ("orders:0443", Some("orders:443")),
            ("127.0.0.1:1", Some("127.0.0.1:1")),
            ("[::1]:443", Some("[::1]:443")),
            ("[0:0::1]", Some("[::1]")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("a:", None),
            ("a:65536", None),
            ("a:+1", None),
            ("a:1:2", None),
            ("user@a", None),
            ("a,b", None),
            ("a%2eb", None),
            ("[::1", None),
            ("[fe80::1%25eth0]", None),
            ("[::1]x", None),
        ] {
            assert_eq!(host(text).as_deref(), expected, "{text}");
        }
    }
}
