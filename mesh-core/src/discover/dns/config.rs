//! The settings of `dns:`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Decode, Errors, Fields, Locality, Node, Value};

/// What is asked of whom, and how often.
///
/// Any of it out of its range is an error of the configuration.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DnsConfig {
    /// The name, taken as it is: complete, with or without its final dot. At most 253 characters of letters, digits, `-`
    /// and `_`.
    pub name: String,
    /// Which records, and for addresses which port.
    pub record: RecordKind,
    /// Which addresses, of names and of SRV targets.
    pub family: Family,
    /// Whom to ask; empty: whom `resolv_conf` names. At most 16.
    pub servers: Vec<SocketAddr>,
    /// Where name servers are listed, read at the first lookup and after a failed one. Default `/etc/resolv.conf`. Of its
    /// options, `ndots` counts where `search` is on; timeouts and attempts are those below.
    pub resolv_conf: PathBuf,
    /// Whether the search domains of `resolv_conf` are tried too. Default off: a name that means another service when it
    /// is missing in the first domain is a trap, and each lookup asks several times.
    pub search: bool,
    /// How long one question to one server may take. Default 2 s, range 50 ms to 30 s.
    pub timeout: Duration,
    /// How often a question is asked until the lookup has failed. Default 2, range 1 to 10.
    pub attempts: usize,
    /// The least time between lookups, whatever the TTL or the need. Default 1 s, range 100 ms to 1 h. (Envoy's
    /// `dns_min_refresh_rate`)
    pub min_ttl: Duration,
    /// The longest time between lookups. Default 1 min, so that a deployment is seen under the TTL of a web site; range
    /// 1 s to 24 h, at least `min_ttl`. Lookups come after 90 to 100 % of the time, at random.
    pub max_ttl: Duration,
    /// Endpoints used at most. Of more, those of the first priorities are taken, and among equals a random part that stays
    /// the same in this process. Default 1,000, range 1 to 10,000.
    pub max_endpoints: usize,
    /// Where all of them run: DNS does not say. Default: unknown. A cluster with `residency`, or with `balance.locality`, needs
    /// it.
    pub locality: Locality,
}

/// The records that are asked for: `a` or `srv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordKind {
    /// A and AAAA records, all with this port.
    Addresses {
        /// Where every endpoint listens.
        port: u16,
    },
    /// SRV records, which have ports, priorities and weights. (RFC 2782)
    Services,
}

/// Which of IPv4 and IPv6: `auto`, `v4`, `v6` or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv4 addresses, and IPv6 addresses of names that have none: a process that listens on both is one endpoint.
    #[default]
    Auto,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both, each an endpoint of its own.
    All,
}

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MAX_SERVERS: usize = 16;

impl DnsConfig {
    /// Addresses of a name, with every default.
    pub fn addresses(name: impl Into<String>, port: u16) -> Self {
        Self::new(name.into(), RecordKind::Addresses { port })
    }

    /// SRV records of a name, with every default.
    pub fn services(name: impl Into<String>) -> Self {
        Self::new(name.into(), RecordKind::Services)
    }

    fn new(name: String, record: RecordKind) -> Self {
        Self {
            name,
            record,
            family: Family::Auto,
            servers: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            search: false,
            timeout: 2 * SECOND,
            attempts: 2,
            min_ttl: SECOND,
            max_ttl: 60 * SECOND,
            max_endpoints: 1_000,
            locality: Locality::default(),
        }
    }
}

impl Decode for DnsConfig {
    /// `NAME:PORT`, or a mapping.
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        if !matches!(node.value, Value::Map(_)) {
            let parts = node.as_str().and_then(|text| text.rsplit_once(':'));
            let Some((name, port)) = parts else {
                return node.expected("a name with its port, such as \"payments.shop.svc:8443\"", errors);
            };
            let port = port.parse().ok().filter(|port| *port != 0);
            if port.is_none() {
                errors.push(&node.place, "expected a port of 1 to 65535 after the last colon");
            }
            let name = checked(name, node, errors);
            return Some(Self::addresses(name?, port?));
        }
        let mut fields = Fields::of(node, errors)?;
        let name = fields.required::<Node>("name");
        let name = name.and_then(|node| checked(&String::decode(&node, fields.errors())?, &node, fields.errors()));
        let srv = fields.node("record").is_some_and(|node| node.as_str() == Some("srv"));
        let known = fields.optional::<Word>("record");
        let port = fields.optional_within("port", 1..=u16::MAX);
        let record = match (srv, port) {
            (true, None) => Some(RecordKind::Services),
            (true, Some(_)) => {
                let place = fields.place("port");
                fields.errors().push(&place, "SRV records name the ports: leave this out");
                None
            }
            (false, Some(port)) => Some(RecordKind::Addresses { port }),
            (false, None) => {
                let wrong = fields.node("port").is_some() || (fields.node("record").is_some() && known.is_none());
                if !wrong {
                    fields.error("`port` is required: address records have none (or `record: srv`)");
                }
                None
            }
        };
        let default = Self::addresses("", 1);
        let config = Self {
            name: String::new(),
            record: default.record,
            family: fields.or("family", default.family),
            servers: fields.or("servers", default.servers),
            resolv_conf: fields.or("resolv_conf", default.resolv_conf),
            search: fields.or("search", default.search),
            timeout: fields.within("timeout", default.timeout, 50 * MILLI..=30 * SECOND),
            attempts: fields.within("attempts", default.attempts, 1..=10),
            min_ttl: fields.within("min_ttl", default.min_ttl, 100 * MILLI..=3600 * SECOND),
            max_ttl: fields.within("max_ttl", default.max_ttl, SECOND..=24 * 3600 * SECOND),
            max_endpoints: fields.within("max_endpoints", default.max_endpoints, 1..=10_000),
            locality: fields.or("locality", default.locality),
        };
        if config.max_ttl < config.min_ttl {
            let place = fields.place("max_ttl");
            fields.errors().push(&place, "`max_ttl` is less than `min_ttl`");
        }
        if !config.servers.is_empty() {
            for field in ["resolv_conf", "search"] {
                let node = if field == "search" { config.search } else { fields.node("resolv_conf").is_some() };
                if node {
                    let place = fields.place(field);
                    fields.errors().push(&place, "has no meaning beside `servers`: leave one of them out");
                }
            }
        }
        if config.servers.len() > MAX_SERVERS || config.servers.iter().any(|server| server.port() == 0) {
            let place = fields.place("servers");
            fields.errors().push(&place, format!("at most {MAX_SERVERS} servers, none with port 0"));
        }
        fields.finish();
        Some(Self { name: name?, record: record?, ..config })
    }
}

/// A name that can be asked for, without its final dot.
fn checked(name: &str, node: &Node, errors: &mut Errors) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.parse::<IpAddr>().is_ok() || name.starts_with('[') {
        errors.push(&node.place, format!("{name} is an address, not a name: use `static`"));
        return None;
    }
    if name.len() > 253 || !name.split('.').all(fits) {
        errors.push(&node.place, format!("{name:?} is no DNS name: labels of 1 to 63 letters, digits, `-` or `_`"));
        return None;
    }
    Some(name.to_ascii_lowercase())
}

/// `a` or `srv`.
struct Word;

impl Decode for Word {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        node.choice(&[("a", ()), ("srv", ())], errors).map(|()| Self)
    }
}

impl Decode for Family {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        node.choice(&[("auto", Self::Auto), ("v4", Self::V4), ("v6", Self::V6), ("all", Self::All)], errors)
    }
}
