//! `ipBlocks`: an address, or a range of them.

use std::fmt;
use std::net::IpAddr;

/// `10.1.2.3`, `10.0.0.0/8`, `2001:db8::/32`.
///
/// IPv4 addresses in IPv6 form (`::ffff:10.1.2.3`) are IPv4 addresses, here and in requests: a dual-stack socket shows
/// them so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpBlock {
    network: IpAddr,
    bits: u8,
}

impl IpBlock {
    /// Reads an address or a CIDR range.
    ///
    /// Bits beyond the prefix are ignored, as in Istio; zones (`%eth0`) are refused.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: expected an IP address or a CIDR range, for example `10.0.0.0/8`");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            // No sign, no leading zero.
            Some(digits) => digits.parse().ok().filter(|bits: &u8| bits.to_string() == digits).ok_or_else(wrong)?,
        };
        if bits > width {
            return Err(wrong());
        }
        let (network, bits) = match (address.to_canonical(), address) {
            (canonical @ IpAddr::V4(_), IpAddr::V6(_)) if bits >= 96 => (canonical, bits - 96),
            _ => (address, bits),
        };
        Ok(Self { network, bits })
    }

    /// Whether `address` is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        // Shifting by the whole width is no shift: no bits at all means every address.
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_say() {
        for (block, address, expected) in [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.9.9.9/8", "10.0.0.1", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.0.0.1", true),
            ("::ffff:10.1.2.3", "10.1.2.3", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::/0", "10.0.0.1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
        ] {
            assert_eq!(
                IpBlock::parse(block).unwrap().contains(address.parse().unwrap()),
                expected,
                "{block} {address}"
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in
            ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/08", "fe80::1%eth0", "10/8"]
        {
            assert!(IpBlock::parse(wrong).is_err(), "{wrong}");
        }
    }
}
