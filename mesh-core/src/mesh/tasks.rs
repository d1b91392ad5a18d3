//! Background work that cannot die unnoticed and cannot outlive its mesh.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use tokio::task::{AbortHandle, JoinSet};

use crate::telemetry::Metrics;

/// The tasks of one mesh; dropping it aborts them.
#[derive(Debug)]
pub(super) struct Tasks {
    running: Mutex<JoinSet<()>>,
    metrics: Arc<Metrics>,
}

impl Tasks {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { running: Mutex::default(), metrics }
    }

    pub(super) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Forget those that have ended, so that the set stays as small as the work.
        while running.try_join_next().is_some() {}
        running.spawn(supervised(name, task, Arc::clone(&self.metrics)));
    }
}

/// One task that ends when this handle is dropped.
#[derive(Debug)]
pub(super) struct Task(AbortHandle);

impl Task {
    pub(super) fn spawn(
        name: &'static str,
        metrics: Arc<Metrics>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self(tokio::spawn(supervised(name, task, metrics)).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A panic ends the task, as it must, but is logged and counted first.
async fn supervised(name: &'static str, task: impl Future<Output = ()>, metrics: Arc<Metrics>) {
    if let Err(message) = caught(task, &metrics).await {
        tracing::error!(task = name, message, "a background task panicked; what it kept up to date stays as it is");
    }
}

/// The result of `task`, or the message of its panic, which is counted.
pub(super) async fn caught<T>(task: impl Future<Output = T>, metrics: &Metrics) -> Result<T, String> {
    let mut task = Box::pin(task);
    let ended = std::future::poll_fn(|cx| {
        // Unwind safe: nothing of the task is used again after a panic.
        match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    });
    ended.await.map_err(|panic| {
        metrics.runtime.task_panics.inc();
        message(&*panic)
    })
}

/// What a panic said.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
