//! What was decided, by which policy and rule, and why.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::Action;

/// May the request go on?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// The verdict on one request, with what decided it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Decision {
    /// May it go on?
    pub verdict: Verdict,
    /// Why, as a stable code.
    pub reason: Reason,
    /// `NAMESPACE/NAME` of the policy that decided, if one did.
    #[serde(serialize_with = "text")]
    pub policy: Option<Arc<str>>,
    /// 0-based index of its rule that matched.
    pub rule: Option<u32>,
    /// Denied only because a token clause failed and none came: 401 instead of 403.
    pub token_would_help: bool,
    /// `NAMESPACE/NAME` of every AUDIT policy that matched.
    #[serde(serialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<Arc<str>>,
    /// What policies under trial would have decided, where one selects the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<Box<DryRun>>,
}

/// What would have been decided if the policies with `istio.io/dry-run` were in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DryRun {
    /// The verdict with them, beside those in force.
    pub verdict: Verdict,
    /// The first rule of each action that matched: DENY, then ALLOW.
    pub matched: Vec<DryRunMatch>,
}

/// A rule under trial that matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DryRunMatch {
    /// `NAMESPACE/NAME`.
    #[serde(serialize_with = "one_text")]
    pub policy: Arc<str>,
    /// 0-based index of its rule.
    pub rule: u32,
    /// What it would have done.
    pub action: Action,
}

/// Why a verdict fell, as a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A rule of an ALLOW policy matched.
    AllowRule,
    /// A rule of a DENY policy matched.
    DenyRule,
    /// Policies select this workload, none of their ALLOW rules matched.
    NoAllowRule,
    /// No policy selects this workload, and `no_policy: deny` holds.
    NoPolicyDeny,
    /// No ALLOW policy selects this workload and no DENY rule matched.
    NoPolicyAllow,
    /// An external authorizer denied.
    CustomDenied,
    /// An external authorizer failed.
    CustomError,
    /// An external authorizer did not answer in time.
    CustomTimeout,
    /// A CUSTOM policy names an external authorizer that nobody registered.
    CustomUnknownProvider,
    /// A CUSTOM rule matched and its external authorizer was not asked: whoever decided did not know how.
    CustomNotAsked,
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn text<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

fn one_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn texts<S: Serializer>(texts: &[Arc<str>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(texts.iter().map(|text| &**text))
}

impl Reason {
    /// The code in logs, metrics and audit records, for example `deny_rule`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowRule => "allow_rule",
            Self::DenyRule => "deny_rule",
            Self::NoAllowRule => "no_allow_rule",
            Self::NoPolicyDeny => "no_policy_deny",
            Self::NoPolicyAllow => "no_policy_allow",
            Self::CustomDenied => "custom_denied",
            Self::CustomError => "custom_error",
            Self::CustomTimeout => "custom_timeout",
            Self::CustomUnknownProvider => "custom_unknown_provider",
            Self::CustomNotAsked => "custom_not_asked",
        }
    }
}
