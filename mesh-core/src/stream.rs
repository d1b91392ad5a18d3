//! Endless streams from an async step, for sources that watch something.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

/// A stream that yields what `step` returns, again and again. It never ends.
///
/// Nothing runs in the background: the step advances while the stream is polled and stops where it is when the stream
/// is dropped.
pub(crate) fn unfold<S, T, Fut>(
    state: S,
    step: impl FnMut(S) -> Fut + Send + Unpin + 'static,
) -> Pin<Box<dyn Stream<Item = T> + Send>>
where
    S: 'static,
    T: 'static,
    Fut: Future<Output = (T, S)> + Send + 'static,
{
    let mut step = step;
    let running = Box::pin(step(state));
    Box::pin(Unfold { step, running })
}

struct Unfold<F, Fut> {
    step: F,
    running: Pin<Box<Fut>>,
}

impl<S, T, F, Fut> Stream for Unfold<F, Fut>
where
    F: FnMut(S) -> Fut + Unpin,
    Fut: Future<Output = (T, S)>,
{
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let (item, state) = ready!(self.running.as_mut().poll(cx));
        let next = (self.step)(state);
        self.running.set(next);
        Poll::Ready(Some(item))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::unfold;

    #[tokio::test]
    async fn state_passes_from_step_to_step() {
        let doubled = unfold(1_u32, |n| async move {
            tokio::task::yield_now().await;
            (n, n * 2)
        });
        assert_eq!(doubled.take(5).collect::<Vec<_>>().await, [1, 2, 4, 8, 16]);
    }
}
