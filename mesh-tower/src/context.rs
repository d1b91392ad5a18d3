//! What one request knows and every call made on its behalf should carry, without a line of code in the handler.
//!
//! A sidecar cannot tell which outgoing call belongs to which incoming request, so services copy headers by hand. In
//! process it is known: the server stack keeps trace, deadline and callers in a task-local [`RequestContext`] whose
//! scope covers every poll of the handler and of its response body, and client stacks pick it up. Work that leaves the
//! task takes it along with [`spawn`].

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use mesh_core::deadline::Deadline;
use mesh_core::identity::SpiffeId;
use tokio::task::JoinHandle;

mod span;
mod trace;

pub use trace::TraceContext;

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// Trace, deadline and callers of the request being answered. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RequestContext {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    trace: TraceContext,
    deadline: Option<Deadline>,
    caller: Option<SpiffeId>,
    /// Told by whoever reads the headers of trusted proxies, which is after the context was made.
    client: OnceLock<IpAddr>,
}

impl RequestContext {
    /// A context for work that no request caused: a timer, a queue, a test.
    pub fn new(trace: TraceContext, deadline: Option<Deadline>) -> Self {
        Self::of_request(trace, deadline, None)
    }

    pub(crate) fn of_request(trace: TraceContext, deadline: Option<Deadline>, caller: Option<SpiffeId>) -> Self {
        Self { shared: Arc::new(Shared { trace, deadline, caller, client: OnceLock::new() }) }
    }

    /// Tells once from which address the call came.
    pub(crate) fn came_from(&self, client: IpAddr) {
        // A second word is not heard: the first came from the stack.
        let _ = self.shared.client.set(client);
    }

    /// The context of the request that the current task answers; `None` outside of one.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// The trace, with the server's own span as the parent of whatever comes next.
    pub fn trace(&self) -> &TraceContext {
        &self.shared.trace
    }

    /// When the caller stops waiting.
    pub fn deadline(&self) -> Option<Deadline> {
        self.shared.deadline
    }

    /// Who called: by certificate, or named by a pinned gateway.
    pub fn caller(&self) -> Option<&SpiffeId> {
        self.shared.caller.as_ref()
    }

    /// From which address the call came; behind trusted proxies (`trusted_hops`), where its client is.
    pub fn client(&self) -> Option<IpAddr> {
        self.shared.client.get().copied()
    }

    /// Runs `future` in this context: every poll of it sees it as [`current`](Self::current).
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), future)
    }

    /// Runs `work` in this context.
    pub fn sync_scope<R>(&self, work: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self.clone(), work)
    }
}

/// Like [`tokio::spawn`], in the context of the request being answered.
///
/// The task may outlive the request; calls that it makes after the deadline fail.
///
/// # Panics
/// Outside of a Tokio runtime, as `tokio::spawn` does.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match RequestContext::current() {
        Some(context) => tokio::spawn(context.scope(future)),
        None => tokio::spawn(future),
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::rng::Rng;

    use super::*;

    #[tokio::test]
    async fn a_spawned_task_keeps_the_context_and_a_plain_one_loses_it() {
        let context = RequestContext::new(TraceContext::root(&Rng::seeded(1)), None);
        let id = context.trace().trace_id();
        let (kept, lost) = context
            .scope(async {
                let kept = spawn(async { RequestContext::current().map(|context| context.trace().trace_id()) });
                let lost = tokio::spawn(async { RequestContext::current().is_none() });
                (kept.await.unwrap(), lost.await.unwrap())
            })
            .await;
        assert_eq!(kept, Some(id));
        assert!(lost && RequestContext::current().is_none());
    }
}
