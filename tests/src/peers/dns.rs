//! BIND as the source of endpoints: records that change under load, and a name server that stops.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use mesh_core::Mesh;
use mesh_core::config::{ClusterConfig, HoldConfig, PlugConfig};
use mesh_core::identity::SpiffeId;
use mesh_core::telemetry::DiscoveryEvent;
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use mesh_tower::{Client, ErrorKind};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::process::{Process, program, template};
use super::{ALLOW_WEB, WEB};
use crate::kit::{until, until_within};

/// Where the endpoints are.
const NAME: &str = "_payments._tcp.mesh.test";
/// Those who may be there.
const SERVICES: [&str; 4] = ["p0", "p1", "p2", "p3"];
/// What updates are signed with.
const SECRET: &str = "b25seS1mb3ItdGhpcy10ZXN0LW9uLWxvb3BiYWNr";

/// A name server in a directory of its own; what `nsupdate` changes survives its restart.
struct Bind {
    binary: PathBuf,
    nsupdate: PathBuf,
    dir: TempDir,
    address: SocketAddr,
    process: Option<Process>,
}

impl Bind {
    async fn start(named: &Path, nsupdate: PathBuf, first: SocketAddr, second: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // AppArmor, where it is, confines the installed program to directories of the system.
        let binary = dir.path().join("named");
        std::fs::copy(named, &binary).unwrap();
        let address = free();
        let words = [
            ("@PORT@", address.port().to_string()),
            ("@SECRET@", SECRET.to_owned()),
            ("@FIRST@", first.port().to_string()),
            ("@SECOND@", second.port().to_string()),
        ];
        for (from, to) in [("dns-named.conf", "named.conf"), ("dns-mesh.test.zone", "mesh.test.zone")] {
            std::fs::write(dir.path().join(to), template(from, dir.path(), &words)).unwrap();
        }
        let mut bind = Self { binary, nsupdate, dir, address, process: None };
        bind.resume().await;
        bind
    }

    async fn resume(&mut self) {
        let mut command = Command::new(&self.binary);
        command.current_dir(self.dir.path()).args(["-g", "-n", "1", "-c"]).arg(self.dir.path().join("named.conf"));
        let mut process = Process::start(&mut command, self.dir.path().join("log"));
        until("BIND to run", async || process.log().contains("all zones loaded").then_some(())).await;
        self.process = Some(process);
    }

    async fn stop(&mut self) {
        self.process.take().unwrap().stop().await;
    }

    async fn update(&self, lines: &str) {
        let script = self.dir.path().join("update");
        let server = format!("server {} {}\nzone mesh.test\n", self.address.ip(), self.address.port());
        std::fs::write(&script, format!("{server}{lines}send\n")).unwrap();
        let mut command = Command::new(&self.nsupdate);
        let output = command.arg("-y").arg(format!("hmac-sha256:test:{SECRET}")).arg(&script).output().await.unwrap();
        assert!(output.status.success(), "{lines}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A mesh of [`WEB`] that finds `payments` here, and keeps what it finds in `snapshots`.
    async fn caller(&self, mesh: &RunningTestMesh, snapshots: &Path, hold: HoldConfig) -> Mesh {
        let discover = json!({
            "name": NAME, "record": "srv", "servers": [self.address.to_string()],
            "timeout": "200ms", "attempts": 1, "min_ttl": "100ms", "max_ttl": "1s",
        });
        let discover = PlugConfig::new("dns", &discover);
        let ids: Vec<_> =
            SERVICES.iter().map(|name| SpiffeId::parse(&format!("spiffe://test/ns/test/sa/{name}")).unwrap()).collect();
        let snapshots = snapshots.to_owned();
        let edit = move |config: &mut mesh_core::Config| {
            config
                .clusters
                .insert("payments".to_owned(), ClusterConfig::new(discover.clone(), ids.clone()).discover_hold(hold));
            config.discovery.snapshot_dir = Some(snapshots.clone());
        };
        mesh.mesh_with(WEB, edit).await.unwrap()
    }
}

/// A port that is free for UDP and TCP and below those that the system gives to others, so that it is still free when the
/// name server comes back.
fn free() -> SocketAddr {
    let first = 10_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let mut addresses = (first..first + 5_000).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    addresses.find(|address| UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()).unwrap()
}

/// Requests all the time, and who answered them.
#[derive(Clone, Default)]
struct Load {
    answers: Arc<Mutex<BTreeMap<String, usize>>>,
    failed: Arc<Mutex<Vec<String>>>,
    made: Arc<AtomicUsize>,
}

impl Load {
    fn start(&self, client: Client, tasks: &mut JoinSet<()>) {
        let load = self.clone();
        tasks.spawn(async move {
            let mut tick = interval(Duration::from_millis(10));
            let mut requests = JoinSet::new();
            loop {
                tick.tick().await;
                requests.spawn(load.clone().request(client.clone()));
                while requests.try_join_next().is_some() {}
            }
        });
    }

    async fn request(self, client: Client) {
        self.made.fetch_add(1, Relaxed);
        match client.get("/").send().await {
            Ok(response) if response.status() == 200 => {
                let name = response.text().await.unwrap();
                *self.answers.lock().unwrap().entry(name).or_default() += 1;
            }
            other => self.failed.lock().unwrap().push(format!("{other:?}")),
        }
    }

    /// Forgets what was, and waits until all of these have answered again, and 100 requests in all. Who else has?
    async fn answered_by(&self, names: &[&str]) -> Vec<String> {
        self.answers.lock().unwrap().clear();
        until(&format!("answers of {names:?}"), async || {
            let answers = self.answers.lock().unwrap();
            let enough = answers.values().sum::<usize>() >= 100;
            (enough && names.iter().all(|name| answers.contains_key(*name))).then_some(())
        })
        .await;
        let answers = self.answers.lock().unwrap();
        answers.keys().filter(|name| !names.contains(&name.as_str())).cloned().collect()
    }

    /// Waits until these and nobody else answer.
    async fn only(&self, names: &[&str]) {
        until_within(Duration::from_secs(20), &format!("{names:?} alone"), async || {
            self.answered_by(names).await.is_empty().then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_change_and_the_name_server_stops_under_load_and_no_request_fails() {
    let (Some(named), Some(nsupdate)) = (program("named"), program("nsupdate")) else { return };
    let mut mesh = TestMesh::new();
    for name in SERVICES {
        let app = move |_: &Mesh| Ok(Router::new().route("/", get(move || async move { name })));
        mesh = mesh.with(TestService::new(name).policy(ALLOW_WEB).app(app));
    }
    let mesh = mesh.start().await.unwrap();
    let address = |name: &str| mesh.address(name).unwrap();
    let srv = |name: &str| format!("{NAME}. 1 SRV 10 10 {} loopback.mesh.test.\n", address(name).port());
    let (add, delete) = (
        |name| format!("update add {}", srv(name)),
        |name: &str| {
            format!(
                "update delete {NAME}. SRV 10 {} {} loopback.mesh.test.\n",
                if name == "p0" { 60 } else { 40 },
                address(name).port()
            )
        },
    );
    let mut bind = Bind::start(&named, nsupdate, address("p0"), address("p1")).await;
    let snapshots = tempfile::tempdir().unwrap();
    let web = bind.caller(&mesh, snapshots.path(), HoldConfig::default()).await;
    let client = Client::new(&web, "payments").unwrap();
    let metrics = web.metrics().client.cluster("payments");
    let (load, mut tasks) = (Load::default(), JoinSet::new());
    load.start(client.clone(), &mut tasks);
    load.only(&["p0", "p1"]).await;

    bind.update(&[add("p2"), add("p3")].concat()).await;
    load.only(&SERVICES).await;
    bind.update(&[delete("p0"), delete("p1")].concat()).await;
    load.only(&["p2", "p3"]).await;
    for gone in ["p0", "p1"] {
        mesh.stop(gone).unwrap();
    }
    until("a snapshot", async || (metrics.snapshot_timestamp.get() > 0).then_some(())).await;
    // The swap is in the snapshot once it was written after it.
    let written = |path: &Path| std::fs::read_to_string(path.join("payments.endpoints")).unwrap_or_default();
    let old = address("p0").to_string();
    until_within(Duration::from_secs(20), "the newest snapshot", async || {
        let text = written(snapshots.path());
        (text.contains(&address("p2").to_string()) && !text.contains(&old)).then_some(())
    })
    .await;

    bind.stop().await;
    until("the outage to be seen", async || (metrics.stale.get() == 1).then_some(())).await;
    load.only(&["p2", "p3"]).await;
    let begin = Instant::now();
    let late = bind.caller(&mesh, snapshots.path(), HoldConfig::default()).await;
    let (started, asked) = (begin.elapsed(), Instant::now());
    let late_client = Client::new(&late, "payments").unwrap();
    let answer = late_client.get("/").send().await.unwrap();
    let first = asked.elapsed();
    println!("a mesh that starts in the outage: ready after {started:?}, the first answer {first:?} later");
    assert_eq!(answer.status(), 200);
    assert!(first < Duration::from_secs(1), "the first answer took {first:?}");
    assert_eq!(late.metrics().client.cluster("payments").discovery.count(DiscoveryEvent::Snapshot), 1);

    bind.resume().await;
    until("the end of the outage", async || (metrics.stale.get() == 0).then_some(())).await;
    load.only(&["p2", "p3"]).await;

    // The control arm believes whatever it is told.
    let believes = HoldConfig::default().empty_after(Duration::from_secs(1));
    let gullible = bind.caller(&mesh, &snapshots.path().join("gullible"), believes).await;
    let control = Client::new(&gullible, "payments").unwrap();
    assert_eq!(control.get("/").send().await.unwrap().status(), 200);
    bind.update(&format!("update delete {NAME}. SRV\n")).await;
    until("the empty zone", async || (metrics.discovery.count(DiscoveryEvent::EmptyHeld) > 0).then_some(())).await;
    assert_eq!(metrics.held.get(), 2);
    load.only(&["p2", "p3"]).await;
    let error = until("the control arm to fail", async || control.get("/").send().await.err()).await;
    assert_eq!(error.kind(), ErrorKind::NoEndpoints, "{error:?}");
    tasks.shutdown().await;
    println!("control: {error}");
    println!("seen: {} failed of {}", load.failed.lock().unwrap().len(), load.made.load(Relaxed));
    assert_eq!(*load.failed.lock().unwrap(), Vec::<String>::new());

    bind.update(&format!("update add {NAME}. 1 SRV 0 0 0 .\n")).await;
    until("the word that nobody is there", async || (metrics.discovery.count(DiscoveryEvent::Gone) > 0).then_some(()))
        .await;
    let error = client.get("/").send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoEndpoints, "{error:?}");
}
