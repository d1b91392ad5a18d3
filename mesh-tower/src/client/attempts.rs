//! The record of every attempt that one call made.
//!
//! It lives beside the answer, as a response extension or in the error, and never on the wire. The first attempt is held
//! inline: a call that is answered at once allocates nothing for its record but the extension itself.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::cluster::{PickReason, Tried};
use mesh_core::discover::EndpointKey;
use mesh_core::retry::StopReason;
use mesh_core::telemetry::{Label, RetryReason};
use serde::{Serialize, Serializer};

/// Every attempt of one call, oldest first.
///
/// An extension of each response, and part of each [`Error`](crate::Error).
///
/// There are never more than the route's `retry.attempts`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attempts {
    first: Option<AttemptReport>,
    more: Vec<AttemptReport>,
}

/// Where one attempt went and why, how it ended, and what followed.
///
/// `Display` says it in a line:
/// `10.0.0.1:80: connect after 1.1ms (least latency x load of 2: ...); repeated after 12.0ms: not_sent`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AttemptReport {
    /// The endpoint, if one was picked.
    pub endpoint: Option<EndpointKey>,
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// Why it was picked.
    pub reason: Option<PickReason>,
    /// How long the attempt waited for a connection; `None`: one was there.
    pub wait: Option<ConnectionWait>,
    /// From the pick to the response headers, or to the failure.
    #[serde(rename = "took_ms", serialize_with = "millis")]
    pub took: Duration,
    /// How it ended.
    #[serde(serialize_with = "text")]
    pub outcome: AttemptOutcome,
    /// What followed.
    pub next: AttemptNext,
}

/// How long an attempt waited for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConnectionWait {
    /// To the connection, or to the end of the attempt.
    #[serde(rename = "length_ms", serialize_with = "millis")]
    pub length: Duration,
    /// The endpoint had no connection when the wait began: it was for a connect, and not for others to finish.
    pub connecting: bool,
    /// It ended with a connection, or with an error of its own. Else the attempt's time was up before.
    pub over: bool,
    /// Meanwhile a connection to the endpoint waited for this process: for its turn to shake hands
    /// (`limits.max_handshakes`), or for a place (`limits.max_connections`). An attempt whose time was up in such a wait says
    /// nothing against its endpoint.
    pub held_up: bool,
}

/// How an attempt ended, as far as its headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptOutcome {
    /// It was answered with this HTTP status.
    Answered(http::StatusCode),
    /// It was answered with this gRPC status before any message.
    Grpc(u8),
    /// It failed.
    Failed(crate::ErrorKind),
}

/// What followed an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttemptNext {
    /// Nothing had to be decided: it was answered.
    #[default]
    Answered,
    /// Another attempt.
    Repeated {
        /// How long that waited first.
        #[serde(rename = "after_ms", serialize_with = "millis")]
        after: Duration,
        /// Why that was safe.
        #[serde(serialize_with = "label")]
        reason: RetryReason,
    },
    /// None, although it failed.
    Stopped(StopReason),
}

impl AttemptNext {
    /// Whether nobody above should repeat it either, after so many earlier attempts.
    pub(super) fn is_in_vain(self, earlier: usize) -> bool {
        matches!(self, Self::Stopped(reason) if earlier > 0 || reason.is_in_vain())
    }
}

impl ConnectionWait {
    /// Its time was up, and not for the endpoint's sake.
    pub(super) fn is_innocent(&self) -> bool {
        self.held_up && !self.over
    }
}

impl AttemptReport {
    /// One that picked no endpoint.
    pub(super) fn nowhere(outcome: AttemptOutcome) -> Self {
        Self {
            endpoint: None,
            address: None,
            reason: None,
            wait: None,
            took: Duration::ZERO,
            outcome,
            next: AttemptNext::Answered,
        }
    }
}

impl Attempts {
    pub(crate) fn one(report: AttemptReport) -> Self {
        Self { first: Some(report), more: Vec::new() }
    }

    /// Puts the reports of earlier attempts before these.
    pub(crate) fn after(self, mut earlier: Self) -> Self {
        if earlier.is_empty() {
            return self;
        }
        earlier.more.extend(self.first);
        earlier.more.extend(self.more);
        earlier
    }

    /// How many there were.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// Whether none was made.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether whoever is told of this should not repeat it either.
    ///
    /// It was repeated in vain, it would have been but for a budget or limit that is exhausted, or the endpoint said so.
    /// Retries that multiply from hop to hop turn a small outage into a large one.
    pub fn is_in_vain(&self) -> bool {
        self.last().is_some_and(|report| match report.next {
            AttemptNext::Repeated { .. } => true, // and then there was nobody to go to
            next => next.is_in_vain(self.len() - 1),
        })
    }

    /// The reports, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &AttemptReport> {
        self.first.iter().chain(&self.more)
    }

    pub(crate) fn last(&self) -> Option<&AttemptReport> {
        self.more.last().or(self.first.as_ref())
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut AttemptReport> {
        self.more.last_mut().or(self.first.as_mut())
    }

    pub(crate) fn tried(&self) -> Tried {
        let mut tried = Tried::default();
        self.iter().filter_map(|report| report.endpoint.clone()).for_each(|key| tried.insert(key));
        tried
    }
}

impl Serialize for Attempts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

pub(super) fn text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Milliseconds, with fractions.
pub(super) fn millis<S: Serializer>(
    duration: &(impl Copy + Into<Option<Duration>>),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    (*duration).into().map(|duration: Duration| duration.as_secs_f64() * 1e3).serialize(serializer)
}

fn label<S: Serializer>(label: &impl Label, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(label.as_str())
}

impl fmt::Display for AttemptOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => write!(f, "{}", status.as_u16()),
            Self::Grpc(code) => write!(f, "grpc-status {code}"),
            Self::Failed(kind) => f.write_str(kind.as_str()),
        }
    }
}

impl fmt::Display for AttemptNext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("answered"),
            Self::Repeated { after, reason } => write!(f, "repeated after {after:.1?}: {}", reason.as_str()),
            Self::Stopped(reason) => write!(f, "not repeated: {reason}"),
        }
    }
}

impl fmt::Display for ConnectionWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.connecting { "to connect" } else { "for a free connection" };
        write!(f, "waited {:.1?} {what}", self.length)?;
        f.write_str(if self.over { "" } else { " in vain" })?;
        f.write_str(if self.held_up { ", held up by limits of the cluster" } else { "" })
    }
}

/// What discovery calls an endpoint cannot write into a terminal.
struct Name<'a>(Option<&'a EndpointKey>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(key) => write!(f, "{}", key.0.escape_debug()),
            None => f.write_str("(none)"),
        }
    }
}

impl fmt::Display for AttemptReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} after {:.1?}", Name(self.endpoint.as_ref()), self.outcome, self.took)?;
        if let Some(reason) = &self.reason {
            write!(f, " ({reason})")?;
        }
        if let Some(wait) = &self.wait {
            write!(f, "; {wait}")?;
        }
        match self.next {
            AttemptNext::Answered => Ok(()),
            next => write!(f, "; {next}"),
        }
    }
}

impl fmt::Display for Attempts {
    /// `10.0.0.1:80 connect, 10.0.0.2:80 200`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, report) in self.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            write!(f, "{} {}", Name(report.endpoint.as_ref()), report.outcome)?;
        }
        Ok(())
    }
}
