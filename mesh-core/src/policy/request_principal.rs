//! `requestPrincipals`: who a verified token speaks for.

use std::fmt;

use super::Mode;
use super::pattern::Pattern;

/// A pattern for issuer and subject, written `ISSUER/SUBJECT` and split at the last `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPrincipal {
    /// What `iss` must be.
    pub issuer: Pattern,
    /// What `sub` must be.
    pub subject: Pattern,
}

impl RequestPrincipal {
    /// Reads a value of `requestPrincipals`.
    ///
    /// `*` wants both claims; without a slash `*x` is the end of a subject and `x*` the beginning of an issuer. Istio
    /// looks only at the first and the last character of the whole value for a star; another one is a letter to it.
    pub fn parse(text: &str) -> Result<Self, String> {
        // `https://idp.example*` would mean the issuer `https:/`, which nobody has.
        if text.rsplit_once('/').is_some_and(|(issuer, _)| issuer.ends_with(":/")) {
            return Err(format!(
                "`{text}` is split at its last `/` into issuer and subject; for every subject of an issuer write \
                 `ISSUER/*`"
            ));
        }
        let parsed = Self::parse_as(Mode::Compat, text)?;
        if parsed.subject == Pattern::Exact("".into()) || parsed.issuer == Pattern::Exact("".into()) {
            return Err(format!("`{text}`: expected ISSUER/SUBJECT, for example `https://idp.example/alice`"));
        }
        let star = |pattern: &Pattern| match pattern {
            Pattern::Exact(text) | Pattern::Prefix(text) | Pattern::Suffix(text) => text.contains('*'),
            Pattern::Present => false,
        };
        if star(&parsed.issuer) || star(&parsed.subject) {
            return Err(format!(
                "`{text}`: one `*` is understood, at the very start or the very end; for every token write `*`, for \
                 every subject of an issuer `ISSUER/*`"
            ));
        }
        Ok(parsed)
    }

    /// Reads a value as `mode` does; [`Compat`](Mode::Compat) takes every text that is not empty.
    pub fn parse_as(mode: Mode, text: &str) -> Result<Self, String> {
        if mode == Mode::Strict {
            return Self::parse(text);
        }
        let exact = |text: &str| Pattern::Exact(text.into());
        let affix = |text: &str, pattern: fn(std::sync::Arc<str>) -> Pattern| {
            if text.is_empty() { Pattern::Present } else { pattern(text.into()) }
        };
        let (issuer, subject) = match text.rsplit_once('/') {
            _ if text.is_empty() => return Err(super::PatternError::Empty.to_string()),
            _ if text == "*" => (Pattern::Present, Pattern::Present),
            Some((issuer, subject)) => match (issuer.strip_prefix('*'), subject.strip_suffix('*')) {
                (Some(end), _) => (affix(end, Pattern::Suffix), exact(subject)),
                (None, Some(start)) => (exact(issuer), affix(start, Pattern::Prefix)),
                (None, None) => (exact(issuer), exact(subject)),
            },
            None => match (text.strip_prefix('*'), text.strip_suffix('*')) {
                (Some(end), _) => (Pattern::Present, affix(end, Pattern::Suffix)),
                (None, Some(start)) => (affix(start, Pattern::Prefix), Pattern::Present),
                (None, None) => (exact(text), exact("")),
            },
        };
        Ok(Self { issuer, subject })
    }

    /// Whether both claims match; a token without `sub` matches nothing.
    pub fn matches(&self, issuer: &str, subject: Option<&str>) -> bool {
        self.issuer.matches(issuer.as_bytes())
            && subject.is_some_and(|subject| self.subject.matches(subject.as_bytes()))
    }
}

impl fmt::Display for RequestPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.issuer, self.subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_mean_what_istio_makes_of_them() {
        const IDP: &str = "https://idp.example";
        for (text, issuer, subject, expected) in [
            ("*", IDP, Some("alice"), true),
            ("*", IDP, None, false),
            ("*", IDP, Some(""), false),
            ("https://idp.example/alice", IDP, Some("alice"), true),
            ("https://idp.example/alice", IDP, Some("bob"), false),
            ("https://idp.example/*", IDP, Some("alice"), true),
            ("https://idp.example/*", IDP, None, false),
            ("https://idp.example/al*", IDP, Some("alice"), true),
            ("*idp.example/alice", IDP, Some("alice"), true),
            ("*/alice", IDP, Some("alice"), true),
            ("*ice", IDP, Some("alice"), true),
            ("*ice", IDP, Some("bob"), false),
            ("https:*", IDP, Some("alice"), true),
            // The subject of a JWT-SVID is a URI, which cannot stand behind the last slash.
            ("https://idp.example/spiffe://td/web", IDP, Some("spiffe://td/web"), false),
        ] {
            let parsed = RequestPrincipal::parse_as(Mode::Compat, text).unwrap();
            assert_eq!(parsed.matches(issuer, subject), expected, "{text}");
            if let Ok(strict) = RequestPrincipal::parse(text) {
                assert_eq!(strict, parsed, "{text}");
            }
        }
    }

    /// Where Istio's reading is not what the author thinks, strict mode has none.
    #[test]
    fn stars_that_are_letters_are_refused_or_taken_for_letters() {
        for (text, issuer, subject) in [
            ("*/*", "https://idp.example", "alice"),
            ("*example/al*", "https://idp.example", "alice"),
            ("https*/al*", "https://idp.example", "alice"),
            ("https*/alice", "https://idp.example", "alice"),
            ("alice", "https://idp.example", "alice"),
            ("https://idp.example/", "https://idp.example", "alice"),
            ("https://idp.example*", "https://idp.example", "alice"),
        ] {
            assert!(RequestPrincipal::parse(text).is_err(), "{text}");
            let lenient = RequestPrincipal::parse_as(Mode::Compat, text).unwrap();
            assert!(!lenient.matches(issuer, Some(subject)), "{text}");
        }
        let literally = RequestPrincipal::parse_as(Mode::Compat, "*/*").unwrap();
        assert!(literally.matches("https://idp.example", Some("*")));
        assert!(RequestPrincipal::parse_as(Mode::Compat, "").is_err());
    }
}
