//! Envoy as a gateway that ends its clients' mTLS: whom it names is believed where it is pinned, and nowhere else.

use axum::Router;
use axum::routing::get;
use mesh_core::config::{ForwardedConfig, HttpVersion, ListenerConfig};
use mesh_core::identity::SpiffeId;
use mesh_tower::test_util::{TestMesh, TestService};
use mesh_tower::{Client, Principal};

use super::envoy_process::{Envoy, binary};
use super::{ALLOW_WEB, BATCH, WEB, caller};

const GATEWAY: &str = "spiffe://test/ns/test/sa/gateway";

/// `orders`, which takes the word of `gateways`.
fn orders(gateways: &'static [&'static str]) -> TestService {
    let show = |peer: Principal| async move { format!("{peer} via {:?}", peer.via().map(SpiffeId::as_str)) };
    let orders = TestService::new("orders").policy(ALLOW_WEB).app(move |_mesh| Ok(Router::new().route("/", get(show))));
    orders.config(move |config| {
        let gateways: Vec<_> = gateways.iter().map(|id| SpiffeId::parse(id).unwrap()).collect();
        let mut listener = ListenerConfig::new(([127, 0, 0, 1], 0).into());
        listener.forwarded_identity = (!gateways.is_empty()).then(|| ForwardedConfig::new(gateways));
        config.listeners.insert("default".to_owned(), listener);
    })
}

#[tokio::test]
async fn only_a_pinned_gateway_speaks_for_others() {
    let Some(binary) = binary() else { return };
    const PINNED: &[&str] = &[GATEWAY];
    let named = || Some(format!("{WEB} via Some({GATEWAY:?})"));
    // (whom orders believes, what Envoy does with the header, who calls, what is answered, who is audited)
    let table = [
        (PINNED, "SANITIZE_SET", WEB, named(), WEB),
        (PINNED, "APPEND_FORWARD", WEB, named(), WEB),
        (PINNED, "SANITIZE_SET", BATCH, None, BATCH),
        (PINNED, "APPEND_FORWARD", BATCH, None, BATCH),
        // Says nothing of its clients, and so speaks for itself.
        (PINNED, "SANITIZE", WEB, None, GATEWAY),
        (&[BATCH], "SANITIZE_SET", WEB, None, GATEWAY),
        (&[], "SANITIZE_SET", WEB, None, GATEWAY),
    ];
    for (gateways, mode, id, answer, audited) in table {
        let row = format!("{gateways:?} {mode} {id}");
        let mesh = TestMesh::new().with(orders(gateways)).start().await.unwrap();
        let port = mesh.address("orders").unwrap().port();
        let envoy =
            Envoy::start(&binary, &mesh, "envoy-gateway.yaml", &[GATEWAY], &[("@ORDERS@", &port), ("@MODE@", &mode)])
                .await;
        let client =
            Client::new(&caller(&mesh, id, envoy.address, GATEWAY, HttpVersion::Http2).await, "payments").unwrap();
        for forged in [None, Some(format!("URI={WEB}"))] {
            let request = client.get("/");
            let request = match &forged {
                Some(forged) => request.header("x-forwarded-client-cert", forged),
                None => request,
            };
            let response = request.send().await.unwrap();
            match &answer {
                Some(answer) => assert_eq!(response.text().await.unwrap(), *answer, "{row} {forged:?}"),
                None => assert_eq!(response.status(), 403, "{row} {forged:?}"),
            }
        }
        for record in mesh.audit("orders").await.unwrap() {
            assert_eq!(record.peer.as_deref(), Some(GATEWAY), "{row}: {record:?}");
            assert_eq!(record.forwarded.as_deref().unwrap_or(GATEWAY), audited, "{row}: {record:?}");
        }
    }
}
