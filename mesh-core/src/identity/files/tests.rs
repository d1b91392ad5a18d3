use std::fs;
use std::path::Path;

use futures_util::StreamExt;
use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::identity::testkit::{Ca, HOUR, Issued, leaf_params, noon, valid};

const WEB: &str = "spiffe://td/ns/shop/sa/web";

fn config(dir: &Path) -> FilesConfig {
    let domain = TrustDomain::parse("td").unwrap();
    let config = FilesConfig::new(domain, dir.join("svid.pem"), dir.join("svid.key"), dir.join("bundle.pem"));
    FilesConfig { poll_interval: Duration::from_secs(1), ..config }
}

struct Fixture {
    dir: TempDir,
    clock: Arc<ManualClock>,
    updates: IdentityUpdates,
}

impl Fixture {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::new(noon()));
        let updates = FilesSource::new(config(dir.path()), clock.clone()).watch();
        Self { dir, clock, updates }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn write_svid(&self, issued: &Issued) {
        self.write("svid.pem", &issued.pem);
        self.write("svid.key", &issued.key.serialize_pem());
    }

    async fn next(&mut self) -> Result<Identity, IdentityError> {
        let next = tokio::time::timeout(Duration::from_secs(60), self.updates.next()).await;
        next.expect("told within some polls").unwrap()
    }

    async fn identity(&mut self) -> Identity {
        self.next().await.unwrap()
    }

    async fn error(&mut self) -> String {
        self.next().await.unwrap_err().to_string()
    }

    /// Lets several polls pass.
    async fn silent(&mut self) {
        let quiet = tokio::time::timeout(Duration::from_millis(3500), self.updates.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_torn_pair_keeps_the_last_good_one() {
    let ca = Ca::root("root");
    let (first, second) = (ca.issue(&leaf_params(WEB)), ca.issue(&leaf_params(WEB)));
    let mut files = Fixture::new();
    files.write("bundle.pem", &ca.pem);
    assert!(files.error().await.contains("svid.pem: No such file"), "nothing to start with is said");
    files.write_svid(&first);
    let started = files.identity().await;
    assert_eq!((started.svid().unwrap().chain()[0].clone(), started.bundles.as_ref()), (first.der, &ca.trust("td")));
    files.silent().await;

    files.write("svid.pem", &second.pem);
    let error = files.error().await;
    assert!(error.contains("svid.key") && error.contains("does not belong"), "{error}");
    files.silent().await;
    files.write("svid.key", &second.key.serialize_pem());
    assert_eq!(files.identity().await.svid().unwrap().chain()[0], second.der);
    files.silent().await;
}

#[tokio::test(start_paused = true)]
async fn roots_change_even_while_the_certificate_is_torn() {
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let mut files = Fixture::new();
    files.write("bundle.pem", &old.pem);
    files.write_svid(&old.issue(&leaf_params(WEB)));
    files.identity().await;

    files.write("svid.pem", "torn");
    files.write("bundle.pem", &new.pem);
    assert_eq!(*files.identity().await.bundles, new.trust("td"));
    assert!(files.error().await.contains("no certificate"));

    // A bundle that cannot be read leaves the last one in force; recovery is told even if nothing changed.
    files.write_svid(&new.issue(&leaf_params(WEB)));
    let good = files.identity().await;
    files.write("bundle.pem", "");
    assert!(files.error().await.contains("bundle.pem: trust bundle of td: no certificate"));
    files.write("bundle.pem", &new.pem);
    assert_eq!(files.identity().await.svid().unwrap().serial(), good.svid().unwrap().serial());
}

#[tokio::test(start_paused = true)]
async fn expiry_and_foreign_names_are_told() {
    let ca = Ca::root("root");
    let mut files = Fixture::new();
    files.write("bundle.pem", &ca.pem);
    files.write_svid(&ca.issue(&leaf_params("spiffe://else/ns/shop/sa/web")));
    assert!(files.error().await.contains("does not belong to the trust domain td"));
    let mut old = leaf_params(WEB);
    valid(&mut old, noon() - 2 * HOUR, noon() - HOUR);
    files.write_svid(&ca.issue(&old));
    assert!(files.error().await.contains("is expired"));
    files.write_svid(&ca.issue(&leaf_params(WEB)));
    files.identity().await;
    files.clock.advance(2 * HOUR);
    assert!(files.error().await.contains("was not replaced"));
    files.silent().await;
    files.write("svid.pem", &"x".repeat(2 << 20));
    assert!(files.error().await.contains("too many"));
    fs::remove_file(files.dir.path().join("svid.pem")).unwrap();
    fs::create_dir(files.dir.path().join("svid.pem")).unwrap();
    assert!(files.error().await.contains("not a regular file"));
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_kubernetes_volume_is_read_through_one_version() {
    use std::os::unix::fs::symlink;
    let ca = Ca::root("root");
    let mut files = Fixture::new();
    let dir = files.dir.path().to_owned();
    let swap = |version: &str, issued: &Issued| {
        fs::create_dir(dir.join(version)).unwrap();
        for (name, text) in
            [("svid.pem", &issued.pem), ("svid.key", &issued.key.serialize_pem()), ("bundle.pem", &ca.pem)]
        {
            fs::write(dir.join(version).join(name), text).unwrap();
        }
        symlink(version, dir.join("..tmp")).unwrap();
        fs::rename(dir.join("..tmp"), dir.join("..data")).unwrap();
    };
    let (first, second) = (ca.issue(&leaf_params(WEB)), ca.issue(&leaf_params(WEB)));
    swap("..1", &first);
    for name in ["svid.pem", "svid.key", "bundle.pem"] {
        symlink(Path::new("..data").join(name), dir.join(name)).unwrap();
    }
    assert_eq!(files.identity().await.svid().unwrap().chain()[0], first.der);
    swap("..2", &second);
    assert_eq!(files.identity().await.svid().unwrap().chain()[0], second.der);

    // The swap comes between the two reads: both still come from the version that was pinned.
    let pinned = dir.join("..2").canonicalize().unwrap();
    let mut directories = read::Directories::default();
    let chain = directories.read(&dir.join("svid.pem")).unwrap();
    swap("..3", &first);
    assert!(pinned.exists());
    let key = directories.read(&dir.join("svid.key")).unwrap();
    assert!(X509Svid::from_pem(&chain, &key).is_ok());
}

#[test]
fn settings_are_read_and_mistakes_are_placed() {
    let (source, errors) = settings(serde_json::json!({
        "certificate": "a.pem", "key": "/k/a.key", "bundle": "b.pem", "bundles": { "partner.example": "p.pem" },
    }));
    assert_eq!(errors, Vec::<String>::new());
    let shown = format!("{:?}", source.unwrap());
    for part in ["\"/base/a.pem\"", "\"/k/a.key\"", "\"/base/b.pem\"", "\"/base/p.pem\"", "poll_interval: 2s"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let (source, errors) = settings(
        serde_json::json!({ "certificate": "a", "bundle": "b", "bundles": { "td": "x", "T": "y" }, "kye": "k" }),
    );
    assert!(source.is_none());
    for part in
        ["key: this field is required", "own trust domain `td`", "\"T\" is no trust domain", "did you mean `key`"]
    {
        assert!(errors.iter().any(|error| error.contains(part)), "{part} in {errors:?}");
    }
}

fn settings(value: serde_json::Value) -> (Option<Arc<dyn IdentitySource>>, Vec<String>) {
    let mut errors = Errors::default();
    let context = crate::identity::testkit::context(Path::new("/base"), Arc::new(ManualClock::new(noon())));
    let source = FilesSource::from_node(&Node::from(&value), &context, &mut errors);
    (source, errors.issues().iter().map(ToString::to_string).collect())
}
