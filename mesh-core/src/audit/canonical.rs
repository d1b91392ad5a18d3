//! The one spelling of a record that is hashed and signed. (RFC 8785, JCS)
//!
//! Records hold strings, booleans, whole numbers and lists of strings. What has no exact spelling in every reader -
//! fractions, numbers beyond 2^53 - 1 - has none here: such a line is no record.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Beyond it not every reader of JSON has exact numbers. (RFC 8785 3.2.2.3, RFC 7493 2.2)
const MAX_INT: u64 = (1 << 53) - 1;

/// The canonical spelling of an object; `None` where it has none.
pub(super) fn canonical(object: &Map<String, Value>) -> Option<String> {
    let mut text = String::with_capacity(1024);
    write_object(&mut text, object)?;
    Some(text)
}

fn write_object(text: &mut String, object: &Map<String, Value>) -> Option<()> {
    let mut members: Vec<_> = object.iter().collect();
    // By UTF-16 code units, which differs from the map's own order beyond ASCII. (RFC 8785 3.2.3)
    if members.iter().any(|(name, _)| !name.is_ascii()) {
        members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    }
    text.push('{');
    for (index, (name, value)) in members.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_string(text, name);
        text.push(':');
        write_value(text, value)?;
    }
    text.push('}');
    Some(())
}

fn write_value(text: &mut String, value: &Value) -> Option<()> {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_int(text, number.as_u64().filter(|n| *n <= MAX_INT)?),
        Value::String(value) => write_string(text, value),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_value(text, item)?;
            }
            text.push(']');
        }
        Value::Object(object) => write_object(text, object)?,
    }
    Some(())
}

pub(super) fn write_int(text: &mut String, value: u64) {
    // Into memory: cannot fail.
    let _ = write!(text, "{value}");
}

/// A string as ECMAScript's `JSON.stringify` spells it. (RFC 8785 3.2.2.2)
pub(super) fn write_string(text: &mut String, value: &str) {
    text.push('"');
    let mut rest = value;
    while let Some((before, found)) =
        rest.find(|c: char| c < ' ' || c == '"' || c == '\\').and_then(|at| rest.split_at_checked(at))
    {
        text.push_str(before);
        let mut chars = found.chars();
        match chars.next() {
            Some('"') => text.push_str("\\\""),
            Some('\\') => text.push_str("\\\\"),
            Some('\u{8}') => text.push_str("\\b"),
            Some('\t') => text.push_str("\\t"),
            Some('\n') => text.push_str("\\n"),
            Some('\u{c}') => text.push_str("\\f"),
            Some('\r') => text.push_str("\\r"),
            Some(c) => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            None => {}
        }
        rest = chars.as_str();
    }
    text.push_str(rest);
    text.push('"');
}

/// The line that is written for a canonical record: the same, and its hash.
///
/// DEL, the C1 controls and the Unicode line separators are escaped too, because some readers and terminals take them
/// for line breaks or commands. Whoever parses the line gets the strings that were hashed.
pub(super) fn line(canonical: &str, hash: &str) -> String {
    let body = canonical.strip_suffix('}').unwrap_or(canonical);
    let mut line = String::with_capacity(body.len() + hash.len() + 16);
    let breaks = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}');
    let mut rest = body;
    // Only strings hold such characters, so that an escape is right wherever one is found.
    while let Some((before, found)) = rest.find(breaks).and_then(|at| rest.split_at_checked(at)) {
        line.push_str(before);
        let mut chars = found.chars();
        if let Some(c) = chars.next() {
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        }
        rest = chars.as_str();
    }
    line.push_str(rest);
    line.push_str(",\"hash\":\"");
    line.push_str(hash);
    line.push_str("\"}");
    line
}

/// The first `max` bytes of a text, or a few less where they end within a character.
pub(super) fn prefix(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Writes an object member by member, in the order of their names.
#[derive(Debug)]
pub(super) struct Members {
    text: String,
    #[cfg(debug_assertions)]
    last: &'static str,
}

impl Members {
    pub(super) fn new() -> Self {
        let mut text = String::with_capacity(1024);
        text.push('{');
        Self {
            text,
            #[cfg(debug_assertions)]
            last: "",
        }
    }

    fn name(&mut self, name: &'static str) {
        #[cfg(debug_assertions)]
        {
            debug_assert!(self.last < name, "{name} stands behind {}", self.last);
            self.last = name;
        }
        if self.text.len() > 1 {
            self.text.push(',');
        }
        write_string(&mut self.text, name);
        self.text.push(':');
    }

    pub(super) fn string(&mut self, name: &'static str, value: &str) {
        self.name(name);
        write_string(&mut self.text, value);
    }

    pub(super) fn some(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(name, value);
        }
    }

    pub(super) fn int(&mut self, name: &'static str, value: impl Into<u64>) {
        self.name(name);
        write_int(&mut self.text, value.into());
    }

    pub(super) fn bool(&mut self, name: &'static str, value: bool) {
        self.name(name);
        self.text.push_str(if value { "true" } else { "false" });
    }

    pub(super) fn strings<'a>(&mut self, name: &'static str, values: impl IntoIterator<Item = &'a str>) {
        self.name(name);
        self.text.push('[');
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            write_string(&mut self.text, value);
        }
        self.text.push(']');
    }

    pub(super) fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        canonical(&serde_json::from_str(text).unwrap())
    }

    /// RFC 8785 3.2.2 and 3.2.3, without its fractions.
    #[test]
    fn the_vectors_of_the_rfc() {
        let string = r#"{"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#;
        let expected = "{\"literals\":[null,true,false],\"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(read(string).as_deref(), Some(expected));
        let names = r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",
            "\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#;
        let sorted = read(names).unwrap();
        let order = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"].map(|word| sorted.find(word));
        assert!(order.is_sorted() && order[0].is_some(), "{sorted}");
        assert!(sorted.starts_with("{\"\\r\":"));
    }

    #[test]
    fn what_has_no_exact_spelling_is_none() {
        for text in [r#"{"a":1.5}"#, r#"{"a":-1}"#, r#"{"a":9007199254740992}"#, r#"{"a":[1e30]}"#] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(
            read(r#"{"b":9007199254740991,"a":{"d":1,"c":""}}"#).unwrap(),
            r#"{"a":{"c":"","d":1},"b":9007199254740991}"#
        );
    }

    #[test]
    fn every_character_survives_in_a_line_without_a_line_break() {
        let every: String = ('\0'..='\u{2100}').chain(['\u{10ffff}']).collect();
        let mut members = Members::new();
        members.string("a", &every);
        members.strings("b", ["x\n", "\""]);
        let text = members.end();
        let line = line(&text, "00");
        assert!(!line.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')));
        let mut parsed: Map<String, Value> = serde_json::from_str(&line).unwrap();
        assert_eq!((parsed["a"].as_str(), parsed["hash"].as_str()), (Some(every.as_str()), Some("00")));
        parsed.remove("hash");
        assert_eq!(canonical(&parsed), Some(text));
    }
}
