//! Documents from elsewhere, over HTTP that this crate does not know.
//!
//! A configuration that names a URL makes every instance of a service ask that URL. So what may be asked is narrow, and
//! the same for whoever asks: [`FetchRequest`] says how far it may reach, [`reach`] what an address is, and a [`Fetch`]
//! holds itself to both. (SSRF: CWE-918, GHSA-fgw5-hp8f-xfhc)

mod address;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use address::{Reach, reach};

/// What [`Fetch::get`] returns. Dropping it gives up.
pub type Fetching = Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send>>;

/// HTTP GET, with limits. `mesh_tower::fetch` has the one that meshes use.
///
/// Implementations must: speak TLS to `https` URLs and check the server's name; refuse redirects, user information in
/// URLs, and compressed content; resolve the host once, refuse it if **any** of its addresses is out of
/// [reach](FetchRequest::allow_private), and connect to an address that was checked; end within the time and the size
/// asked for; and never log what they read.
pub trait Fetch: fmt::Debug + Send + Sync + 'static {
    /// Gets a document.
    fn get(&self, request: FetchRequest) -> Fetching;
}

/// One document, and how far its fetcher may go for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchRequest {
    /// `https://HOST[:PORT]/PATH[?QUERY]`.
    pub url: Arc<str>,
    /// The longest content that is read. Default 1 MiB.
    pub max_bytes: usize,
    /// From name resolution to the last byte. Default 10 s.
    pub timeout: Duration,
    /// PEM authorities that alone are trusted; absent: those of the public web.
    pub ca: Option<PathBuf>,
    /// Private and loopback addresses too. Default: no.
    pub allow_private: bool,
    /// `http` URLs too, to loopback addresses and nowhere else. Default: no.
    pub allow_http_to_loopback: bool,
}

impl FetchRequest {
    /// The strictest request for `url`.
    pub fn new(url: impl Into<Arc<str>>) -> Self {
        Self {
            url: url.into(),
            max_bytes: 1 << 20,
            timeout: Duration::from_secs(10),
            ca: None,
            allow_private: false,
            allow_http_to_loopback: false,
        }
    }
}

/// A document that was asked for.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched {
    /// The status of the response.
    pub status: u16,
    /// All values of `cache-control`, joined by commas.
    pub cache_control: String,
    /// The content.
    pub body: Vec<u8>,
}

impl Fetched {
    /// A response.
    pub fn new(status: u16, cache_control: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { status, cache_control: cache_control.into(), body: body.into() }
    }

    /// For how long the server says that the content may be kept.
    ///
    /// `no-store` and `no-cache` are no time at all. (RFC 9111 5.2.2)
    pub fn max_age(&self) -> Option<Duration> {
        let directives = || self.cache_control.split(',').map(str::trim);
        if directives().any(|one| one.eq_ignore_ascii_case("no-store") || one.eq_ignore_ascii_case("no-cache")) {
            return Some(Duration::ZERO);
        }
        // Of two that differ the shorter counts: the longer may be what somebody else meant.
        let seconds = directives().filter_map(|one| {
            let (name, value) = one.split_once('=')?;
            name.trim_end()
                .eq_ignore_ascii_case("max-age")
                .then(|| value.trim_matches(['"', ' ']).parse::<u32>().ok())?
        });
        seconds.min().map(|seconds| Duration::from_secs(seconds.into()))
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.body.len();
        f.debug_struct("Fetched").field("status", &self.status).field("bytes", &bytes).finish_non_exhaustive()
    }
}

/// Why nothing was fetched. Never carries content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_content_may_be_kept() {
        for (value, expected) in [
            ("", None),
            ("public", None),
            ("max-age=300", Some(300)),
            ("public, Max-Age = \"60\", must-revalidate", Some(60)),
            ("max-age=300, max-age=10", Some(10)),
            ("max-age=300, no-cache", Some(0)),
            ("no-store", Some(0)),
            ("max-age=-1", None),
            ("max-age=99999999999", None),
            ("s-maxage=5", None),
        ] {
            let age = Fetched::new(200, value, "").max_age();
            assert_eq!(age, expected.map(Duration::from_secs), "{value}");
        }
    }
}
