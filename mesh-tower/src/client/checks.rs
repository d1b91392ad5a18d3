//! Asks the endpoints of a cluster how they are, beside the requests.
//!
//! A check goes over the endpoint's own pool: the same mTLS, the same pinned identities, the same connection that requests
//! would take. One task for each cluster decides whose turn it is; it looks at the set once a second, so that endpoints
//! come and go without being told to it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full, Limited};
use mesh_core::Mesh;
use mesh_core::cluster::EndpointState;
use mesh_core::config::HealthCheckConfig;
use mesh_core::discover::EndpointKey;
use mesh_core::health::{CheckAnswer, CheckQuestion, CheckVerdict, HealthCheck};
use mesh_core::rng::Rng;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::agenda::Agenda;
use super::authenticate::attach_token;
use super::pool::{self, Pool, Progress};
use super::registry::RuntimeCluster;
use super::replay::ReplayBody;
use super::request_body::RequestBody;
use crate::error::{Error, ErrorKind};

/// The longest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;
/// How long a change of the set, or the end of the cluster, may go unnoticed.
const LOOK: Duration = Duration::from_secs(1);

/// Begins to check the endpoints of a cluster that was made, if they are to be checked.
pub(super) fn begin(mesh: &Mesh, cluster: &Arc<RuntimeCluster>) {
    if let Some((check, config)) = cluster.check.clone() {
        let checks = Checks { check, config, rng: mesh.rng().fork() };
        // Ends within a second of the last handle of the cluster.
        mesh.spawn("health checks", checks.run(Arc::downgrade(cluster)));
    }
}

/// The checks of one cluster.
pub(super) struct Checks {
    pub(super) check: Arc<dyn HealthCheck>,
    pub(super) config: HealthCheckConfig,
    pub(super) rng: Rng,
}

impl Checks {
    /// Checks every endpoint of `cluster` until that is gone.
    ///
    /// A check costs its place in the [`Agenda`], and a look a second at the whole set, however many endpoints there are.
    pub(super) async fn run(self, cluster: Weak<RuntimeCluster>) {
        let (mut agenda, mut next_look) = (Agenda::default(), Instant::now());
        let (mut tasks, mut asked) = (JoinSet::new(), HashMap::<Id, EndpointKey>::new());
        loop {
            let Some(alive) = cluster.upgrade() else { return };
            let now = Instant::now();
            if next_look <= now {
                // One that is new is asked soon, and not at the same moment as all that came with it.
                agenda.renew(&alive.cluster.endpoints(), || now + self.spread(self.rng.unit()));
                next_look = now + LOOK;
            }
            while tasks.len() < self.config.concurrency
                && let Some(endpoint) = agenda.due(now)
            {
                let key = endpoint.endpoint().key.clone();
                let (check, timeout) = (Arc::clone(&self.check), self.config.timeout);
                let (alive, config) = (Arc::clone(&alive), self.config.clone());
                let task = tasks.spawn(async move {
                    let verdict = ask(&alive, &endpoint, &*check, timeout).await;
                    alive.cluster.checked(&endpoint, &verdict, &config, Instant::now());
                });
                asked.insert(task.id(), key);
            }
            drop(alive);
            // Whoever is due and finds no place waits for the end of a check.
            let room = tasks.len() < self.config.concurrency;
            let wake = agenda.next().filter(|_| room).map_or(next_look, |next| next.min(next_look));
            tokio::select! {
                biased; // what is due is done above, whoever wakes
                () = sleep_until(wake) => {}
                Some(ended) = tasks.join_next_with_id() => {
                    let id = match &ended {
                        Ok((id, ())) => *id,
                        Err(panicked) => {
                            tracing::error!(error = %panicked, "a health check panicked");
                            panicked.id()
                        }
                    };
                    if let Some(key) = asked.remove(&id) {
                        let jitter = self.spread(2.0 * self.rng.unit());
                        agenda.again(key, Instant::now() + self.config.interval + jitter - self.spread(1.0));
                    }
                }
            }
        }
    }

    fn spread(&self, factor: f64) -> Duration {
        self.config.interval.mul_f64(self.config.jitter * factor)
    }
}

/// One check. What fails for a reason of our own says nothing about the endpoint.
async fn ask(
    cluster: &RuntimeCluster,
    endpoint: &EndpointState<Pool>,
    check: &dyn HealthCheck,
    timeout: Duration,
) -> CheckVerdict {
    let give_up = Instant::now() + timeout;
    let request = match request(cluster, check.question()) {
        Ok(request) => request,
        Err(error) => return CheckVerdict::Inconclusive(error.to_string()),
    };
    let (asked, progress) = (Instant::now(), Progress::default());
    let lease = match timeout_at(give_up, Pool::acquire(endpoint, &progress)).await {
        Ok(Ok(lease)) => lease,
        Ok(Err(error)) => return failed(&error),
        Err(_) if endpoint.transport().held_up_since(asked) => {
            let limits = "limits.max_handshakes, limits.max_connections";
            return CheckVerdict::Inconclusive(format!("no turn to connect within {timeout:?} ({limits})"));
        }
        Err(_) if endpoint.transport().connections() > 0 => {
            return CheckVerdict::Inconclusive(format!("no stream was free within {timeout:?}"));
        }
        Err(_) => return CheckVerdict::Unhealthy(format!("not connected within {timeout:?}")),
    };
    match timeout_at(give_up, answer(pool::send(lease, request))).await {
        Ok(Ok(answer)) => check.judge(&answer),
        Ok(Err(verdict)) => verdict,
        Err(_) => CheckVerdict::Unhealthy(format!("not answered within {timeout:?}")),
    }
}

fn request(cluster: &RuntimeCluster, question: CheckQuestion) -> Result<Request<ReplayBody>, Error> {
    let invalid = |error: http::Error| Error::new(ErrorKind::Request, "the check cannot be sent").caused_by(error);
    let uri = http::Uri::builder().scheme("https").authority(&**cluster.cluster.name()).path_and_query(question.path);
    let mut builder = Request::builder().method(&*question.method).uri(uri.build().map_err(invalid)?);
    for (name, value) in question.headers {
        builder = builder.header(name, value);
    }
    let body = ReplayBody::once(RequestBody::new(Full::new(bytes::Bytes::from(question.body))));
    let mut request = builder.body(body).map_err(invalid)?;
    let agent = HeaderValue::from_static("mesh-health-check");
    request.headers_mut().entry(http::header::USER_AGENT).or_insert(agent);
    attach_token(cluster, &mut request)?;
    Ok(request)
}

/// The whole answer, or what its lack says.
async fn answer(
    response: impl Future<Output = Result<http::Response<super::Body>, Error>>,
) -> Result<CheckAnswer, CheckVerdict> {
    let (head, body) = response.await.map_err(|error| failed(&error))?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|error| CheckVerdict::Unhealthy(format!("the answer broke off: {error}")))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let text = |(name, value): (&HeaderName, &HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
    let mut answer = CheckAnswer::new(head.status.as_u16());
    answer.fields = head.headers.iter().chain(&trailers).filter_map(text).collect();
    answer.body = body.to_bytes().to_vec();
    Ok(answer)
}

fn failed(error: &Error) -> CheckVerdict {
    match error.kind() {
        ErrorKind::Connect | ErrorKind::PeerIdentity | ErrorKind::Connection | ErrorKind::Body => {
            CheckVerdict::Unhealthy(error.to_string())
        }
        // No place in the queue, no SVID of our own.
        _ => CheckVerdict::Inconclusive(error.to_string()),
    }
}
