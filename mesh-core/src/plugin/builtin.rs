//! The kinds that this crate brings itself.

use super::Plugin;
use crate::audit::{FileSink, LogSink, StdoutSink};
use crate::discover::{FileResolver, StaticResolver};
use crate::identity::FilesSource;
use crate::token::{FileKeys, FileToken};

/// Identity `dev_ca` (feature `dev-ca`) and `files`; resolvers `static` and `file`; key and token source `file`; audit
/// sinks `log`, `stdout` and `file`.
pub(super) fn plugin() -> Plugin {
    let plugin = Plugin::new("mesh-core")
        .identity_source("files", FilesSource::from_node)
        .resolver("static", StaticResolver::from_node)
        .resolver("file", FileResolver::from_node)
        .key_source("file", FileKeys::from_node)
        .token_source("file", FileToken::from_node)
        .audit_sink("log", LogSink::from_node)
        .audit_sink("stdout", StdoutSink::from_node)
        .audit_sink("file", FileSink::from_node);
    #[cfg(feature = "dev-ca")]
    let plugin = plugin.identity_source("dev_ca", crate::identity::dev_ca::DevCaSource::from_node);
    plugin
}
