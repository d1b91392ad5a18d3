//! The future of a layer that may refuse before it calls on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::error::Error;

pin_project! {
    /// Either the inner future, or the reason why there is none.
    #[derive(Debug)]
    pub struct CallOr<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Call { #[pin] future: F },
        Refused { error: Option<Error> },
    }
}

impl<F> CallOr<F> {
    pub(crate) fn call(future: F) -> Self {
        Self { state: State::Call { future } }
    }

    pub(crate) fn refused(error: Error) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

impl<F, T> Future for CallOr<F>
where
    F: Future<Output = Result<T, Error>>,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Call { future } => future.poll(cx),
            StateProj::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                // Polled after its end: stay silent, as `Fuse` does.
                None => Poll::Pending,
            },
        }
    }
}
