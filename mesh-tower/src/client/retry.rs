//! Repeats what failed, where that is safe, may help, and is paid for.
//!
//! Repeating is how one lost endpoint goes unnoticed, and how a struggling service is finished off. So all of these must
//! hold before anything is sent again:
//!
//! 1. it is *safe*: provably never begun, or idempotent by method or declaration ([`RetrySafety`]);
//! 2. it *may help*: the failure was the endpoint's, and nobody behind it has retried already ([`classify`]);
//! 3. the request body is still there, whole;
//! 4. attempts and time are left, after the wait that the endpoint asked for;
//! 5. the route's budget pays, and the cluster has a place for one more (`limits.max_retries`).
//!
//! Where one does not hold, the last answer or error is what the caller gets.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use mesh_core::Mesh;
use mesh_core::health::Outcome;
use mesh_core::retry::{FailedAttempt, Pushback, RetryDecision, RetryPolicy, RetrySafety, StopReason};
use mesh_core::rng::Rng;
use mesh_core::telemetry::Label;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use super::Body;
use super::attempts::{AttemptOutcome, Attempts};
use super::call::{Call, Idempotent, NoRetry, call};
use super::future::CallOr;
use super::limits::Overflow;
use super::replay::{Replay, ReplayBody, RequestBody};
use crate::classify::{self, Class};
use crate::error::{Error, ErrorKind};
use crate::places::Place;

/// How long headers are held back to see whether a gRPC stream fails at once.
const PEEK: Duration = Duration::from_millis(10);

/// Repeats failed attempts by the rules and the budget of the call's route.
///
/// # Position
///
/// Below `deadline`, which bounds all attempts together; above `balance`, so that each attempt goes to another
/// endpoint. A stack has one: layers that each repeat multiply. Requests marked [`NoRetry`] pass through.
#[derive(Debug, Clone)]
pub struct RetryLayer {
    rng: Rng,
}

impl RetryLayer {
    /// Takes the rules from the call.
    pub fn new(mesh: &Mesh) -> Self {
        Self { rng: mesh.rng().clone() }
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self { rng: Rng::seeded(7) }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { rng: self.rng.clone(), inner }
    }
}

/// The service of [`RetryLayer`].
#[derive(Debug, Clone)]
pub struct Retry<S> {
    rng: Rng,
    inner: S,
}

impl<S> Service<Request<RequestBody>> for Retry<S>
where
    S: Service<Request<ReplayBody>, Response = Response<Body>, Error = Error> + Clone,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = CallOr<ResponseFuture<S>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let call = match call(&request, "RetryLayer") {
            Ok(call) => call.clone(),
            Err(error) => return CallOr::refused(error),
        };
        let (head, body) = request.into_parts();
        let declared = head.extensions.get::<Idempotent>().is_some();
        let rules = Rules {
            once: head.extensions.get::<NoRetry>().is_some(),
            // Without rules of its own a route repeats only what was never sent, whatever the caller vouches for.
            idempotent: call
                .route
                .retry
                .as_ref()
                .is_some_and(|retry| declared || retry.idempotent(head.method.as_str())),
            call,
        };
        let replay = Replay::new(body, rules.policy().max_replay_bytes);
        rules.call.route.budget.deposit(Instant::now());
        // A body that was never begun has a first attempt.
        let first = replay.attempt().unwrap_or_default();
        let future = self.inner.call(Request::from_parts(head.clone(), first));
        CallOr::call(ResponseFuture {
            inner: self.inner.clone(),
            rng: self.rng.clone(),
            head,
            replay,
            rules,
            made: Attempts::default(),
            sent: false,
            state: State::Attempt { future },
        })
    }
}

struct Rules {
    call: Call,
    /// Sent at most once, come what may.
    once: bool,
    /// May be sent again although it may have been processed.
    idempotent: bool,
}

type Answer = Result<Response<Body>, Error>;

pin_project! {
    /// The future of [`Retry`].
    ///
    /// ```text
    ///   Attempt --answer--> (gRPC, request sent) Peek --> judged --give up--> done
    ///      ^                                                |
    ///      +--------------------- Wait <-----repeat---------+
    /// ```
    pub struct ResponseFuture<S: Service<Request<ReplayBody>>> {
        inner: S,
        rng: Rng,
        head: Parts,
        replay: Replay,
        rules: Rules,
        made: Attempts,
        // Some attempt may have been processed.
        sent: bool,
        #[pin]
        state: State<S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Attempt { #[pin] future: F },
        Peek { response: Option<Response<Body>>, #[pin] limit: Sleep },
        Wait { #[pin] timer: Sleep, place: Option<Place> },
    }
}

impl<S: Service<Request<ReplayBody>>> std::fmt::Debug for ResponseFuture<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").field("made", &self.made).finish_non_exhaustive()
    }
}

impl<S> Future for ResponseFuture<S>
where
    S: Service<Request<ReplayBody>, Response = Response<Body>, Error = Error>,
{
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut this = self.project();
        loop {
            let (mut answer, class) = match this.state.as_mut().project() {
                StateProj::Attempt { future } => match ready!(future.poll(cx)) {
                    Err(error) => (Err(error), None),
                    Ok(response) => {
                        let rules = &*this.rules;
                        match classify::headers(rules.call.grpc, response.status(), response.headers()) {
                            Some(class) => (Ok(response), Some(class)),
                            // The status is still to come. Waiting for it before the request is sent would be waiting
                            // for an endpoint that may be waiting for us.
                            None if rules.idempotent && !rules.once && this.replay.ended() => {
                                this.state.set(State::Peek { response: Some(response), limit: sleep(PEEK) });
                                continue;
                            }
                            None => return Poll::Ready(finish(this.made, *this.sent, Ok(response))),
                        }
                    }
                },
                StateProj::Peek { response, limit } => {
                    let Some(waiting) = response else { return Poll::Pending };
                    let peeked = match waiting.body_mut().poll_peek(cx) {
                        Poll::Ready(peeked) => peeked,
                        // Slow is not failed: the caller gets its headers.
                        Poll::Pending if limit.poll(cx).is_ready() => Ok(None),
                        Poll::Pending => return Poll::Pending,
                    };
                    let Some(mut peeked_response) = response.take() else { return Poll::Pending };
                    match peeked {
                        Ok(Some(class)) => {
                            let code = peeked_response.body().peeked_status();
                            let attempts = peeked_response.extensions_mut().get_mut::<Attempts>();
                            if let (Some(code), Some(last)) = (code, attempts.and_then(Attempts::last_mut)) {
                                last.outcome = AttemptOutcome::Grpc(code.0);
                            }
                            (Ok(peeked_response), Some(class))
                        }
                        Ok(None) => return Poll::Ready(finish(this.made, *this.sent, Ok(peeked_response))),
                        Err(error) => {
                            let attempts = peeked_response.extensions_mut().remove::<Attempts>().unwrap_or_default();
                            (Err(error.with_attempts(attempts)), None)
                        }
                    }
                }
                StateProj::Wait { timer, place } => {
                    ready!(timer.poll(cx));
                    let Some(body) = this.replay.attempt() else { return Poll::Pending };
                    let mut head = this.head.clone();
                    let mut call = this.rules.call.clone();
                    call.tried = this.made.tried();
                    call.retry = place.take().map(Arc::new);
                    head.extensions.insert(call);
                    let future = this.inner.call(Request::from_parts(head, body));
                    this.state.set(State::Attempt { future });
                    continue;
                }
            };
            let Some((wait, place)) = this.rules.repeat(&mut answer, class, this.made.len(), this.replay, this.rng)
            else {
                return Poll::Ready(finish(this.made, *this.sent, answer));
            };
            let attempts = match &answer {
                Ok(response) => response.extensions().get::<Attempts>().cloned().unwrap_or_default(),
                Err(error) => error.attempts().clone(),
            };
            // An attempt that picked no endpoint counts all the same.
            let attempts = if attempts.is_empty() { Attempts::one(None, outcome(&answer)) } else { attempts };
            *this.made = attempts.after(std::mem::take(this.made));
            *this.sent |= !matches!(&answer, Err(error) if error.is_never_sent());
            drop(answer);
            this.state.set(State::Wait { timer: sleep(wait), place });
        }
    }
}

fn outcome(answer: &Answer) -> AttemptOutcome {
    match answer {
        Ok(response) => AttemptOutcome::Answered(response.status()),
        Err(error) => AttemptOutcome::Failed(error.kind()),
    }
}

/// Gives the caller the record of every attempt. `sent`: an earlier one may have been processed, whatever became of the last.
fn finish(made: &mut Attempts, sent: bool, answer: Answer) -> Answer {
    let made = std::mem::take(made);
    if made.is_empty() {
        return answer;
    }
    match answer {
        Ok(mut response) => {
            let last = response.extensions_mut().remove::<Attempts>().unwrap_or_default();
            response.extensions_mut().insert(last.after(made));
            Ok(response)
        }
        Err(error) => {
            let last = error.attempts().clone();
            let error = if sent { error.maybe_sent() } else { error };
            Err(error.with_attempts(last.after(made)))
        }
    }
}

impl Rules {
    fn policy(&self) -> &RetryPolicy {
        self.call.route.retry_policy()
    }

    /// After which wait to send again, if at all. Core decides; here it is found out what happened. An answer that would be
    /// asked for in vain further up, too, is marked as such.
    fn repeat(
        &self,
        answer: &mut Answer,
        class: Option<Class>,
        made: usize,
        replay: &Replay,
        rng: &Rng,
    ) -> Option<(Duration, Option<Place>)> {
        if self.once || !replay.is_whole() {
            return None;
        }
        let (safety, outcome, pushback) = match (&*answer, class) {
            (Err(error), _) => {
                let safety = if error.is_never_sent() { RetrySafety::NotSent } else { self.processed() };
                (safety, of_error(error.kind())?, Pushback::None)
            }
            (Ok(_), Some(class)) if class.retryable => (self.processed(), class.outcome, class.pushback),
            (Ok(_), _) => return None,
        };
        let attempts = u32::try_from(made).unwrap_or(u32::MAX).saturating_add(1);
        let failed = FailedAttempt { attempts, safety, outcome, pushback, deadline: self.call.headers_by };
        let route = &self.call.route;
        let metrics = self.call.cluster.cluster.metrics();
        match self.policy().decide(&failed, &route.budget, rng, Instant::now()) {
            RetryDecision::Retry { after, reason } => {
                let limits = &self.call.cluster.limits;
                let place = match limits.retry() {
                    Ok(place) => place,
                    Err(Overflow { max }) => {
                        limits.retry_refused();
                        tracing::debug!(route = %route.name, max, "attempt is not repeated: limits.max_retries");
                        return None;
                    }
                };
                metrics.retries.inc(reason);
                tracing::debug!(route = %route.name, reason = reason.as_str(), ?after, "attempt is repeated");
                Some((after, place))
            }
            RetryDecision::Stop(reason) => {
                if reason == StopReason::Budget {
                    metrics.budget_exhausted.inc();
                }
                if reason.is_in_vain() {
                    mark_in_vain(answer);
                }
                tracing::debug!(route = %route.name, %reason, "attempt is not repeated");
                None
            }
        }
    }

    fn processed(&self) -> RetrySafety {
        if self.idempotent { RetrySafety::Idempotent } else { RetrySafety::MaybeProcessed }
    }
}

/// Whoever passes the answer on, as it is or as an error of ours, passes this on too.
fn mark_in_vain(answer: &mut Answer) {
    match answer {
        Ok(response) => classify::forbid_retry(response.headers_mut()),
        Err(error) => error.mark_in_vain(),
    }
}

/// `None` for what another attempt cannot mend.
fn of_error(kind: ErrorKind) -> Option<Outcome> {
    Some(match kind {
        ErrorKind::Timeout => Outcome::Timeout,
        ErrorKind::Overloaded => Outcome::Failure { retry_after: None },
        ErrorKind::Connect | ErrorKind::PeerIdentity | ErrorKind::Connection | ErrorKind::Body => Outcome::Unreachable,
        _ => return None,
    })
}
