//! The policy with its real `mesh.yaml`, against three endpoints.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use mesh_tower::{Client, Mesh};

type Error = Box<dyn std::error::Error>;

/// How many requests each endpoint has got.
type Counts = Arc<Mutex<BTreeMap<usize, usize>>>;

async fn mesh(counts: &Counts) -> Result<(RunningTestMesh, Client), Error> {
    let web = TestService::new("web").config_file("mesh.yaml").plugin(own_balancer::plugin());
    let mut mesh = TestMesh::new().trust_domain("shop.example").with(web);
    for number in 0..3 {
        let counts = counts.clone();
        let count = move || async move {
            *counts.lock().unwrap().entry(number).or_insert(0) += 1;
            std::future::pending::<()>().await
        };
        let app =
            Router::new().route("/quick", get(move || async move { number.to_string() })).route("/held", get(count));
        mesh = mesh.with(TestService::new(format!("orders-{number}")).endpoint_of("orders").app(move |_mesh| Ok(app)));
    }
    let mesh = mesh.start().await?;
    let client = Client::new(mesh.mesh("web")?, "orders")?;
    Ok((mesh, client))
}

#[tokio::test]
async fn one_endpoint_is_filled_before_the_next_is_used() -> Result<(), Error> {
    let counts = Counts::default();
    let (_mesh, orders) = mesh(&counts).await?;

    let first = orders.get("/quick").send().await?.text().await?;
    for _ in 0..20 {
        assert_eq!(orders.get("/quick").send().await?.text().await?, first, "one after the other: always the same");
    }

    let held: Vec<_> = (0..5).map(|_| tokio::spawn(orders.get("/held").send())).collect();
    while counts.lock().unwrap().values().sum::<usize>() < 5 {
        tokio::task::yield_now().await;
    }
    let mut shares: Vec<usize> = counts.lock().unwrap().values().copied().collect();
    shares.sort_unstable();
    assert_eq!(shares, [1, 2, 2]);
    held.iter().for_each(|call| call.abort());
    Ok(())
}

#[tokio::test]
async fn a_policy_that_nobody_registered_is_an_error_that_helps() {
    let error = Mesh::builder().config_file("mesh.yaml").start().await.unwrap_err().to_string();
    assert!(error.contains("mesh.yaml:11:"), "{error}");
    assert!(error.contains("no balancing policy `packed` is registered"), "{error}");
    assert!(error.contains("MeshBuilder::balancer"), "{error}");
}
