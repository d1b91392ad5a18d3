//! Which addresses a fetch may go to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The public internet.
    Public,
    /// This machine.
    Loopback,
    /// Somebody's own network, or one that is not in use.
    Private,
    /// What no configuration may ask: link-local, cloud metadata, multicast, broadcast, unspecified.
    Never,
}

/// Metadata services that do not live at link-local addresses: Azure's wire server, Alibaba, Oracle; below, over IPv6, those
/// of AWS and Google.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];

/// Judges an address.
///
/// IPv4 inside of IPv6 (mapped, compatible, NAT64, 6to4) is judged as what it leads to.
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address),
    }
}

fn v4(address: Ipv4Addr) -> Reach {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        _ if METADATA_V4.contains(&address) => Reach::Never,
        // "This network", link-local, multicast, reserved and broadcast. (RFC 6890)
        (0 | 224..=255, ..) | (169, 254, _) => Reach::Never,
        (127, ..) => Reach::Loopback,
        // RFC 1918, carrier NAT, protocol assignments, documentation, benchmarks, old 6to4 relays.
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Reach::Private,
        (192, 0, 0 | 2) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) => Reach::Private,
        _ => Reach::Public,
    }
}

fn v6(address: Ipv6Addr) -> Reach {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Reach::Never,
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Loopback,
        [0xfd00, 0xec2, 0, 0, ..] | [0xfd20, 0xce, 0, 0, ..] => Reach::Never,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Multicast, link-local, the site-local range that was before unique local ones.
        [0xff00..=0xffff, ..] | [0xfe80..=0xfeff, ..] => Reach::Never,
        // Unique local, local NAT64, discard, Teredo, documentation.
        [0xfc00..=0xfdff, ..] | [0x64, 0xff9b, 1, ..] | [0x100, 0, 0, 0, ..] => Reach::Private,
        [0x2001, 0 | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Private,
        // Global unicast is 2000::/3 and nothing else.
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_16_addresses_that_no_configuration_may_ask_are_known_in_every_spelling() {
        for (address, expected) in [
            ("93.184.216.34", Reach::Public),
            ("2606:2800:220:1::1", Reach::Public),
            ("::ffff:93.184.216.34", Reach::Public),
            ("127.0.0.1", Reach::Loopback),
            ("127.9.9.9", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("::ffff:127.0.0.1", Reach::Loopback),
            ("10.0.0.1", Reach::Private),
            ("172.16.0.1", Reach::Private),
            ("172.31.255.255", Reach::Private),
            ("172.32.0.1", Reach::Public),
            ("192.168.1.1", Reach::Private),
            ("100.64.0.1", Reach::Private),
            ("fd12::1", Reach::Private),
            ("::ffff:10.0.0.1", Reach::Private),
            ("64:ff9b::a00:1", Reach::Private),
            ("2002:a00:1::", Reach::Private),
            ("2001:0:1::1", Reach::Private),
            ("169.254.169.254", Reach::Never),
            ("169.254.170.2", Reach::Never),
            ("::ffff:169.254.169.254", Reach::Never),
            ("::169.254.169.254", Reach::Never),
            ("64:ff9b::a9fe:a9fe", Reach::Never),
            ("2002:a9fe:a9fe::1", Reach::Never),
            ("168.63.129.16", Reach::Never),
            ("100.100.100.200", Reach::Never),
            ("192.0.0.192", Reach::Never),
            ("fd00:ec2::254", Reach::Never),
            ("fd00:ec2::23", Reach::Never),
            ("fd20:ce::254", Reach::Never),
            ("fd20:ce:1::1", Reach::Private),
            ("fe80::1", Reach::Never),
            ("fec0::1", Reach::Never),
            ("0.0.0.0", Reach::Never),
            ("0.1.2.3", Reach::Never),
            ("::", Reach::Never),
            ("224.0.0.1", Reach::Never),
            ("255.255.255.255", Reach::Never),
            ("240.0.0.1", Reach::Never),
            ("ff02::1", Reach::Never),
            ("4000::1", Reach::Never),
        ] {
            assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
        }
    }
}
