//! A mesh on real files, under virtual time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::refresh::{BOUND, PAUSE};
use super::*;
use crate::audit::MemorySink;
use crate::clock::{ManualClock, SystemClock};
use crate::config::{Decode, IdentityConfig, PlugConfig, Workload};
use crate::identity::{IdentityError, IdentitySource, IdentityUpdates, MemorySource, TrustBundleSet};
use crate::plugin::Plugin;
use crate::token::{Jwks, KeySource, KeyUpdate, KeyUpdates};

mod requests;

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: NAME, namespace: shop }
spec: { rules: [ { to: [ { operation: { methods: [GET] } } ] } ] }
";

const MESH: &str = "\
workload: { name: orders, namespace: shop }
identity: { trust_domain: shop.example, source: { dev_ca: { dir: ca } } }
policies: [ policies ]
clusters:
  payments:
    discover:   { static: ['127.0.0.1:8443'] }
    identities: [ 'spiffe://shop.example/ns/shop/sa/payments' ]
    pool:       { connect_timeout: 20s }
routes:
  payments:
  - match: { method: GET }
    cluster: payments
    timeout: 2500ms
limits: { max_concurrent_requests: 100 }
";

struct Home {
    dir: TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(home.dir.path().join("policies")).unwrap();
        home.write("mesh.yaml", MESH);
        home.write("policies/a.yaml", &POLICY.replace("NAME", "a"));
        home
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn builder(&self) -> MeshBuilder {
        Mesh::builder().config_file(self.path("mesh.yaml")).audit_sink(Box::new(MemorySink::default()))
    }

    /// What `start` says, with the directory cut off.
    async fn refusal(&self, builder: MeshBuilder) -> Vec<String> {
        match builder.start().await {
            Err(StartError::Config(error)) => self.told(&error),
            other => panic!("{other:?}"),
        }
    }

    fn told(&self, error: &ConfigError) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        error.issues().iter().map(|issue| issue.to_string().replace(&dir, "")).collect()
    }
}

/// Waits in virtual time, which stands still while files are read.
async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
    started.elapsed()
}

async fn dev_identity(dir: &Path) -> Identity {
    let trust_domain = crate::identity::TrustDomain::parse("shop.example").unwrap();
    let id = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/orders").unwrap();
    let config = crate::identity::dev_ca::DevCaConfig::new(dir.join("ca"), trust_domain, id);
    let source = crate::identity::dev_ca::DevCaSource::new(config, Arc::new(SystemClock), Rng::seeded(1));
    next(&mut source.watch()).await.unwrap().unwrap()
}

/// A thread comes back when the machine lets it: no simulation of a mesh would be like another. (And why wait for one?)
#[test]
fn what_is_configured_in_code_alone_starts_without_another_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let home = Home::new();
        let source = Arc::new(MemorySource::new(dev_identity(home.dir.path()).await));
        let domain = crate::identity::TrustDomain::parse("shop.example").unwrap();
        let plug = PlugConfig::new("memory", &serde_json::Value::Null);
        let config = Config::new(Workload::new("orders", "shop"), IdentityConfig::new(domain, plug));
        let edits = Arc::new(AtomicUsize::new(0));
        let start = |policies| {
            let (mut config, edits) = (config.clone(), Arc::clone(&edits));
            config.policies = policies;
            let edit = move |_: &mut Config| {
                edits.fetch_add(1, Ordering::Relaxed);
            };
            let builder = Mesh::builder().config(config).edit(edit).identity_source(source.clone());
            tokio::time::timeout(Duration::from_secs(10), builder.audit_sink(Box::new(MemorySink::default())).start())
        };
        // The only one there is.
        let (taken, held) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || held.recv());
        let mesh = start(Vec::new()).await.expect("a thread was waited for").unwrap();
        assert_eq!((mesh.revision().load().policy.len(), edits.load(Ordering::Relaxed)), (0, 1));
        drop(taken); // given back
        let mesh = start(vec![home.path("policies")]).await.unwrap().unwrap();
        assert_eq!((mesh.revision().load().policy.len(), edits.load(Ordering::Relaxed)), (1, 2), "edited once");
    });
}

#[tokio::test(start_paused = true)]
async fn a_peer_authentication_makes_a_permissive_listener_strict_at_the_next_reload() {
    let home = Home::new();
    let now = time::OffsetDateTime::now_utc() + Duration::from_secs(86_400);
    let near = now.format(&time::format_description::well_known::Rfc3339).unwrap();
    let listeners = format!(
        "listeners: {{ default: {{ address: '127.0.0.1:0', mtls: permissive, permissive_until: '{near}' }} }}\n"
    );
    home.write("mesh.yaml", &format!("{MESH}{listeners}"));
    let mesh = home.builder().start().await.unwrap();
    let permissive =
        || matches!(mesh.revision().load().config.listeners["default"].mtls, crate::config::Mtls::Permissive { .. });
    assert!(permissive(), "the control: without a document the listener's own setting holds");
    let peer = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                metadata: { name: default, namespace: shop }\nspec: { mtls: { mode: STRICT } }\n";
    home.write("policies/peer.yaml", peer);
    until("strict", || !permissive()).await;
    home.write("policies/peer.yaml", &peer.replace("STRICT", "DISABLE"));
    until("refused", || mesh.reload_error().is_some()).await;
    assert!(!permissive(), "the last good one stays");
}

#[tokio::test(start_paused = true)]
async fn a_bad_reload_keeps_the_last_good_one_and_says_why() {
    let home = Home::new();
    let mesh = home.builder().start().await.unwrap();
    let revision = mesh.revision().clone();
    assert_eq!((revision.generation(), revision.load().policy.len(), mesh.reload_error()), (1, 1, None));
    assert_eq!(mesh.ready(), Ok(()));

    home.write("policies/b.yaml", "kind: AuthorizationPolicy\nspec: [\n");
    until("the bad file is refused", || mesh.reload_error().is_some()).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!((revision.generation(), revision.load().policy.len()), (1, 1));
    let told = home.told(&mesh.reload_error().unwrap());
    assert!(told[0].starts_with("policies/b.yaml:"), "{told:?}");
    let text = mesh.metrics().encode();
    for line in ["reloads_total{result=\"error\"} 1", "reloads_total{result=\"ok\"} 0", "config_stale 1"] {
        assert!(text.contains(line), "{line}: {text}"); // refused once, not at every poll
    }

    home.write("policies/b.yaml", &POLICY.replace("NAME", "b"));
    let took = until("the good file is in force", || revision.generation() == 2).await;
    assert!(took <= Duration::from_secs(1), "{took:?}");
    assert_eq!((revision.load().policy.len(), mesh.reload_error()), (2, None));
    assert!(mesh.metrics().encode().contains("config_stale 0"));
    assert!(mesh.metrics().encode().contains("config_generation 2"));

    std::fs::remove_file(home.path("policies/a.yaml")).unwrap();
    until("a removed file is a change", || revision.generation() == 3).await;
    assert_eq!(revision.load().policy.len(), 1);

    std::fs::remove_dir_all(home.path("policies")).unwrap();
    until("a lost directory is refused", || mesh.reload_error().is_some()).await;
    std::fs::remove_file(home.path("mesh.yaml")).unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!((revision.generation(), revision.load().policy.len()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_torn_file_never_changes_anything_unless_it_is_valid_by_itself() {
    let home = Home::new();
    let mesh = home.builder().start().await.unwrap();
    let mut in_force = (*mesh.revision().load().config).clone();
    let mut generations = 1;
    let valid = |text: &str, running: &Config| {
        let mut errors = Errors::default();
        let found = Config::parse("mesh.yaml", text, home.dir.path(), |_| {}, &mut errors)?;
        errors.finish(Some(found)).ok().map(|(config, _)| config).filter(|config| {
            let mut errors = Errors::default();
            config.check_change(running, None, &mut errors);
            errors.is_empty()
        })
    };
    for end in (0..MESH.len()).rev() {
        let text = &MESH[..end];
        home.write("mesh.yaml", text);
        sleep(Duration::from_millis(1200)).await;
        if let Some(config) = valid(text, &in_force) {
            in_force = config;
            generations += 1;
            assert!(mesh.reload_error().is_none(), "{text}");
        } else {
            assert!(mesh.reload_error().is_some(), "{text}");
        }
        assert_eq!(*mesh.revision().load().config, in_force, "{text}");
        assert_eq!(mesh.revision().generation(), generations, "{text}");
    }
    assert!(generations > 1 && generations < MESH.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_change_at_run_time_is_refused_by_name() {
    let home = Home::new();
    let mesh = home.builder().start().await.unwrap();
    home.write("mesh.yaml", &MESH.replace("name: orders", "name: other"));
    until("refused", || mesh.reload_error().is_some()).await;
    let told = home.told(&mesh.reload_error().unwrap());
    assert_eq!(told, ["mesh.yaml:1:11: workload: cannot change while the process runs: restart it"]);
    // The text moves, the values stay: no change of `workload`.
    home.write("mesh.yaml", &format!("# a comment\n{MESH}"));
    until("accepted", || mesh.revision().generation() == 2).await;
    assert_eq!(mesh.reload_error(), None);
}

#[tokio::test(start_paused = true)]
async fn code_changes_what_the_file_says_at_every_reload() {
    let home = Home::new();
    let builder = home.builder().edit(|config| config.limits.max_concurrent_requests += 1);
    let mesh = builder.start().await.unwrap();
    assert_eq!(mesh.revision().load().config.limits.max_concurrent_requests, 101);
    home.write("mesh.yaml", &MESH.replace("requests: 100", "requests: 200"));
    until("reloaded", || mesh.revision().generation() == 2).await;
    assert_eq!(mesh.revision().load().config.limits.max_concurrent_requests, 201);
}

#[tokio::test(start_paused = true)]
async fn a_panic_over_one_configuration_does_not_keep_the_next_one_out() {
    let home = Home::new();
    let plugin = Plugin::new("test").resolver("boom", |_, _, _| panic!("in the plugin"));
    let edit = |config: &mut Config| assert_ne!(config.limits.max_concurrent_requests, 666, "in the edit");
    let mesh = home.builder().with(plugin).edit(edit).start().await.unwrap();
    let broken = [
        (MESH.replace("static: ['127.0.0.1:8443']", "boom: {}"), "in the plugin"),
        (MESH.replace("requests: 100", "requests: 666"), "in the edit"),
    ];
    for ((text, told), generation) in broken.into_iter().zip(2..) {
        home.write("mesh.yaml", &text);
        until("refused", || mesh.reload_error().is_some_and(|error| error.to_string().contains(told))).await;
        sleep(Duration::from_secs(5)).await;
        home.write("mesh.yaml", MESH);
        until("in force again", || mesh.revision().generation() == generation).await;
        assert_eq!(mesh.reload_error(), None);
    }
    // Each was refused once, not at every poll.
    assert!(mesh.metrics().encode().contains("reloads_total{result=\"error\"} 2"));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_cannot_succeed_says_everything_that_is_missing() {
    let home = Home::new();
    let builder = || Mesh::builder().config_file(home.path("mesh.yaml"));
    assert_eq!(
        home.refusal(Mesh::builder()).await,
        ["<code>: no configuration: call `config_file` or `config` before `start`"]
    );
    let missing = home.refusal(Mesh::builder().config_file(home.path("none.yaml"))).await;
    assert!(missing[0].starts_with("none.yaml: cannot be read: "), "{missing:?}");

    home.write(
        "mesh.yaml",
        "workload: { name: orders, namespace: shop }
identity: { trust_domain: shop.example, source: { spire: {} } }
audit: { sink: { lgo: {} } }
telemetry: { exporter: { zipkin: {} } }
tokens: [ { issuer: i, audiences: [a], jwks: { url: 'https://x' } } ]
clusters: { a: { discover: { consul: x }, identities: ['spiffe://shop.example/a'], token: { fiel: x }, health_check: { check: { grpc: {} } } } }
",
    );
    assert_eq!(
        home.refusal(builder()).await,
        [
            "mesh.yaml:2:58: identity.source.spire: no identity source of kind `spire` is registered; it comes with a plugin for the SPIFFE Workload API, crate `mesh-spiffe`",
            "mesh.yaml:3:23: audit.sink.lgo: no audit sink of kind `lgo` is registered; did you mean `log`?",
            "mesh.yaml:4:34: telemetry.exporter.zipkin: no exporter of kind `zipkin` is registered; known: none",
            "mesh.yaml:5:53: tokens[0].jwks.url: keys are fetched over HTTP, which needs a plugin: start the mesh `.with(mesh_tower::fetch::plugin())`",
            "mesh.yaml:6:38: clusters.a.discover.consul: no resolver of kind `consul` is registered; it comes with a Consul plugin, crate `mesh-consul`",
            "mesh.yaml:6:99: clusters.a.token.fiel: no token source of kind `fiel` is registered; did you mean `file`?",
            "mesh.yaml:6:135: clusters.a.health_check.check.grpc: no health check of kind `grpc` is registered; it comes with crate `mesh-tonic`: register it with `.with(mesh_tonic::health::plugin())`",
        ]
    );

    home.write(
        "mesh.yaml",
        &format!("{MESH}tokens: [ {{ issuer: i, audiences: [a], jwks: {{ file: keys.json }} }} ]\n"),
    );
    let told = home.refusal(builder()).await;
    assert!(
        told.len() == 1
            && told[0]
                .starts_with("mesh.yaml:15:54: tokens[0].jwks.file: no keys: the key set keys.json: cannot be read: "),
        "{told:?}"
    );

    let twice = Plugin::new("other").audit_sink("log", |_, _, _| None);
    home.write("mesh.yaml", MESH);
    assert_eq!(
        home.refusal(builder().with(twice)).await,
        ["<code>: audit sink `log` is registered by both mesh-core and other"]
    );
}

#[derive(Debug)]
struct Silent(Option<&'static str>);

impl IdentitySource for Silent {
    fn watch(&self) -> IdentityUpdates {
        let error = self.0.map(|message| IdentityError { source_kind: "silent", message: message.into() });
        crate::stream::unfold(error, |mut error| async move {
            match error.take() {
                Some(error) => (Err(error), None),
                None => std::future::pending().await,
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_identity_there_is_no_mesh() {
    let home = Home::new();
    for (says, expected) in [
        (Some("no such file: svid.pem"), "no identity after 10s: silent: no such file: svid.pem"),
        (None, "no identity after 10s: the source says nothing; is it running?"),
    ] {
        let started = home.builder().identity_source(Arc::new(Silent(says))).start().await;
        assert!(started.unwrap_err().to_string().starts_with(expected));
    }
    let mut identity = dev_identity(home.dir.path()).await;
    identity.bundles = Arc::new(TrustBundleSet::default());
    let started = home.builder().identity_source(Arc::new(MemorySource::new(identity))).start().await;
    let told = started.unwrap_err().to_string();
    assert!(told.ends_with("no trust bundle for `shop.example`: no peer could be verified"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_cannot_be_used_does_not_replace_one_that_can() {
    let home = Home::new();
    let good = dev_identity(home.dir.path()).await;
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let source = MemorySource::new(good.clone());
    let mesh = home.builder().identity_source(Arc::new(source.clone())).clock(clock.clone()).start().await.unwrap();
    let identity = mesh.identity().clone();

    source.rotate(Identity { svids: Vec::new(), bundles: Arc::clone(&good.bundles) });
    source.fail("hiccup");
    let errors = || mesh.metrics().encode().contains("identity_updates_total{result=\"error\"} 1");
    until("refused and counted", errors).await;
    assert_eq!((identity.generation(), mesh.ready()), (1, Ok(())));
    source.rotate(good.clone());
    until("replaced", || identity.generation() == 2).await;

    clock.advance(Duration::from_secs(2 * 3600));
    let not_ready = mesh.ready().unwrap_err();
    assert!(matches!(not_ready, NotReady::Expired { .. }), "{not_ready}");
    sleep(Duration::from_secs(6)).await;
    let text = mesh.metrics().encode();
    let remaining = text.lines().find(|line| line.starts_with("mesh_svid_remaining_seconds ")).unwrap();
    assert!(remaining.contains(" -3"), "{remaining}");
    clock.set(good.svids[0].not_before() - Duration::from_secs(1));
    assert!(matches!(mesh.ready(), Err(NotReady::NotYetValid { .. })));
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_a_look_gets_one_and_strangers_cannot_make_it_many() {
    use crate::telemetry::IdentityRefresh::{Joined, Renewed, TimedOut, Unchanged};

    let home = Home::new();
    let identity = dev_identity(home.dir.path()).await;
    let source = MemorySource::new(identity.clone());
    let mesh = home.builder().identity_source(Arc::new(source.clone())).start().await.unwrap();
    let counted = |mesh: &Mesh| {
        [Renewed, Unchanged, TimedOut, Joined].map(|result| mesh.metrics().runtime.identity_refreshes(result))
    };

    source.offer(identity.clone());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(mesh.identity().generation(), 1, "what is offered waits for a refresh");
    let asked = Instant::now();
    assert!(mesh.refresh_identity().await);
    assert_eq!((mesh.identity().generation(), asked.elapsed()), (2, Duration::ZERO));

    // Ten strangers in every millisecond of ten seconds.
    let mut last = None;
    for _ in 0..10_000 {
        for _ in 0..10 {
            last = Some(mesh.refresh_identity());
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert!(!last.unwrap().await);
    let [renewed, unchanged, timed_out, joined] = counted(&mesh);
    assert_eq!((renewed, timed_out, unchanged + joined), (1, 0, 100_000));
    assert!((9..=11).contains(&unchanged), "{unchanged}");

    // A second wish soon after a look gets a look of its own, a little later.
    sleep(PAUSE).await;
    assert!(!mesh.refresh_identity().await);
    source.offer(identity.clone());
    let asked = Instant::now();
    assert!(mesh.refresh_identity().await);
    assert_eq!(asked.elapsed(), PAUSE);

    #[derive(Debug)]
    struct Deaf(MemorySource);
    impl IdentitySource for Deaf {
        fn watch(&self) -> IdentityUpdates {
            self.0.watch()
        }
        fn refresh(&self) -> crate::identity::Looked {
            Box::pin(std::future::pending())
        }
    }
    let deaf = home.builder().identity_source(Arc::new(Deaf(source.clone()))).start().await.unwrap();
    let (asked, wish) = (Instant::now(), deaf.refresh_identity());
    assert!(!wish.await);
    assert_eq!((asked.elapsed(), counted(&deaf)), (BOUND, [0, 0, 1, 0]));
    let wish = deaf.refresh_identity();
    drop(deaf);
    assert!(!wish.await, "a mesh that ended found nothing");
}

#[tokio::test(start_paused = true)]
async fn the_sources_on_disk_look_when_asked() {
    use crate::identity::dev_ca::{DevCa, DevCaConfig, DevCaSource};
    use crate::identity::{FilesConfig, FilesSource, TrustDomain};

    let home = Home::new();
    let (domain, poll_interval) = (TrustDomain::parse("shop.example").unwrap(), Duration::from_secs(3600));
    let id = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/orders").unwrap();
    let issue = |dir: &str| {
        let ca = DevCa::open_or_create(&home.path(dir), &domain, Arc::new(SystemClock)).unwrap();
        ca.issue_pem(&id, Duration::from_secs(3600)).unwrap().write(&home.path("files")).unwrap();
    };
    issue("first");
    let files = |name: &str| home.path("files").join(name);
    let mut files = FilesConfig::new(domain.clone(), files("svid.pem"), files("svid.key"), files("bundle.pem"));
    (files.poll_interval, files.allow_development) = (poll_interval, true);
    let mut dev_ca = DevCaConfig::new(home.path("ca"), domain.clone(), id.clone());
    (dev_ca.poll_interval, dev_ca.svid_ttl) = (poll_interval, 2 * poll_interval);
    let sources: [Arc<dyn IdentitySource>; 2] = [
        Arc::new(FilesSource::new(files, Arc::new(SystemClock))),
        Arc::new(DevCaSource::new(dev_ca, Arc::new(SystemClock), Rng::seeded(1))),
    ];
    for source in sources {
        let mesh = home.builder().identity_source(source).start().await.unwrap();
        assert!(!mesh.refresh_identity().await, "nothing changed");
        issue("second");
        let _ = std::fs::remove_file(home.path("ca/ca.pem"));
        let asked = Instant::now();
        assert!(mesh.refresh_identity().await);
        assert!(asked.elapsed() <= PAUSE, "{:?}", asked.elapsed());
        issue("first");
    }
}

#[tokio::test(start_paused = true)]
async fn background_work_ends_with_the_last_handle_and_a_panic_is_counted() {
    let home = Home::new();
    let mesh = home.builder().start().await.unwrap();
    mesh.spawn("doomed", async { panic!("as the test wants") });
    until("counted", || mesh.metrics().encode().contains("task_panics_total 1")).await;

    let (alive, ended) = tokio::sync::oneshot::channel::<()>();
    mesh.spawn("held", async move {
        let _alive = alive;
        std::future::pending::<()>().await;
    });
    let other = mesh.clone();
    drop(mesh);
    sleep(Duration::from_secs(1)).await;
    assert!(tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0);
    drop(other);
    assert!(ended.await.is_err());
    until("no task is left", || tokio::runtime::Handle::current().metrics().num_alive_tasks() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_extension_is_one_for_each_mesh() {
    let home = Home::new();
    let (mesh, other) = (home.builder().start().await.unwrap(), home.builder().start().await.unwrap());
    let first = mesh.extension(|| AtomicUsize::new(7));
    first.fetch_add(1, Ordering::Relaxed);
    let again = mesh.clone().extension(|| -> AtomicUsize { panic!("made twice") });
    assert_eq!(again.load(Ordering::Relaxed), 8);
    assert_eq!(other.extension(|| AtomicUsize::new(1)).load(Ordering::Relaxed), 1);
    assert_eq!(*mesh.extension(|| format!("{}", mesh.extension(|| 5_u8))), "5");
}

/// Counts how often keys are asked for.
#[derive(Debug)]
struct CountedKeys(Arc<AtomicUsize>);

impl KeySource for CountedKeys {
    fn watch(&self) -> KeyUpdates {
        self.0.fetch_add(1, Ordering::Relaxed);
        crate::stream::unfold(true, |first| async move {
            if !first {
                std::future::pending::<()>().await;
            }
            let key = crate::token::testkit::TestKey::es256().jwk("a");
            let set = serde_json::json!({ "keys": [key] }).to_string();
            (KeyUpdate::Keys(Arc::new(Jwks::parse(set.as_bytes()).unwrap())), false)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn keys_of_unchanged_issuers_outlive_a_reload() {
    let home = Home::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let plugin = Plugin::new("test").key_source("counted", move |node, _, errors| {
        String::decode(node, errors)?;
        Some(Arc::new(CountedKeys(Arc::clone(&counter))) as Arc<dyn KeySource>)
    });
    let tokens = |leeway: &str, settings: &str| {
        format!(
            "{MESH}tokens: [ {{ issuer: i, audiences: [a], leeway: {leeway}, jwks: {{ counted: {settings} }} }} ]\n"
        )
    };
    home.write("mesh.yaml", &tokens("1s", "x"));
    let mesh = home.builder().with(plugin).start().await.unwrap();
    for (text, generation, watched) in [(tokens("2s", "x"), 2, 1), (tokens("2s", "y"), 3, 2), (MESH.into(), 4, 2)] {
        home.write("mesh.yaml", &text);
        until("reloaded", || mesh.revision().generation() == generation).await;
        assert_eq!(asked.load(Ordering::Relaxed), watched);
    }
    // Three tasks are left: identity, reload and audit; that of the keys ended with its issuer.
    until("renewal ended", || tokio::runtime::Handle::current().metrics().num_alive_tasks() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_check_judges_everything_and_starts_nothing() {
    let home = Home::new();
    let report = check(home.path("mesh.yaml")).await.unwrap();
    let clusters = vec![ClusterReport { name: "payments".into(), endpoints: 1 }];
    assert_eq!(report, CheckReport { policies: 1, selected: 1, issuers: vec![], clusters, warnings: vec![] });
    assert!(!home.path("ca").exists());
    let (config, policies) = load(home.path("mesh.yaml")).unwrap();
    assert_eq!((config.workload.name.as_str(), policies.len()), ("orders", 1));

    home.write("policies/a.yaml", "");
    home.write("mesh.yaml", &MESH.replace("method: GET", "method: get"));
    let told = home.told(&check(home.path("mesh.yaml")).await.unwrap_err());
    assert_eq!(told.len(), 2, "{told:?}");
    home.write("mesh.yaml", &MESH.replace("static: ['127.0.0.1:8443']", "file: endpoints.yaml"));
    home.write("policies/a.yaml", &POLICY.replace("NAME", "a"));
    let told = home.told(&check(home.path("mesh.yaml")).await.unwrap_err());
    assert!(
        told.len() == 1 && told[0].starts_with("mesh.yaml:6:25: clusters.payments.discover.file: no endpoints: "),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn resolvers_and_tokens_are_built_by_cluster() {
    let home = Home::new();
    let mesh = home.builder().start().await.unwrap();
    assert!(mesh.resolver("payments").is_ok());
    assert!(mesh.token_source("payments").unwrap().is_none());
    let error = mesh.resolver("paymets").unwrap_err();
    assert_eq!(home.told(&error), ["<code>: clusters: no cluster is called `paymets`; did you mean `payments`?"]);
    mesh.shutdown().await;
}
