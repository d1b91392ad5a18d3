//! The record of every attempt that one call made.

use std::fmt;

use mesh_core::cluster::Tried;
use mesh_core::discover::EndpointKey;

/// Every attempt of one call, oldest first. An extension of each response, and part of each [`Error`](crate::Error).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts {
    reports: Vec<AttemptReport>,
    spent: bool,
}

/// Where one attempt went and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttemptReport {
    /// The endpoint, if one was picked.
    pub endpoint: Option<EndpointKey>,
    /// `ok`, a status, or the name of an [`ErrorKind`](crate::ErrorKind).
    pub outcome: AttemptOutcome,
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

impl Attempts {
    pub(crate) fn one(endpoint: Option<EndpointKey>, outcome: AttemptOutcome) -> Self {
        Self { reports: vec![AttemptReport { endpoint, outcome }], spent: false }
    }

    /// Puts the reports of earlier attempts before these.
    pub(crate) fn after(mut self, mut earlier: Self) -> Self {
        earlier.reports.append(&mut self.reports);
        earlier.spent |= self.spent;
        earlier
    }

    /// How many there were.
    pub fn len(&self) -> usize {
        self.reports.len()
    }

    /// Whether none was made.
    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// Whether whoever is told of this should not repeat it either: it was repeated in vain, it would have been but for a
    /// budget that is exhausted, or the endpoint said so. Retries that multiply from hop to hop turn a small outage into a
    /// large one.
    pub fn is_spent(&self) -> bool {
        self.spent || self.len() > 1
    }

    pub(crate) fn spend(&mut self) {
        self.spent = true;
    }

    /// The reports, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &AttemptReport> {
        self.reports.iter()
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut AttemptReport> {
        self.reports.last_mut()
    }

    pub(crate) fn tried(&self) -> Tried {
        let mut tried = Tried::default();
        self.reports.iter().filter_map(|report| report.endpoint.clone()).for_each(|key| tried.insert(key));
        tried
    }
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

impl fmt::Display for Attempts {
    /// `10.0.0.1:80 connect, 10.0.0.2:80 200`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, report) in self.reports.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            match &report.endpoint {
                Some(endpoint) => write!(f, "{endpoint} {}", report.outcome)?,
                None => write!(f, "(none) {}", report.outcome)?,
            }
        }
        Ok(())
    }
}
