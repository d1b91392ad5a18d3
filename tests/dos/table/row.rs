//! What an attack came to, and whether that may be.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::median;
use super::round::{Calls, Force, Round};
use crate::plan::Attack;

/// How much slower honest calls may be.
const RATIO: f64 = 3.0;
/// How many times the memory is damage.
const DAMAGE: u64 = 4;

/// All rounds of one attack.
#[derive(Debug)]
pub(super) struct Row {
    attack: &'static Attack,
    force: Force,
    judge_latency: bool,
    rounds: Vec<Round>,
}

impl Row {
    pub(super) const HEAD: &str = "\
| attack | a second | connections | calm ms p50 | p99 | kept p99 | max | attacked ms p50 | p99 | kept p99 | max | ratio | failures | live KiB before | peak | after | core | log lines | what acted | verdict |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

    pub(super) fn new(attack: &'static Attack, force: Force, judge_latency: bool) -> Self {
        Self { attack, force, judge_latency, rounds: Vec::new() }
    }

    pub(super) fn add(&mut self, round: Round) {
        self.rounds.push(round);
    }

    fn all_calls(&self) -> impl Iterator<Item = &Calls> {
        self.rounds.iter().flat_map(|round| [&round.calm, &round.attacked])
    }

    fn ratio(&self) -> f64 {
        median(&self.rounds, |round| round.attacked.p99 / round.calm.p99)
    }

    /// Medians: of both p99, in milliseconds, and of their ratio within a round.
    pub(super) fn p99s(&self) -> String {
        let p99 = |calls: fn(&Round) -> &Calls| median(&self.rounds, |round| calls(round).p99) / 1000.0;
        format!("{:.2} | {:.2} | {:.2}", p99(|round| &round.calm), p99(|round| &round.attacked), self.ratio())
    }

    /// What may not be.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let failures: u64 = self.all_calls().map(|calls| calls.failures).sum();
        if failures > 0 {
            let first = self.all_calls().find_map(|calls| calls.first_failure.clone()).unwrap_or_default();
            faults.push(format!("{failures} honest calls failed: {first}"));
        }
        if self.judge_latency && self.ratio() > RATIO {
            faults.push("honest calls are too slow".to_owned());
        }
        if self.rounds.iter().any(|round| round.back.is_none()) {
            faults.push("memory or connections did not come back".to_owned());
        }
        let acted = |round: &Round| self.attack.acts.iter().any(|series| round.grown.contains_key(*series));
        if !self.attack.acts.is_empty() && !self.rounds.iter().all(acted) {
            faults.push(format!("none of {:?} acted", self.attack.acts));
        }
        if self.rounds.iter().any(|round| count(&round.attack, "opened") == 0) {
            faults.push("the attacker did not get in: this is no test".to_owned());
        }
        faults
    }

    /// What the attack did without the limit that it did not do with it.
    pub(super) fn damage(&self, with_limit: &Self) -> Option<String> {
        let failures: u64 = self.all_calls().map(|calls| calls.failures).sum();
        if failures > 0 {
            return Some(format!("{failures} honest calls failed"));
        }
        let (peak, usual) = (self.most(|round| round.peak), with_limit.most(|round| round.peak));
        (peak > DAMAGE * usual).then(|| format!("{} times the memory", peak / usual.max(1)))
    }

    /// The row of a control: no limit, and what came of it.
    pub(super) fn without_limit(&self, damage: Option<&str>) -> String {
        let verdict = damage.unwrap_or("no damage: the limit is not what helped");
        self.line(&format!("{}, limit lifted", self.attack.name), verdict)
    }

    fn most(&self, of: impl Fn(&Round) -> u64) -> u64 {
        self.rounds.iter().map(of).max().unwrap_or_default()
    }

    /// Medians in milliseconds.
    fn latencies(&self, calls: fn(&Round) -> &Calls) -> String {
        let of: [fn(&Calls) -> f64; 4] =
            [|calls| calls.p50, |calls| calls.p99, |calls| calls.p99_kept, |calls| calls.max];
        let medians = of.map(|of| format!("{:.2}", median(&self.rounds, |round| of(calls(round))) / 1000.0));
        medians.join(" | ")
    }

    /// Medians of the rounds, and the ratio's is that of those within a round; the worst of what must not happen.
    fn line(&self, name: &str, verdict: &str) -> String {
        let failures: u64 = self.all_calls().map(|calls| calls.failures).sum();
        format!(
            "| {name} | {} | {} | {} | {} | {:.2} | {failures} | {} | {} | {} | {:.0} % | {} | {} | {verdict} |",
            self.force.rate,
            self.force.connections,
            self.latencies(|round| &round.calm),
            self.latencies(|round| &round.attacked),
            self.ratio(),
            self.most(|round| round.before.live / 1024),
            self.most(|round| round.peak / 1024),
            self.most(|round| round.after.live / 1024),
            median(&self.rounds, |round| round.cpu) * 100.0,
            self.most(|round| round.lines as u64),
            self.acted(),
        )
    }

    /// Series of limits that grew in any round, and the codes that the attacker was sent away with; summed.
    fn acted(&self) -> String {
        let mut sums = BTreeMap::new();
        for round in &self.rounds {
            for (series, by) in round.grown.iter().filter(|(series, _)| is_limit(series)) {
                *sums.entry(short(series)).or_insert(0.0) += by;
            }
            for (code, n) in round.attack.get("goaway").and_then(Value::as_object).into_iter().flatten() {
                *sums.entry(format!("GOAWAY {code}")).or_insert(0.0) += n.as_f64().unwrap_or_default();
            }
            for name in ["units", "closed", "refused"] {
                *sums.entry(format!("attacker: {name}")).or_insert(0.0) += count(&round.attack, name) as f64;
            }
        }
        sums.iter().map(|(name, sum)| format!("{name} {sum}")).collect::<Vec<_>>().join(", ")
    }
}

fn count(report: &Value, name: &str) -> u64 {
    report.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// Whether a series tells of refusals rather than of traffic.
fn is_limit(series: &str) -> bool {
    let traffic = ["_bucket", "_sum", "_count", "requests_total", "result=\"ok\"", "reason=\"peer\"", "mesh_audit"];
    series.starts_with("mesh_server") && !traffic.iter().any(|part| series.contains(part))
}

/// `mesh_server_connections_closed_total{reason="idle"}` as `connections_closed idle`.
fn short(series: &str) -> String {
    let bare = series.trim_start_matches("mesh_server_").replace("_total", "");
    let words = bare.split(['{', '}', ',']).map(|part| part.split('"').nth(1).unwrap_or(part));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = self.faults();
        f.write_str(
            &self.line(self.attack.name, &if faults.is_empty() { "borne".to_owned() } else { faults.join("; ") }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_shortened_to_what_tells_them_apart() {
        assert_eq!(short("mesh_server_connections_closed_total{reason=\"idle\"}"), "connections_closed idle");
        assert_eq!(short("mesh_server_panics_total"), "panics");
        assert!(!is_limit("mesh_server_requests_total{code=\"200\"}"));
    }
}
