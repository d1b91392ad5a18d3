//! What a plain scalar means.

use super::node::Value;

/// The type of a plain scalar. (YAML 1.2.2, 10.3.2)
pub(super) fn core_schema(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let radix = |prefix: &str, radix: u32| {
        let digits = text.strip_prefix(prefix)?;
        let unsigned = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        unsigned.then(|| i64::from_str_radix(digits, radix).ok())?
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| text.parse().ok()) {
        return Value::Int(number);
    }
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    match text.parse() {
        Ok(number) if decimal => Value::Float(number),
        _ => Value::String(text.to_owned()),
    }
}
