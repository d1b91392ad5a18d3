//! The findings by their stable codes.

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The policy may let in or keep out whom its author did not mean.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// `warning` or `note`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LintCode {
    /// `allows_anonymous`: an ALLOW rule that excludes identities and demands none.
    AllowsAnonymous,
    /// `deny_misses_anonymous`: a DENY or CUSTOM rule for identities, which callers over plaintext do not have.
    DenyMissesAnonymous,
    /// `jwt_svid_subject`: a subject with slashes in `requestPrincipals`.
    JwtSvidSubject,
    /// `custom_identity`: identities or claims in a CUSTOM rule.
    CustomIdentity,
    /// `deny_one_slash_form`: a list that keeps `/a` out and not `/a/`, or the other way round.
    DenyOneSlashForm,
    /// `prefix_without_slash`: an ALLOW rule for `/a*`, which holds `/ab` too.
    PrefixWithoutSlash,
    /// `path_template`: `{*}` or `{**}`.
    PathTemplate,
    /// `route_key`: the condition `route`.
    RouteKey,
    /// `host_without_port`: `h` without `h:*`, or the other way round.
    HostWithoutPort,
    /// `head_of_get`: a list that keeps GET out and does not name HEAD.
    HeadOfGet,
    /// `grpc_method`: a gRPC path with methods other than POST.
    GrpcMethod,
    /// `allows_everything`: an ALLOW rule without any field.
    AllowsEverything,
    /// `deny_only`: DENY policies without an ALLOW policy beside them.
    DenyOnly,
    /// `dry_run`: a policy under trial.
    DryRun,
    /// `selects_nothing`: a policy that selects no known workload.
    SelectsNothing,
    /// `not_indexed`: a rule that is looked at for every request.
    NotIndexed,
    /// `duplicate_rule`: a rule that is there already.
    DuplicateRule,
    /// `shadowed_rule`: a rule that a wider one makes useless.
    ShadowedRule,
    /// `not_compared`: more rules than are compared with each other.
    NotCompared,
    /// `tokens_optional`: whose tokens are taken, and nothing that demands one.
    TokensOptional,
    /// `any_audience`: tokens that are meant for other services.
    AnyAudience,
    /// `token_place`: tokens in URLs or cookies.
    TokenPlace,
    /// `doubt`: what only compat mode takes.
    Doubt,
}

impl LintCode {
    /// Every code.
    pub const ALL: [Self; 23] = [
        Self::AllowsAnonymous,
        Self::DenyMissesAnonymous,
        Self::JwtSvidSubject,
        Self::CustomIdentity,
        Self::DenyOneSlashForm,
        Self::PrefixWithoutSlash,
        Self::PathTemplate,
        Self::RouteKey,
        Self::HostWithoutPort,
        Self::HeadOfGet,
        Self::GrpcMethod,
        Self::AllowsEverything,
        Self::DenyOnly,
        Self::DryRun,
        Self::SelectsNothing,
        Self::NotIndexed,
        Self::DuplicateRule,
        Self::ShadowedRule,
        Self::NotCompared,
        Self::TokensOptional,
        Self::AnyAudience,
        Self::TokenPlace,
        Self::Doubt,
    ];

    /// The stable code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowsAnonymous => "allows_anonymous",
            Self::DenyMissesAnonymous => "deny_misses_anonymous",
            Self::JwtSvidSubject => "jwt_svid_subject",
            Self::CustomIdentity => "custom_identity",
            Self::DenyOneSlashForm => "deny_one_slash_form",
            Self::PrefixWithoutSlash => "prefix_without_slash",
            Self::PathTemplate => "path_template",
            Self::RouteKey => "route_key",
            Self::HostWithoutPort => "host_without_port",
            Self::HeadOfGet => "head_of_get",
            Self::GrpcMethod => "grpc_method",
            Self::AllowsEverything => "allows_everything",
            Self::DenyOnly => "deny_only",
            Self::DryRun => "dry_run",
            Self::SelectsNothing => "selects_nothing",
            Self::NotIndexed => "not_indexed",
            Self::DuplicateRule => "duplicate_rule",
            Self::ShadowedRule => "shadowed_rule",
            Self::NotCompared => "not_compared",
            Self::TokensOptional => "tokens_optional",
            Self::AnyAudience => "any_audience",
            Self::TokenPlace => "token_place",
            Self::Doubt => "doubt",
        }
    }

    /// How much it matters.
    pub fn severity(self) -> Severity {
        match self {
            Self::CustomIdentity
            | Self::PrefixWithoutSlash
            | Self::PathTemplate
            | Self::RouteKey
            | Self::NotIndexed
            | Self::DuplicateRule
            | Self::ShadowedRule
            | Self::NotCompared
            | Self::TokenPlace => Severity::Note,
            _ => Severity::Warning,
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::AllowsAnonymous => "demand an identity beside it: `principals: [\"*\"]`",
            Self::DenyMissesAnonymous => {
                "deny what has no identity too: `notPrincipals: [\"*\"]` in a DENY rule of its own"
            }
            Self::JwtSvidSubject => {
                "write `when: [ { key: \"request.auth.claims[sub]\", values: [...] } ]`, and `[iss]` too"
            }
            Self::CustomIdentity => "for a mesh with sidecars, select by path, host or header",
            Self::DenyOneSlashForm => "name both forms, and `/*` behind it for what is below",
            Self::PrefixWithoutSlash => "write the path and the path with `/*`, if that is meant",
            Self::PathTemplate => "keep to `*` at an end where older sidecars read the policy",
            Self::RouteKey => "write `paths` where sidecars read the policy",
            Self::HostWithoutPort => "name the host in both forms, alone and with `:*`",
            Self::HeadOfGet => "name HEAD too",
            Self::GrpcMethod => "write POST, or leave `methods` out",
            Self::AllowsEverything => "say who may, or what",
            Self::DenyOnly => "add an ALLOW policy; one without `rules` allows nothing",
            Self::DryRun => "remove `istio.io/dry-run` once its verdicts are as meant",
            Self::SelectsNothing => "correct namespace, labels or target, or delete it",
            Self::NotIndexed => "name callers, or paths, without `*` alone",
            Self::DuplicateRule | Self::ShadowedRule => "delete it, or narrow the other one",
            Self::NotCompared => "lint fewer policies at once",
            Self::TokensOptional => {
                "allow with `requestPrincipals: [\"*\"]`, or deny with `notRequestPrincipals: [\"*\"]`, what needs a token"
            }
            Self::AnyAudience => "list in `audiences` what this service is called in `aud`",
            Self::TokenPlace => "take tokens from headers where that can be",
            Self::Doubt => "write it as strict mode takes it",
        }
    }
}
