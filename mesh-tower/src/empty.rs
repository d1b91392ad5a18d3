//! Leaves out the empty chunks of a body.
//!
//! They say nothing, and an HTTP/2 peer takes many for an attack: h2 ends a connection that has brought 100, with every
//! request on it. (`MAX_RECV_EMPTY_DATA_FRAMES`) A body may well have some, as one that is compressed and flushed.

use std::task::{Context, Poll, ready};

use bytes::Buf;
use http_body::Frame;

/// So many in a row, and others have their turn.
const MAX: usize = 32;

/// Polls a body for a frame that is not an empty chunk. The end comes without one too.
pub(crate) fn poll_filled<D: Buf, E>(
    cx: &mut Context<'_>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<D>, E>>>,
) -> Poll<Option<Result<Frame<D>, E>>> {
    for _ in 0..MAX {
        match ready!(poll(cx)) {
            Some(Ok(frame)) if frame.data_ref().is_some_and(|data| !data.has_remaining()) => {}
            frame => return Poll::Ready(frame),
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use bytes::Bytes;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn however_many_hold_nobody_up() {
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut cx = Context::from_waker(&waker);
        let mut polls = 0;
        let mut poll = |cx: &mut Context<'_>| {
            poll_filled(cx, |_| {
                polls += 1;
                let chunk = Bytes::from_static(if polls == 3 * MAX { b"x" } else { b"" });
                Poll::Ready(Some(Ok::<_, Infallible>(Frame::data(chunk))))
            })
        };
        for wakes in 1..3 {
            assert!(poll(&mut cx).is_pending());
            assert_eq!(woken.0.load(SeqCst), wakes, "it asks to be polled again");
        }
        let Poll::Ready(Some(Ok(frame))) = poll(&mut cx) else { panic!("a chunk") };
        assert_eq!((frame.into_data().unwrap(), polls), (Bytes::from_static(b"x"), 3 * MAX));
    }
}
