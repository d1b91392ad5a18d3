//! The kinds that this crate brings itself.

use super::Plugin;
use crate::discover::{FileResolver, StaticResolver};
use crate::identity::FilesSource;

/// Identity `dev_ca` (feature `dev-ca`) and `files`; resolvers `static` and `file`; key and token source `file`; audit
/// sinks `log`, `stdout` and `file`.
pub(super) fn plugin() -> Plugin {
    let plugin = Plugin::new("mesh-core")
        .identity_source("files", FilesSource::from_node)
        .resolver("static", StaticResolver::from_node)
        .resolver("file", FileResolver::from_node);
    #[cfg(feature = "dev-ca")]
    let plugin = plugin.identity_source("dev_ca", crate::identity::dev_ca::DevCaSource::from_node);
    plugin
}
