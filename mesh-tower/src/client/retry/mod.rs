//! Repeats what failed, where that is safe, may help, and is paid for.
//!
//! Repeating is how one lost endpoint goes unnoticed, and how a struggling service is finished off. So all of these must
//! hold before anything is sent again:
//!
//! 1. it is *safe*: provably never begun, or idempotent by method or declaration ([`RetrySafety`](mesh_core::retry::RetrySafety));
//! 2. it *may help*: the failure was the endpoint's, and nobody behind it has said that repeating is in vain ([`classify`]);
//! 3. the request body is still there, whole;
//! 4. attempts and time are left, after the wait that the endpoint asked for;
//! 5. the route's budget pays, and the cluster has a place for one more (`limits.max_retries`): held through a back-off of our
//!    own, which is short, as in Envoy. A wait that the endpoint asked for holds none, because it may be long and nothing is
//!    sent meanwhile; the place is taken afterwards.
//!
//! Where one does not hold, the last answer or error is what the caller gets.

mod rules;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use mesh_core::Mesh;
use mesh_core::retry::StopReason;
use mesh_core::rng::Rng;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use super::Body;
use super::attempts::{AttemptNext, AttemptOutcome, AttemptReport, Attempts};
use super::call::{NoRetry, call};
use super::events;
use super::future::CallOr;
use super::replay::{Replay, ReplayBody};
use super::request_body::RequestBody;
use crate::classify;
use crate::error::Error;
pub(super) use rules::is_idempotent;
use rules::{Again, Answer, Rules};

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
        let rules = Rules {
            once: head.extensions.get::<NoRetry>().is_some(),
            idempotent: is_idempotent(&call.route, &head.method, &head.extensions),
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
        Wait { #[pin] timer: Sleep, again: Again },
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
            let (answer, class) = match this.state.as_mut().project() {
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
                            None => {
                                let (name, answer) = (&this.rules.call.route.name, Ok(response));
                                events::attempt(name, this.made.len(), record(&answer), AttemptNext::Answered);
                                return Poll::Ready(finish(this.made, *this.sent, answer));
                            }
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
                        Ok(None) => (Ok(peeked_response), None),
                        Err(error) => {
                            let attempts = peeked_response.extensions_mut().remove::<Attempts>().unwrap_or_default();
                            (Err(error.with_attempts(attempts)), None)
                        }
                    }
                }
                StateProj::Wait { timer, again } => {
                    ready!(timer.poll(cx));
                    let place = match this.rules.place(again) {
                        Ok(place) => place,
                        Err(overflow) => {
                            if let Some(last) = this.made.last_mut() {
                                last.next = AttemptNext::Stopped(StopReason::Limit);
                            }
                            return Poll::Ready(finish(this.made, *this.sent, Err(overflow.into())));
                        }
                    };
                    let Some(body) = this.replay.attempt() else { return Poll::Pending };
                    let mut head = this.head.clone();
                    let mut call = this.rules.call.clone();
                    call.tried = this.made.tried();
                    call.retry = place.map(Arc::new);
                    head.extensions.insert(call);
                    let future = this.inner.call(Request::from_parts(head, body));
                    this.state.set(State::Attempt { future });
                    continue;
                }
            };
            let mut answer = answer;
            let made = this.made.len();
            let decision = this.rules.repeat(&answer, class, made, this.replay, this.rng);
            let next = match &decision {
                Ok(again) => AttemptNext::Repeated { after: again.wait, reason: again.reason },
                Err(next) => *next,
            };
            note(&mut answer, next);
            // Whoever passes a failed answer on as it is passes this on too; an error says it by itself.
            if next.is_in_vain(made)
                && let Ok(response) = &mut answer
            {
                classify::forbid_retry(response.headers_mut());
            }
            events::attempt(&this.rules.call.route.name, made, record(&answer), next);
            let Ok(again) = decision else {
                return Poll::Ready(finish(this.made, *this.sent, answer));
            };
            // An attempt that picked no endpoint counts all the same.
            let attempts = record(&answer).filter(|attempts| !attempts.is_empty()).cloned();
            let attempts = attempts
                .unwrap_or_else(|| Attempts::one(AttemptReport { next, ..AttemptReport::nowhere(outcome(&answer)) }));
            *this.made = attempts.after(std::mem::take(this.made));
            *this.sent |= !matches!(&answer, Err(error) if error.is_never_sent());
            drop(answer);
            this.state.set(State::Wait { timer: sleep(again.wait), again });
        }
    }
}

/// The record of the last attempt.
fn record(answer: &Answer) -> Option<&Attempts> {
    match answer {
        Ok(response) => response.extensions().get(),
        Err(error) => Some(error.attempts()),
    }
}

/// Writes into the record of the last attempt what follows it.
fn note(answer: &mut Answer, next: AttemptNext) {
    if next == AttemptNext::Answered {
        return; // it says so already
    }
    let attempts = match answer {
        Ok(response) => response.extensions_mut().get_mut(),
        Err(error) => Some(error.attempts_mut()),
    };
    if let Some(last) = attempts.and_then(Attempts::last_mut) {
        last.next = next;
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
            let all = response.extensions_mut().remove::<Attempts>().unwrap_or_default().after(made);
            response.extensions_mut().insert(all);
            Ok(response)
        }
        Err(error) => {
            let last = error.attempts().clone();
            let error = if sent { error.maybe_sent() } else { error };
            Err(error.with_attempts(last.after(made)))
        }
    }
}
