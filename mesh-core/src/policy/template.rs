//! Path templates: `/orders/{*}/items/{**}`.
//!
//! Envoy makes regular expressions of them. Here a template is what stands before `{**}` and what stands after it, and
//! each is looked at once: the cost is linear in the path, whatever the template. Source: Istio's `Operation.paths`,
//! Envoy's `uri_template`.

use std::fmt;
use std::sync::Arc;

/// The longest template. Costs what a path of this length costs.
const MAX_LENGTH: usize = 1_024;

/// A path with `{*}` for one segment and `{**}` for anything.
///
/// A segment is not empty; anything may be nothing, and may hold `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathTemplate {
    text: Arc<str>,
    /// What stands between the `{*}` in front of `{**}`, or of the end.
    head: Box<[Box<str>]>,
    /// What stands after `{**}`; `None` where there is none.
    tail: Option<Box<str>>,
}

impl PathTemplate {
    /// Whether `path` is a template, right or wrong, and not a plain pattern.
    pub fn is_meant(path: &str) -> bool {
        path.contains("{*}") || path.contains("{**}")
    }

    /// Reads a template.
    ///
    /// Operators stand alone in their segment, `{**}` is the last one of them, literals are path characters of RFC 3986
    /// without `*`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("`{text}`: {why}"));
        let Some(segments) = text.strip_prefix('/') else { return wrong("a path template starts with `/`") };
        if text.len() > MAX_LENGTH {
            return Err(format!("a path template has at most {MAX_LENGTH} characters"));
        }
        let literal = |segment: &str| {
            segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte))
        };
        let mut open = false;
        let mut rest = segments.split('/').peekable();
        while let Some(segment) = rest.next() {
            match segment {
                "{*}" | "{**}" if open => return wrong("`{**}` must be the last operator"),
                "{*}" => {}
                "{**}" => open = true,
                // A slash at the end.
                "" if rest.peek().is_none() => {}
                "" => return wrong("an empty segment matches no request"),
                segment if segment.contains(['{', '}']) => {
                    return wrong("`{*}` and `{**}` stand alone between two slashes; other braces mean nothing");
                }
                segment if !literal(segment) => return wrong("a template holds path characters without `*`"),
                _ => {}
            }
        }
        let (head, tail) = match text.split_once("{**}") {
            Some((head, tail)) => (head, Some(tail.into())),
            None => (text, None),
        };
        Ok(Self { text: text.into(), head: head.split("{*}").map(Into::into).collect(), tail })
    }

    /// Whether `path` is one of those it stands for.
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = self.head.iter();
        let Some(mut rest) = parts.next().and_then(|first| path.strip_prefix(&**first)) else { return false };
        for literal in parts {
            let segment = rest.find('/').unwrap_or(rest.len());
            let behind = rest.get(segment..).filter(|_| segment > 0);
            let Some(behind) = behind.and_then(|behind| behind.strip_prefix(&**literal)) else { return false };
            rest = behind;
        }
        match &self.tail {
            Some(tail) => rest.ends_with(&**tail),
            None => rest.is_empty(),
        }
    }

    /// What every path of it begins with.
    pub(super) fn prefix(&self) -> &str {
        self.head.first().map_or("/", |first| first)
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_whole_paths() {
        for (template, path, expected) in [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{*}", "/foo", false),
            ("/foo/{*}", "/foo/bar/baz", false),
            ("/foo/{*}", "/foo/bar/", false),
            ("/foo/{*}/", "/foo/bar/", true),
            ("/foo/{*}/", "/foo/bar", false),
            ("/foo/{**}/", "/foo/bar/baz/", true),
            ("/foo/{**}/", "/foo/bar/baz", false),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar/", true),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar/baz/x", true),
            ("/foo/{*}/bar/{**}", "/foo//bar/x", false),
            ("/foo/{*}/bar/{**}", "/foo/bar/baz", false),
            ("/store/{**}/cart", "/store/a/b/cart", true),
            ("/store/{**}/cart", "/store//cart", true),
            ("/store/{**}/cart", "/store/cart", false),
            ("/store/{**}/cart", "/store/a/cart/b", false),
            ("/{**}", "/", true),
            ("/{**}", "/a/b", true),
            ("/{*}", "/", false),
            ("/{*}", "/a", true),
            ("/{*}/{*}", "/a/b", true),
            ("/{*}/{*}", "/a", false),
            ("/a/{*}/b", "/a/x/bc", false),
            // A star that came with the request is a character like any other. (CVE-2025-46821)
            ("/foo/{*}", "/foo/*", true),
            ("/foo/{*}", "/foo/a*b=c", true),
            ("/foo/{**}", "/foo/*/x", true),
            // Nothing is a regular expression.
            ("/a.c/{*}", "/abc/x", false),
            ("/a+(b)$/{*}", "/a+(b)$/x", true),
        ] {
            let parsed = PathTemplate::parse(template).unwrap();
            assert_eq!(parsed.matches(path), expected, "{template} {path}");
            assert!(!expected || path.starts_with(parsed.prefix()));
            assert_eq!(parsed.to_string(), template);
        }
    }

    #[test]
    fn what_istio_or_envoy_refuse_is_refused() {
        let long = format!("/{{*}}/{}", "a".repeat(MAX_LENGTH));
        for wrong in [
            "{*}",
            "{**}",
            "foo/{*}",
            "/{**}/{*}",
            "/{**}/{**}",
            "/a/{**}/b/{*}",
            "/{*}.json",
            "/v{*}",
            "/{*}{*}",
            "/{id}/{*}",
            "/{*}/a*",
            "/{*}/*",
            "//{*}",
            "/{*}//",
            "/{*}/a//b",
            "/{*}/a?b",
            "/{*}/a b",
            "/{*}/caf\u{e9}",
            &long,
        ] {
            assert!(PathTemplate::parse(wrong).is_err(), "{wrong}");
        }
        let longest = format!("/{{*}}/{}", "a".repeat(MAX_LENGTH - 5));
        assert!(PathTemplate::parse(&longest).is_ok() && PathTemplate::parse(&format!("{longest}a")).is_err());
    }

    /// Twice the path costs about twice as much: no template makes it try again.
    #[test]
    fn a_hostile_path_costs_one_pass() {
        let template = PathTemplate::parse(&format!("{}/{{**}}/b", "/{*}".repeat(200))).unwrap();
        assert!(!template.matches(&"/a".repeat(500_000)));
    }
}
