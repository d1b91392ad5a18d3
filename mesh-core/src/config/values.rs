//! Single values: text, numbers, addresses, and quantities that carry their unit.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::issue::Errors;
use super::yaml::Decode;
use super::yaml::{Node, Value};
use crate::identity::{SpiffeId, TrustDomain};

/// A value with an order, which can be held against a range.
pub trait Quantity: Decode + PartialOrd {
    /// As it would be written in a configuration.
    fn show(&self) -> String;

    /// Reads it and refuses what lies outside `range`, naming the range.
    fn decode_within(node: &Node, range: &RangeInclusive<Self>, errors: &mut Errors) -> Option<Self> {
        let value = Self::decode(node, errors)?;
        if range.contains(&value) {
            return Some(value);
        }
        let (min, max) = (range.start().show(), range.end().show());
        errors.push(&node.place, format!("{} is out of range: expected {min} to {max}", value.show()));
        None
    }
}

/// A number of bytes: `512B`, `64KiB`, `1MiB`, `4GiB`, `1TiB`, or decimal `64KB`, `1MB`, `1GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A share, written `20%` and kept as `0.2`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

const DURATIONS: [(&str, u64); 5] =
    [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// A whole number directly followed by one of `units`, as a multiple of the smallest.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The shortest exact spelling with one of `units`, largest first.
fn show_with_unit(value: u64, units: &[(&str, u64)]) -> Option<String> {
    let (unit, factor) = units.iter().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor))?;
    Some(format!("{}{unit}", value / factor))
}

impl Decode for String {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => node.expected("a string (put it in quotes)", errors),
            _ => node.expected("a string", errors),
        }
    }
}

impl Decode for bool {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        if let Value::Bool(value) = node.value { Some(value) } else { node.expected("true or false", errors) }
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl Decode for $type {
            fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
                let Value::Int(number) = node.value else { return node.expected("a whole number", errors) };
                let value = <$type>::try_from(number).ok();
                if value.is_none() {
                    // The type's limits are not the setting's range, which may be narrower and is not known here.
                    let bound = if number < 0 { format!("at least {}", <$type>::MIN) } else { format!("at most {}", <$type>::MAX) };
                    errors.push(&node.place, format!("{number} is out of range: expected {bound}"));
                }
                value
            }
        }

        impl Quantity for $type {
            fn show(&self) -> String {
                self.to_string()
            }

            fn decode_within(node: &Node, range: &RangeInclusive<Self>, errors: &mut Errors) -> Option<Self> {
                let Value::Int(number) = node.value else { return node.expected("a whole number", errors) };
                let value = <$type>::try_from(number).ok().filter(|value| range.contains(value));
                if value.is_none() {
                    let (min, max) = (range.start(), range.end());
                    errors.push(&node.place, format!("{number} is out of range: expected {min} to {max}"));
                }
                value
            }
        }
    )*};
}

whole_numbers!(u8, u16, u32, u64, usize, i64);

impl Decode for f64 {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match node.value {
            Value::Float(value) if value.is_finite() => Some(value),
            Value::Int(value) => Some(value as f64),
            _ => node.expected("a number", errors),
        }
    }
}

impl Quantity for f64 {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Decode for Duration {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match node.as_str().and_then(|text| with_unit(text, &DURATIONS)) {
            Some(micros) => Some(Self::from_micros(micros)),
            None => node.expected("a duration: a whole number with its unit (250ms, 30s, 5m, 1h or 10us)", errors),
        }
    }
}

impl Quantity for Duration {
    fn show(&self) -> String {
        let micros = u64::try_from(self.as_micros()).unwrap_or(u64::MAX);
        show_with_unit(micros, &DURATIONS).unwrap_or_else(|| "0s".to_owned())
    }
}

impl Decode for Size {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match node.as_str().and_then(|text| with_unit(text, &SIZES)) {
            Some(bytes) => Some(Self(bytes)),
            None => node.expected("a size: a whole number with its unit (512B, 64KiB, 4MiB or 1GB)", errors),
        }
    }
}

impl Quantity for Size {
    fn show(&self) -> String {
        show_with_unit(self.0, &SIZES).unwrap_or_else(|| "0B".to_owned())
    }
}

impl Decode for Percent {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let number = node.as_str().and_then(|text| text.strip_suffix('%'));
        let plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match number.filter(plain).and_then(|text| text.parse::<f64>().ok()) {
            Some(percent) => Some(Self(percent / 100.0)),
            None => node.expected("a percentage such as 20%", errors),
        }
    }
}

impl Quantity for Percent {
    fn show(&self) -> String {
        format!("{}%", (self.0 * 1e8).round() / 1e6)
    }
}

impl Decode for PathBuf {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match node.as_str() {
            Some("") | None => node.expected("a path", errors),
            Some(path) => Some(Self::from(path)),
        }
    }
}

impl Decode for SocketAddr {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match node.as_str().and_then(|text| text.parse().ok()) {
            Some(address) => Some(address),
            None => node.expected("an address with a port, such as \"127.0.0.1:8443\" or \"[::1]:8443\"", errors),
        }
    }
}

impl Decode for SpiffeId {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let text = String::decode(node, errors)?;
        Self::parse(&text).map_err(|error| errors.push(&node.place, format!("{text:?}: {error}"))).ok()
    }
}

impl Decode for TrustDomain {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let text = String::decode(node, errors)?;
        Self::parse(&text).map_err(|error| errors.push(&node.place, format!("{text:?}: {error}"))).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read<T: Decode>(json: serde_json::Value) -> Result<T, String> {
        let mut errors = Errors::default();
        let value = T::decode(&Node::from(&json), &mut errors);
        errors.finish(value).map_err(|error| error.issues()[0].message.clone())
    }

    #[test]
    fn quantities_carry_their_unit_and_show_it() {
        for (text, micros, shown) in [
            ("10us", 10, "10us"),
            ("250ms", 250_000, "250ms"),
            ("2000ms", 2_000_000, "2s"),
            ("90s", 90_000_000, "90s"),
            ("30m", 1_800_000_000, "30m"),
            ("24h", 86_400_000_000, "24h"),
            ("0s", 0, "0s"),
        ] {
            let value: Duration = read(json!(text)).unwrap();
            assert_eq!((value.as_micros(), value.show().as_str()), (micros, shown));
        }
        for (text, bytes, shown) in
            [("64KiB", 65_536, "64KiB"), ("1MB", 1_000_000, "1MB"), ("0B", 0, "0B"), ("2TiB", 2 << 40, "2TiB")]
        {
            let value: Size = read(json!(text)).unwrap();
            assert_eq!((value.0, value.show().as_str()), (bytes, shown));
        }
        for (text, ratio) in [("20%", 0.2), ("0%", 0.0), ("12.5%", 0.125), ("1000%", 10.0)] {
            let value: Percent = read(json!(text)).unwrap();
            assert_eq!((value.0, value.show().as_str()), (ratio, text));
        }
    }

    #[test]
    fn a_quantity_without_its_unit_is_refused() {
        for bad in [
            json!(5),
            json!("5"),
            json!("1.5s"),
            json!("s"),
            json!(" 5s"),
            json!("-5s"),
            json!("5d"),
            json!("99999999999999h"),
            json!(null),
        ] {
            assert!(read::<Duration>(bad.clone()).unwrap_err().starts_with("expected a duration"), "{bad}");
        }
        for bad in [json!(5), json!("5"), json!("5kib"), json!("99999999999TiB")] {
            assert!(read::<Size>(bad.clone()).unwrap_err().starts_with("expected a size"), "{bad}");
        }
        for bad in [json!(0.2), json!("20"), json!("-1%"), json!("%"), json!("1e3%"), json!("nan%")] {
            assert!(read::<Percent>(bad.clone()).unwrap_err().starts_with("expected a percentage"), "{bad}");
        }
    }

    #[test]
    fn numbers_stay_in_range_and_text_is_text() {
        assert_eq!(read::<u32>(json!(-1)).unwrap_err(), "-1 is out of range: expected at least 0");
        assert_eq!(read::<u16>(json!("1")).unwrap_err(), "expected a whole number, found \"1\"");
        assert_eq!(read::<String>(json!(true)).unwrap_err(), "expected a string (put it in quotes), found true");
        assert_eq!(read::<f64>(json!(2)), Ok(2.0));
        let mut errors = Errors::default();
        let second = Duration::from_secs(1);
        let value = Duration::decode_within(&Node::from(&json!("2s")), &(Duration::ZERO..=second), &mut errors);
        assert_eq!((value, errors.issues()[0].message.as_str()), (None, "2s is out of range: expected 0s to 1s"));
    }
}
