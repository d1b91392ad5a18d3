//! TLS secrets for debuggers such as Wireshark: whoever reads them reads all traffic.

use std::sync::Arc;

use rustls::{KeyLog, KeyLogFile};

/// Appends to the file that `SSLKEYLOGFILE` names, if it names one. Says so loudly in either case.
pub(super) fn from_environment() -> Arc<dyn KeyLog> {
    match std::env::var_os("SSLKEYLOGFILE") {
        Some(file) => tracing::error!(
            file = %file.display(),
            "TLS SECRETS ARE WRITTEN TO SSLKEYLOGFILE: whoever reads that file reads all traffic of this process"
        ),
        None => tracing::warn!(
            "built with the feature `keylog`: TLS secrets would be written to SSLKEYLOGFILE if it were set; never deploy this"
        ),
    }
    Arc::new(KeyLogFile::new())
}
