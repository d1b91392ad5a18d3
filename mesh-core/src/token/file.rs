//! The `file` key source: a JWK set on disk, compared at every poll.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::watch::{Read, poll};
use super::{Jwks, JwksError, KeySource, KeyUpdate, KeyUpdates};
use crate::config::{Errors, Fields, Node};
use crate::plugin::Context;
use crate::stream::unfold;

/// The keys of one issuer in a file, which may be replaced at any time.
///
/// A revision that cannot be read or is refused is reported once; the last good keys stay in force.
#[derive(Debug, Clone)]
pub struct FileKeys {
    path: PathBuf,
    interval: Duration,
    parse: fn(&[u8]) -> Result<Jwks, JwksError>,
}

impl FileKeys {
    /// Compares the contents of `path` every `interval`.
    pub fn new(path: impl Into<PathBuf>, interval: Duration) -> Self {
        Self { path: path.into(), interval, parse: Jwks::parse }
    }

    /// The same for a SPIFFE bundle, of which the keys for JWT-SVIDs count.
    pub fn jwt_svid(path: impl Into<PathBuf>, interval: Duration) -> Self {
        Self { parse: Jwks::parse_jwt_svid, ..Self::new(path, interval) }
    }

    /// Settings: the path itself.
    pub(crate) fn from_node(node: &Node, context: &Context, errors: &mut Errors) -> Option<Arc<dyn KeySource>> {
        let path = super::watch::path(node, context, errors)?;
        Some(Arc::new(Self::new(path, context.poll_interval)))
    }

    /// Settings of `jwt_svid`: `{ file: bundle.json }`.
    pub(crate) fn jwt_svid_from_node(
        node: &Node,
        context: &Context,
        errors: &mut Errors,
    ) -> Option<Arc<dyn KeySource>> {
        let mut fields = Fields::of(node, errors)?;
        let file = fields.required::<PathBuf>("file");
        fields.finish();
        Some(Arc::new(Self::jwt_svid(context.base_dir.join(file?), context.poll_interval)))
    }
}

impl KeySource for FileKeys {
    /// Needs a Tokio runtime: files are read on its blocking threads.
    fn watch(&self) -> KeyUpdates {
        let state = (self.clone(), None::<Read>);
        unfold(state, |(source, mut last)| async move {
            let read = source.changed(last.take()).await;
            let update = match parse(&source, &read) {
                Ok(keys) => KeyUpdate::Keys(keys),
                Err(error) => KeyUpdate::Failed(error),
            };
            (update, (source, Some(read)))
        })
    }
}

impl FileKeys {
    /// The first reading at once; later ones when they differ.
    async fn changed(&self, last: Option<Read>) -> Read {
        let mut pause = last.is_some();
        // Nothing read yet differs from whatever is there, even from nothing.
        let last = last.unwrap_or_else(Read::nothing);
        loop {
            if std::mem::replace(&mut pause, true) {
                tokio::time::sleep(self.interval).await;
            }
            if let Some(read) = poll(&self.path, Jwks::MAX_BYTES, &last).await {
                return read;
            }
        }
    }
}

fn parse(source: &FileKeys, read: &Read) -> Result<Arc<Jwks>, JwksError> {
    let keys = read.contents().map_err(|error| JwksError(format!("cannot be read: {error}"))).and_then(source.parse);
    keys.map(Arc::new).map_err(|error| JwksError(format!("the key set {}: {error}", source.path.display())))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use serde_json::json;

    use super::super::algorithm::Algorithm;
    use super::super::testkit::{TestKey, configured};
    use super::*;
    use crate::clock::ManualClock;
    use crate::identity::testkit::context;

    async fn next(updates: &mut KeyUpdates) -> Result<Arc<Jwks>, JwksError> {
        match poll_fn(|cx| updates.as_mut().poll_next(cx)).await.unwrap() {
            KeyUpdate::Keys(keys) => Ok(keys),
            KeyUpdate::Failed(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn settings_name_a_file_from_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path(), Arc::new(ManualClock::at_unix(0)));
        let mut svid = TestKey::es256().jwk("b");
        svid["use"] = json!("jwt-svid");
        std::fs::write(dir.path().join("keys"), json!({ "keys": [TestKey::es256().jwk("a"), svid] }).to_string())
            .unwrap();
        let plain = configured("keys", &context, FileKeys::from_node).unwrap();
        let bundle = configured("{ file: keys }", &context, FileKeys::jwt_svid_from_node).unwrap();
        // Of one file each takes what is for it.
        for (source, key, other) in [(plain, "a", "b"), (bundle, "b", "a")] {
            let keys = next(&mut source.watch()).await.unwrap();
            let found = |id| keys.find(Some(id), Algorithm::Es256).is_ok();
            assert!(found(key) && !found(other), "{key}");
        }
        for (yaml, expected) in [("{}", "file"), ("{ file: keys, x: y }", "unknown field"), ("keys", "expected")] {
            let error = configured(yaml, &context, FileKeys::jwt_svid_from_node).unwrap_err();
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_revision_is_seen_once_and_bad_ones_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let set = |kid: &str| json!({ "keys": [TestKey::es256().jwk(kid)] }).to_string();
        let mut updates = FileKeys::new(&path, Duration::from_millis(500)).watch();
        let missing = next(&mut updates).await.unwrap_err();
        assert!(missing.0.contains("keys.json") && missing.0.contains("cannot be read"), "{missing}");
        std::fs::write(&path, set("a")).unwrap();
        assert!(next(&mut updates).await.is_ok());
        // The same contents again are no news: the next item is what comes after them.
        std::fs::write(&path, std::fs::read(&path).unwrap()).unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(5_200), next(&mut updates)).await;
        assert!(waiting.is_err());
        std::fs::write(&path, "{").unwrap();
        assert!(next(&mut updates).await.unwrap_err().0.contains("not valid JSON"));
        std::fs::write(&path, set("b")).unwrap();
        assert!(next(&mut updates).await.is_ok());
    }
}
