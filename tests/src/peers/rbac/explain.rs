//! Every difference that there may be, and why.

use mesh_core::policy::Reason;

use super::generate::{Flaw, PolicySet, Sent};
use super::judge::{Engines, Ours, View};

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Against {
    /// Istio's verdict and that of `authorization.mode: compat`.
    Compat,
    /// Istio's verdict and that of `authorization.mode: strict`, where `compat` has Istio's.
    Strict,
    /// The status of a request that both refuse.
    Status,
}

/// One kind of difference.
pub(super) struct Explained {
    pub(super) name: &'static str,
    pub(super) against: Against,
    pub(super) envoy: &'static str,
    pub(super) here: &'static str,
    pub(super) why: &'static str,
    /// Whether it can let something through that Envoy refuses.
    pub(super) wider: bool,
    /// Whether one that was found is of this kind.
    applies: fn(&Case<'_>) -> bool,
}

/// A request that was judged by both.
pub(super) struct Case<'a> {
    pub(super) set: &'a PolicySet,
    pub(super) sent: &'a Sent,
    pub(super) engines: &'a Engines,
    /// What policy sees; `None` where it is refused before.
    pub(super) view: Option<&'a View>,
    pub(super) envoy: u16,
    pub(super) compat: Ours,
    pub(super) strict: Ours,
}

impl Case<'_> {
    fn flaw(&self) -> Option<Flaw> {
        self.sent.token.as_ref().and_then(|token| token.flaw)
    }

    /// Whether it would be no difference without what `edit` changes.
    fn because_of(&self, edit: impl Fn(&mut View)) -> bool {
        let (Some(view), Some(strict)) = (self.view, &self.engines.strict) else { return false };
        let mut other = view.clone();
        edit(&mut other);
        other.judged(&self.engines.compat).allowed() == other.judged(strict).allowed()
    }

    fn mentions(&self, words: &[&str]) -> bool {
        let specs: Vec<String> = self.set.documents.iter().map(|document| document["spec"].to_string()).collect();
        specs.iter().any(|spec| words.iter().any(|word| spec.contains(word)))
    }

    fn odd_identity(&self) -> bool {
        self.view.and_then(|view| view.peer.as_ref()).is_some_and(|peer| peer.workload().is_none())
            && self.mentions(&["amespaces\"", "source.namespace", "erviceAccount"])
    }

    fn several_colours(&self) -> bool {
        self.sent.colours.len() > 1 && self.mentions(&["request.headers["])
    }

    fn empty_colour(&self) -> bool {
        self.sent.colours.contains(&"") && self.mentions(&["request.headers["])
    }

    fn head(&self) -> bool {
        self.sent.method == "HEAD" && self.mentions(&["ethods\""])
    }

    /// Without every trait that strict mode reads in another way.
    fn plain(&self, view: &mut View) {
        if self.odd_identity() {
            view.peer = None;
        }
        view.colours.0.retain(|colour| !colour.is_empty());
        view.colours.0.truncate(1);
        if self.head() {
            view.method = "GET";
        }
    }
}

/// The first kind that a difference belongs to.
pub(super) fn explain(case: &Case<'_>, against: Against) -> Option<&'static Explained> {
    EXPLAINED.iter().find(|kind| kind.against == against && (kind.applies)(case))
}

/// The row of the documentation.
pub(super) fn row(kind: &Explained) -> String {
    let against = match kind.against {
        Against::Compat => "compat",
        Against::Strict => "strict",
        Against::Status => "status",
    };
    let wider = if kind.wider { "yes" } else { "no" };
    format!("| {} | {against} | {} | {} | {wider} | {} |", kind.name, kind.envoy, kind.here, kind.why)
}

pub(super) const EXPLAINED: &[Explained] = &[
    Explained {
        name: "fragment",
        against: Against::Compat,
        envoy: "400 for a target with `#`",
        here: "judged without the fragment",
        why: "the `http` crate cuts it off for policy, logs and handler alike",
        wider: true,
        applies: |case| case.sent.target.contains('#') && case.envoy == 400,
    },
    Explained {
        name: "one form of a host",
        against: Against::Compat,
        envoy: "`hosts` are held against the authority as it was sent, but for the case",
        here: "against its one form: no dot at the end, ports and IPv6 addresses in their shortest form",
        why: "`orders.` and `orders:0443` are names of the same server; a rule about `orders` must not be passed by them",
        wider: true,
        applies: |case| {
            let sent = case.sent.host.to_ascii_lowercase();
            case.view.filter(|view| view.host != sent).is_some_and(|view| {
                let mut other = view.clone();
                other.host = sent;
                other.judged(&case.engines.compat).allowed() == (case.envoy == 200)
            })
        },
    },
    Explained {
        name: "IPv4 in IPv6 form",
        against: Against::Compat,
        envoy: "`::ffff:10.0.0.1` is an IPv6 address: in `::/0`, not in `10.0.0.0/8`",
        here: "it is `10.0.0.1`, in requests and in policies",
        why: "a dual-stack socket shows callers so; what a range means must not depend on the socket",
        wider: true,
        applies: |case| {
            let unmapped = case.view.and_then(|view| view.judged_unmapped(case.set));
            unmapped.is_some_and(|other| other != case.compat && other.allowed() == (case.envoy == 200))
        },
    },
    Explained {
        name: "token without `exp`",
        against: Against::Compat,
        envoy: "accepted, for ever",
        here: "401",
        why: "a token that never expires cannot be taken back (RFC 9068 2.2)",
        wider: false,
        applies: |case| case.flaw() == Some(Flaw::NoExpiry) && case.compat == Ours::Refused(401),
    },
    Explained {
        name: "token of a long life",
        against: Against::Compat,
        envoy: "accepted",
        here: "401 beyond `max_lifetime`, 24 h unless configured",
        why: "the longer a token lives, the longer a stolen one does",
        wider: false,
        applies: |case| case.flaw() == Some(Flaw::LongLife) && case.compat == Ours::Refused(401),
    },
    Explained {
        name: "documents refused",
        against: Against::Strict,
        envoy: "values that match nothing, or mean more than they say, are taken",
        here: "the whole set is refused at start, and on reload the last good one stays",
        why: "a DENY rule that matches nothing denies nothing, and nobody notices",
        wider: false,
        applies: |case| case.strict == Ours::NoPolicies,
    },
    Explained {
        name: "no policy",
        against: Against::Strict,
        envoy: "a workload that no policy selects allows everything",
        here: "it denies everything (`authorization.no_policy`)",
        why: "what was forgotten is closed, not open",
        wider: false,
        applies: |case| matches!(case.strict, Ours::Decided { reason: Reason::NoPolicyDeny, .. }),
    },
    Explained {
        name: "identity of another shape",
        against: Against::Strict,
        envoy: "`/ns/N/` and `sa/S` are found anywhere in a SPIFFE ID",
        here: "a list that lets in (ALLOW by a positive one, the others by a negative one) holds `TRUST_DOMAIN/ns/N/sa/S` alone, by its `N` and `S`; a list that keeps out holds whatever Istio finds",
        why: "`/x/ns/shop/y` was not issued as a member of `shop`; name such callers by `principals`",
        wider: false,
        applies: |case| {
            case.odd_identity()
                && (case.because_of(|view| view.peer = None) || case.because_of(|view| case.plain(view)))
        },
    },
    Explained {
        name: "header sent several times",
        against: Against::Strict,
        envoy: "any value decides",
        here: "ALLOW needs every value in order; for any other action one that is not is enough",
        why: "nobody knows which of them the handler reads",
        wider: false,
        applies: |case| {
            case.several_colours()
                && (case.because_of(|view| view.colours.0.truncate(1))
                    || !case.empty_colour() && case.because_of(|view| case.plain(view)))
        },
    },
    Explained {
        name: "empty header",
        against: Against::Strict,
        envoy: "`*` is met by a header that is there and empty",
        here: "`*` wants a value to let in, and none to keep out",
        why: "nobody knows whether the handler takes it for a value",
        wider: false,
        applies: |case| {
            case.empty_colour()
                && (case.because_of(|view| view.colours.0.retain(|colour| !colour.is_empty()))
                    || case.because_of(|view| case.plain(view)))
        },
    },
    Explained {
        name: "HEAD",
        against: Against::Strict,
        envoy: "methods are what they are",
        here: "a list that keeps GET out keeps HEAD out; none that lets GET in lets HEAD in",
        why: "the handler of GET answers HEAD, in axum as in most servers (RFC 9110 9.3.2)",
        wider: false,
        applies: |case| {
            case.head() && (case.because_of(|view| view.method = "GET") || case.because_of(|view| case.plain(view)))
        },
    },
    Explained {
        name: "fragment in a request that is denied",
        against: Against::Status,
        envoy: "400",
        here: "401 or 403, as without it",
        why: "as above",
        wider: false,
        applies: |case| case.sent.target.contains('#') && case.envoy == 400,
    },
    Explained {
        name: "token that lives too long, in a request that is denied",
        against: Against::Status,
        envoy: "403",
        here: "401",
        why: "as above: the token is refused before policy is asked",
        wider: false,
        applies: |case| {
            matches!(case.flaw(), Some(Flaw::NoExpiry | Flaw::LongLife))
                && (case.envoy, case.compat) == (403, Ours::Refused(401))
        },
    },
    Explained {
        name: "a token would help",
        against: Against::Status,
        envoy: "403",
        here: "401 where no token came and some token would be allowed",
        why: "the caller learns that it may authenticate (RFC 9110 15.5.2)",
        wider: false,
        applies: |case| case.envoy == 403 && matches!(case.compat, Ours::Decided { token_would_help: true, .. }),
    },
    Explained {
        name: "token for another audience",
        against: Against::Status,
        envoy: "403",
        here: "401",
        why: "the token is no credential here (RFC 6750 3.1)",
        wider: false,
        applies: |case| {
            matches!(case.flaw(), Some(Flaw::NoAudience | Flaw::OtherAudience))
                && (case.envoy, case.compat) == (403, Ours::Refused(401))
        },
    },
];
