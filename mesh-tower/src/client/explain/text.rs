//! The explanation for a terminal: the verdict first, then from the request inwards.

use std::fmt;
use std::time::Duration;

use super::{CallExplanation, CallVerdict, Explanation, RetryExplanation, TimeoutsExplanation};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grpc = if self.grpc { " (gRPC)" } else { "" };
        // What a caller sent must not be able to write into a terminal.
        writeln!(
            f,
            "{} {}{grpc} of service {}: {}",
            self.method,
            self.path.escape_debug(),
            self.service,
            self.verdict
        )?;
        for route in &self.routes {
            let mark = if route.matched { '>' } else { ' ' };
            write!(f, "{mark} route {}: takes {}", route.name, route.takes.escape_debug())?;
            if route.matched {
                write!(f, " -> cluster {}", route.cluster)?;
            }
            writeln!(f)?;
        }
        match &self.call {
            Some(call) => write!(f, "{call}"),
            None => f.write_str("no route takes it"),
        }
    }
}

impl fmt::Display for CallVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { endpoint } => write!(f, "sent to {}", endpoint.0.escape_debug()),
            Self::Waits => f.write_str("waits for discovery"),
            Self::Fails { kind, message } => write!(f, "fails with {kind}: {}", message.escape_debug()),
            Self::Unforeseeable => f.write_str("sent as the program's own policy says"),
        }
    }
}

impl fmt::Display for CallExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "timeouts: {}", self.timeouts)?;
        writeln!(f, "retry: {}", self.retry)?;
        if let Some(limits) = &self.limits {
            writeln!(f, "limits: {limits}")?;
        }
        if self.cluster_is_behind {
            writeln!(f, "the configuration was reloaded: the next call brings the cluster in line with it first")?;
        }
        match &self.cluster {
            Some(cluster) => write!(f, "{cluster}"),
            None => f.write_str("the cluster is not made yet: the first call does that"),
        }
    }
}

impl fmt::Display for TimeoutsExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |duration: Option<Duration>| duration.map_or("unbounded".to_owned(), |time| format!("{time:.1?}"));
        write!(f, "headers within {:.1?} (route {:.1?}", self.headers, self.route)?;
        if let Some(own) = self.own {
            write!(f, ", call {own:.1?}")?;
        }
        if let Some(inherited) = self.inherited {
            write!(f, ", deadline of the caller {inherited:.1?}")?;
        }
        write!(f, "), whole answer {}, one attempt {}", or(self.whole), or(self.per_try))?;
        if let (Some(connect), Some(idle)) = (self.connect, self.stream_idle) {
            write!(f, "; connect {connect:.1?}, silent body {}", or((!idle.is_zero()).then_some(idle)))?;
        }
        match self.told {
            Some(told) => write!(f, "; the endpoint is told {told:.1?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RetryExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.attempts, self.idempotent) {
            (1, _) => "nothing",
            (_, true) => "what failed and may go away",
            (_, false) => "only what was never sent",
        };
        write!(f, "{what}, {} attempts in all, ", self.attempts)?;
        write!(
            f,
            "waits to {:.0?}..{:.0?}, {} bytes of body kept",
            self.backoff, self.max_backoff, self.max_replay_bytes
        )?;
        let (percent, floor, window) = (self.budget_ratio * 100.0, self.budget_min_per_second, self.budget_window);
        write!(f, "; budget {percent:.0} % + {floor}/s: ")?;
        let budget = &self.budget;
        write!(f, "{} requests and {} retries in {window:.0?}, {} left", budget.requests, budget.retries, budget.left)
    }
}
