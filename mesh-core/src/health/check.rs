//! Active health checks: what is asked of an endpoint, and what its answer says.
//!
//! A check is plain data and no I/O: the transport sends the question over the connection that requests use, and hands
//! back what came. So a kind of check needs no connection of its own, and none that is less than mTLS.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use crate::config::HealthCheckConfig;

/// A kind of health check. Called for every endpoint, with the same settings.
pub trait HealthCheck: fmt::Debug + Send + Sync {
    /// What to send.
    fn question(&self) -> CheckQuestion;

    /// What the answer says. It came in time, whole and from the right identity; what did not is a failure before.
    fn judge(&self, answer: &CheckAnswer) -> CheckVerdict;
}

/// A request, whatever HTTP version carries it. The authority is the cluster's name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckQuestion {
    /// `GET`, `POST`, ...
    pub method: String,
    /// The path, with its query; starts with `/`.
    pub path: String,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The body; mostly empty.
    pub body: Vec<u8>,
}

impl CheckQuestion {
    /// A request without header fields and body.
    pub fn new(method: impl Into<String>, path: impl Into<String>) -> Self {
        Self { method: method.into(), path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// A response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Header fields, then trailer fields; names in lower case. Values that are no text are left out.
    pub fields: Vec<(String, String)>,
    /// The body, 64 KiB at most: a longer one is a failure before.
    pub body: Vec<u8>,
}

impl CheckAnswer {
    /// A response without fields and body, as the test of a [`HealthCheck`] may want it.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The last field of this name: of gRPC's status, that in the trailers.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What one check says about its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckVerdict {
    /// It answered well.
    Healthy,
    /// It did not; why, for the log.
    Unhealthy(String),
    /// Nothing: the endpoint stays as it was; why, for the log.
    Inconclusive(String),
}

/// What the checks of one endpoint have come to. Written by one task.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    failed: AtomicBool,
    /// Verdicts in a row against what it is held to be.
    against: AtomicU32,
}

impl Checked {
    /// Whether it is held to be healthy, as one that was never checked is.
    #[inline]
    pub(crate) fn is_healthy(&self) -> bool {
        !self.failed.load(Relaxed)
    }

    /// Takes in a verdict that says something; whether it changed what the endpoint is held to be.
    pub(crate) fn record(&self, healthy: bool, config: &HealthCheckConfig) -> bool {
        if healthy == self.is_healthy() {
            self.against.store(0, Relaxed);
            return false;
        }
        let against = self.against.load(Relaxed).saturating_add(1);
        let enough = against >= if healthy { config.healthy_threshold } else { config.unhealthy_threshold };
        self.against.store(if enough { 0 } else { against }, Relaxed);
        if enough {
            self.failed.store(!healthy, Relaxed);
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::CheckAnswer;

    #[test]
    fn of_fields_with_one_name_the_last_counts() {
        let fields = [("grpc-status", "0"), ("server", "x"), ("grpc-status", "14")];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let answer = CheckAnswer { fields, ..CheckAnswer::default() };
        let found = ["grpc-status", "server", "date"].map(|name| answer.field(name));
        assert_eq!(found, [Some("14"), Some("x"), None]);
    }
}
