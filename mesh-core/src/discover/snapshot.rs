//! The last good endpoints of a cluster on disk, for a start while their source is down.
//!
//! One file for each cluster, two lines: JSON, and the SHA-256 of the first line. It is replaced as a whole, readable by
//! its owner alone, and holds addresses and what balancing needs to know of them, nothing that proves who anybody is: whom
//! a snapshot leads to is decided in the handshake, as ever. A file that is broken, of another cluster or another source,
//! or too old is not used.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};

use super::endpoint::decode_all;
use super::{Endpoint, Resolve};
use crate::clock::WallClock;
use crate::config::{self, Errors, Node, PlugConfig};
use crate::disk;

/// What a cluster follows: a resolver, and where its last good word is kept.
///
/// Made from a resolver alone by `.into()`: nothing is kept then.
#[derive(Debug, Clone)]
pub struct Feed {
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) snapshot: Option<SnapshotFile>,
}

impl Feed {
    /// Keeps the last good set in `file`.
    ///
    /// And starts from it when the resolver has nothing to say.
    #[must_use]
    pub fn snapshot(mut self, file: SnapshotFile) -> Self {
        self.snapshot = Some(file);
        self
    }
}

impl From<Arc<dyn Resolve>> for Feed {
    fn from(resolver: Arc<dyn Resolve>) -> Self {
        Self { resolver, snapshot: None }
    }
}

impl<R: Resolve> From<Arc<R>> for Feed {
    fn from(resolver: Arc<R>) -> Self {
        Self { resolver, snapshot: None }
    }
}

/// The file of one cluster.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    dir: Arc<PathBuf>,
    name: Arc<str>,
    cluster: Arc<str>,
    source: Arc<str>,
    max_age: Duration,
    clock: Arc<dyn WallClock>,
}

/// What a file held.
#[derive(Debug, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) endpoints: Vec<Endpoint>,
    /// When it was written, in seconds since 1970.
    pub(crate) at: u64,
    pub(crate) age: Duration,
}

impl SnapshotFile {
    /// A larger file is not ours, and a larger set is not written: 16 MiB, or about 100,000 endpoints.
    const MAX_BYTES: usize = 16 << 20;
    const FORMAT: &str = "mesh-endpoints/1";

    /// The file of `cluster` in `dir`.
    ///
    /// One that was written under another `discover` is not used, nor one older than `max_age`.
    pub fn new(
        dir: impl Into<PathBuf>,
        cluster: &str,
        discover: &PlugConfig,
        max_age: Duration,
        clock: Arc<dyn WallClock>,
    ) -> Self {
        let source = json!([discover.kind, plain(&discover.settings)]).to_string();
        Self {
            dir: Arc::new(dir.into()),
            name: file_name(cluster).into(),
            cluster: cluster.into(),
            source: sum(&source).into(),
            max_age,
            clock,
        }
    }

    /// What the file holds; `None` if there is none. On the blocking pool; cancel safe.
    pub(crate) async fn read(&self) -> Result<Option<Snapshot>, String> {
        let file = self.clone();
        let read = tokio::task::spawn_blocking(move || file.read_blocking()).await;
        read.unwrap_or_else(|_| Err("reading was cut off".to_owned())).map_err(|why| self.problem(&why))
    }

    /// Replaces the file; the result is when it was written. Runs on the blocking pool, whether it is waited for or not.
    pub(crate) fn write(&self, endpoints: Vec<Endpoint>) -> tokio::task::JoinHandle<Result<u64, String>> {
        let file = self.clone();
        tokio::task::spawn_blocking(move || file.write_blocking(&endpoints).map_err(|why| file.problem(&why)))
    }

    fn problem(&self, why: &str) -> String {
        format!("{}: {why}", self.dir.join(&*self.name).display())
    }

    fn now(&self) -> u64 {
        self.clock.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn read_blocking(&self) -> Result<Option<Snapshot>, String> {
        let path = self.dir.join(&*self.name);
        // Before it is opened: a pipe of this name would keep whoever opens it waiting.
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        if !metadata.is_file() {
            return Err("is no regular file".to_owned());
        }
        // Nobody else can have put or replaced it there.
        disk::secure_directory(&self.dir)?;
        let file = std::fs::File::open(&path).map_err(|error| error.to_string())?;
        let found = disk::mode(&file.metadata().map_err(|error| error.to_string())?);
        if found & 0o022 != 0 {
            return Err(format!("other users can write to it (mode {found:03o})"));
        }
        let mut text = String::new();
        file.take(Self::MAX_BYTES as u64).read_to_string(&mut text).map_err(|error| error.to_string())?;
        self.parse(&text).map(Some)
    }

    fn parse(&self, text: &str) -> Result<Snapshot, String> {
        let lines = text.strip_suffix('\n').and_then(|text| text.split_once('\n'));
        let Some((body, _)) = lines.filter(|(body, said)| sum(body) == *said) else {
            return Err("is broken: its checksum is wrong".to_owned());
        };
        let body: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let said = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
        if said("format") != Self::FORMAT {
            return Err(format!("is of another format than {}", Self::FORMAT));
        }
        if said("cluster") != &*self.cluster || said("source") != &*self.source {
            return Err("is of another cluster, or its `discover` was changed".to_owned());
        }
        let (Some(at), Some(list)) = (body.get("at").and_then(Value::as_u64), body.get("endpoints")) else {
            return Err("lacks `at` or `endpoints`".to_owned());
        };
        let age = Duration::from_secs(self.now().saturating_sub(at));
        if age > self.max_age {
            return Err(format!("is {age:?} old, more than {:?}", self.max_age));
        }
        let mut errors = Errors::default();
        let endpoints = decode_all(&Node::from(list), &mut errors);
        let endpoints = errors.finish(endpoints).map_err(|error| error.to_string())?;
        Ok(Snapshot { endpoints, at, age })
    }

    fn write_blocking(&self, endpoints: &[Endpoint]) -> Result<u64, String> {
        let at = self.now();
        let endpoints: Vec<_> = endpoints.iter().map(plain_endpoint).collect();
        let body = json!({
            "format": Self::FORMAT, "cluster": &*self.cluster, "source": &*self.source, "at": at, "endpoints": endpoints,
        })
        .to_string();
        let text = format!("{body}\n{}\n", sum(&body));
        if text.len() > Self::MAX_BYTES {
            return Err(format!("{} endpoints are too many for a snapshot", endpoints.len()));
        }
        disk::secure_directory(&self.dir)?;
        disk::write(&self.dir, &self.name, text.as_bytes(), disk::SECRET)?;
        Ok(at)
    }
}

fn sum(text: &str) -> String {
    format!("sha256:{}", STANDARD_NO_PAD.encode(digest(&SHA256, text.as_bytes())))
}

/// A name that no directory can misread, whatever the cluster is called, and that two clusters never share.
fn file_name(cluster: &str) -> String {
    const LONGEST: usize = 128;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if cluster.len() <= LONGEST && !cluster.is_empty() && cluster.bytes().all(plain) {
        return format!("{cluster}.endpoints");
    }
    let hex: String = digest(&SHA256, cluster.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("~{hex}.endpoints")
}

/// As [`Endpoint`]'s own `Decode` reads it.
fn plain_endpoint(endpoint: &Endpoint) -> Value {
    let locality = &endpoint.locality;
    json!({
        "address": endpoint.address.to_string(),
        "key": &*endpoint.key.0,
        "locality": { "region": locality.region, "zone": locality.zone },
        "priority": endpoint.priority.min(15),
        "weight": endpoint.weight.clamp(1, 65_535),
        "metadata": endpoint.metadata,
    })
}

/// Settings without their places: a line more in the file is no other source.
fn plain(node: &Node) -> Value {
    match &node.value {
        config::Value::Null => Value::Null,
        config::Value::Bool(value) => (*value).into(),
        config::Value::Int(value) => (*value).into(),
        config::Value::Float(value) => (*value).into(),
        config::Value::String(text) => text.as_str().into(),
        config::Value::List(items) => items.iter().map(plain).collect(),
        config::Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), plain(&entry.value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::config::Locality;

    fn file(dir: &std::path::Path, cluster: &str, discover: &Value, clock: &Arc<ManualClock>) -> SnapshotFile {
        let discover = PlugConfig::new("dns", discover);
        SnapshotFile::new(dir, cluster, &discover, Duration::from_secs(3600), Arc::clone(clock) as Arc<dyn WallClock>)
    }

    fn endpoints() -> Vec<Endpoint> {
        let plain = Endpoint::new("[fd00::1]:443".parse().unwrap());
        let full = Endpoint {
            key: super::super::EndpointKey("payments \"1\"".into()),
            locality: Locality { region: "eu".into(), zone: "a".into() },
            priority: 3,
            weight: 7,
            metadata: [("version".to_owned(), "v2\n".to_owned())].into(),
            ..Endpoint::new("10.0.0.1:443".parse().unwrap())
        };
        vec![full, plain]
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made/when/needed");
        let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
        let payments = file(&dir, "payments", &json!("p:1"), &clock);
        assert_eq!(payments.read().await, Ok(None));
        assert_eq!(payments.write(endpoints()).await.unwrap(), Ok(1_800_000_000));
        clock.advance(Duration::from_secs(60));
        let good = payments.read().await.unwrap().unwrap();
        assert_eq!((good.endpoints, good.age), (endpoints(), Duration::from_secs(60)));
        #[cfg(unix)]
        for (path, mode) in [(dir.clone(), 0o700), (dir.join("payments.endpoints"), 0o600)] {
            assert_eq!(disk::mode(&std::fs::metadata(&path).unwrap()), mode, "{path:?}");
        }
        let left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["payments.endpoints"], "nothing temporary is left");

        let said = |file: SnapshotFile| async move { file.read().await.unwrap_err() };
        assert!(said(file(&dir, "payments", &json!("q:1"), &clock)).await.contains("`discover` was changed"));
        let text = std::fs::read_to_string(dir.join("payments.endpoints")).unwrap();
        std::fs::write(dir.join("stock.endpoints"), &text).unwrap();
        assert!(said(file(&dir, "stock", &json!("p:1"), &clock)).await.contains("another cluster"));
        clock.advance(Duration::from_secs(3600));
        assert!(said(payments.clone()).await.contains("3660s old"));
        clock.set(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        assert_eq!(payments.read().await.unwrap().unwrap().age, Duration::ZERO, "a clock that was set back");

        // Whatever is cut off or changed is seen.
        for cut in 0..text.len() {
            assert!(payments.parse(&text[..cut]).is_err(), "{cut}");
            let mut bytes = text.clone().into_bytes();
            bytes[cut] ^= 1;
            assert!(String::from_utf8(bytes).is_ok_and(|text| payments.parse(&text).is_err()), "{cut}");
        }
        for body in ["{}", "[]", r#"{"format":"mesh-endpoints/2"}"#] {
            assert!(payments.parse(&format!("{body}\n{}\n", sum(body))).is_err(), "{body}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let open = std::fs::Permissions::from_mode(0o666);
            std::fs::set_permissions(dir.join("payments.endpoints"), open).unwrap();
            assert!(said(payments.clone()).await.contains("other users can write to it (mode 666)"));
        }
    }

    #[test]
    fn names_of_clusters_are_no_paths() {
        assert_eq!(file_name("payments-2_a"), "payments-2_a.endpoints");
        let odd = ["", ".", "..", "../../etc/passwd", "Payments", "a/b", "a.b", "\u{fc}", &"x".repeat(200)];
        let names: std::collections::BTreeSet<_> = odd.iter().map(|name| file_name(name)).collect();
        assert!(names.iter().all(|name| name.starts_with('~') && !name.contains('/') && name.len() < 80), "{names:?}");
        assert_eq!(names.len(), odd.len());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_others_could_have_put_there_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("snapshots");
        let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
        let payments = file(&dir, "payments", &json!("p:1"), &clock);
        assert_eq!(payments.write(endpoints()).await.unwrap(), Ok(1_800_000_000));
        assert!(payments.read().await.is_ok_and(|found| found.is_some()));
        for (path, mode) in [(&dir, 0o777), (&dir.join("payments.endpoints"), 0o666)] {
            let before = std::fs::metadata(path).unwrap().permissions();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(payments.read().await.is_err_and(|why| why.contains("other users can write")), "{mode:o}");
            std::fs::set_permissions(path, before).unwrap();
        }
        std::fs::remove_file(dir.join("payments.endpoints")).unwrap();
        std::fs::create_dir(dir.join("payments.endpoints")).unwrap();
        assert!(payments.read().await.is_err_and(|why| why.contains("no regular file")));
    }
}
