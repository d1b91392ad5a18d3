//! JSON for security decisions: no duplicate members, bounded depth, nothing after the value.
//!
//! Parsers disagree about which of two equal members counts; whoever can make two parsers disagree can show one of them
//! another issuer. (RFC 7519 4, RFC 8259 4)

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Containers within containers. (CVE-2025-27144, CVE-2026-48042)
const MAX_DEPTH: usize = 32;

/// Parses one JSON object. The error says what is wrong and never quotes the input.
pub(crate) fn parse_object(text: &[u8]) -> Result<Map<String, Value>, &'static str> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth: MAX_DEPTH }.deserialize(&mut deserializer).map_err(|error| reason(&error))?;
    deserializer.end().map_err(|_| "something follows the JSON value")?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err("expected a JSON object"),
    }
}

/// Any JSON value without doubled members, nested 32 levels at most; else an error.
#[derive(Debug, Clone, PartialEq)]
pub struct StrictJson(pub Value);

impl<'de> Deserialize<'de> for StrictJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Strict { depth: MAX_DEPTH }.deserialize(deserializer).map(Self)
    }
}

const DUPLICATE: &str = "a JSON member is written twice";
const TOO_DEEP: &str = "the JSON is nested deeper than 32 levels";

fn reason(error: &serde_json::Error) -> &'static str {
    let text = error.to_string();
    [DUPLICATE, TOO_DEEP].into_iter().find(|known| text.starts_with(known)).unwrap_or("not valid JSON")
}

#[derive(Clone, Copy)]
struct Strict {
    /// Containers that may still be opened.
    depth: usize,
}

impl Strict {
    fn inner<E: Error>(self) -> Result<Self, E> {
        self.depth.checked_sub(1).map(|depth| Self { depth }).ok_or_else(|| E::custom(TOO_DEEP))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(DUPLICATE));
            }
            let value = members.next_value_seed(inner)?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_parsers_disagree_about_is_refused() {
        let deep = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        for (text, error) in [
            (r#"{"a":1,"a":1}"#.to_owned(), DUPLICATE),
            (r#"{"a":1,"\u0061":2}"#.to_owned(), DUPLICATE),
            (r#"{"x":[{"a":1,"a":2}]}"#.to_owned(), DUPLICATE),
            (deep(33), TOO_DEEP),
            (deep(2000), TOO_DEEP),
            ("{} {}".to_owned(), "something follows the JSON value"),
            ("[]".to_owned(), "expected a JSON object"),
            ("{\"a\":1e999}".to_owned(), "not valid JSON"),
            ("{\"a\":\"\\ud800\"}".to_owned(), "not valid JSON"),
            ("{\"a\":NaN}".to_owned(), "not valid JSON"),
            (String::new(), "not valid JSON"),
        ] {
            assert_eq!(parse_object(text.as_bytes()), Err(error), "{text:.60}");
        }
        assert_eq!(parse_object(b"{\"a\":\"\xff\"}"), Err("not valid JSON"));
        assert!(parse_object(deep(32).as_bytes()).is_ok());
        assert_eq!(
            parse_object(br#"{"a":[null,true,-1,2,1.5,"x"]}"#).unwrap()["a"].to_string(),
            r#"[null,true,-1,2,1.5,"x"]"#
        );
    }
}
