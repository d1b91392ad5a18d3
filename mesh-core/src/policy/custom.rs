//! CUSTOM: who is asked, and what an answer means.
//!
//! Istio sends such requests to a service that decides; here it is an object in the same process. Asking takes time and
//! policy decides without waiting, so there are two steps: [`PolicyEngine::custom`](super::PolicyEngine::custom) says who
//! must be asked, and [`PolicyEngine::decide_with`](super::PolicyEngine::decide_with) decides with the answers. Whoever
//! was not asked, did not answer or does not exist has denied.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Reason, Request};

/// Judges requests that a CUSTOM policy names it for.
///
/// Registered with [`MeshBuilder::authorizer`](crate::MeshBuilder::authorizer) under the name in `spec.provider.name`.
///
/// ```
/// use mesh_core::policy::{Authorizing, ExternalAuthorizer, ExternalVerdict, Request};
///
/// #[derive(Debug)]
/// struct OfficeHours;
///
/// impl ExternalAuthorizer for OfficeHours {
///     fn authorize<'a>(&'a self, request: &'a Request<'a>) -> Authorizing<'a> {
///         Box::pin(async move { Ok(if request.method == "GET" { ExternalVerdict::Allow } else { ExternalVerdict::Deny }) })
///     }
/// }
/// let builder = mesh_core::Mesh::builder().authorizer("office-hours", OfficeHours);
/// # let _ = builder;
/// ```
pub trait ExternalAuthorizer: fmt::Debug + Send + Sync {
    /// The verdict on one request. Fails closed: an error, or no answer in time, denies.
    ///
    /// Must be cancel safe: it is dropped when its time is up or the caller is gone.
    fn authorize<'a>(&'a self, request: &'a Request<'a>) -> Authorizing<'a>;
}

/// What [`ExternalAuthorizer::authorize`] gives.
pub type Authorizing<'a> = Pin<Box<dyn Future<Output = Result<ExternalVerdict, ExternalError>> + Send + 'a>>;

/// What an external authorizer decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalVerdict {
    /// The other policies decide.
    Allow,
    /// The request is denied.
    Deny,
}

/// Why an external authorizer could not decide; for the log, never for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("external authorizer: {0}")]
pub struct ExternalError(pub String);

/// A CUSTOM rule that matched, and whom it wants asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CustomMatch {
    /// `spec.provider.name`.
    pub provider: Arc<str>,
    /// `NAMESPACE/NAME` of the first policy that names it and matched.
    pub policy: Arc<str>,
    /// 0-based index of its rule.
    pub rule: u32,
}

/// What became of the question to one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CustomAnswer {
    /// It allowed.
    Allow,
    /// It denied.
    Deny,
    /// It failed.
    Error,
    /// It did not answer in time.
    Timeout,
    /// Nobody is registered under this name.
    Unknown,
}

impl CustomAnswer {
    /// Its name in logs and metrics, for example `timeout`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Unknown => "unknown",
        }
    }

    /// Why this answer denies; `None` where it does not.
    pub(super) fn denies(answer: Option<Self>) -> Option<Reason> {
        match answer {
            Some(Self::Allow) => None,
            Some(Self::Deny) => Some(Reason::CustomDenied),
            Some(Self::Error) => Some(Reason::CustomError),
            Some(Self::Timeout) => Some(Reason::CustomTimeout),
            Some(Self::Unknown) => Some(Reason::CustomUnknownProvider),
            None => Some(Reason::CustomNotAsked),
        }
    }
}

impl From<&Result<ExternalVerdict, ExternalError>> for CustomAnswer {
    fn from(result: &Result<ExternalVerdict, ExternalError>) -> Self {
        match result {
            Ok(ExternalVerdict::Allow) => Self::Allow,
            Ok(ExternalVerdict::Deny) => Self::Deny,
            Err(_) => Self::Error,
        }
    }
}

/// The answers to the questions of one request, by provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CustomAnswers(Vec<(Arc<str>, CustomAnswer)>);

impl CustomAnswers {
    /// Nobody was asked. Does not allocate.
    pub const NONE: Self = Self(Vec::new());

    /// Notes an answer; of two by one provider the later counts.
    pub fn insert(&mut self, provider: Arc<str>, answer: CustomAnswer) {
        self.0.push((provider, answer));
    }

    /// What `provider` said, if it was asked.
    pub fn of(&self, provider: &str) -> Option<CustomAnswer> {
        self.0.iter().rev().find(|(name, _)| **name == *provider).map(|(_, answer)| *answer)
    }
}
