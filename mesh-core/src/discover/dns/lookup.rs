//! One question to the name servers, and whether its answer is definite.

use std::fmt::Debug;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::{DnsError, NetError, runtime::TokioRuntimeProvider};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{TokioResolver, system_conf};
use tokio::time::timeout;

use super::DnsConfig;
use super::answer::Service;

/// The records of one name and type. None at all: there are none, for certain if `definite`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer<T> {
    pub(super) records: Vec<T>,
    pub(super) ttl: Duration,
    pub(super) definite: bool,
}

pub(super) type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<Answer<T>, String>> + Send + 'a>>;

/// Whoever answers questions about names. An error says in words why there is no answer.
pub(super) trait Lookup: Debug + Send + Sync {
    fn addresses(&self, name: &str, v6: bool) -> Asked<'_, IpAddr>;

    fn services(&self, name: &str) -> Asked<'_, Service>;
}

/// The configured name servers: UDP, and TCP where an answer was cut short.
pub(super) struct NameServers {
    config: Arc<DnsConfig>,
    /// Made at the first question, and anew after a failure: `resolv.conf` may have changed.
    resolver: ArcSwapOption<TokioResolver>,
}

impl Debug for NameServers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NameServers").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Lookup for NameServers {
    fn addresses(&self, name: &str, v6: bool) -> Asked<'_, IpAddr> {
        let (name, kind) = (name.to_owned(), if v6 { RecordType::AAAA } else { RecordType::A });
        Box::pin(async move {
            self.ask(&name, kind, |data| match data {
                RData::A(address) => Some(address.0.into()),
                RData::AAAA(address) => Some(address.0.into()),
                _ => None,
            })
            .await
        })
    }

    fn services(&self, name: &str) -> Asked<'_, Service> {
        let name = name.to_owned();
        Box::pin(async move {
            self.ask(&name, RecordType::SRV, |data| match data {
                RData::SRV(srv) => Some(Service {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target: srv.target.to_ascii().to_ascii_lowercase().trim_end_matches('.').to_owned(),
                }),
                _ => None,
            })
            .await
        })
    }
}

impl NameServers {
    pub(super) fn new(config: Arc<DnsConfig>) -> Self {
        Self { config, resolver: ArcSwapOption::empty() }
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, String> {
        let problem = |why: &dyn std::fmt::Display| format!("{kind} records of {name}: {why}");
        let resolver = self.resolver().await.map_err(|why| problem(&why))?;
        let mut asked = Name::from_ascii(name).map_err(|why| problem(&why))?;
        asked.set_fqdn(!self.config.search);
        // The library bounds each exchange; this bounds all of them, whatever it counts as one.
        let rounds = u32::try_from(2 * self.config.attempts + 1).unwrap_or(u32::MAX);
        let answer = match timeout(self.config.timeout * rounds, resolver.lookup(asked, kind)).await {
            Ok(Ok(found)) => {
                let records: Vec<_> = found.answers().iter().filter_map(|record| read(&record.data)).collect();
                let ttl = found.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
                // What follows an alias to nowhere is no answer about what was asked.
                let definite = !records.is_empty();
                Ok(Answer { records, ttl: Duration::from_secs(ttl.into()), definite })
            }
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none))))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                let ttl = Duration::from_secs(none.negative_ttl.unwrap_or(0).into());
                Ok(Answer { records: Vec::new(), ttl, definite: none.soa.is_some() })
            }
            Ok(Err(error)) => Err(problem(&error)),
            Err(_) => Err(problem(&"no answer in time")),
        };
        if answer.is_err() {
            self.resolver.store(None);
        }
        answer
    }

    async fn resolver(&self) -> Result<Arc<TokioResolver>, String> {
        if let Some(resolver) = self.resolver.load_full() {
            return Ok(resolver);
        }
        let config = Arc::clone(&self.config);
        let (servers, ndots) = tokio::task::spawn_blocking(move || name_servers(&config))
            .await
            .map_err(|_| "reading the name servers was cut off".to_owned())??;
        let mut builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = self.config.timeout;
        options.attempts = self.config.attempts;
        options.ndots = ndots;
        // Who asks again decides when; a cache below would answer with what it is asked to forget.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let resolver = Arc::new(builder.build().map_err(|error| error.to_string())?);
        self.resolver.store(Some(Arc::clone(&resolver)));
        Ok(resolver)
    }
}

/// Whom to ask, and how many dots make a name complete.
fn name_servers(config: &DnsConfig) -> Result<(ResolverConfig, usize), String> {
    if !config.servers.is_empty() {
        let servers = config.servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        return Ok((ResolverConfig::from_name_servers(servers.collect()), 1));
    }
    let (found, ndots) = system(&config.resolv_conf)?;
    let (domain, search, servers) = found.into_parts();
    let (domain, search) = if config.search { (domain, search) } else { (None, Vec::new()) };
    Ok((ResolverConfig::from_parts(domain, search, servers), ndots))
}

#[cfg(all(unix, not(any(target_os = "android", target_vendor = "apple"))))]
fn system(path: &Path) -> Result<(ResolverConfig, usize), String> {
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (found, options) =
        system_conf::parse_resolv_conf(text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((found, options.ndots))
}

/// These systems keep their name servers elsewhere.
#[cfg(not(all(unix, not(any(target_os = "android", target_vendor = "apple")))))]
fn system(path: &Path) -> Result<(ResolverConfig, usize), String> {
    if path != Path::new("/etc/resolv.conf") {
        return Err("`resolv_conf` is not read on this system: leave it out, or name `servers`".to_owned());
    }
    let (found, options) = system_conf::read_system_conf().map_err(|error| error.to_string())?;
    Ok((found, options.ndots))
}
