//! Istio `AuthorizationPolicy` documents, compiled, and the verdict on one request.
//!
//! The hard part of authorization is not the matching but what happens at its edges: a caller without identity, a field
//! that nobody understood, a pattern that means more than it says. Here an absent identity matches no positive list and
//! every negative one, and a document is either understood to the last field or refused as a whole.
//!
//! | step | where |
//! |---|---|
//! | YAML to a typed document; what is not understood is an error, never ignored | `parse` |
//! | values that could match no request are errors too | `unmatched`, by `canonical` |
//! | where Istio's reading is wider, and when it holds | [`Mode`] |
//! | the document | [`AuthorizationPolicy`] |
//! | whom a port lets connect | [`PeerAuthentication`] |
//! | whose tokens it takes | [`RequestAuthentication`] |
//! | the documents that select a workload, as alternatives of tests | `compile` |
//! | which rules can match a caller at all | `index` |
//! | what a connection decides for all of its requests | [`CallerPolicy`] |
//! | Istio's order: CUSTOM, DENY, then ALLOW, then deny | [`PolicyEngine`] |
//! | whom CUSTOM asks, and what an answer means | [`ExternalAuthorizer`] |
//! | the way to the verdict, for people | [`Explanation`] |
//! | what is valid and may surprise | [`lint`] |
//! | `roles:` and `bindings:` as documents; who has a role | `roles`, [`RoleAnswer`] |
//! | whether a caller could get anything through at all, for its open connections | [`Reach`] |

mod account;
mod caller;
pub mod canonical;
mod compile;
mod custom;
mod decision;
mod document;
mod engine;
mod explain;
mod index;
mod ip;
pub mod lint;
mod lookup;
mod mode;
mod options;
mod parse;
mod pattern;
mod peer;
mod peer_authentication;
mod reach;
mod request;
mod request_authentication;
mod request_principal;
pub(crate) mod roles;
mod scope;
mod template;
mod unmatched;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;

pub use account::ServiceAccount;
pub use caller::CallerPolicy;
pub use custom::{
    Authorizing, CustomAnswer, CustomAnswers, CustomMatch, ExternalAuthorizer, ExternalError, ExternalVerdict,
};
pub use decision::{Decision, DryRun, DryRunMatch, Reason, Verdict};
pub use document::{Action, AuthorizationPolicy, Clause, Condition, Operation, PathPattern, Rule, Source};
pub use engine::{PolicyEngine, PolicySummary};
pub use explain::{ExplainStep, Explanation, Miss};
pub use ip::IpBlock;
pub use mode::Mode;
pub use options::EngineOptions;
pub use parse::{Documents, parse_documents, parse_documents_as, parse_file, refuse_duplicates};
pub use pattern::{Pattern, PatternError};
pub use peer::PeerView;
pub use peer_authentication::{PeerAuthentication, PeerMode, PeerPolicy};
pub use reach::Reach;
pub use request::{Headers, NoHeaders, Protocol, Request};
pub use request_authentication::{JwtRule, RequestAuthentication, RequestPolicy};
pub use request_principal::RequestPrincipal;
pub use roles::RoleAnswer;
pub use template::PathTemplate;
