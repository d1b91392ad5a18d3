//! Tokens that this process attaches to its own calls.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::parse::is_b64token;
use super::watch::{Read, poll};
use crate::config::{Errors, Node};
use crate::plugin::Context;
use crate::snapshot::Snapshot;

/// Gives the bearer token to attach to a call now.
pub trait TokenSource: std::fmt::Debug + Send + Sync + 'static {
    /// The current token, without `Bearer `. Must not block: sources renew in the background.
    ///
    /// While it is the same token it should be the same [`Arc`]: then attaching it formats nothing.
    fn token(&self) -> Result<Arc<str>, TokenSourceError>;
}

/// Why there is no token to attach. Never carries a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TokenSourceError(pub String);

/// The `file` source: a token that something else renews, a projected one for instance.
///
/// The file is compared every poll interval. A file that cannot be read leaves the last good token in force: its own
/// expiry ends it, at the peer.
pub struct FileToken {
    current: Arc<Snapshot<Result<Arc<str>, TokenSourceError>>>,
}

impl fmt::Debug for FileToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileToken").finish_non_exhaustive()
    }
}

impl FileToken {
    /// Reads `path` now and again every `interval`, until this source is dropped.
    ///
    /// Needs a Tokio runtime.
    ///
    /// A file that is not there yet is no error here: [`token`](TokenSource::token) says so until it comes.
    pub fn open(path: impl Into<PathBuf>, interval: Duration) -> Self {
        let path = path.into();
        let first = Read::from_file(&path, MAX_BYTES);
        let current = Arc::new(Snapshot::new(parse(&path, &first)));
        tokio::spawn(renew(path, interval, first, Arc::downgrade(&current)));
        Self { current }
    }

    /// Settings: the path itself.
    pub(crate) fn from_node(node: &Node, context: &Context, errors: &mut Errors) -> Option<Arc<dyn TokenSource>> {
        let path = super::watch::path(node, context, errors)?;
        if tokio::runtime::Handle::try_current().is_err() {
            errors.push(&node.place, "a token file is watched in the background: start the mesh in a Tokio runtime");
            return None;
        }
        Some(Arc::new(Self::open(path, context.poll_interval)))
    }
}

impl TokenSource for FileToken {
    fn token(&self) -> Result<Arc<str>, TokenSourceError> {
        self.current.peek().value().clone()
    }
}

/// More than any peer takes in a header.
const MAX_BYTES: usize = 16 * 1024;

async fn renew(
    path: PathBuf,
    interval: Duration,
    mut last: Read,
    current: Weak<Snapshot<Result<Arc<str>, TokenSourceError>>>,
) {
    loop {
        tokio::time::sleep(interval).await;
        if current.strong_count() == 0 {
            return;
        }
        let Some(read) = poll(&path, MAX_BYTES, &last).await else { continue };
        let (parsed, Some(current)) = (parse(&path, &read), current.upgrade()) else { return };
        last = read;
        match (&parsed, current.load().value()) {
            (Err(error), Ok(_)) => {
                tracing::warn!(target: "mesh", %error, "the last good token stays in force");
            }
            _ => _ = current.publish(parsed),
        }
    }
}

fn parse(path: &Path, read: &Read) -> Result<Arc<str>, TokenSourceError> {
    let refuse = |why: &str| TokenSourceError(format!("the token file {} {why}", path.display()));
    let bytes = read.contents().map_err(|error| refuse(&format!("cannot be read: {error}")))?;
    let token = bytes.trim_ascii();
    match std::str::from_utf8(token) {
        Ok(text) if is_b64token(text) => Ok(text.into()),
        _ if token.is_empty() => Err(refuse("is empty")),
        _ => Err(refuse("holds no bearer token: expected one token and nothing else")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::configured;
    use super::*;
    use crate::clock::ManualClock;
    use crate::identity::testkit::context;

    #[tokio::test(start_paused = true)]
    async fn settings_are_a_path_from_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "a.b.c").unwrap();
        let context = context(dir.path(), Arc::new(ManualClock::at_unix(0)));
        let source = configured("token", &context, FileToken::from_node).unwrap();
        assert_eq!(&*source.token().unwrap(), "a.b.c");
        // It is looked at as often as the configuration says, and its own end is that of the source.
        std::fs::write(dir.path().join("token"), "d.e.f").unwrap();
        tokio::time::sleep(context.poll_interval * 2 + Duration::from_millis(1)).await;
        assert_eq!(&*source.token().unwrap(), "d.e.f");
        assert!(configured("[token]", &context, FileToken::from_node).unwrap_err().contains("expected"));
        let threads = std::thread::spawn(move || configured("token", &context, FileToken::from_node).err());
        assert!(threads.join().unwrap().unwrap().contains("in a Tokio runtime"));
    }

    #[test]
    fn a_file_holds_one_token_or_says_what_it_holds() {
        let read = |contents: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("token");
            std::fs::write(&path, contents).unwrap();
            parse(&path, &Read::from_file(&path, MAX_BYTES)).map_err(|error| error.0)
        };
        let long = "a".repeat(MAX_BYTES);
        for token in ["a.b-c_d~e+f/g=", " \n a \r\n", &long] {
            assert_eq!(read(token.as_bytes()).as_deref(), Ok(token.trim()));
        }
        for (contents, expected) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            (b"a b", "no bearer token"),
            (b"\xff", "no bearer token"),
            (format!("{long}a").as_bytes(), "larger than"),
        ] {
            let error = read(contents).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_token_is_picked_up_and_a_broken_file_keeps_the_last_good_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let interval = Duration::from_millis(500);
        let source = FileToken::open(&path, interval);
        assert!(source.token().unwrap_err().0.contains("cannot be read"));
        for (contents, expected) in
            [(Some("a.b.c\n"), "a.b.c"), (Some("d.e.f"), "d.e.f"), (Some("two words"), "d.e.f"), (None, "d.e.f")]
        {
            match contents {
                Some(contents) => std::fs::write(&path, contents).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            // Two intervals: one read may have begun before the write.
            tokio::time::sleep(interval * 2 + Duration::from_millis(1)).await;
            assert_eq!(&*source.token().unwrap(), expected);
        }
        assert!(!format!("{source:?}").contains("d.e.f"));
    }
}
