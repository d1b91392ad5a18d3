//! Why an attempt went where it went.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::group::Drawn;
use crate::balance::PickRule;

/// Why one endpoint was picked: plain data that a pick leaves behind, without an allocation.
///
/// `Display` says it in words: `least latency x load of 2: 1.2 ms, 10.0.0.2:80 has 20 ms`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PickReason {
    /// The policy's rule.
    pub rule: PickRule,
    /// Among whom it was chosen.
    pub scope: PickScope,
    /// How many endpoints the rule compared; 0 where it compares none.
    pub compared: u8,
    /// What it costs by the rule: seconds, or attempts under way.
    pub cost: f32,
    /// The cheapest of the others that were looked at, if any was.
    pub rival: Option<Rival>,
    /// This attempt is the one that proves whether the endpoint's breaker may close.
    pub probe: bool,
}

/// An endpoint that was looked at and not picked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Rival {
    /// Where it is.
    pub address: SocketAddr,
    /// What it would have cost.
    pub cost: f32,
}

/// Among whom an endpoint was chosen, as far as that is not the ordinary way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PickScope {
    /// By priority and locality, among those that are in and were not tried.
    Planned,
    /// As planned, and the nearer localities had too much to do.
    Spilled,
    /// The planned group had nobody left who was not tried; another one had.
    Untried,
    /// Everybody who is in was tried already.
    Again,
    /// Too few are in: whether an endpoint is ejected or unhealthy did not count.
    Panic,
    /// Nobody is known to be reachable.
    Unreachable,
}

impl PickScope {
    /// Whether endpoints counted that are out.
    pub fn is_panic(self) -> bool {
        matches!(self, Self::Panic | Self::Unreachable)
    }
}

impl PickReason {
    pub(super) fn new<T>(drawn: &Drawn<'_, T>, scope: PickScope, probe: bool) -> Self {
        let picked = &drawn.picked;
        Self {
            rule: picked.rule,
            scope,
            compared: picked.compared,
            cost: picked.cost,
            rival: drawn.rival().map(|(slot, cost)| Rival { address: slot.state.endpoint.address, cost }),
            probe,
        }
    }
}

/// A cost in the unit of its rule.
struct Cost(PickRule, f32);

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // Three digits are more than is known.
            PickRule::LeastLatency => write!(f, "{:.2?}", Duration::try_from_secs_f32(self.1).unwrap_or_default()),
            _ => write!(f, "{:.1} under way", self.1),
        }
    }
}

impl fmt::Display for PickReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.probe {
            f.write_str("probe of its half-open breaker; ")?;
        }
        f.write_str(match self.scope {
            PickScope::Planned => "",
            PickScope::Spilled => "the nearer ones are too busy; ",
            PickScope::Untried => "nobody untried is left in the planned group; ",
            PickScope::Again => "all that are in were tried; ",
            PickScope::Panic => "panic: ejections do not count; ",
            PickScope::Unreachable => "nobody is known to be reachable; ",
        })?;
        match (self.rule, self.compared) {
            (PickRule::LeastLatency | PickRule::LeastLoad, 0 | 1) => return f.write_str("the only one left"),
            (PickRule::LeastLatency, n) => write!(f, "least latency x load of {n}: ")?,
            (PickRule::LeastLoad, n) => write!(f, "least load of {n}: ")?,
            (PickRule::Turn, _) => f.write_str("its turn")?,
            (PickRule::Chance, _) => f.write_str("by chance and weight")?,
            (PickRule::RingOwner, _) => f.write_str("owner of the key on the ring")?,
            (PickRule::RingNext, _) => f.write_str("next on the ring, its owner is out or was tried")?,
            (PickRule::RingOverflow, _) => f.write_str("the owner of the key on the ring is full")?,
            (PickRule::Custom, _) => f.write_str("by the program's own policy")?,
        }
        if let Some(rival) = &self.rival {
            write!(f, "{}, {} has {}", Cost(self.rule, self.cost), rival.address, Cost(self.rule, rival.cost))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_reads_as_a_sentence() {
        let reason = |rule, scope, compared, rival, probe| PickReason {
            rule,
            scope,
            compared,
            cost: 0.0012,
            rival: (rival > 0.0).then(|| Rival { address: ([10, 0, 0, 2], 80).into(), cost: rival }),
            probe,
        };
        for (reason, text) in [
            (
                reason(PickRule::LeastLatency, PickScope::Planned, 2, 0.02, false),
                "least latency x load of 2: 1.20ms, 10.0.0.2:80 has 20.00ms",
            ),
            (
                reason(PickRule::LeastLatency, PickScope::Untried, 1, 0.0, false),
                "nobody untried is left in the planned group; the only one left",
            ),
            (reason(PickRule::Turn, PickScope::Panic, 0, 0.0, false), "panic: ejections do not count; its turn"),
            (
                reason(PickRule::RingOwner, PickScope::Planned, 0, 0.0, true),
                "probe of its half-open breaker; owner of the key on the ring",
            ),
            (
                reason(PickRule::LeastLoad, PickScope::Planned, 3, 4.0, false),
                "least load of 3: 0.0 under way, 10.0.0.2:80 has 4.0 under way",
            ),
        ] {
            assert_eq!(reason.to_string(), text);
        }
    }
}
