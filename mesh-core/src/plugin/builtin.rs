//! The kinds that this crate brings itself.

use super::Plugin;

/// Identity `dev_ca` (feature `dev-ca`) and `files`; resolvers `static` and `file`; key and token source `file`; audit
/// sinks `log`, `stdout` and `file`.
pub(super) fn plugin() -> Plugin {
    Plugin::new("mesh-core")
}
