//! Ranges, and sections held against each other: the same for files and for configurations built in code.
//!
//! Decoding says what a value is; this says whether it may be. A configuration that code has changed after the file was
//! read goes through the same checks, and its problems still name the file's line where the value came from one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::checker::Checker;
use super::issue::Errors;
use super::nearest::suggestion;
use super::yaml::Node;
use super::{BalancePolicy, Config, ConfigError, RouteMatch};

impl Config {
    /// Holds every value against its range and the sections against each other.
    ///
    /// [`MeshBuilder::start`](crate::MeshBuilder::start) and every reload do this, after code had its say.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut errors = Errors::default();
        self.check_into(None, false, &mut errors);
        errors.into_error().map_or(Ok(()), Err)
    }

    /// Checks what a tool's own file has of these sections.
    ///
    /// Notes every problem in `errors`. `root` is the file's tree, for places; `partial` says that some of it could not be read, which has been noted.
    pub fn check_into(&self, root: Option<&Node>, partial: bool, errors: &mut Errors) {
        let at = &mut Checker::new(root, partial, errors);
        at.below("workload", |at| self.workload.check(&self.identity.trust_domain, at));
        at.below("authorization", |at| {
            if self.root_namespace.is_empty() {
                at.error("root_namespace", "the root namespace cannot be empty");
            }
            if self.trust_domain_aliases.len() > Self::MAX_ALIASES {
                at.error("trust_domain_aliases", format!("at most {} aliases", Self::MAX_ALIASES));
            }
            at.range("custom_timeout", self.custom_timeout, Duration::from_millis(1)..=Duration::from_secs(30));
        });
        at.below("reload", |at| {
            at.range("interval", self.poll_interval, Duration::from_millis(50)..=Duration::from_secs(60));
        });
        at.below("discovery", |at| self.discovery.check(at));
        at.below("limits", |at| self.limits.check(at));
        at.below("audit", |at| self.audit.check(at));
        self.check_listeners(at);
        self.check_tokens(at);
        self.check_roles(at);
        for (name, cluster) in &self.clusters {
            let local = !self.workload.locality.zone.is_empty();
            at.below(&format!("clusters.{name}"), |at| cluster.check(local, at));
        }
        self.check_routes(at);
        self.check_hashes(at);
    }

    /// Notes every field that differs from `running` and cannot be changed while the process runs.
    pub(crate) fn check_change(&self, running: &Self, root: Option<&Node>, errors: &mut Errors) {
        let at = &mut Checker::new(root, false, errors);
        let addresses = |config: &Self| -> Vec<_> {
            config.listeners.iter().map(|(name, listener)| (name.clone(), listener.address)).collect()
        };
        let fields = [
            ("workload", self.workload != running.workload),
            ("identity", self.identity != running.identity),
            ("health", self.health != running.health),
            ("discovery", self.discovery != running.discovery),
            ("audit", self.audit != running.audit),
            ("telemetry", self.telemetry != running.telemetry),
        ];
        for (field, _) in fields.iter().filter(|(_, changed)| *changed) {
            at.error(field, "cannot change while the process runs: restart it");
        }
        if addresses(self) != addresses(running) {
            at.error("listeners", "names and addresses cannot change while the process runs: restart it");
        }
    }

    fn check_listeners(&self, at: &mut Checker<'_>) {
        if !self.listeners.is_empty()
            && !self.listeners.contains_key("default")
            && !at.has_unread("listeners", "default")
        {
            at.error("listeners", "one listener must be called `default`: it is the one that `serve` uses");
        }
        let mut addresses = BTreeSet::new();
        let health = self.health.as_ref().map(|health| ("health".to_owned(), health.address));
        let listeners = self.listeners.iter().map(|(name, listener)| (format!("listeners.{name}"), listener.address));
        for (path, address) in listeners.chain(health) {
            if address.port() != 0 && !addresses.insert(address) {
                at.error(&format!("{path}.address"), format!("{address} is taken by another listener"));
            }
        }
        for (name, listener) in &self.listeners {
            at.below(&format!("listeners.{name}"), |at| listener.check(at));
        }
    }

    fn check_tokens(&self, at: &mut Checker<'_>) {
        let mut issuers = BTreeSet::new();
        if at.has_gaps("tokens", self.tokens.len()) {
            return;
        }
        for (index, token) in self.tokens.iter().enumerate() {
            at.below(&format!("tokens[{index}]"), |at| {
                token.check(at);
                if !issuers.insert(&token.issuer) {
                    at.error("issuer", format!("duplicate issuer {:?}: list its audiences in one place", token.issuer));
                }
            });
        }
    }

    /// A key that nobody hashes, and a ring that no key is thrown on.
    fn check_hashes(&self, at: &mut Checker<'_>) {
        let mut keyed: BTreeMap<&str, bool> = BTreeMap::new();
        for (service, routes) in &self.routes {
            for (index, route) in routes.iter().enumerate() {
                let has_key = !route.hash.is_empty();
                keyed.entry(&route.cluster).and_modify(|all| *all &= has_key).or_insert(has_key);
                let policy = self.clusters.get(&route.cluster).map(|cluster| &cluster.balance.policy);
                if let Some(policy) = policy.filter(|policy| has_key && !policy.takes_hash()) {
                    let (cluster, name) = (&route.cluster, policy.name());
                    let message = format!(
                        "cluster `{cluster}` is balanced by `{name}`, which knows no keys: set its `balance.policy` to \
                         `ring_hash`"
                    );
                    at.error(&format!("routes.{service}[{index}].hash"), message);
                }
            }
        }
        for (name, cluster) in &self.clusters {
            let BalancePolicy::RingHash(ring) = &cluster.balance.policy else { continue };
            // A cluster without routes has one of its own name, without a key.
            let all_keyed = keyed.get(name.as_str()).copied().unwrap_or(false)
                && (self.routes.contains_key(name) || at.has_unread("routes", name));
            let unread = at.has_gaps(&format!("clusters.{name}.balance.hash"), 0);
            if ring.hash.is_empty() && !all_keyed && !unread {
                let message = "`ring_hash` needs a key: add `hash`, for example `{ header: x-user }`, here or in every \
                               route to the cluster";
                at.error(&format!("clusters.{name}.balance.policy"), message);
            }
        }
    }

    fn check_routes(&self, at: &mut Checker<'_>) {
        for (service, routes) in &self.routes {
            let mut catch_all = None;
            at.below(&format!("routes.{service}"), |at| {
                if at.has_gaps("", routes.len()) {
                    return;
                }
                for (index, route) in routes.iter().enumerate() {
                    let known = self.clusters.contains_key(&route.cluster) || at.has_unread("clusters", &route.cluster);
                    at.below(&format!("[{index}]"), |at| {
                        route.check(at);
                        if !known {
                            let hint = suggestion(&route.cluster, self.clusters.keys().map(String::as_str));
                            at.error("cluster", format!("no cluster is called `{}`{hint}", route.cluster));
                        }
                    });
                    if let Some(earlier) = catch_all {
                        at.error(&format!("[{index}]"), format!("never reached: route [{earlier}] matches everything"));
                    } else if route.matches == RouteMatch::default() {
                        catch_all = Some(index);
                    }
                }
                if routes.is_empty() {
                    at.error("", "at least one route is required");
                }
            });
        }
    }
}
