//! A request body under way, and its end when nobody waits for the answer any more.
//!
//! hyper resets the stream of a call that is dropped before the head of its answer. After that, it goes on with the request
//! body for as long as it takes, whoever has left: for ever, if nothing follows at its source, or if the peer reads nothing.
//! While it waits for the window it does not even look at the body. So the task that sends the body is itself given up:
//! with it goes the last that holds the stream, and h2 resets it (CANCEL).
//!
//! hyper looks at a body for the first time in the connection's own task, and spawns a task for what is left right then.
//! That is where [`Uploads`] learns whose it is.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::sync::oneshot;

tokio::task_local! {
    /// Of the body that the connection's task looked at last, until a task is spawned for its stream.
    static LOOKED_AT: Cell<Option<oneshot::Receiver<()>>>;
}

/// A request body's part in its stream.
pub(super) struct Upload {
    left: Option<oneshot::Receiver<()>>,
    _claim: Arc<dyn Any + Send + Sync>,
}

impl Upload {
    /// A body that holds `claim` as long as it is under way; whoever sends over what is returned gives it up.
    pub(super) fn new(claim: Arc<dyn Any + Send + Sync>) -> (oneshot::Sender<()>, Self) {
        let (leave, left) = oneshot::channel();
        (leave, Self { left: Some(left), _claim: claim })
    }

    /// The body is looked at.
    pub(super) fn looked_at(&mut self) {
        if self.left.is_some() {
            let _ = LOOKED_AT.try_with(|slot| slot.set(self.left.take()));
        }
    }
}

/// Polls a connection, whose streams [`Uploads`] spawns.
pub(super) fn poll_connection<T>(poll: impl FnOnce() -> T) -> T {
    LOOKED_AT.sync_scope(Cell::new(None), poll)
}

/// Runs the tasks of HTTP/2 streams, and gives up one whose caller has left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uploads;

impl<F> Executor<F> for Uploads
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        match LOOKED_AT.try_with(Cell::take).ok().flatten() {
            Some(left) => drop(tokio::spawn(Stream { task: Some(task), left: Some(left) })),
            None => drop(tokio::spawn(task)),
        }
    }
}

pin_project! {
    /// The task of one stream.
    struct Stream<F> {
        #[pin]
        task: Option<F>,
        left: Option<oneshot::Receiver<()>>,
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if let Some(left) = this.left
            && let Poll::Ready(left) = Pin::new(left).poll(cx)
        {
            *this.left = None;
            if left.is_ok() {
                this.task.set(None);
            }
        }
        this.task.as_mut().as_pin_mut().map_or(Poll::Ready(()), |task| task.poll(cx))
    }
}
