//! Chooses an endpoint for each attempt, and tells its cluster how the attempt went.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use mesh_core::cluster::PickError;
use mesh_core::deadline::Deadline;
use mesh_core::health::Outcome;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::Body;
use super::attempts::{AttemptOutcome, Attempts};
use super::call::{Call, call, call_mut};
use super::course::Course;
use super::deadline;
use super::in_flight::InFlight;
use super::pool::Chosen;
use super::registry::RuntimeCluster;
use crate::error::{Error, ErrorKind};
use crate::{classify, grpc};

/// Sends each attempt to an endpoint of the call's cluster.
///
/// Waits until the endpoints are known, at most to the deadline. The choice is made when the attempt is sent, never
/// before: an endpoint chosen in `poll_ready` may be gone by `call` (tower-rs/tower#856).
///
/// # Position
///
/// Below `retry`, so that each attempt goes somewhere else; above `endpoint`, because an attempt that times out must
/// count against the endpoint that was slow.
#[derive(Debug, Clone, Copy, Default)]
pub struct BalanceLayer(());

impl BalanceLayer {
    /// Takes the cluster from the call.
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for BalanceLayer {
    type Service = Balance<S>;

    fn layer(&self, inner: S) -> Balance<S> {
        Balance { inner }
    }
}

/// The service of [`BalanceLayer`].
#[derive(Debug, Clone)]
pub struct Balance<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Balance<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Error> + Clone,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = match call(&request, "BalanceLayer") {
            Ok(call) => State::Pick { call: Some(call.clone()) },
            Err(error) => State::Refused { error: Some(error) },
        };
        ResponseFuture {
            inner: self.inner.clone(),
            request: Some(request),
            flight: None,
            course: None,
            grpc: false,
            state,
        }
    }
}

type Resolving = Pin<Box<dyn Future<Output = ()> + Send>>;

pin_project! {
    /// The future of [`Balance`]. Dropping it ends the pick.
    pub struct ResponseFuture<S: Service<Request<B>>, B> {
        inner: S,
        request: Option<Request<B>>,
        flight: Option<InFlight>,
        course: Option<Course>,
        grpc: bool,
        #[pin]
        state: State<S::Future>,
    }

    impl<S: Service<Request<B>>, B> PinnedDrop for ResponseFuture<S, B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let (Some(flight), Some(course)) = (this.flight, this.course)
                && course.wait(Duration::ZERO).is_some_and(|wait| wait.is_innocent())
            {
                flight.is_innocent();
            }
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Pick { call: Option<Call> },
        Resolve { call: Option<Call>, wait: Resolving },
        Attempt { #[pin] future: F },
        Refused { error: Option<Error> },
    }
}

impl<S: Service<Request<B>>, B> std::fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").field("flight", &self.flight).finish_non_exhaustive()
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Error>,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Pick { call } => {
                    let (Some(call), Some(mut request)) = (call.take(), this.request.take()) else {
                        return Poll::Pending; // polled after its end
                    };
                    let now = Instant::now();
                    // Whoever is so late asks nothing of an endpoint, and none may be blamed for it.
                    if call.headers_by.is_some_and(|due| due.expired(now)) {
                        return Poll::Ready(Err(deadline::passed()));
                    }
                    let held = match call.cluster.limits.request(call.retry.clone()) {
                        Ok(held) => held,
                        Err(error) => return Poll::Ready(Err(error)),
                    };
                    match call.cluster.cluster.pick_for(call.hash, &call.tried, now) {
                        Ok((pick, reason)) => {
                            let chosen = Chosen::new(Arc::clone(pick.endpoint()));
                            match call_mut(&mut request, "BalanceLayer") {
                                Ok(call) => call.chosen = Some(Arc::clone(&chosen)),
                                Err(error) => return Poll::Ready(Err(error)),
                            }
                            *this.course = Some(Course::new(chosen, reason, &call, now));
                            *this.flight = Some(InFlight::new(pick, call.headers_by, call.is_hurried(), held));
                            *this.grpc = call.grpc;
                            let future = this.inner.call(request);
                            this.state.set(State::Attempt { future });
                        }
                        Err(PickError::Unresolved) => {
                            *this.request = Some(request);
                            let wait = Box::pin(resolved(Arc::clone(&call.cluster), call.headers_by));
                            this.state.set(State::Resolve { call: Some(call), wait });
                        }
                        Err(error) => {
                            let message = format!("cluster `{}`: {error}", call.cluster.cluster.name());
                            return Poll::Ready(Err(Error::new(ErrorKind::NoEndpoints, message).never_sent()));
                        }
                    }
                }
                StateProj::Resolve { call, wait } => {
                    ready!(wait.as_mut().poll(cx));
                    let Some(call) = call.take() else { return Poll::Pending };
                    if !call.cluster.cluster.resolved() {
                        let message =
                            format!("discovery of cluster `{}` has not answered yet", call.cluster.cluster.name());
                        return Poll::Ready(Err(Error::new(ErrorKind::Unresolved, message).never_sent()));
                    }
                    this.state.set(State::Pick { call: Some(call) });
                }
                StateProj::Attempt { future } => {
                    let result = match future.poll(cx) {
                        Poll::Ready(result) => result,
                        Poll::Pending => match this.course.as_mut().and_then(Course::overdue) {
                            Some(error) => Err(error),
                            None => return Poll::Pending,
                        },
                    };
                    let (Some(flight), Some(course)) = (this.flight.take(), this.course.take()) else {
                        return Poll::Pending;
                    };
                    // An attempt that is given up holds nothing while its caller is told.
                    this.state.set(State::Refused { error: None });
                    return Poll::Ready(match result {
                        Ok(response) => Ok(answered(flight, &course, response, *this.grpc)),
                        Err(error) => Err(failed(flight, &course, error)),
                    });
                }
                StateProj::Refused { error } => {
                    return match error.take() {
                        Some(error) => Poll::Ready(Err(error)),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }
}

/// Waits for the first endpoints, at most until `deadline`.
async fn resolved(cluster: Arc<RuntimeCluster>, deadline: Option<Deadline>) {
    let resolved = cluster.cluster.until_resolved();
    match deadline {
        // Whoever waits looks for itself what came first.
        Some(deadline) => drop(tokio::time::timeout_at(deadline.instant(), resolved).await),
        None => resolved.await,
    }
}

fn answered(mut flight: InFlight, course: &Course, mut response: Response<Body>, is_grpc: bool) -> Response<Body> {
    let now = Instant::now();
    let class = classify::headers(is_grpc, response.status(), response.headers());
    let how = match grpc::status(response.headers()) {
        Some(code) if is_grpc => AttemptOutcome::Grpc(code.0),
        _ => AttemptOutcome::Answered(response.status()),
    };
    flight.answered(class.map_or(Outcome::Success, |class| class.outcome), now);
    response.extensions_mut().insert(Attempts::one(course.report(how, now)));
    response.body_mut().guard_attempt(flight, is_grpc && class.is_none());
    response
}

fn failed(flight: InFlight, course: &Course, error: Error) -> Error {
    let now = Instant::now();
    let report = course.report(AttemptOutcome::Failed(error.kind()), now);
    // Whose time is up while it waits for a connection has sent nothing.
    let error = if error.kind() == ErrorKind::Timeout && course.is_waiting() { error.never_sent() } else { error };
    flight.failed(error, report, now)
}
