//! The kinds that this crate brings itself.

use super::Plugin;
use crate::audit::{FileSink, LogSink, StdoutSink};
use crate::discover::{FileResolver, StaticResolver};
use crate::health::HttpCheck;
use crate::identity::FilesSource;
use crate::token::{FetchedKeys, FileKeys, FileToken, InlineKeys, LocalKey};

/// Identity `dev_ca` (feature `dev-ca`) and `files`; resolvers `static`, `file` and `dns` (feature `dns`); key sources
/// `file`, `inline`, `url`, `discovery` and `jwt_svid`; token sources `file` and `local_key`; health check `http`; audit
/// sinks `log`, `stdout` and `file`.
pub(super) fn plugin() -> Plugin {
    let plugin = Plugin::new("mesh-core")
        .identity_source("files", FilesSource::from_node)
        .resolver("static", StaticResolver::from_node)
        .resolver("file", FileResolver::from_node)
        .key_source("file", FileKeys::from_node)
        .key_source("inline", InlineKeys::from_node)
        .key_source("jwt_svid", FileKeys::jwt_svid_from_node)
        .key_source("url", FetchedKeys::from_node)
        .key_source("discovery", FetchedKeys::discovery_from_node)
        .token_source("file", FileToken::from_node)
        .token_source("local_key", LocalKey::from_node)
        .health_check("http", HttpCheck::from_node)
        .audit_sink("log", LogSink::from_node)
        .audit_sink("stdout", StdoutSink::from_node)
        .audit_sink("file", FileSink::from_node);
    #[cfg(feature = "dev-ca")]
    let plugin = plugin.identity_source("dev_ca", crate::identity::dev_ca::DevCaSource::from_node);
    #[cfg(feature = "dns")]
    let plugin = plugin.resolver("dns", crate::discover::DnsResolver::from_node);
    plugin
}
