//! What a run showed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::histogram::Histogram;

/// How a request failed its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failed {
    /// The last answer was an error of the server.
    Answered,
    /// No answer in time.
    Timeout,
    /// No server could be reached, or the connection broke.
    Unreachable,
    /// Nobody to send it to.
    NoEndpoints,
    /// `limits.max_requests` were under way.
    Limit,
    /// Too many waited for a connection.
    Overloaded,
    /// No route matched it.
    NoRoute,
}

impl Failed {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Answered,
        Self::Timeout,
        Self::Unreachable,
        Self::NoEndpoints,
        Self::Limit,
        Self::Overloaded,
        Self::NoRoute,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::NoEndpoints => "no_endpoints",
            Self::Limit => "limit_reached",
            Self::Overloaded => "overloaded",
            Self::NoRoute => "no_route",
        }
    }
}

/// A server that went out of one client's rotation because of how it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// When, since the beginning of the run.
    pub at: Duration,
    /// The client's position.
    pub client: usize,
    /// The server's position.
    pub server: usize,
    /// As `mesh_client_endpoint_ejections_total` names it.
    pub reason: &'static str,
    /// When its time is up.
    pub until: Duration,
}

/// What became of the requests to one server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerReport {
    /// Its name.
    pub name: String,
    /// Attempts that it was chosen for.
    pub requests: u64,
    /// Those that were answered well.
    pub succeeded: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those whose caller was gone first.
    pub cancelled: u64,
    /// The most that were under way at once.
    pub busiest: u64,
}

/// What one fault did to those whom it befell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FaultReport {
    /// Its kind.
    pub kind: &'static str,
    /// When it last began.
    pub at: Duration,
    /// How often it happened.
    pub times: u64,
    /// Attempts that its servers were chosen for while it held.
    pub requests: u64,
    /// The latest of them, after the beginning.
    pub last_request: Duration,
}

/// One second of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Second {
    /// Requests that came.
    pub offered: u64,
    /// Requests that ended well.
    pub succeeded: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Attempts that were sent.
    pub attempts: u64,
}

/// What a run showed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// What seeded it.
    pub seed: u64,
    /// How long requests were offered.
    pub duration: Duration,
    /// The names of the client processes.
    pub clients: Vec<String>,
    /// Requests of the load.
    pub offered: u64,
    /// Those that were answered well.
    pub succeeded: u64,
    /// Those that failed, and how.
    pub failures: BTreeMap<Failed, u64>,
    /// Attempts, those of servers that call others included.
    pub attempts: u64,
    /// Those among them that repeated another one.
    pub retried: u64,
    /// Retries that the budget did not pay.
    pub budget_exhausted: u64,
    /// Picks of servers that were out, because too few were in.
    pub panic_picks: u64,
    /// What callers waited for the end of their requests, good or bad.
    pub latency: Histogram,
    /// Server by server.
    pub servers: Vec<ServerReport>,
    /// Fault by fault.
    pub faults: Vec<FaultReport>,
    /// All of them, in order.
    pub ejections: Vec<Ejection>,
    /// The most servers that one client had ejected at once.
    pub most_out: u64,
    /// Second by second, to the end of the last request.
    pub seconds: Vec<Second>,
    /// A hash of all decisions: request, server, outcome, time. Equal runs have equal ones.
    pub decisions: u64,
    /// Settings that were read and have no effect here.
    pub not_simulated: Vec<String>,
}

impl Report {
    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// The share of requests that were answered well, 0 to 1.
    pub fn success(&self) -> f64 {
        self.succeeded as f64 / self.offered.max(1) as f64
    }

    /// A server's share of all attempts at the servers of the scenario, 0 to 1.
    pub fn share(&self, server: usize) -> f64 {
        let all: u64 = self.servers.iter().map(|server| server.requests).sum();
        self.servers.get(server).map_or(0.0, |server| server.requests as f64 / all.max(1) as f64)
    }

    pub(super) fn second(&mut self, nanos: u64) -> &mut Second {
        let index = (nanos / 1_000_000_000) as usize;
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Second::default());
        }
        // Just made long enough.
        #[allow(clippy::indexing_slicing)]
        &mut self.seconds[index]
    }

    /// Notes one decision.
    pub(super) fn decided(&mut self, request: u64, server: u64, outcome: u64, nanos: u64) {
        for word in [request, server, outcome, nanos] {
            // FNV-1a by words, with a finalizer's shift so that high bits count.
            self.decisions = (self.decisions ^ word).wrapping_mul(0x0100_0000_01B3);
            self.decisions ^= self.decisions >> 29;
        }
    }
}
