//! `dns`: endpoints from A and AAAA records, or from SRV records (feature `dns`).

mod answer;
mod config;
mod lookup;
mod watch;

pub use config::{DnsConfig, Family, RecordKind};

use std::sync::Arc;

use tokio::sync::Notify;

#[cfg(doc)]
use super::Update;
use super::{Resolve, Updates};
use crate::config::{Decode, Errors, Node};
use crate::plugin::Context;
use crate::rng::Rng;
use crate::stream::unfold;
use lookup::{Lookup, NameServers};
use watch::Watch;

/// The endpoints behind a DNS name.
///
/// # Settings
///
/// ```yaml
/// discover: { dns: "payments.shop.svc:8443" }              # addresses of a name; the port is required
/// discover:
///   dns:
///     name: _payments._tcp.shop.example
///     record: srv                                          # or `a`, the default, with `port: 8443`
///     family: auto                                         # v4, v6, all; auto: AAAA where there is no A
///     servers: [ "10.96.0.10:53" ]                         # default: those of `resolv_conf: /etc/resolv.conf`
///     locality: { region: eu-west, zone: a }               # where all of them run, which DNS does not say
/// ```
///
/// [`DnsConfig`] has every field with default and range.
///
/// # What an answer means
///
/// | answer | becomes |
/// |---|---|
/// | records | the whole set, asked for again when the shortest TTL has passed, within `min_ttl` and `max_ttl` |
/// | NXDOMAIN, or no record of the type, with the zone's SOA (RFC 2308) | an empty set, which [the cluster holds](crate::config::HoldConfig) |
/// | an SRV record of target `.` alone (RFC 2782: decidedly not available) | [`Update::Gone`] |
/// | SERVFAIL, REFUSED, a timeout, a negative answer without SOA, anything else | [`Update::Stale`], asked again with backoff |
///
/// So a name server that is down, or that forwards to one that is, takes nobody out. Where only some targets of SRV
/// records cannot be resolved, their last addresses stay and the rest is followed.
///
/// The key of an endpoint is its address: whatever the order of the records, its state stays. SRV priorities become
/// endpoint priorities by rank, 0 for the lowest; weights are taken as they are, 0 as 1, which gives it the chance that
/// RFC 2782 does: one in the sum of weights plus one.
///
/// # Trust
///
/// DNS is not authenticated, and nothing here pretends otherwise. Whoever forges an answer chooses the address that is
/// dialled; who is talked to is decided in the handshake by the cluster's `identities`.
#[derive(Debug, Clone)]
pub struct DnsResolver {
    config: Arc<DnsConfig>,
    lookup: Arc<dyn Lookup>,
    rng: Rng,
    wanted: Arc<Notify>,
}

impl DnsResolver {
    /// Asks as `config` says.
    ///
    /// `rng` spreads the times of lookups, and chooses where there are too many endpoints.
    pub fn new(config: DnsConfig, rng: Rng) -> Self {
        let config = Arc::new(config);
        let lookup = Arc::new(NameServers::new(Arc::clone(&config)));
        Self { config, lookup, rng, wanted: Arc::default() }
    }

    /// Reads the settings of `dns:`.
    pub(crate) fn from_node(node: &Node, context: &Context, errors: &mut Errors) -> Option<Arc<dyn Resolve>> {
        let mut config = DnsConfig::decode(node, errors)?;
        config.resolv_conf = context.base_dir.join(&config.resolv_conf);
        Some(Arc::new(Self::new(config, context.rng.fork())))
    }
}

impl Resolve for DnsResolver {
    /// Needs a tokio runtime with time and I/O.
    fn watch(&self) -> Updates {
        let watch =
            Watch::new(Arc::clone(&self.config), Arc::clone(&self.lookup), self.rng.clone(), Arc::clone(&self.wanted));
        unfold(watch, |mut watch| async move { (watch.next().await, watch) })
    }

    /// The next lookup begins now, or `min_ttl` after the last one.
    fn resolve_now(&self) {
        self.wanted.notify_one();
    }
}

#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;
