//! `discovery:` and `clusters.*.discover_hold` - what is believed of a source of endpoints, and what outlives a restart.

use std::path::PathBuf;
use std::time::Duration;

use super::checker::Checker;
use super::issue::Errors;
use super::values::Percent;
use super::walk::Fields;
use super::{Decode, Node};

/// When endpoints that a source no longer names stay in force, and for how long.
///
/// A registry that restarts, loses its data or has its leases run out during a partition says that nobody is there any
/// more; so does a file that was cut short. Believing it is an outage. Not believing it costs an attempt at each dead
/// endpoint, which its connections report at once. So additions and replacements count immediately, and removals of many
/// at once wait for a confirmation: a tombstone, or that the source says the same for a while.
///
/// In YAML: `discover_hold: { shrink: 50%, confirm_after: 5m, empty_after: 1h }`. (Eureka's self-preservation)
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct HoldConfig {
    /// The share of endpoints that may vanish at once, or step by step within `confirm_after`, without another in their place and
    /// without a tombstone. Beyond it the vanished ones stay in force. Default 50 %: a deployment replaces pods and
    /// seldom halves them, and what is left at half can still carry most of the load. Range 0 to 100 %; 100 %: only an
    /// empty set is held, and one that its source calls partial.
    pub shrink: f64,
    /// How long a source must have left an endpoint out, without once being unreadable, until it is believed.
    /// Default 5 min: longer than a registry's restart and its clients' registering anew (a lease of 90 s in Eureka, 40 s
    /// until Kubernetes suspects a node and 5 min until it evicts its pods). Range 1 s to 24 h.
    pub confirm_after: Duration,
    /// The same for a source that names nobody at all. Default none: for ever, until a tombstone or another
    /// set. Nothing is won by believing it: without endpoints calls fail too, and a registry that has lost its data says
    /// just this. Set it for services that are scaled to zero on purpose. Range 1 s to 7 days (168 h).
    pub empty_after: Option<Duration>,
}

impl Default for HoldConfig {
    fn default() -> Self {
        Self { shrink: 0.5, confirm_after: Duration::from_secs(300), empty_after: None }
    }
}

impl Decode for HoldConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let hold = Self {
            shrink: fields.or("shrink", Percent(default.shrink)).0,
            confirm_after: fields.or("confirm_after", default.confirm_after),
            empty_after: fields.optional("empty_after"),
        };
        fields.finish();
        Some(hold)
    }
}

impl HoldConfig {
    pub(super) fn check(&self, at: &mut Checker<'_>) {
        const SECOND: Duration = Duration::from_secs(1);
        at.range("shrink", Percent(self.shrink), Percent(0.0)..=Percent(1.0));
        at.range("confirm_after", self.confirm_after, SECOND..=24 * 3600 * SECOND);
        if let Some(empty_after) = self.empty_after {
            at.range("empty_after", empty_after, SECOND..=7 * 24 * 3600 * SECOND);
        }
    }
}

/// What discovery keeps on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiscoveryConfig {
    /// Where the last good endpoints of each cluster are kept for a start during an outage of their source; absent:
    /// nowhere. A directory of this process alone, to which others cannot write; made with mode 0700 if it is missing (in
    /// a Kubernetes `emptyDir`, which everybody can write to, name one inside of it). Relative to the configuration file.
    /// Needs a restart to change. What cannot be written is logged and counted, and the mesh goes on without.
    pub snapshot_dir: Option<PathBuf>,
    /// The age at which a snapshot is no longer used. Default 7 days (168 h), range 1 min to 30 days (720 h).
    pub snapshot_max_age: Duration,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self { snapshot_dir: None, snapshot_max_age: Duration::from_secs(7 * 24 * 3600) }
    }
}

impl Decode for DiscoveryConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, errors)?;
        let discovery = Self {
            snapshot_dir: fields.optional("snapshot_dir"),
            snapshot_max_age: fields.or("snapshot_max_age", default.snapshot_max_age),
        };
        fields.finish();
        Some(discovery)
    }
}

impl DiscoveryConfig {
    pub(super) fn check(&self, at: &mut Checker<'_>) {
        const MINUTE: Duration = Duration::from_secs(60);
        at.range("snapshot_max_age", self.snapshot_max_age, MINUTE..=30 * 24 * 60 * MINUTE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_have_their_names_and_ranges() {
        let read = |value| HoldConfig::decode(&Node::from(&value), &mut Errors::default());
        let some = HoldConfig::default().shrink(0.3).confirm_after(Duration::from_secs(60));
        assert_eq!(read(json!({ "shrink": "30%", "confirm_after": "1m" })), Some(some));
        let all = json!({ "shrink": "30%", "confirm_after": "1m", "empty_after": "1h" });
        assert_eq!(read(all), Some(some.empty_after(Duration::from_secs(3600))));
        let table = [
            (HoldConfig::default().shrink(1.1), "shrink: 110% is out of range: expected 0% to 100%"),
            (
                HoldConfig::default().confirm_after(Duration::ZERO),
                "confirm_after: 0s is out of range: expected 1s to 24h",
            ),
            (HoldConfig::default().empty_after(Duration::ZERO), "empty_after: 0s is out of range: expected 1s to 168h"),
        ];
        for (hold, expected) in table {
            let mut errors = Errors::default();
            hold.check(&mut Checker::new(None, false, &mut errors));
            let said: Vec<_> = errors.issues().iter().map(ToString::to_string).collect();
            assert_eq!(said, [format!("<code>: {expected}")]);
        }
        let discovery = DiscoveryConfig::decode(&Node::from(&json!({ "snapshot_dir": "d" })), &mut Errors::default());
        assert_eq!(discovery, Some(DiscoveryConfig::default().snapshot_dir(PathBuf::from("d"))));
    }
}
