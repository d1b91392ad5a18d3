//! Whose reading of a policy holds where Istio's is wider than its author may think.

use std::fmt;

use super::canonical::Canonicalization;

/// How policies are read and judged.
///
/// | | [`Strict`](Self::Strict) | [`Compat`](Self::Compat) |
/// |---|---|---|
/// | a value that can match nothing, or means more than it says | error: the whole set is refused | read as Istio reads it, with a [doubt](super::AuthorizationPolicy::doubts) |
/// | a condition that Istio cannot translate | error | the rule of an ALLOW policy is dropped, of any other action only the condition |
/// | namespace and service account | to let in, of `TRUST_DOMAIN/ns/N/sa/S`, exactly; to keep out, as in compat | found anywhere in the SPIFFE ID |
/// | a header that comes several times | ALLOW needs every value, the others any | any value |
/// | a header that is there and empty, and `*` | no value to let in by, one to keep out by | a value |
/// | a HEAD request, and `GET` | kept out with GET, let in by `HEAD` alone | no GET |
/// | no policy selects the workload | deny, unless `no_policy` says otherwise | allow, unless it does |
/// | paths | `canonical: reject`, unless it says otherwise | `base`, unless it does |
///
/// A positive list of ALLOW rules and a negative one of all others let in, the other two keep out: strict mode is nowhere
/// wider than compat, but for what the configuration says.
///
/// What Istio's own validation refuses is an error in both, and so are unknown fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// What is not beyond doubt is refused. The default.
    #[default]
    Strict,
    /// Istio's verdicts, for moving from a sidecar without changing policies.
    Compat,
}

impl Mode {
    /// How paths are read, unless the configuration says it: Istio's default is `base`.
    pub fn canonical(self) -> Canonicalization {
        match self {
            Self::Strict => Canonicalization::Reject,
            Self::Compat => Canonicalization::Base,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Compat => "compat",
        })
    }
}
