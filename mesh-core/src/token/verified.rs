//! The claims of a token that may be believed.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};

/// What a token proved.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedToken {
    /// `iss`
    pub issuer: Arc<str>,
    /// `sub`
    pub subject: Option<Arc<str>>,
    /// `aud`
    pub audiences: Vec<String>,
    /// `exp`
    pub expires: SystemTime,
    /// Every claim.
    pub claims: Map<String, Value>,
}

impl VerifiedToken {
    /// The scopes it grants.
    ///
    /// The words of `scope` and `scp`, each a string with spaces between words or a list of strings. Anything else
    /// grants nothing. (RFC 8693 4.2, RFC 9068 2.2.3)
    ///
    /// Every accepted issuer can grant every scope: a scope says nothing of who granted it.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        ["scope", "scp"].into_iter().filter_map(move |name| self.claims.get(name)).flat_map(|claim| {
            let words = claim.as_str().into_iter().flat_map(|text| text.split(' '));
            let items = claim.as_array().into_iter().flatten().filter_map(Value::as_str);
            words.chain(items).filter(|scope| !scope.is_empty())
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scopes_are_words_or_items_and_nothing_else() {
        for (claims, expected) in [
            (json!({}), vec![]),
            (json!({ "scope": "orders:read  orders:write" }), vec!["orders:read", "orders:write"]),
            (json!({ "scp": "a b" }), vec!["a", "b"]),
            (json!({ "scp": ["a", 7, "", "b c", ["d"], null] }), vec!["a", "b c"]),
            (json!({ "scope": ["a"], "scp": "b" }), vec!["a", "b"]),
            (json!({ "scope": 7, "scp": { "a": "b" }, "scopes": "c" }), vec![]),
        ] {
            let token = VerifiedToken {
                issuer: "i".into(),
                subject: None,
                audiences: Vec::new(),
                expires: SystemTime::UNIX_EPOCH,
                claims: claims.as_object().unwrap().clone(),
            };
            assert_eq!(token.scopes().collect::<Vec<_>>(), expected, "{claims}");
        }
    }
}
