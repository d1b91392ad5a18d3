//! SPIFFE IDs and trust domains, by the grammar of go-spiffe. (SPIFFE-ID 2)
//!
//! A name that two parsers read differently is a hole in every policy that mentions it. So there is one spelling of
//! each ID: nothing is decoded, lower-cased or normalised, and what is not in the grammar is refused with its place.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID 2.3: implementations must support at least, and should not exceed, 2,048 bytes.
const MAX_ID: usize = 2048;
/// SPIFFE-ID 2.3.
const MAX_TRUST_DOMAIN: usize = 255;

/// The name of a trust root, for example `shop.example`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses `[a-z0-9._-]+`, at most 255 bytes.
    pub fn parse(name: &str) -> Result<Self, SpiffeIdError> {
        check_trust_domain(name, 0)?;
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A workload's name: `spiffe://TRUST_DOMAIN/PATH`.
///
/// Cheap to clone. Equality is byte equality, as SPIFFE demands.
///
/// ```
/// use mesh_core::identity::SpiffeId;
///
/// let id = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/web")?;
/// assert_eq!(id.trust_domain(), "shop.example");
/// assert_eq!(id.workload().map(|w| w.service_account), Some("web"));
///
/// let error = SpiffeId::parse("spiffe://shop.example/a%2Fb").unwrap_err().to_string();
/// assert!(error.starts_with("'%' at byte 23"));
/// # Ok::<(), mesh_core::identity::SpiffeIdError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Arc<str>,
    /// Where the path begins, or the length of `uri` where there is none.
    path_at: usize,
}

impl SpiffeId {
    /// Parses a SPIFFE ID of at most 2,048 bytes.
    ///
    /// A path is optional here; an SVID needs one.
    pub fn parse(uri: &str) -> Result<Self, SpiffeIdError> {
        if uri.is_empty() {
            return Err(SpiffeIdError::Empty);
        }
        if uri.len() > MAX_ID {
            return Err(SpiffeIdError::TooLong { length: uri.len(), limit: MAX_ID });
        }
        let rest = uri.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        check_trust_domain(domain, SCHEME.len())?;
        let path_at = SCHEME.len() + domain.len();
        check_path(path, path_at)?;
        Ok(Self { uri: uri.into(), path_at })
    }

    /// `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`. Each name must be one path segment.
    pub fn for_workload(domain: &TrustDomain, namespace: &str, service_account: &str) -> Result<Self, SpiffeIdError> {
        let namespace_at = SCHEME.len() + domain.as_str().len() + "/ns/".len();
        let account_at = namespace_at + namespace.len() + "/sa/".len();
        for (name, at) in [(namespace, namespace_at), (service_account, account_at)] {
            if let Some(slash) = name.find('/') {
                return Err(SpiffeIdError::PathCharacter { at: at + slash, found: '/' });
            }
        }
        Self::parse(&format!("{SCHEME}{}/ns/{namespace}/sa/{service_account}", domain.as_str()))
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        self.uri.get(SCHEME.len()..self.path_at).unwrap_or_default()
    }

    /// The path with its leading slash; empty where there is none.
    pub fn path(&self) -> &str {
        self.uri.get(self.path_at..).unwrap_or_default()
    }

    /// Namespace and service account, if the path is exactly `/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    pub fn workload(&self) -> Option<WorkloadPath<'_>> {
        let mut segments = self.path().strip_prefix("/ns/")?.split('/');
        let names = (segments.next()?, segments.next()?, segments.next()?, segments.next());
        match names {
            (namespace, "sa", service_account, None) => Some(WorkloadPath { namespace, service_account }),
            _ => None,
        }
    }
}

/// `at` is where `name` stands in the text that the error is about.
fn check_trust_domain(name: &str, at: usize) -> Result<(), SpiffeIdError> {
    if name.is_empty() {
        return Err(SpiffeIdError::NoTrustDomain);
    }
    let stranger = name.char_indices().find(|(_, c)| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'));
    if let Some((offset, found)) = stranger {
        return Err(SpiffeIdError::TrustDomainCharacter { at: at + offset, found });
    }
    if name.len() > MAX_TRUST_DOMAIN {
        return Err(SpiffeIdError::TooLong { length: name.len(), limit: MAX_TRUST_DOMAIN });
    }
    Ok(())
}

fn check_path(path: &str, at: usize) -> Result<(), SpiffeIdError> {
    let mut at = at;
    for segment in path.split('/').skip(1) {
        at += 1;
        let stranger =
            segment.char_indices().find(|(_, c)| !matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-'));
        match (segment, stranger) {
            ("", _) => return Err(SpiffeIdError::EmptySegment { at }),
            ("." | "..", _) => return Err(SpiffeIdError::DotSegment { at }),
            (_, Some((offset, found))) => return Err(SpiffeIdError::PathCharacter { at: at + offset, found }),
            (_, None) => at += segment.len(),
        }
    }
    Ok(())
}

/// The two names in a Kubernetes-style path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadPath<'a> {
    /// After `/ns/`.
    pub namespace: &'a str,
    /// After `/sa/`.
    pub service_account: &'a str,
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;
    fn from_str(s: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(s)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;
    fn from_str(s: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(s)
    }
}

/// Why a text is no SPIFFE ID or trust domain.
///
/// Positions are byte offsets, from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeIdError {
    /// Nothing was given.
    #[error("a SPIFFE ID cannot be empty; expected `spiffe://TRUST_DOMAIN/PATH`")]
    Empty,
    /// More than 2,048 bytes of ID, or more than 255 of trust domain.
    #[error("{length} bytes are too long, at most {limit} are allowed")]
    TooLong {
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// It does not start with `spiffe://`.
    #[error("a SPIFFE ID starts with `spiffe://`, in lower case")]
    Scheme,
    /// Nothing stands between `spiffe://` and the path.
    #[error("the trust domain is missing; expected for example `shop.example`")]
    NoTrustDomain,
    /// Ports, user information and upper case are among what a trust domain cannot have.
    #[error("{found:?} at byte {at} cannot stand in a trust domain; allowed are a-z, 0-9, `.`, `-` and `_`")]
    TrustDomainCharacter {
        /// Where.
        at: usize,
        /// What.
        found: char,
    },
    /// Two slashes in a row, or one at the end.
    #[error("the path segment at byte {at} is empty; double and trailing slashes are not allowed")]
    EmptySegment {
        /// Where the segment should begin.
        at: usize,
    },
    /// `.` or `..`
    #[error("the path segment at byte {at} is `.` or `..`, which SPIFFE IDs cannot have")]
    DotSegment {
        /// Where the segment begins.
        at: usize,
    },
    /// Percent signs, queries and fragments are among what a path cannot have.
    #[error("{found:?} at byte {at} cannot stand in a path segment; allowed are a-z, A-Z, 0-9, `.`, `-` and `_`")]
    PathCharacter {
        /// Where.
        at: usize,
        /// What.
        found: char,
    },
}

impl SpiffeIdError {
    /// A stable code, for example `id_path_character`; for logs, metrics, audit and tools.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "id_empty",
            Self::TooLong { .. } => "id_too_long",
            Self::Scheme => "id_scheme",
            Self::NoTrustDomain => "id_trust_domain_missing",
            Self::TrustDomainCharacter { .. } => "id_trust_domain_character",
            Self::EmptySegment { .. } => "id_empty_segment",
            Self::DotSegment { .. } => "id_dot_segment",
            Self::PathCharacter { .. } => "id_path_character",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_spelling_of_each_id() {
        use SpiffeIdError as E;
        let long_path = |n: usize| format!("spiffe://td/{}", "a".repeat(n - "spiffe://td/".len()));
        type Parts<'a> = Result<(&'a str, &'a str), E>;
        let table: &[(&str, Parts<'_>)] = &[
            ("spiffe://shop.example/ns/shop/sa/web", Ok(("shop.example", "/ns/shop/sa/web"))),
            ("spiffe://td", Ok(("td", ""))),
            ("spiffe://1_-./A.b_c-9/...", Ok(("1_-.", "/A.b_c-9/..."))),
            (&long_path(2048), Ok(("td", &long_path(2048)[11..]))),
            (&long_path(2049), Err(E::TooLong { length: 2049, limit: 2048 })),
            ("", Err(E::Empty)),
            ("SPIFFE://td/a", Err(E::Scheme)),
            ("spiffe:/td/a", Err(E::Scheme)),
            ("https://td/a", Err(E::Scheme)),
            (" spiffe://td/a", Err(E::Scheme)),
            ("spiffe://", Err(E::NoTrustDomain)),
            ("spiffe:///a", Err(E::NoTrustDomain)),
            ("spiffe://Td/a", Err(E::TrustDomainCharacter { at: 9, found: 'T' })),
            ("spiffe://td:80/a", Err(E::TrustDomainCharacter { at: 11, found: ':' })),
            ("spiffe://u@td/a", Err(E::TrustDomainCharacter { at: 10, found: '@' })),
            ("spiffe://t%64/a", Err(E::TrustDomainCharacter { at: 10, found: '%' })),
            ("spiffe://td?q", Err(E::TrustDomainCharacter { at: 11, found: '?' })),
            ("spiffe://t\u{430}", Err(E::TrustDomainCharacter { at: 10, found: '\u{430}' })),
            ("spiffe://td/", Err(E::EmptySegment { at: 12 })),
            ("spiffe://td/a/", Err(E::EmptySegment { at: 14 })),
            ("spiffe://td//a", Err(E::EmptySegment { at: 12 })),
            ("spiffe://td/./a", Err(E::DotSegment { at: 12 })),
            ("spiffe://td/a/..", Err(E::DotSegment { at: 14 })),
            ("spiffe://td/a%2fb", Err(E::PathCharacter { at: 13, found: '%' })),
            ("spiffe://td/a?q", Err(E::PathCharacter { at: 13, found: '?' })),
            ("spiffe://td/a#f", Err(E::PathCharacter { at: 13, found: '#' })),
            ("spiffe://td/a\0", Err(E::PathCharacter { at: 13, found: '\0' })),
            ("spiffe://td/a b", Err(E::PathCharacter { at: 13, found: ' ' })),
            ("spiffe://td/\u{e9}", Err(E::PathCharacter { at: 12, found: '\u{e9}' })),
        ];
        for (text, expected) in table {
            let parsed = SpiffeId::parse(text);
            let parts = parsed.as_ref().map(|id| (id.trust_domain(), id.path())).map_err(Clone::clone);
            assert_eq!(&parts, expected, "{text:?}");
        }
        assert!(TrustDomain::parse(&"a".repeat(255)).is_ok());
        assert_eq!(TrustDomain::parse(&"a".repeat(256)), Err(E::TooLong { length: 256, limit: 255 }));
        assert_eq!(TrustDomain::parse("spiffe://td"), Err(E::TrustDomainCharacter { at: 6, found: ':' }));
    }

    #[test]
    fn only_the_exact_workload_path_names_a_workload() {
        let td = TrustDomain::parse("td").unwrap();
        let id = SpiffeId::for_workload(&td, "shop", "web").unwrap();
        assert_eq!(id.as_str(), "spiffe://td/ns/shop/sa/web");
        assert_eq!(id.workload(), Some(WorkloadPath { namespace: "shop", service_account: "web" }));
        for path in ["", "/ns/a", "/ns/a/sa", "/ns/a/sa/b/c", "/x/ns/a/sa/b", "/NS/a/sa/b", "/ns/a/SA/b", "/ns/a/b/sa"]
        {
            assert_eq!(SpiffeId::parse(&format!("spiffe://td{path}")).unwrap().workload(), None, "{path}");
        }
        // A name with a slash must not shift the segments of its neighbour.
        for (ns, sa) in [("a/sa/b", "c"), ("a", "b/c"), ("", "a"), ("a", ""), ("..", "a")] {
            assert!(SpiffeId::for_workload(&td, ns, sa).is_err(), "{ns:?} {sa:?}");
        }
        assert_eq!(
            SpiffeId::for_workload(&td, "a", "b/c"),
            Err(SpiffeIdError::PathCharacter { at: "spiffe://td/ns/a/sa/b".len(), found: '/' })
        );
    }

    /// The grammar as a list of sentences instead of a parser.
    fn model(text: &str) -> bool {
        let word = |s: &str, upper: bool| {
            !s.is_empty()
                && s.bytes().all(|b| {
                    b.is_ascii_digit()
                        || b.is_ascii_lowercase()
                        || b"._-".contains(&b)
                        || (upper && b.is_ascii_uppercase())
                })
        };
        let Some(rest) = text.strip_prefix("spiffe://") else { return false };
        let parts: Vec<&str> = rest.split('/').collect();
        text.len() <= 2048
            && parts[0].len() <= 255
            && word(parts[0], false)
            && parts[1..].iter().all(|s| word(s, true) && *s != "." && *s != "..")
    }

    proptest! {
        #[test]
        fn agrees_with_the_model(text in "(spiffe://)?[a-cA-B./_%:@?# \\-]{0,24}") {
            let parsed = SpiffeId::parse(&text);
            prop_assert_eq!(parsed.is_ok(), model(&text));
            if let Ok(id) = parsed {
                prop_assert_eq!(id.to_string(), text.clone());
                prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }

        #[test]
        fn never_panics_and_points_into_the_text(text in "(spiffe://)?\\PC{0,40}") {
            use SpiffeIdError::{DotSegment, EmptySegment, PathCharacter, TrustDomainCharacter};
            match SpiffeId::parse(&text) {
                Err(TrustDomainCharacter { at, found } | PathCharacter { at, found }) => {
                    prop_assert!(text[at..].starts_with(found));
                }
                Err(EmptySegment { at } | DotSegment { at }) => prop_assert!(text[..at].ends_with('/')),
                _ => {}
            }
        }
    }
}
