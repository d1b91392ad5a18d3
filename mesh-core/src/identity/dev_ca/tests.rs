use std::fs;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures_util::StreamExt;
use tempfile::TempDir;

use super::*;
use crate::clock::{ManualClock, WallClock};
use crate::config::{Errors, Node};
use crate::identity::testkit::{HOUR, context, noon};
use crate::identity::{
    FilesConfig, FilesSource, Identity, IdentityError, IdentitySource, IdentityUpdates, PeerRole, SpiffeId,
    TrustBundleSet, TrustDomain, X509Svid, verify_svid,
};
use crate::rng::Rng;

fn domain() -> TrustDomain {
    TrustDomain::parse("td").unwrap()
}

fn web() -> SpiffeId {
    SpiffeId::for_workload(&domain(), "shop", "web").unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(noon() + Duration::from_millis(250)))
}

fn open(dir: &Path, clock: &Arc<ManualClock>) -> Result<DevCa, DevCaError> {
    DevCa::open_or_create(dir, &domain(), clock.clone())
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
}

#[cfg(unix)]
fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn what_it_issues_is_accepted_in_both_roles() {
    let clock = clock();
    let ca = DevCa::in_memory(&domain(), clock.clone()).unwrap();
    let trust = TrustBundleSet::of(ca.bundle().unwrap());
    let (a, b) = (ca.issue(&web(), HOUR).unwrap(), ca.issue(&web(), HOUR).unwrap());
    for role in [PeerRole::Client, PeerRole::Server] {
        assert_eq!(verify_svid(a.chain(), &trust, role, clock.now()).unwrap().id, web());
    }
    assert_eq!(a.not_after(), noon() + HOUR + Duration::from_secs(1), "a started second counts in full");
    assert_ne!(a.serial(), b.serial());
    assert_eq!(a.serial().len(), 32);

    let refused = |id: &str, ttl| ca.issue(&SpiffeId::parse(id).unwrap(), ttl).unwrap_err().to_string();
    assert!(refused("spiffe://else/a", HOUR).contains("no workload of the trust domain td"));
    assert!(refused("spiffe://td", HOUR).contains("no workload"));
    for ttl in [Duration::from_millis(1999), 25 * HOUR] {
        assert!(refused("spiffe://td/a", ttl).contains("out of range"));
    }
}

#[test]
fn many_who_start_at_once_share_one_authority() {
    let dir = TempDir::new().unwrap();
    let (shared, start) = (dir.path().join("a/b"), Barrier::new(16));
    let certificates: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    open(&shared, &clock()).unwrap().certificate().clone()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(certificates.iter().all(|certificate| *certificate == certificates[0]));
    let mut names: Vec<_> =
        fs::read_dir(&shared).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["bundle.pem", "ca.pem", "lock"], "nothing temporary is left");
    let bundle = fs::read(shared.join("bundle.pem")).unwrap();
    let bundle = crate::identity::TrustBundle::from_pem(domain(), &bundle).unwrap();
    assert_eq!(bundle, open(&shared, &clock()).unwrap().bundle().unwrap());
}

#[cfg(unix)]
#[test]
fn keys_are_private_or_refused() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("ca");
    let ca = open(&dir, &clock()).unwrap();
    assert_eq!([mode(&dir), mode(&dir.join("ca.pem")), mode(&dir.join("bundle.pem"))], [0o700, 0o600, 0o644]);
    let out = dir.join("out");
    ca.issue_pem(&web(), HOUR).unwrap().write(&out).unwrap();
    assert_eq!([mode(&out), mode(&out.join("svid.key")), mode(&out.join("svid.pem"))], [0o700, 0o600, 0o644]);

    for readable in [0o640, 0o604, 0o666] {
        chmod(&dir.join("ca.pem"), readable);
        let error = open(&dir, &clock()).unwrap_err().to_string();
        assert!(error.contains(&format!("mode {readable:o}")) && error.contains("chmod 600"), "{error}");
    }
    chmod(&dir.join("ca.pem"), 0o600);
    chmod(&dir, 0o770);
    assert!(open(&dir, &clock()).unwrap_err().to_string().contains("chmod go-w"));
    chmod(&dir, 0o755);
    assert_eq!(open(&dir, &clock()).unwrap().certificate(), ca.certificate());
}

#[test]
fn a_broken_or_foreign_authority_is_never_replaced_and_an_expiring_one_is() {
    let dir = TempDir::new().unwrap();
    let clock = clock();
    let first = open(dir.path(), &clock).unwrap();
    let foreign = DevCa::open_or_create(dir.path(), &TrustDomain::parse("else").unwrap(), clock.clone());
    let error = foreign.unwrap_err().to_string();
    assert!(error.contains("authority of [\"spiffe://td\"], expected spiffe://else"), "{error}");

    let file = dir.path().join("ca.pem");
    let good = fs::read_to_string(&file).unwrap();
    let other = TempDir::new().unwrap();
    open(other.path(), &clock).unwrap();
    let other = fs::read_to_string(other.path().join("ca.pem")).unwrap();
    let key_at = |pem: &str| pem.find("-----BEGIN PRIVATE").unwrap();
    let swapped = [&good[..key_at(&good)], &other[key_at(&other)..]].concat();
    for (text, expected) in
        [("", "no certificate"), (&good[..key_at(&good)], "private key"), (&swapped, "do not belong")]
    {
        fs::write(&file, text).unwrap();
        let error = open(dir.path(), &clock).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("delete the file"), "{error}");
    }

    fs::write(&file, &good).unwrap();
    clock.advance(363 * 24 * HOUR);
    assert_eq!(open(dir.path(), &clock).unwrap().certificate(), first.certificate());
    clock.advance(2 * 24 * HOUR);
    assert_ne!(open(dir.path(), &clock).unwrap().certificate(), first.certificate());
    clock.set(noon());
    assert!(open(dir.path(), &clock).unwrap_err().to_string().contains("begins in the future"));
}

struct Running {
    dir: TempDir,
    clock: Arc<ManualClock>,
    updates: IdentityUpdates,
}

impl Running {
    fn new(svid_ttl: Duration) -> Self {
        let (dir, clock) = (TempDir::new().unwrap(), clock());
        let config = DevCaConfig {
            dir: dir.path().to_owned(),
            trust_domain: domain(),
            id: web(),
            svid_ttl,
            poll_interval: Duration::from_secs(1),
        };
        let updates = DevCaSource::new(config, clock.clone(), Rng::seeded(7)).watch();
        Self { dir, clock, updates }
    }

    async fn next(&mut self) -> Result<Identity, IdentityError> {
        let next = tokio::time::timeout(Duration::from_secs(60), self.updates.next()).await;
        next.expect("told within some polls").unwrap()
    }

    async fn identity(&mut self) -> (Arc<X509Svid>, Identity) {
        let identity = self.next().await.unwrap();
        let svid = identity.svid().unwrap().clone();
        verify_svid(svid.chain(), &identity.bundles, PeerRole::Client, self.clock.now()).unwrap();
        (svid, identity)
    }

    /// Several polls at the wall clock's present reading.
    async fn silent(&mut self) {
        assert!(tokio::time::timeout(Duration::from_millis(3500), self.updates.next()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn renews_at_half_life_and_is_never_without_a_valid_svid() {
    let mut ca = Running::new(HOUR);
    let (mut last, identity) = ca.identity().await;
    ca.silent().await;
    for _ in 0..5 {
        let before = ca.clock.now();
        ca.clock.advance(HOUR * 44 / 100);
        ca.silent().await;
        ca.clock.advance(HOUR * 7 / 100);
        let (next, renewed) = ca.identity().await;
        assert!(last.not_after() > ca.clock.now(), "the old one still holds when the new one comes");
        assert_ne!(next.serial(), last.serial());
        assert_eq!((next.id(), renewed.bundles), (last.id(), identity.bundles.clone()));
        assert!(next.not_after() >= before + HOUR);
        last = next;
    }
    // A clock that was set back makes the SVID one of the future: another is taken.
    ca.clock.set(noon() - HOUR);
    assert!(ca.identity().await.0.not_before() < ca.clock.now());
}

#[tokio::test(start_paused = true)]
async fn follows_an_authority_that_was_replaced() {
    let mut ca = Running::new(HOUR);
    let (first, before) = ca.identity().await;
    fs::remove_file(ca.dir.path().join("ca.pem")).unwrap();
    let (second, after) = ca.identity().await;
    assert_ne!(before.bundles, after.bundles);
    assert_eq!(first.id(), second.id());
    let old = verify_svid(first.chain(), &after.bundles, PeerRole::Client, ca.clock.now());
    assert_eq!(old.unwrap_err().reason(), "bad_signature");
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn failures_are_told_with_growing_pauses_and_end() {
    let mut ca = Running::new(HOUR);
    ca.identity().await;
    let file = ca.dir.path().join("ca.pem");
    chmod(&file, 0o644);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let asked = tokio::time::Instant::now();
        let error = ca.next().await.unwrap_err().to_string();
        assert!(error.starts_with("dev_ca: ") && error.contains("chmod 600"), "{error}");
        pauses.push(asked.elapsed());
    }
    assert!(pauses[1] <= Duration::from_millis(500) && pauses[8] >= Duration::from_secs(2), "{pauses:?}");
    assert!(pauses[1..].iter().all(|pause| *pause <= Duration::from_millis(4001)), "{pauses:?}");
    chmod(&file, 0o600);
    ca.clock.advance(HOUR);
    let asked = tokio::time::Instant::now();
    ca.identity().await;
    assert!(asked.elapsed() <= Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn its_files_feed_the_files_source_where_that_is_said() {
    let dir = TempDir::new().unwrap();
    let (ca, clock) = (open(dir.path(), &clock()).unwrap(), clock());
    let out = dir.path().join("web");
    ca.issue_pem(&web(), HOUR).unwrap().write(&out).unwrap();
    let mut config = FilesConfig::new(domain(), out.join("svid.pem"), out.join("svid.key"), out.join("bundle.pem"));
    let refused =
        FilesSource::new(config.clone(), clock.clone()).watch().next().await.unwrap().unwrap_err().to_string();
    for part in ["svid.pem: made by a development", "bundle.pem: made by", "`allow_development: true`"] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    config.allow_development = true;
    let mut updates = FilesSource::new(config, clock).watch();
    let identity = updates.next().await.unwrap().unwrap();
    assert_eq!((identity.svid().unwrap().id(), identity.bundles.iter().next()), (&web(), ca.bundle().ok().as_ref()));
}

/// Calendar time that moves with tokio's.
#[derive(Debug)]
struct Calendar(tokio::time::Instant);

impl WallClock for Calendar {
    fn now(&self) -> std::time::SystemTime {
        noon() + self.0.elapsed()
    }
}

/// Five processes that look at the directory each in its own time, while its authority is replaced. How often one of
/// them could not verify another.
async fn failures_of_a_rotation(seed: u64, spread: Duration) -> usize {
    let (dir, rng) = (TempDir::new().unwrap(), Rng::seeded(seed));
    let clock: Arc<dyn WallClock> = Arc::new(Calendar(tokio::time::Instant::now()));
    let mut config = DevCaConfig::new(dir.path(), domain(), web());
    config.svid_ttl = Duration::from_secs(10);
    let mut processes = Vec::new();
    for _ in 0..5 {
        config.poll_interval = Duration::from_millis(2000 + rng.below(3000) as u64);
        let mut updates = DevCaSource::new(config.clone(), clock.clone(), rng.fork()).watch();
        tokio::time::sleep(Duration::from_millis(rng.below(2000) as u64)).await;
        let cell = crate::snapshot::Snapshot::new(updates.next().await.unwrap().unwrap());
        let published = cell.clone();
        tokio::spawn(async move {
            while let Some(update) = updates.next().await {
                published.publish(update.unwrap());
            }
        });
        processes.push(cell);
    }
    let first = processes[0].load().bundles.clone();
    let mut failures = 0;
    for second in 0..24 {
        if second == 5 {
            let rotation = DevCa::rotate(dir.path(), &domain(), clock.clone(), spread).unwrap();
            assert!(rotation.signs_from >= clock.now() + spread);
            let again = DevCa::rotate(dir.path(), &domain(), clock.clone(), spread);
            assert!(spread.is_zero() || again.unwrap_err().to_string().contains("waits to take over already"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (a, b) in processes.iter().zip(processes.iter().cycle().skip(1 + rng.below(4))) {
            let (svid, trust) = (a.load().svid().unwrap().clone(), b.load().bundles.clone());
            failures += usize::from(verify_svid(svid.chain(), &trust, PeerRole::Client, clock.now()).is_err());
        }
    }
    for process in &processes {
        let (identity, old) = (process.load(), &first);
        assert!(
            verify_svid(identity.svid().unwrap().chain(), old, PeerRole::Client, clock.now()).is_err(),
            "seed {seed}"
        );
    }
    failures
}

#[tokio::test(start_paused = true)]
async fn a_new_root_is_known_everywhere_before_anybody_needs_it() {
    for seed in 0..2 {
        assert_eq!(failures_of_a_rotation(seed, Duration::from_secs(6)).await, 0, "seed {seed}");
    }
    let mut hasty = 0;
    for seed in 0..2 {
        hasty += failures_of_a_rotation(seed, Duration::ZERO).await;
    }
    assert!(hasty > 0, "without time to spread, somebody must meet a root that it does not know");
}

#[test]
fn an_old_root_stays_for_its_overlap_and_then_goes() {
    let (dir, clock) = (TempDir::new().unwrap(), clock());
    let first = open(dir.path(), &clock).unwrap();
    clock.advance(363 * 24 * HOUR + HOUR);
    let roots = || open(dir.path(), &clock).unwrap().bundle().unwrap().authorities().len();
    let written = || {
        let pem = fs::read(dir.path().join("bundle.pem")).unwrap();
        crate::identity::TrustBundle::from_pem(domain(), &pem).unwrap().authorities().len()
    };
    assert_eq!((roots(), written()), (2, 2), "one that nears its end gets a successor");
    let before = open(dir.path(), &clock).unwrap();
    assert_eq!(before.certificate(), first.certificate(), "which does not sign before everybody knows it");
    let long = before.issue(&web(), MAX_SVID_TTL).unwrap();
    clock.advance(SPREAD + Duration::from_secs(2));
    let after = open(dir.path(), &clock).unwrap();
    assert_ne!(after.certificate(), first.certificate());
    assert_eq!((roots(), written()), (2, 2));
    clock.set(long.not_after());
    verify_svid(
        long.chain(),
        &TrustBundleSet::of(open(dir.path(), &clock).unwrap().bundle().unwrap()),
        PeerRole::Client,
        clock.now(),
    )
    .unwrap();
    clock.advance(Duration::from_secs(120));
    assert_eq!((roots(), written()), (1, 1));
    assert_eq!(open(dir.path(), &clock).unwrap().certificate(), after.certificate());

    // By hand as often as one likes, up to a bound.
    let spread = Duration::from_secs(1);
    let rotate = || DevCa::rotate(dir.path(), &domain(), clock.clone(), spread);
    for _ in 0..16 {
        rotate().unwrap();
        clock.advance(Duration::from_secs(3));
    }
    assert!(rotate().unwrap_err().to_string().contains("16 old roots"));
    assert_eq!(roots(), 17);
    clock.advance(25 * HOUR);
    assert_eq!(roots(), 1);
}

#[test]
fn nothing_that_holds_a_key_shows_it() {
    let dir = TempDir::new().unwrap();
    let ca = open(dir.path(), &clock()).unwrap();
    DevCa::rotate(dir.path(), &domain(), clock(), SPREAD).unwrap();
    let (pem, svid) = (ca.issue_pem(&web(), HOUR).unwrap(), ca.issue(&web(), HOUR).unwrap());
    let secrets: Vec<String> = [fs::read_to_string(dir.path().join("ca.pem")).unwrap(), pem.key.to_string()]
        .iter()
        .flat_map(|text| text.split("-----BEGIN PRIVATE KEY-----").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .flat_map(|key| {
            key.lines().filter(|line| line.len() > 20 && !line.contains('-')).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert!(secrets.len() >= 6, "three keys of some lines each");
    let bundles = Arc::new(TrustBundleSet::of(ca.bundle().unwrap()));
    let shared = Arc::new(svid.clone());
    let identity = Identity { svids: vec![shared], bundles };
    let source = DevCaSource::new(DevCaConfig::new(dir.path(), domain(), web()), clock(), Rng::seeded(1));
    let key = crate::identity::PrivateKey::from_pem(pem.key.as_bytes()).unwrap();
    let shown = [
        format!("{ca:?}"),
        format!("{pem:?}"),
        format!("{key:?} {key:#?}"),
        format!("{svid:?} {svid:#?} {:?}", svid.key()),
        format!("{identity:?} {identity:#?}"),
        format!("{source:?}"),
        format!("{:?}", crate::identity::MemorySource::new(identity.clone())),
        format!("{:?}", crate::snapshot::Snapshot::new(identity.clone())),
        crate::identity::PrivateKey::from_pem(pem.key.replace("END PRIVATE", "END").as_bytes())
            .unwrap_err()
            .to_string(),
        X509Svid::from_pem(pem.bundle.as_bytes(), pem.key.as_bytes()).unwrap_err().to_string(),
    ];
    for text in shown {
        // Neither as text nor as the numbers of a derived `Debug` of bytes.
        assert!(!secrets.iter().any(|line| text.contains(line)), "{text}");
        let key = key_bytes(&pem.key);
        let numbers = key[40..60].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        assert!(!text.contains(&numbers), "{text}");
    }
}

/// The DER of a PEM key.
fn key_bytes(pem: &str) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap().secret_der().to_vec()
}

#[test]
fn beside_a_production_source_it_refuses_to_start() {
    let mut errors = Errors::default();
    let mut context = context(Path::new("/base"), clock());
    context.workload_api = Some("unix:///run/spire/agent.sock".to_owned());
    DevCaSource::from_node(&Node::from(&serde_json::json!({ "dir": ".mesh" })), &context, &mut errors);
    let told = errors.issues().first().unwrap().to_string();
    for part in ["production source", "SPIFFE_ENDPOINT_SOCKET", "agent.sock", "unset it"] {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn settings_are_read_and_mistakes_are_placed() {
    let read = |value: serde_json::Value, namespace: &str| {
        let mut errors = Errors::default();
        let mut context = context(Path::new("/base"), clock());
        Arc::make_mut(&mut context.workload).namespace = namespace.to_owned();
        let source = DevCaSource::from_node(&Node::from(&value), &context, &mut errors);
        (source.map(|s| format!("{s:?}")), errors.issues().iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (source, errors) = read(serde_json::json!({ "dir": ".mesh", "svid_ttl": "6s" }), "shop");
    let source = source.unwrap();
    for part in ["\"/base/.mesh\"", "svid_ttl: 6s", "spiffe://td/ns/shop/sa/web", "poll_interval: 2s"] {
        assert!(source.contains(part) && errors.is_empty(), "{part} in {source} {errors:?}");
    }
    let (source, errors) = read(serde_json::json!({ "svid_ttl": "1s", "idr": "x" }), "sh/op");
    assert!(source.is_none());
    for part in ["dir: this field is required", "svid_ttl", "did you mean `dir`", "'/' at byte"] {
        assert!(errors.iter().any(|error| error.contains(part)), "{part} in {errors:?}");
    }
}
