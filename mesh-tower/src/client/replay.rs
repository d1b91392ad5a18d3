//! Sends one request body more than once, within a cap.
//!
//! A body is a stream that can be read once; a second attempt needs it again. [`Replay`] keeps what attempts have read
//! so far, up to a cap, and hands each attempt a [`ReplayBody`]: first what is kept, then the rest of the stream. A body
//! that outgrows the cap is *committed*: the attempt that is reading it gets every byte, and no other attempt is made.
//! Nothing is ever truncated.
//!
//! An attempt that was given up may still be read by its connection's task for a moment. So attempts do not hand the
//! stream to each other; they share it behind a mutex that is held for one poll, and only the latest attempt may read.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::request_body::RequestBody;
use super::upload::Upload;
use crate::context::RequestContext;
use crate::empty::poll_filled;
use crate::error::BoxError;

/// Keeps a request body so that attempts can read it again.
pub(crate) struct Replay(Option<Arc<Mutex<State>>>);

struct State {
    rest: Option<RequestBody>,
    /// The request on whose behalf this one is made: its body is read by the connection's task, which knows nothing.
    context: Option<RequestContext>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    cap: usize,
    /// Whether everything that was read is still kept.
    replayable: bool,
    /// Which attempt may read.
    attempt: u32,
}

impl Replay {
    /// Keeps at most `cap` bytes of `body`. A body that nobody has begun to read can be sent again whatever the cap.
    pub(crate) fn new(body: RequestBody, cap: usize) -> Self {
        if body.is_end_stream() {
            return Self(None);
        }
        Self(Some(Arc::new(Mutex::new(State {
            rest: Some(body),
            context: RequestContext::current(),
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            cap,
            replayable: true,
            attempt: 0,
        }))))
    }

    /// The body of the next attempt; earlier attempts can read no more. `None` if it cannot be sent again.
    pub(crate) fn attempt(&self) -> Option<ReplayBody> {
        let Some(shared) = &self.0 else { return Some(ReplayBody(None)) };
        let mut state = lock(shared);
        state.replayable.then(|| {
            state.attempt += 1;
            ReplayBody(Some(Box::new(View {
                shared: Arc::clone(shared),
                attempt: state.attempt,
                next: 0,
                trailers: false,
                upload: None,
            })))
        })
    }

    /// Whether all that was read of it is still kept.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| lock(shared).replayable)
    }

    /// Whether the body has been read to its end. Until then, waiting for an answer can wait for ever: the endpoint
    /// may be waiting for more of the body.
    pub(crate) fn ended(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| lock(shared).rest.is_none())
    }
}

/// The request body of one attempt.
///
/// A pointer: hyper keeps room for 32 requests beside each HTTP/2 connection, and what is in each of them for as long as
/// the connection lives.
#[derive(Default)]
pub struct ReplayBody(Option<Box<View>>);

struct View {
    shared: Arc<Mutex<State>>,
    attempt: u32,
    /// How many of the kept chunks were read.
    next: usize,
    /// Whether the trailers were read.
    trailers: bool,
    /// The stream that it is sent over, if it has one to itself.
    upload: Option<Upload>,
}

impl ReplayBody {
    /// A body that is sent at most once, for stacks without a retry layer.
    pub fn once(body: RequestBody) -> Self {
        Replay::new(body, 0).attempt().unwrap_or_default()
    }

    /// It is sent over this stream, which it keeps until it is dropped.
    pub(super) fn is_upload(&mut self, upload: Upload) {
        if let Some(view) = &mut self.0 {
            view.upload = Some(upload);
        }
    }
}

impl std::fmt::Debug for ReplayBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplayBody").field("attempt", &self.0.as_ref().map_or(0, |view| view.attempt)).finish()
    }
}

/// A newer attempt has taken the body over.
#[derive(Debug, thiserror::Error)]
#[error("the request body was taken over by a newer attempt")]
struct Superseded;

impl Body for ReplayBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(view) = &mut self.0 else { return Poll::Ready(None) };
        if let Some(upload) = &mut view.upload {
            upload.looked_at();
        }
        let mut state = lock(&view.shared);
        let state = &mut *state;
        if state.attempt != view.attempt {
            return Poll::Ready(Some(Err(Superseded.into())));
        }
        if let Some(chunk) = state.kept.get(view.next) {
            view.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        let Some(rest) = &mut state.rest else {
            if view.trailers {
                return Poll::Ready(None);
            }
            view.trailers = true;
            return Poll::Ready(state.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))));
        };
        let polled = poll_filled(cx, |cx| match &state.context {
            Some(context) => context.sync_scope(|| Pin::new(&mut *rest).poll_frame(cx)),
            None => Pin::new(&mut *rest).poll_frame(cx),
        });
        let frame = match std::task::ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                state.rest = None;
                state.replayable = false;
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                state.rest = None;
                return Poll::Ready(None);
            }
        };
        if rest.is_end_stream() {
            state.rest = None;
        }
        if let Some(data) = frame.data_ref() {
            if state.replayable && data.len() <= state.cap - state.kept_bytes {
                state.kept_bytes += data.len();
                state.kept.push(data.clone());
                view.next += 1;
            } else {
                state.replayable = false;
                state.kept = Vec::new();
                view.next = 0;
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            state.trailers = Some(trailers.clone());
            state.rest = None;
            view.trailers = true;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let Some(view) = &self.0 else { return true };
        let state = lock(&view.shared);
        view.next >= state.kept.len()
            && (view.trailers || state.trailers.is_none())
            && state.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let Some(view) = &self.0 else { return SizeHint::with_exact(0) };
        let state = lock(&view.shared);
        let kept: u64 = state.kept.iter().skip(view.next).map(|chunk| chunk.len() as u64).sum();
        let rest = state.rest.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(kept + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(kept + upper);
        }
        hint
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, StreamBody};
    use proptest::prelude::*;

    fn body(chunks: &[Vec<u8>], trailers: bool) -> RequestBody {
        let mut frames: Vec<Result<Frame<Bytes>, BoxError>> =
            chunks.iter().map(|c| Ok(Frame::data(Bytes::from(c.clone())))).collect();
        if trailers {
            frames.push(Ok(Frame::trailers([(http::header::AGE, "1".parse().unwrap())].into_iter().collect())));
        }
        RequestBody::new(StreamBody::new(futures_util::stream::iter(frames)))
    }

    fn read(body: &mut ReplayBody, frames: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..frames {
            match body.frame().now_or_never().unwrap() {
                Some(frame) => bytes.extend(frame.unwrap().into_data().unwrap_or_default()),
                None => break,
            }
        }
        bytes
    }

    proptest! {
        /// Whatever earlier attempts read before they were given up, the next one sends the same bytes and trailers.
        #[test]
        fn every_attempt_sends_the_same(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..8),
            trailers: bool,
            reads in prop::collection::vec(0_usize..10, 0..4),
            cap in 0_usize..200,
        ) {
            let whole: Vec<u8> = chunks.concat();
            let replay = Replay::new(body(&chunks, trailers), cap);
            let mut read_so_far = 0;
            for frames in reads {
                match replay.attempt() {
                    Some(mut attempt) => {
                        let bytes = read(&mut attempt, frames);
                        prop_assert!(whole.starts_with(&bytes));
                        read_so_far = read_so_far.max(bytes.len());
                    }
                    None => break,
                }
            }
            let attempt = replay.attempt();
            prop_assert_eq!(attempt.is_some(), read_so_far <= cap, "sent again exactly if all that was read is kept");
            if let Some(attempt) = attempt {
                let collected = attempt.collect().now_or_never().unwrap().unwrap();
                prop_assert_eq!(collected.trailers().is_some(), trailers);
                prop_assert_eq!(collected.to_bytes().to_vec(), whole);
                prop_assert!(replay.ended());
            }
        }
    }

    #[test]
    fn over_the_cap_the_reader_gets_all_and_nobody_else_anything() {
        let replay = Replay::new(body(&[vec![1; 6], vec![2; 6], vec![3; 6]], false), 10);
        let attempt = replay.attempt().unwrap();
        let bytes = attempt.collect().now_or_never().unwrap().unwrap().to_bytes();
        assert_eq!(bytes.len(), 18);
        assert!(replay.attempt().is_none());
    }

    #[test]
    fn length_survives_and_a_superseded_attempt_fails() {
        let full = RequestBody::new(http_body_util::Full::new(Bytes::from_static(b"hello")));
        let replay = Replay::new(full, 100);
        let mut first = replay.attempt().unwrap();
        assert_eq!(first.size_hint().exact(), Some(5));
        assert_eq!(read(&mut first, 9), b"hello");
        assert!(first.is_end_stream() && replay.ended());

        let second = replay.attempt().unwrap();
        assert_eq!(second.size_hint().exact(), Some(5));
        assert!(first.frame().now_or_never().unwrap().unwrap().unwrap_err().is::<Superseded>());
    }

    #[test]
    fn empty_chunks_are_left_out_in_every_attempt() {
        let replay = Replay::new(body(&[vec![], vec![1], vec![], vec![], vec![2], vec![]], true), 100);
        for _ in 0..2 {
            let mut attempt = replay.attempt().unwrap();
            let frames = std::iter::from_fn(|| attempt.frame().now_or_never().unwrap()).map(Result::unwrap);
            let frames: Vec<_> = frames.map(|frame| frame.into_data().ok()).collect();
            assert_eq!(frames, [Some(Bytes::from_static(&[1])), Some(Bytes::from_static(&[2])), None]);
        }
    }

    #[test]
    fn an_empty_body_costs_nothing_and_always_repeats() {
        let replay = Replay::new(RequestBody::default(), 0);
        assert!(replay.ended() && replay.attempt().unwrap().is_end_stream() && replay.attempt().is_some());
    }
}
