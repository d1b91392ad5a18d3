//! The last of three tiers fails every request, and each tier above it has a budget to try again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mesh_core::config::{BudgetConfig, RetryConfig, RouteConfig};
use mesh_core::rng::Rng;
use mesh_core::{Config, Mesh};
use mesh_tower::Client;

use super::{Arm, Scale};
use crate::scorecard::Seen;
use crate::stack::Fault;
use crate::stack::load::open_loop;
use crate::stack::world::{self, address, cluster, mesh, network, now, servers};

const RATE: f64 = 500.0;

/// Calls `next` with three attempts, one retry in ten requests and none beside that.
fn calls(config: &mut Config, arm: Arm, next: &[std::net::SocketAddr]) -> Result<(), Fault> {
    let mut cluster = cluster(next)?;
    // Every endpoint fails: whoever is ejected is not asked, and what is not asked is not counted.
    cluster.outlier = cluster.outlier.max_ejection_percent(0);
    let budget = match arm {
        Arm::Mesh => BudgetConfig::default().ratio(0.1).min_per_second(0),
        Arm::Control => BudgetConfig::default().ratio(10.0),
    };
    let route = RouteConfig::to("next").retry(RetryConfig::default().budget(budget));
    config.clusters.insert("next".to_owned(), cluster);
    config.routes.insert("next".to_owned(), vec![route]);
    Ok(())
}

/// Passes the request on, and the answer back.
async fn middle(arm: Arm, next: Client) -> Response {
    let passed = async { next.get("/").send().await?.error_for_status() }.await;
    match (passed, arm) {
        (Ok(_), _) => "done".into_response(),
        (Err(error), Arm::Mesh) => error.into_response(), // what `?` does in a handler
        (Err(_), Arm::Control) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

pub(super) fn amplification(seed: u64, arm: Arm, scale: Scale) -> Result<Seen, Fault> {
    let mut sim = network(seed, Duration::from_secs(60));
    let rng = Rng::seeded(seed);
    let at_leaf = Arc::new(AtomicUsize::new(0));
    let tiers = |sim: &_, tier: &str| [1, 2].map(|n| address(sim, &format!("{tier}-{n}")));
    let (middles, leaves) = (tiers(&sim, "middle"), tiers(&sim, "leaf"));
    let names = |tier: &'static str| (1..=2).map(move |n| format!("{tier}-{n}"));
    servers(&mut sim, names("leaf"), &rng, |_| Ok(()), {
        let at_leaf = Arc::clone(&at_leaf);
        move |_, _| {
            let at_leaf = Arc::clone(&at_leaf);
            let fail = move || {
                at_leaf.fetch_add(1, Relaxed);
                async { StatusCode::SERVICE_UNAVAILABLE }
            };
            Ok(Router::new().route("/", get(fail)))
        }
    });
    let edit = move |config: &mut Config| calls(config, arm, &leaves);
    servers(&mut sim, names("middle"), &rng, edit, move |mesh: &Mesh, _| {
        let next = Client::new(mesh, "next")?;
        Ok(Router::new().route("/", get(move || middle(arm, next.clone()))))
    });
    let length = scale.pick(Duration::from_secs(10), Duration::from_millis(1_200));
    let made = world::run(sim, async move {
        let web = mesh("web", rng.fork(), |config| calls(config, arm, &middles)).await?;
        let client = Client::new(&web, "next")?;
        open_loop(&client, "/", RATE, rng.fork(), now() + length).await
    })?;
    let ratio = at_leaf.load(Relaxed) as f64 / made.len() as f64;
    Ok(Seen {
        met: (1.0..=1.15).contains(&ratio),
        text: format!("{} requests at the leaf of {}, {ratio:.2}x", at_leaf.load(Relaxed), made.len()),
        badness: ratio,
    })
}
