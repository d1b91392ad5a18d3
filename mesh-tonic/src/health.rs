//! gRPC's own health protocol: answered by this process, and asked of others.
//!
//! | to | use |
//! |---|---|
//! | answer `grpc.health.v1.Health` | [`service`], beside the other services of a [`router`](crate::router) |
//! | ask the endpoints of a cluster | [`plugin`], then `health_check: { check: { grpc: {} } }` |
//!
//! The service says what `/readyz` says: not serving before the first identity, without a valid one, and while the
//! process drains. It stands behind the same policy as every other service, so peers that may not ask are refused; the
//! kubelet, which has no SVID, asks the plain `health:` listener.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_core::config::{Decode as _, Errors, GrpcCheckConfig, Node};
use mesh_core::health::{CheckAnswer, CheckQuestion, CheckVerdict, HealthCheck};
use mesh_core::{Mesh, Plugin};
use prost::Message as _;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{self, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// How soon a watcher learns of a change.
const LOOK: Duration = Duration::from_millis(250);

/// Serves `grpc.health.v1.Health` by the readiness of `mesh`.
///
/// For the whole process and for `services` by name.
///
/// Other names are NOT_FOUND to `Check` and SERVICE_UNKNOWN to `Watch`, as the protocol wants. A watcher learns of a
/// change within 250 ms. Holds no handle of the mesh.
///
/// ```
/// use mesh_tonic::health;
/// use tonic::service::Routes;
///
/// fn services(mesh: &mesh_core::Mesh) -> Routes {
///     Routes::new(health::service(mesh, ["shop.Payments"]))
/// }
/// ```
pub fn service<'a>(mesh: &Mesh, services: impl IntoIterator<Item = &'a str>) -> HealthServer<Health> {
    let mut known: BTreeSet<String> = services.into_iter().map(str::to_owned).collect();
    known.insert(String::new());
    HealthServer::new(Health { ready: Arc::new(mesh_tower::admin::readiness(mesh)), known: Arc::new(known) })
}

type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What [`service`] serves.
#[derive(Clone)]
pub struct Health {
    ready: Ready,
    known: Arc<BTreeSet<String>>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("known", &self.known).finish_non_exhaustive()
    }
}

fn status(ready: &Ready) -> ServingStatus {
    if ready().is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.known.contains(&request.get_ref().service) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(HealthCheckResponse { status: status(&self.ready).into() }))
    }

    type WatchStream = Watch;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Watch>, Status> {
        let known = self.known.contains(&request.get_ref().service);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Response::new(Watch { ready: known.then(|| Arc::clone(&self.ready)), looks, told: None }))
    }
}

/// The statuses of one watched service: the first at once, then each that differs.
///
/// Never ends by itself, so that a drain waits for it to the end of `drain_timeout` unless the watcher leaves.
pub struct Watch {
    /// `None`: the service is unknown, and stays so.
    ready: Option<Ready>,
    looks: Interval,
    told: Option<ServingStatus>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Stream for Watch {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            ready!(self.looks.poll_tick(cx));
            let now = self.ready.as_ref().map_or(ServingStatus::ServiceUnknown, status);
            if self.told.replace(now) != Some(now) {
                return Poll::Ready(Some(Ok(HealthCheckResponse { status: now.into() })));
            }
        }
    }
}

/// The kind `grpc` of `clusters.*.health_check.check`.
///
/// `{ grpc: { service: shop.Payments } }`, without a service the whole process.
///
/// SERVING is healthy, every other status is not, nor is an error. UNIMPLEMENTED says nothing: the endpoint has no such
/// service, and is left as it was. (gRPC A17 takes it for ready; one that was out stays out here.)
pub fn plugin() -> Plugin {
    Plugin::new("mesh-tonic").health_check("grpc", |settings: &Node, _, errors: &mut Errors| {
        let GrpcCheckConfig { service, .. } = GrpcCheckConfig::decode(settings, errors)?;
        Some(Arc::new(GrpcCheck { service }) as Arc<dyn HealthCheck>)
    })
}

#[derive(Debug)]
struct GrpcCheck {
    service: String,
}

/// No compression, and four bytes of length. (gRPC over HTTP/2, Length-Prefixed-Message)
const PREFIX: usize = 5;

impl HealthCheck for GrpcCheck {
    fn question(&self) -> CheckQuestion {
        let message = HealthCheckRequest { service: self.service.clone() }.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let mut body = vec![0];
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&message);
        CheckQuestion::new("POST", "/grpc.health.v1.Health/Check")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
    }

    fn judge(&self, answer: &CheckAnswer) -> CheckVerdict {
        match (answer.status, answer.field("grpc-status")) {
            (200, Some("0")) => {}
            (200, Some("12")) => return CheckVerdict::Inconclusive("it has no grpc.health.v1.Health".to_owned()),
            (200, code) => return CheckVerdict::Unhealthy(format!("grpc-status {}", code.unwrap_or("is missing"))),
            (status, _) => return CheckVerdict::Unhealthy(format!("HTTP status {status}")),
        }
        let message = answer.body.get(PREFIX..).and_then(|message| HealthCheckResponse::decode(message).ok());
        match message.map(|message| message.status()) {
            Some(ServingStatus::Serving) => CheckVerdict::Healthy,
            Some(status) => CheckVerdict::Unhealthy(status.as_str_name().to_owned()),
            None => CheckVerdict::Unhealthy("the answer is no HealthCheckResponse".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: &str, status: Option<ServingStatus>) -> CheckAnswer {
        let message = status.map(|status| HealthCheckResponse { status: status.into() }.encode_to_vec());
        let body = message.map(|message| [vec![0, 0, 0, 0, message.len() as u8], message].concat());
        let mut answer = CheckAnswer::new(200);
        answer.fields = vec![("grpc-status".to_owned(), code.to_owned())];
        answer.body = body.unwrap_or_default();
        answer
    }

    #[test]
    fn verdicts_by_table() {
        use CheckVerdict::{Healthy, Inconclusive, Unhealthy};
        let check = GrpcCheck { service: "shop.Payments".to_owned() };
        let unhealthy = |reason: &str| Unhealthy(reason.to_owned());
        for (answer, verdict) in [
            (answer("0", Some(ServingStatus::Serving)), Healthy),
            (answer("0", Some(ServingStatus::NotServing)), unhealthy("NOT_SERVING")),
            (answer("0", Some(ServingStatus::Unknown)), unhealthy("UNKNOWN")),
            (answer("0", None), unhealthy("the answer is no HealthCheckResponse")),
            (answer("12", None), Inconclusive("it has no grpc.health.v1.Health".to_owned())),
            (answer("7", None), unhealthy("grpc-status 7")),
            (CheckAnswer::new(200), unhealthy("grpc-status is missing")),
            (CheckAnswer::new(503), unhealthy("HTTP status 503")),
        ] {
            assert_eq!(check.judge(&answer), verdict, "{answer:?}");
        }
        let question = check.question();
        assert_eq!(question.body, b"\0\0\0\0\x0f\x0a\x0dshop.Payments");
    }
}
