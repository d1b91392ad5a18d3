//! What a request pays for its audit record, and for a sink that is dead.

use std::io;
use std::sync::mpsc as blocking;

use axum::routing::get;
use mesh_core::audit::{AuditLine, AuditSink, FileSink};
use tokio::time::Instant;

use super::*;
use crate::fixture::audited_mesh;

/// Takes nothing, for as long as the other end of the channel lives.
#[derive(Debug)]
struct Dead(blocking::Receiver<()>);

impl AuditSink for Dead {
    fn write(&mut self, _lines: &[AuditLine]) -> io::Result<()> {
        let _ = self.0.recv();
        Err(io::Error::other("dead"))
    }
}

struct Arm {
    name: &'static str,
    mesh: Mesh,
    client: Sender,
    micros: Vec<f64>,
}

impl Arm {
    async fn new(name: &'static str, sink: Box<dyn AuditSink>) -> Self {
        let (ca, (listener, address)) = (ca(), listener().await);
        let edit = |config: &mut mesh_core::config::Config| {
            config.listeners.insert("default".to_owned(), ListenerConfig::new(address));
        };
        let orders = audited_mesh(&ca, "orders", edit, sink).await;
        tokio::spawn(serve(&orders, listener, Router::new().route("/", get(async || "ok"))).into_future());
        let web = mesh(&ca, "web", |_| {}).await;
        Self { name, mesh: orders, client: connect(&web, address).await, micros: Vec::new() }
    }

    async fn ask(&mut self, requests: usize) {
        for _ in 0..requests {
            let begun = Instant::now();
            let request = Request::get("https://orders/").body(Body::empty()).unwrap();
            let response = self.client.send_request(request).await.unwrap();
            response.into_body().collect().await.unwrap();
            self.micros.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }

    fn quantile(&mut self, quantile: f64) -> f64 {
        self.micros.sort_by(f64::total_cmp);
        self.micros[(self.micros.len() as f64 * quantile) as usize]
    }
}

/// Needs a quiet machine: `cargo test --release -p mesh-tower --all-features -- --ignored audit_cost --nocapture`. The second
/// healthy arm says how much of a difference is noise.
#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_sink_costs_a_request_nothing() {
    const ROUNDS: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| Box::new(FileSink::new(dir.path().join(name)));
    let (alive, told) = blocking::channel();
    let mut arms = [
        Arm::new("healthy", file("a")).await,
        Arm::new("healthy too", file("b")).await,
        Arm::new("dead", Box::new(Dead(told))).await,
    ];
    // Fills the queue behind the dead sink.
    for arm in &mut arms {
        arm.ask(6000).await;
        arm.micros.clear();
    }
    assert!(arms[2].mesh.audit().lost() > 1000);
    for round in 0..ROUNDS {
        for turn in 0..3 {
            arms[(round + turn) % 3].ask(100).await;
        }
    }
    let lost: Vec<_> = arms.iter().map(|arm| arm.mesh.audit().lost()).collect();
    assert_eq!((lost[0], lost[1]), (0, 0));
    let base = [0.5, 0.9, 0.99].map(|quantile| arms[0].quantile(quantile));
    for arm in &mut arms {
        let at = [0.5, 0.9, 0.99].map(|quantile| arm.quantile(quantile));
        let [p50, p90, p99] = at;
        let [r50, r90, r99] = [0, 1, 2].map(|which| at[which] / base[which]);
        println!("{:12} p50 {p50:.1} us ({r50:.3})  p90 {p90:.1} us ({r90:.3})  p99 {p99:.1} us ({r99:.3})", arm.name);
    }
    drop(alive);
}
