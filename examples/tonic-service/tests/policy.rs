//! The service with its real `mesh.yaml` and policies: real certificates, real sockets.

use mesh_tonic::Channel;
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use tonic::Code;
use tonic_service::pb::ChargeRequest;
use tonic_service::pb::payments_client::PaymentsClient;

type Error = Box<dyn std::error::Error>;

async fn shop() -> Result<RunningTestMesh, Error> {
    let payments = TestService::new("payments")
        .config_file("mesh.yaml")
        .serve_with(|mesh, listener| Ok(mesh_tonic::serve(mesh, listener, tonic_service::services())));
    Ok(TestMesh::new().trust_domain("shop.example").with(payments).start().await?)
}

async fn client(shop: &RunningTestMesh, id: &str) -> Result<PaymentsClient<Channel>, Error> {
    Ok(PaymentsClient::new(Channel::new(&shop.mesh_as(id).await?, "payments")?))
}

fn charge() -> ChargeRequest {
    ChargeRequest { cents: 250, idempotency_key: "order-7".into() }
}

#[tokio::test]
async fn orders_is_charged_once() -> Result<(), Error> {
    let shop = shop().await?;
    let mut orders = client(&shop, "spiffe://shop.example/ns/shop/sa/orders").await?;

    for repeated in [false, true] {
        let reply = orders.charge(charge()).await?.into_inner();
        assert_eq!((reply.payer.as_str(), reply.repeated), ("spiffe://shop.example/ns/shop/sa/orders", repeated));
    }
    Ok(())
}

#[tokio::test]
async fn others_are_denied_and_the_audit_names_the_policy_and_the_rule() -> Result<(), Error> {
    let shop = shop().await?;
    for id in ["spiffe://shop.example/ns/shop/sa/web", "spiffe://shop.example/ns/lab/sa/orders"] {
        let status = client(&shop, id).await?.charge(charge()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{id}");
    }

    let records = shop.audit("payments").await?;
    let [web, lab] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((web.reason, web.policy.as_deref()), ("no_allow_rule", None));
    assert_eq!((lab.reason, lab.policy.as_deref(), lab.rule), ("deny_rule", Some("shop/no-experiments"), Some(0)));
    Ok(())
}
