//! A root is replaced under twenty workloads, step by step, in random order.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use mesh_core::Mesh;
use mesh_core::clock::WallClock;
use mesh_core::config::HttpVersion;
use mesh_core::identity::dev_ca::DevCa;
use mesh_core::identity::{Identity, MemorySource, TrustBundle, TrustBundleSet, X509Svid};
use mesh_core::rng::Rng;
use mesh_tower::connect::Dialer;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

use super::kit::{Calendar, Network, S, domain, id, workload};

const NODES: usize = 20;
const SEEDS: u64 = 100;

struct Node {
    name: String,
    address: SocketAddr,
    mesh: Mesh,
    source: MemorySource,
    svid: Arc<X509Svid>,
    roots: Vec<Arc<[u8]>>,
}

impl Node {
    fn identity(svid: &Arc<X509Svid>, roots: &[Arc<[u8]>]) -> Identity {
        let bundle = TrustBundle::new(domain(), roots.to_vec()).unwrap();
        Identity { svids: vec![svid.clone()], bundles: Arc::new(TrustBundleSet::of(bundle)) }
    }

    /// Gives the node what it has been told, and waits until that is in force.
    async fn publish(&self) {
        let mut changes = self.mesh.identity().subscribe();
        self.source.rotate(Self::identity(&self.svid, &self.roots));
        timeout(S, changes.changed()).await.expect("a revision is published within a second");
    }

    /// A new handshake; an error says who refused, and why.
    async fn meets(&self, server: &Node) -> Result<(), String> {
        let dialer = Dialer::new(&self.mesh, vec![id(&server.name)], HttpVersion::Http2, 5 * S);
        let mut connected = dialer.dial(server.address).await.map_err(|error| format!("client: {}", error.reason()))?;
        // With TLS 1.3 the server's verdict comes with the first read: its settings, or an alert.
        match timeout(S, connected.io.read(&mut [0; 1])).await {
            Ok(Ok(1..)) | Err(_) => Ok(()),
            Ok(Ok(0)) => Err("server: closed".to_owned()),
            Ok(Err(error)) => Err(format!("server: {error}")),
        }
    }
}

struct World {
    clock: Arc<dyn WallClock>,
    network: Network,
    nodes: Vec<Node>,
    ca: DevCa,
}

impl World {
    async fn new() -> Self {
        let clock: Arc<dyn WallClock> = Calendar::new();
        let network = Network::new(clock.clone());
        let ca = DevCa::in_memory(&domain(), clock.clone()).unwrap();
        let mut world = Self { clock, network, nodes: Vec::new(), ca };
        for n in 0..NODES {
            let node = world.node(n).await;
            world.nodes.push(node);
        }
        world
    }

    async fn node(&self, n: usize) -> Node {
        let (name, address) = (format!("n{n}"), ([10, 0, 1, n as u8], 8443).into());
        let svid = Arc::new(self.ca.issue(&id(&name), 3600 * S).unwrap());
        let roots = vec![self.ca.certificate().clone()];
        let source = MemorySource::new(Node::identity(&svid, &roots));
        let mesh = workload(&name, Arc::new(source.clone()), self.clock.clone(), &[]).await;
        self.network.serve(&mesh, address, Router::new());
        self.network.join(&mesh);
        Node { name, address, mesh, source, svid, roots }
    }
}

/// What is done to a node, in the order in which it must be done to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Add,
    Renew,
    Remove,
}

fn shuffled<T: Copy>(items: &[T], rng: &Rng) -> Vec<T> {
    let mut items = items.to_vec();
    for at in (1..items.len()).rev() {
        items.swap(at, rng.below(at + 1));
    }
    items
}

/// Add everywhere, renew everywhere, remove everywhere; each in its own random order.
fn in_phases(rng: &Rng) -> Vec<(Step, usize)> {
    let nodes: Vec<usize> = (0..NODES).collect();
    let phase = |step| shuffled(&nodes, rng).into_iter().map(move |node| (step, node));
    [Step::Add, Step::Renew, Step::Remove].into_iter().flat_map(phase).collect()
}

/// Each node by itself, as if nobody waited for the others.
fn without_phases(rng: &Rng) -> Vec<(Step, usize)> {
    let nodes: Vec<usize> = (0..NODES).collect();
    let each = |node| [Step::Add, Step::Renew, Step::Remove].map(|step| (step, node));
    shuffled(&nodes, rng).into_iter().flat_map(each).collect()
}

/// Replaces the root; a handshake between the changed node and a random other, and one between two random ones, after
/// every step. Returns handshakes and failures.
async fn replace(world: &mut World, steps: Vec<(Step, usize)>, rng: &Rng, told: &mut Vec<String>) -> (usize, usize) {
    let next = DevCa::in_memory(&domain(), world.clock.clone()).unwrap();
    let (old_root, new_root) = (world.ca.certificate().clone(), next.certificate().clone());
    let (mut handshakes, mut failures) = (0, 0);
    for (step, at) in steps {
        let node = &mut world.nodes[at];
        match step {
            Step::Add => node.roots.push(new_root.clone()),
            Step::Renew => node.svid = Arc::new(next.issue(&id(&node.name), 3600 * S).unwrap()),
            Step::Remove => node.roots.retain(|root| *root != old_root),
        }
        node.publish().await;
        let other = (at + 1 + rng.below(NODES - 1)) % NODES;
        let pair = if rng.below(2) == 0 { (at, other) } else { (other, at) };
        for (client, server) in [pair].into_iter().chain((rng.below(16) == 0).then(|| {
            let client = rng.below(NODES);
            (client, (client + 1 + rng.below(NODES - 1)) % NODES)
        })) {
            handshakes += 1;
            if let Err(why) = world.nodes[client].meets(&world.nodes[server]).await {
                failures += 1;
                told.push(format!("after {step:?} of n{at}, n{client} -> n{server}: {why}"));
            }
        }
    }
    world.ca = next;
    (handshakes, failures)
}

#[tokio::test(start_paused = true)]
async fn a_root_is_replaced_under_twenty_workloads_and_no_handshake_fails() {
    let mut world = World::new().await;
    let (mut handshakes, mut told) = (0, Vec::new());
    for seed in 0..SEEDS {
        let rng = Rng::seeded(seed);
        let (made, failures) = replace(&mut world, in_phases(&rng), &rng, &mut told).await;
        handshakes += made;
        assert_eq!(failures, 0, "seed {seed}: {told:?}");
    }
    println!("{SEEDS} seeds, {NODES} nodes: {handshakes} handshakes, 0 failed");
}

#[tokio::test(start_paused = true)]
async fn without_the_order_somebody_is_refused() {
    let mut world = World::new().await;
    let mut told = Vec::new();
    for seed in 0..3 {
        let rng = Rng::seeded(seed);
        let (_, failures) = replace(&mut world, without_phases(&rng), &rng, &mut told).await;
        assert!(failures > 0, "seed {seed}: nobody noticed that roots were removed too early");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_root_is_refused_within_five_seconds_by_either_side() {
    let mut world = World::new().await;
    for seed in 0..5 {
        let rng = Rng::seeded(seed);
        let mut straggler = world.node(100).await;
        let old = straggler.svid.clone();
        let mut told = Vec::new();
        let steps = in_phases(&rng);
        let (adding, rest) = steps.split_at(2 * NODES);
        let removing: Vec<usize> = rest.iter().map(|(_, node)| *node).collect();
        let old_root = world.ca.certificate().clone();
        assert_eq!(replace(&mut world, adding.to_vec(), &rng, &mut told).await.1, 0, "seed {seed}: {told:?}");
        straggler.roots.push(world.ca.certificate().clone());
        straggler.publish().await;
        for at in removing {
            let node = &mut world.nodes[at];
            straggler.meets(node).await.unwrap();
            node.meets(&straggler).await.unwrap();
            node.roots.retain(|root| *root != old_root);
            let removed = Instant::now();
            node.publish().await;
            // It has both roots; what is refused is its own certificate.
            let refused = [straggler.meets(node).await, node.meets(&straggler).await].map(Result::unwrap_err);
            assert!(
                refused[0].starts_with("server: ") && refused[1].starts_with("client: "),
                "seed {seed}: {refused:?}"
            );
            assert!(removed.elapsed() <= 5 * S, "seed {seed}: {:?}", removed.elapsed());
        }
        assert_eq!(straggler.svid.serial(), old.serial());
    }
}
