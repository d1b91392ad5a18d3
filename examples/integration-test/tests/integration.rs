//! `checkout` as it runs: served as `main` does, with its real `mesh.yaml` and policies, a neighbour, an issuer of
//! tokens. Every test has a mesh of its own, on free ports and with an authority in memory; nothing is mocked but what
//! `payments` answers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use integration_test::{Basket, Receipt};
use mesh_tower::client::Response;
use mesh_tower::test_util::{RunningTestMesh, TestIssuer, TestMesh, TestService};
use mesh_tower::{Client, Principal};

type Error = Box<dyn std::error::Error>;

const WEB: &str = "spiffe://shop.example/ns/shop/sa/web";
const CHECKOUT: &str = "spiffe://shop.example/ns/shop/sa/checkout";

/// A shop of `checkout` and a `payments` that fails as often as told.
struct Shop {
    mesh: RunningTestMesh,
    idp: TestIssuer,
}

impl Shop {
    async fn open(failures: usize) -> Result<Self, Error> {
        let idp = TestIssuer::new("https://idp.shop.example")?;
        let checkout = TestService::new("checkout")
            .config_file("mesh.yaml")
            .issuer(&idp, "checkout")
            .serve_with(|mesh, listener| Ok(integration_test::serve(mesh, listener)?));
        let payments = TestService::new("payments").app(move |_mesh| Ok(payments(failures)));
        let mesh = TestMesh::new().trust_domain("shop.example").namespace("shop").with(checkout).with(payments);
        Ok(Self { mesh: mesh.start().await?, idp })
    }

    async fn caller(&self, id: &str) -> Result<Client, Error> {
        Ok(self.mesh.client_as(id, "checkout").await?)
    }

    fn token(&self) -> Result<String, Error> {
        Ok(self.idp.token("alice", "checkout")?)
    }
}

fn payments(failures: usize) -> Router {
    type Answer = Result<([(&'static str, &'static str); 1], Json<Receipt>), StatusCode>;
    async fn charge(State(left): State<Arc<Mutex<usize>>>, peer: Principal) -> Answer {
        let mut left = left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        // Every call makes a connection, and so shows the certificate of the moment.
        let close = [("connection", "close")];
        Ok((close, Json(Receipt { charge: format!("paid for {peer}") })))
    }
    Router::new().route("/charges", post(charge)).with_state(Arc::new(Mutex::new(failures)))
}

async fn checkout(client: &Client, token: Option<&str>) -> Result<Response, Error> {
    let call = client.post("/checkout").json(&Basket { id: 1, cents: 250 });
    let call = token.into_iter().fold(call, |call, token| call.bearer_token(token));
    Ok(call.send().await?)
}

#[tokio::test]
async fn a_basket_is_paid_and_both_services_know_who_asked() -> Result<(), Error> {
    let shop = Shop::open(0).await?;

    let receipt: Receipt = checkout(&shop.caller(WEB).await?, Some(&shop.token()?)).await?.json().await?;
    assert_eq!(receipt.charge, format!("paid for {CHECKOUT}"));

    let (checkout, payments) = (shop.mesh.audit("checkout").await?, shop.mesh.audit("payments").await?);
    assert_eq!(checkout[0].peer.as_deref(), Some(WEB));
    assert!(checkout[0].token_subject_hmac.is_some()); // alice, but the trail names nobody unless told to
    assert_eq!((checkout[0].policy.as_deref(), checkout[0].rule), (Some("shop/customers"), Some(0)));
    assert_eq!(payments[0].peer.as_deref(), Some(CHECKOUT));
    assert_eq!(payments[0].trace_id, checkout[0].trace_id); // one trace, without a line of code
    Ok(())
}

#[tokio::test]
async fn who_is_kept_out_and_why() -> Result<(), Error> {
    let shop = Shop::open(0).await?;
    let batch = "spiffe://shop.example/ns/shop/sa/batch";
    let (good, expired) = (shop.token()?, shop.idp.expired_token("alice", "checkout")?);
    let foreign = shop.idp.token("alice", "another service")?;
    let forged = TestIssuer::new("https://idp.shop.example")?.token("alice", "checkout")?;

    let table = [
        (WEB, None, StatusCode::UNAUTHORIZED, "no_allow_rule"),
        (WEB, Some(&expired), StatusCode::UNAUTHORIZED, "token_expired"),
        (WEB, Some(&foreign), StatusCode::UNAUTHORIZED, "token_wrong_audience"),
        (WEB, Some(&forged), StatusCode::UNAUTHORIZED, "token_bad_signature"),
        (batch, Some(&good), StatusCode::FORBIDDEN, "no_allow_rule"),
    ];
    for (id, token, status, reason) in table {
        let answer = checkout(&shop.caller(id).await?, token.map(String::as_str)).await?;
        let audit = shop.mesh.audit("checkout").await?;
        assert_eq!((answer.status(), audit.last().map(|record| record.reason)), (status, Some(reason)), "{id}");
    }
    assert!(shop.mesh.audit("payments").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn one_failure_of_payments_is_repeated_and_two_are_a_bare_502() -> Result<(), Error> {
    for (failures, expected) in [(1, StatusCode::OK), (2, StatusCode::BAD_GATEWAY)] {
        let shop = Shop::open(failures).await?;
        let answer = checkout(&shop.caller(WEB).await?, Some(&shop.token()?)).await?;
        assert_eq!(answer.status(), expected, "{failures} failures");
        assert_eq!(shop.mesh.audit("payments").await?.len(), 2);
    }
    Ok(())
}

#[tokio::test]
async fn certificates_rotate_without_a_failed_call() -> Result<(), Error> {
    let shop = Shop::open(0).await?;
    let (web, token) = (shop.caller(WEB).await?, shop.token()?);

    let mut serials = BTreeSet::new();
    for _ in 0..1000 {
        assert_eq!(checkout(&web, Some(&token)).await?.status(), StatusCode::OK);
        let audit = shop.mesh.audit("payments").await?;
        // Each certificate that `checkout` was seen with is followed by another.
        if serials.insert(audit.last().and_then(|record| record.peer_serial.clone())) {
            shop.mesh.rotate()?;
        }
        if serials.len() == 4 {
            return Ok(());
        }
    }
    panic!("still these certificates after 1000 calls: {serials:?}");
}
