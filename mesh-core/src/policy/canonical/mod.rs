//! The one form of hosts, paths and header names, for requests and for the policies about them.
//!
//! Every bypass of this kind (Istio, Envoy, Consul and grpc-go, 2019 to 2026) came from two readers of the same bytes:
//! one saw `/public/../admin`, the other `/admin`. So there is one reading, made here, and nobody else parses a path:
//! not the server stack, not policy, not audit, metrics or limits. Which reading it is, a [`Canonicalization`] says.
//!
//! | mode | a path with several readings | policy matches | the handler sees |
//! |---|---|---|---|
//! | `reject` | is refused; but `%40` for `@` and its like, which clients send either way, are judged in both | DENY: either view; ALLOW: both | what was sent |
//! | `dual` | is judged in both | DENY: either view; ALLOW: both | what was sent |
//! | `none` | is taken as it is | what was sent | what was sent |
//! | `base` | is normalised | the result | the result |
//! | `merge-slashes` | and slashes merged | the result | the result |
//! | `decode-and-merge-slashes` | and `%2f` and `%5c` decoded before | the result | the result |
//!
//! The last four are Istio's `pathNormalization` for meshes that must agree with sidecars: byte for byte what Envoy 1.40
//! does, which `tests/src/peers/paths.rs` checks against Envoy itself. Their results need not be the last word on a
//! path: `base` leaves `//admin` and `/a%2fb`, all of them leave `/%252e`, and `/a/%2e%2e;/b` becomes `/a/..;/b`, which
//! some application servers read as `/b`. Only `reject` lets nothing through that has a second
//! reading, unless it was judged in that one too.
//!
//! What differs from Envoy, and why:
//!
//! | request | Envoy | here |
//! |---|---|---|
//! | fragment (`/a#b`) | 400 | cut off by the `http` crate: for policy, logs and handler alike |
//! | `` ` ``, `<`, `>` | forwarded, escaped from `base` on | 400: no URI has them (RFC 3986), and `http` cannot hold them |
//! | absolute form without path, with query (`http://o?x`) | 404 | path `/` |
//! | absolute form that names another host than `Host` | the form's host counts | 400 `host_mismatch` |

mod dual;
mod envoy;
mod headers;
mod host;
mod reject;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

pub use headers::{is_forbidden_trailer, is_stripped};
pub use host::host;

/// How a path becomes what policy matches. Default `reject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Canonicalization {
    /// Refuses paths with a second reading.
    ///
    /// Where that is `@` for `%40` and the like, both readings are judged.
    #[default]
    Reject,
    /// Judges the path as it was sent, and as the most eager reader would resolve it.
    Dual,
    /// Istio's `NONE`: as it was sent.
    None,
    /// Istio's `BASE`: dot segments resolved, `\` to `/`, letters, digits, `-`, `.`, `_` and `~` unescaped.
    Base,
    /// Istio's `MERGE_SLASHES`: `base`, and runs of `/` merged.
    MergeSlashes,
    /// Istio's `DECODE_AND_MERGE_SLASHES`: `%2f` and `%5c` decoded, then `merge-slashes`.
    DecodeAndMergeSlashes,
}

/// A path as policy and the handler see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    /// What the handler sees, and what is written down.
    pub path: Cow<'a, str>,
    /// What policy matches, and what it must match too in `dual`, and in `reject` where characters are escaped that need not be; `None`: policy matches `path`.
    pub views: Option<(Cow<'a, str>, Cow<'a, str>)>,
}

impl Canonicalization {
    /// Every mode by its name in configuration and on the command line.
    pub const ALL: [(&'static str, Self); 6] = [
        ("reject", Self::Reject),
        ("dual", Self::Dual),
        ("none", Self::None),
        ("base", Self::Base),
        ("merge-slashes", Self::MergeSlashes),
        ("decode-and-merge-slashes", Self::DecodeAndMergeSlashes),
    ];

    /// The name in configuration and on the command line.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, mode)| *mode == self).map_or("reject", |(name, _)| name)
    }

    /// Reads the path of a request target, without its query.
    ///
    /// Or says by a stable code why it is refused.
    ///
    /// Does not allocate for a path in its plainest form.
    pub fn path(self, raw: &str) -> Result<CanonicalPath<'_>, &'static str> {
        let plain = |path| CanonicalPath { path, views: None };
        match self {
            Self::Reject => {
                reject::check(raw)?;
                let views = reject::decoded(raw).map(|decoded| (raw.into(), decoded.into()));
                Ok(CanonicalPath { path: raw.into(), views })
            }
            Self::Dual => {
                let (sent, resolved) = dual::views(raw)?;
                let views = (sent != raw || resolved != raw).then_some((sent, resolved));
                Ok(CanonicalPath { path: raw.into(), views })
            }
            Self::None => envoy::path(raw).map(plain),
            Self::Base => envoy::normalized(raw, false, false).map(plain),
            Self::MergeSlashes => envoy::normalized(raw, true, false).map(plain),
            Self::DecodeAndMergeSlashes => envoy::normalized(raw, true, true).map(plain),
        }
    }

    /// The path as a handler reads it that decodes its parts, whatever mode.
    ///
    /// `None` where that is the path itself or none.
    pub fn decoded(path: &str) -> Option<String> {
        path.contains('%').then(|| dual::decode(path).ok()).flatten().map(Cow::into_owned)
    }

    /// Whether policy could ever be asked about exactly this path.
    pub fn yields(self, path: &str) -> bool {
        self.path(path).is_ok_and(|read| read.views().any(|view| view == path))
            // What was decoded need not be a path that could be sent.
            || self == Self::Dual && dual::is_resolved(path)
    }
}

impl CanonicalPath<'_> {
    /// What policy matches: one path, or two.
    pub fn views(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match &self.views {
            Some((sent, resolved)) => (sent.as_ref(), Some(resolved.as_ref())),
            None => (self.path.as_ref(), None),
        };
        std::iter::once(first).chain(second)
    }
}

impl fmt::Display for Canonicalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Canonicalization {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(|(name, _)| name).join(", ");
        let found = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, mode)| *mode);
        found.ok_or_else(|| format!("`{text}` is none of {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_called_what_they_are_called() {
        for (name, mode) in Canonicalization::ALL {
            assert_eq!((name.parse(), mode.to_string().as_str()), (Ok(mode), name));
        }
        assert_eq!(Canonicalization::default().as_str(), "reject");
        assert!("REJECT".parse::<Canonicalization>().unwrap_err().contains("merge-slashes, decode-and-merge-slashes"));
    }

    #[test]
    fn patterns_that_no_request_can_have_are_told() {
        use Canonicalization::{Base, DecodeAndMergeSlashes, Dual, MergeSlashes, None, Reject};
        for (path, modes) in [
            ("/a", &[Reject, Dual, None, Base, MergeSlashes, DecodeAndMergeSlashes][..]),
            ("/a//b", &[Dual, None, Base]),
            ("/a/../b", &[Dual, None]),
            ("/a%2fb", &[Dual, None, Base, MergeSlashes]),
            ("/a;b", &[None, Base, MergeSlashes, DecodeAndMergeSlashes]),
            ("/caf\u{e9}", &[Dual]),
            ("/a b", &[Dual]),
            ("/a b/c/", &[Dual]),
            ("/a b//c", &[]),
            ("/a b/../c", &[]),
            ("/a b\\c", &[]),
            ("/a b;c", &[]),
            ("/a b\u{7f}", &[]),
            ("/{id}", &[Dual, None]),
            ("a", &[]),
            ("/a%00", &[Dual, None]),
        ] {
            for (name, mode) in Canonicalization::ALL {
                assert_eq!(mode.yields(path), modes.contains(&mode), "{path} in {name}");
            }
        }
    }
}
