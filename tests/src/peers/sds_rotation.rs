//! A new authority under load, with Envoy on either side taking its secrets from a secret discovery server.
//!
//! Roots are added, leaves replaced, the old root removed, as X.509 rotation must go; no request may notice. Connections
//! carry three requests each, so that every stage makes new ones.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use mesh_core::Mesh;
use mesh_core::clock::SystemClock;
use mesh_core::config::{ClusterConfig, Config, IdentityConfig, NoPolicy, PlugConfig, Workload};
use mesh_core::identity::dev_ca::DevCa;
use mesh_core::identity::{Identity, MemorySource, SpiffeId, TrustBundle, TrustBundleSet, TrustDomain};
use mesh_tower::{Client, ErrorKind};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::envoy::{body, get_by};
use super::envoy_process::{Envoy, binary};
use super::sds::Sds;
use super::{PAYMENTS, WEB};
use crate::kit::until;

const ORDERS: &str = "spiffe://test/ns/test/sa/orders";
const HOUR: Duration = Duration::from_secs(3600);
/// Requests that must succeed before the next stage begins.
const STAGE: usize = 30;

/// Two authorities of one trust domain, one after the other in time.
struct Authorities {
    old: DevCa,
    new: DevCa,
}

#[derive(Clone, Copy)]
enum Which {
    Old,
    New,
}
use Which::{New, Old};

impl Authorities {
    fn new() -> Self {
        let domain = TrustDomain::parse("test").unwrap();
        let ca = || DevCa::in_memory(&domain, Arc::new(SystemClock)).unwrap();
        Self { old: ca(), new: ca() }
    }

    fn ca(&self, which: Which) -> &DevCa {
        match which {
            Old => &self.old,
            New => &self.new,
        }
    }

    /// What a mesh is, signed by `leaf`, and trusts.
    fn identity(&self, id: &str, leaf: Which, roots: &[Which]) -> Identity {
        let svid = self.ca(leaf).issue(&SpiffeId::parse(id).unwrap(), HOUR).unwrap();
        let roots = roots.iter().map(|which| Arc::clone(self.ca(*which).certificate())).collect();
        let bundle = TrustBundle::new(self.old.trust_domain().clone(), roots).unwrap();
        Identity { svids: vec![Arc::new(svid)], bundles: Arc::new(TrustBundleSet::of(bundle)) }
    }

    /// The same for Envoy.
    fn publish(&self, sds: &Sds, id: &str, leaf: Which, roots: &[Which]) {
        let (svid, bundle) = self.secrets(id, leaf, roots);
        sds.publish(svid, bundle);
    }

    fn secrets(&self, id: &str, leaf: Which, roots: &[Which]) -> (mesh_core::identity::dev_ca::SvidPem, String) {
        let id = SpiffeId::parse(id).unwrap();
        let bundle = roots.iter().map(|which| self.ca(*which).issue_pem(&id, HOUR).unwrap().bundle).collect();
        (self.ca(leaf).issue_pem(&id, HOUR).unwrap(), bundle)
    }
}

/// A mesh of `id` over `source`.
async fn mesh(id: &str, source: &MemorySource, edit: impl Fn(&mut Config) + Send + Sync + 'static) -> Mesh {
    let name = id.rsplit('/').next().unwrap();
    let domain = TrustDomain::parse("test").unwrap();
    let identity = IdentityConfig::new(domain, PlugConfig::new("memory", &Value::Null));
    let mut config = Config::new(Workload::new(name, "test"), identity);
    config.no_policy = NoPolicy::Allow;
    Mesh::builder().config(config).edit(edit).identity_source(Arc::new(source.clone())).start().await.unwrap()
}

/// The stages of a rotation: who has signed whose leaf, and which roots are trusted by both sides.
const STAGES: [(&str, Which, Which, &[Which]); 5] = [
    ("one authority", Old, Old, &[Old]),
    ("both are trusted", Old, Old, &[Old, New]),
    ("Envoy has a new leaf", New, Old, &[Old, New]),
    ("we have a new leaf", New, New, &[Old, New]),
    ("the old root is gone", New, New, &[New]),
];

/// Counts of a load that runs until it is told to stop.
#[derive(Default)]
struct Load {
    done: AtomicUsize,
    failed: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    async fn run(&self, mut request: impl AsyncFnMut() -> Result<(), String>) {
        while !self.stop.load(Ordering::Relaxed) {
            match request().await {
                Ok(()) => _ = self.done.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    println!("failed: {error}");
                    self.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Goes through the stages, each for a number of requests.
    async fn stages(&self, mut enter: impl FnMut(Which, Which, &'static [Which])) {
        for (name, envoy, ours, roots) in STAGES {
            enter(envoy, ours, roots);
            let goal = self.done.load(Ordering::Relaxed) + STAGE;
            until(name, async || (self.done.load(Ordering::Relaxed) >= goal).then_some(())).await;
            assert_eq!(self.failed.load(Ordering::Relaxed), 0, "{name}");
        }
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn envoy_calls_us_through_a_change_of_authority() {
    let Some(binary) = binary() else { return };
    let authorities = Authorities::new();
    let source = MemorySource::new(authorities.identity(ORDERS, Old, &[Old]));
    let orders = mesh(ORDERS, &source, |_| {}).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = Router::new().route("/", get(|peer: mesh_tower::Principal| async move { peer.to_string() }));
    tokio::spawn(mesh_tower::serve(&orders, listener, app).into_future());
    let (svid, bundle) = authorities.secrets(WEB, Old, &[Old]);
    let sds = Sds::start(svid, bundle).await;
    let words: [(_, &dyn Display); 2] = [("@ORDERS@", &port), ("@AGENT@", &sds.port)];
    let envoy = Envoy::configured(&binary, tempfile::tempdir().unwrap(), "envoy-client-sds.yaml", &words).await;

    let load = Load::default();
    let requests = load.run(async || {
        let response = get_by(&envoy, "orders").await;
        let (status, told) = (response.status().as_u16(), body(response).await);
        (status == 200 && told == WEB).then_some(()).ok_or(format!("{status} {told}"))
    });
    let rotation = load.stages(|envoy, ours, roots| {
        // Who must trust goes before who must be trusted.
        source.rotate(authorities.identity(ORDERS, ours, roots));
        authorities.publish(&sds, WEB, envoy, roots);
    });
    tokio::join!(requests, rotation);
    let metrics = orders.metrics().encode();
    assert!(!metrics.contains(r#"handshakes_total{result="bad_signature"}"#), "{metrics}");

    // The old authority counts for nothing any more. (Both have one name: it is the signature that does not fit.)
    authorities.publish(&sds, WEB, Old, &[New]);
    until("Envoy to be refused", async || (get_by(&envoy, "orders").await.status() == 503).then_some(())).await;
    let metrics = orders.metrics().encode();
    assert!(metrics.contains(r#"handshakes_total{result="bad_signature"}"#), "{metrics}");
}

#[tokio::test]
async fn we_call_envoy_through_a_change_of_authority() {
    let Some(binary) = binary() else { return };
    let authorities = Authorities::new();
    let (svid, bundle) = authorities.secrets(PAYMENTS, Old, &[Old]);
    let sds = Sds::start(svid, bundle).await;
    let dir = tempfile::tempdir().unwrap();
    let envoy = Envoy::configured(&binary, dir, "envoy-server-sds.yaml", &[("@AGENT@", &sds.port)]).await;
    let source = MemorySource::new(authorities.identity(WEB, Old, &[Old]));
    let address = envoy.address;
    let web = mesh(WEB, &source, move |config| {
        let discover = PlugConfig::new("static", &json!([address.to_string()]));
        let identities = vec![SpiffeId::parse(PAYMENTS).unwrap()];
        config.clusters.insert("payments".to_owned(), ClusterConfig::new(discover, identities));
    })
    .await;
    let client = Client::new(&web, "payments").unwrap();

    let load = Load::default();
    let requests = load.run(async || match client.get("/").send().await {
        Ok(response) if response.status() == 200 => Ok(()),
        Ok(response) => Err(response.status().to_string()),
        Err(error) => Err(format!("{error:?}")),
    });
    let rotation = load.stages(|envoy, ours, roots| {
        source.rotate(authorities.identity(WEB, ours, roots));
        authorities.publish(&sds, PAYMENTS, envoy, roots);
    });
    tokio::join!(requests, rotation);

    authorities.publish(&sds, PAYMENTS, Old, &[New]);
    let refused = until("Envoy to be refused", async || client.get("/").send().await.err()).await;
    assert_eq!(refused.kind(), ErrorKind::PeerIdentity, "{refused:?}");
}
