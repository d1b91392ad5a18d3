//! Asks the external authorizers of CUSTOM policies, all of one request at once.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mesh_core::Mesh;
use mesh_core::policy::{Authorizing, CustomAnswer, CustomAnswers, CustomMatch, ExternalError, Request};
use mesh_core::telemetry::CustomLabels;
use tokio::time::{Instant, timeout};

/// The answers of everybody in `matches`, who have `limit` together. Fails closed: an error, a panic, no answer in time and
/// nobody of that name are answers that deny.
///
/// Cancel safe. As many questions at once as authorizers are registered, at most.
pub(super) async fn ask(
    mesh: &Mesh,
    matches: Vec<CustomMatch>,
    request: &Request<'_>,
    limit: Duration,
) -> CustomAnswers {
    let began = Instant::now();
    let mut questions: Vec<Question<'_>> =
        matches.into_iter().map(|custom| Question::new(mesh, custom, request, began)).collect();
    let all = poll_fn(|cx| {
        // Every one is polled, whatever the others said.
        let open = questions.iter_mut().map(|question| question.poll(mesh, cx)).filter(Poll::is_pending).count();
        if open == 0 { Poll::Ready(()) } else { Poll::Pending }
    });
    // What is open when the time is up has not answered.
    drop(timeout(limit, all).await);
    let mut answers = CustomAnswers::default();
    for question in questions {
        let (provider, answer) = question.close(mesh);
        answers.insert(provider, answer);
    }
    answers
}

/// Counts a panic. The panic hook has printed the message.
fn panicked(mesh: &Mesh) -> ExternalError {
    mesh.metrics().server.panics.inc();
    ExternalError("panicked".to_owned())
}

struct Question<'a> {
    custom: CustomMatch,
    began: Instant,
    state: State<'a>,
}

enum State<'a> {
    Open(Authorizing<'a>),
    Answered(CustomAnswer, Duration),
}

impl<'a> Question<'a> {
    fn new(mesh: &'a Mesh, custom: CustomMatch, request: &'a Request<'a>, began: Instant) -> Self {
        let state = match mesh.authorizer(&custom.provider) {
            None => State::Answered(CustomAnswer::Unknown, Duration::ZERO),
            Some(authorizer) => match catch_unwind(AssertUnwindSafe(|| authorizer.authorize(request))) {
                Ok(future) => State::Open(future),
                Err(_) => State::Answered(CustomAnswer::Error, Duration::ZERO),
            },
        };
        let question = Self { custom, began, state };
        match question.state {
            State::Answered(CustomAnswer::Error, _) => question.report(CustomAnswer::Error, Some(&panicked(mesh))),
            State::Answered(answer, _) => question.report(answer, None),
            State::Open(_) => {}
        }
        question
    }

    fn poll(&mut self, mesh: &Mesh, cx: &mut Context<'_>) -> Poll<()> {
        let State::Open(future) = &mut self.state else { return Poll::Ready(()) };
        let (answer, error) = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => (CustomAnswer::from(&result), result.err()),
            Err(_) => (CustomAnswer::Error, Some(panicked(mesh))),
        };
        self.report(answer, error.as_ref());
        self.end(answer);
        Poll::Ready(())
    }

    /// Drops what answered, which may panic too.
    fn end(&mut self, answer: CustomAnswer) {
        let answered = State::Answered(answer, self.began.elapsed());
        let open = std::mem::replace(&mut self.state, answered);
        drop(catch_unwind(AssertUnwindSafe(move || drop(open))));
    }

    fn close(mut self, mesh: &Mesh) -> (Arc<str>, CustomAnswer) {
        if let State::Open(_) = self.state {
            self.report(CustomAnswer::Timeout, None);
            self.end(CustomAnswer::Timeout);
        }
        let (answer, took) = match self.state {
            State::Answered(answer, took) => (answer, took),
            State::Open(_) => (CustomAnswer::Timeout, self.began.elapsed()),
        };
        let labels = CustomLabels { provider: Arc::clone(&self.custom.provider), outcome: answer.as_str() };
        mesh.metrics().server.asked(&labels, took);
        (self.custom.provider, answer)
    }

    /// Whoever did not say yes or no is a problem of its operator.
    fn report(&self, answer: CustomAnswer, error: Option<&ExternalError>) {
        let CustomMatch { provider, policy, rule, .. } = &self.custom;
        if !matches!(answer, CustomAnswer::Allow | CustomAnswer::Deny) {
            let error = error.map(tracing::field::display);
            tracing::warn!(%provider, %policy, rule, answer = answer.as_str(), error, "external authorizer: denied");
        }
    }
}
