//! The explanation for a terminal.

use std::fmt;

use super::{ClusterExplanation, EndpointExplanation, EndpointStanding, Foreseen, PriorityExplanation};

impl fmt::Display for ClusterExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, policy, known, available, .. } = self;
        write!(f, "cluster {cluster}: {policy}, {available} of {known} endpoints in")?;
        if !self.resolved {
            f.write_str("; discovery has not answered yet")?;
        }
        if self.outside_residency > 0 {
            write!(f, "; {} more shut out by residency", self.outside_residency)?;
        }
        if self.plans_anew {
            f.write_str("; something changed: the next pick plans anew first")?;
        }
        for priority in self.priorities.iter().filter(|one| self.priorities.len() > 1 || one.is_remarkable()) {
            write!(f, "\n  {priority}")?;
        }
        let width = self.endpoints.iter().map(|one| name(one).chars().count()).max().unwrap_or_default().min(48);
        let chosen = match &self.pick {
            Foreseen::Endpoint { key, .. } => Some(key),
            _ => None,
        };
        for endpoint in &self.endpoints {
            let mark = if chosen == Some(&endpoint.key) { '>' } else { ' ' };
            write!(f, "\n{mark} {:width$}  {endpoint}", name(endpoint))?;
        }
        if self.unlisted > 0 {
            write!(f, "\n  and {} more", self.unlisted)?;
        }
        write!(f, "\npick: {}", self.pick)
    }
}

/// What discovery calls it cannot write into a terminal.
fn name(endpoint: &EndpointExplanation) -> String {
    endpoint.key.to_string().escape_debug().to_string()
}

impl fmt::Display for Foreseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint { key, reason, .. } => write!(f, "{} - {reason}", key.to_string().escape_debug()),
            Self::Nobody(error) => write!(f, "nobody - {error}"),
            Self::Unforeseeable => f.write_str("not foreseeable: the policy is the program's own"),
        }
    }
}

impl PriorityExplanation {
    /// Says more than the head line does.
    fn is_remarkable(&self) -> bool {
        self.panic || self.priority > 0 || !self.localities.is_empty()
    }
}

impl fmt::Display for PriorityExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, percent, known, available, .. } = self;
        write!(f, "priority {priority}: {percent} % of requests, {available} of {known} in")?;
        if self.panic {
            f.write_str(", panic: ejections do not count")?;
        }
        for locality in &self.localities {
            let (place, percent) = (locality.locality.escape_debug(), locality.percent);
            let (known, available, distance) = (locality.known, locality.available, locality.distance);
            write!(f, "\n    {place} ({distance}): {percent} % of them, {available} of {known} in")?;
        }
        Ok(())
    }
}

impl fmt::Display for EndpointExplanation {
    /// Everything but its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.standing {
            EndpointStanding::In => "in",
            EndpointStanding::HalfOpen => "half-open, waits for its probe",
            EndpointStanding::Probing => "half-open, its probe is under way",
            EndpointStanding::Out => "out",
            EndpointStanding::Unhealthy => "unhealthy by its checks",
            EndpointStanding::Unready => "unreachable",
        })?;
        if let Some(reason) = self.reason {
            write!(f, " ({reason}, ejection {})", self.ejections)?;
        }
        match self.back_in {
            Some(left) if left.is_zero() => f.write_str(", its time is up")?,
            Some(left) => write!(f, ", back in {left:.0?}")?,
            None => {}
        }
        write!(f, ", {} under way, latency {:.2?}", self.in_flight, self.latency)?;
        if let Some(cost) = self.cost {
            write!(f, ", cost {cost:.2?}")?;
        }
        if (self.weight - 1.0).abs() > 0.005 {
            write!(f, ", weight {:.2}", self.weight)?;
        }
        if self.warmth_percent < 100 {
            write!(f, ", warming up: {} %", self.warmth_percent)?;
        }
        if !self.locality.is_empty() {
            write!(f, ", {}", self.locality.escape_debug())?;
        }
        let transport = &self.transport;
        write!(f, ", {} connections", transport.connections)?;
        if transport.waiting > 0 {
            write!(f, ", {} wait for one", transport.waiting)?;
        }
        match &transport.failure {
            Some(failure) => write!(f, ", last connect failed: {}", failure.escape_debug()),
            None => Ok(()),
        }
    }
}
