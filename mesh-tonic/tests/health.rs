//! gRPC health over real sockets and mTLS: served by the mesh's readiness, and asked of a cluster's endpoints.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

use std::future::Future;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use mesh_core::config::{HealthCheckConfig, PlugConfig};
use mesh_tonic::{Channel, health};
use mesh_tower::Client;
use mesh_tower::test_util::{RunningTestMesh, TestMesh, TestService};
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus::{self, NotServing, ServiceUnknown, Serving};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{self, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const WEB: &str = "spiffe://test/ns/test/sa/web";

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("no answer in thirty seconds")
}

fn shop(name: &str) -> TestService {
    TestService::new(name).grpc(|mesh| Ok(mesh_tonic::router(Routes::new(health::service(mesh, ["shop.Payments"])))))
}

async fn client(mesh: &RunningTestMesh) -> HealthClient<Channel> {
    HealthClient::new(Channel::new(&mesh.mesh_as(WEB).await.unwrap(), "payments").unwrap())
}

fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_is_the_readiness_of_the_mesh() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let payments = TestService::new("payments").serve_with(|mesh, listener| {
        let serve = mesh_tonic::serve(mesh, listener, Routes::new(health::service(mesh, ["shop.Payments"])));
        Ok(serve.with_graceful_shutdown(async { drop(stopped.await) }))
    });
    let mesh = TestMesh::new().with(payments).start().await.unwrap();
    let mut web = client(&mesh).await;
    for (service, expected) in [("", Ok(Serving)), ("shop.Payments", Ok(Serving)), ("shop.Orders", Err(Code::NotFound))]
    {
        let checked = soon(web.check(ask(service))).await;
        let told = checked.map(|told| told.into_inner().status()).map_err(|status| status.code());
        assert_eq!(told, expected, "{service:?}");
    }
    let mut unknown = soon(web.watch(ask("shop.Orders"))).await.unwrap().into_inner();
    assert_eq!(soon(unknown.message()).await.unwrap().unwrap().status(), ServiceUnknown);
    let mut watched = soon(web.watch(ask(""))).await.unwrap().into_inner();
    assert_eq!(soon(watched.message()).await.unwrap().unwrap().status(), Serving);
    // A server that drains says so to those who watch.
    stop.send(()).unwrap();
    assert_eq!(soon(watched.message()).await.unwrap().unwrap().status(), NotServing);
}

/// Says of itself what it was made with.
struct Says(ServingStatus);

#[tonic::async_trait]
impl health_server::Health for Says {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: self.0.into() }))
    }

    type WatchStream = std::pin::Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(stream::pending().boxed()))
    }
}

#[tokio::test]
async fn a_cluster_asks_its_endpoints_over_mtls() {
    let says = |name: &str, status| {
        let routes = move |_: &mesh_core::Mesh| Ok(mesh_tonic::router(Routes::new(HealthServer::new(Says(status)))));
        TestService::new(name).endpoint_of("shops").grpc(routes)
    };
    // Without the service, UNIMPLEMENTED says nothing.
    let without = TestService::new("old").endpoint_of("shops").grpc(|_| Ok(mesh_tonic::router(Routes::default())));
    let web = TestService::new("web").plugin(health::plugin()).config(|config| {
        if let Some(shops) = config.clusters.get_mut("shops") {
            let check = PlugConfig::new("grpc", &serde_json::json!({ "service": "shop.Payments" }));
            let mut checks = HealthCheckConfig::new(check);
            checks.interval = Duration::from_millis(100);
            shops.health_check = Some(checks);
        }
    });
    let mesh = TestMesh::new()
        .with(shop("well").endpoint_of("shops"))
        .with(says("sick", NotServing))
        .with(without)
        .with(web)
        .start()
        .await
        .unwrap();
    let client = Client::new(mesh.mesh("web").unwrap(), "shops").unwrap();
    let sick = mesh.address("sick").unwrap();
    soon(async {
        while !client.endpoints().iter().any(|endpoint| !endpoint.healthy) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for endpoint in client.endpoints() {
        assert_eq!(endpoint.healthy, endpoint.address != sick, "{endpoint:?}");
    }
}
