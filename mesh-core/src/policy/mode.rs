//! Whose reading of a policy holds where Istio's is wider than its author may think.

use std::fmt;

/// How policies are read and judged.
///
/// | | [`Strict`](Self::Strict) | [`Compat`](Self::Compat) |
/// |---|---|---|
/// | a value that can match nothing, or means more than it says | error: the whole set is refused | read as Istio reads it, with a [doubt](super::AuthorizationPolicy::doubts) |
/// | a condition that Istio cannot translate | error | the rule of an ALLOW policy is dropped, of any other action only the condition |
/// | namespace and service account | of `TRUST_DOMAIN/ns/N/sa/S`, exactly | found anywhere in the SPIFFE ID |
/// | a header that comes several times | ALLOW needs every value, the others any | any value |
/// | no policy selects the workload | deny | allow |
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

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Compat => "compat",
        })
    }
}
