//! How slowly a peer may send a request body, or take a response.
//!
//! A time limit for the whole would cut every long stream, and one for each byte lets a peer drip for ever. Here waiting
//! spends patience and bytes restore it, as in Apache's mod_reqtimeout (`body=20,MinRate=500`); Kestrel's rate is ours.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use http_body_util::LengthLimitError;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::connection::{Fate, Unfit};

/// How long may still be waited for a peer: `limit` at most, less what it let wait, more what its bytes earned.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    limit: Duration,
    /// Bytes that earn a second; 0: any byte restores all.
    rate: u32,
    left: Duration,
    waiting: Option<Instant>,
}

impl Patience {
    pub(super) fn new(limit: Duration, rate: u32) -> Self {
        Self { limit, rate, left: limit, waiting: None }
    }

    /// The peer is waited for from now on, if it was not yet; when patience ends.
    pub(super) fn wait(&mut self, now: Instant) -> Instant {
        *self.waiting.get_or_insert(now) + self.left
    }

    /// When patience ends, if the peer is waited for.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.waiting.map(|since| since + self.left)
    }

    /// So many bytes moved. Nobody waits until told so again.
    pub(super) fn moved(&mut self, bytes: usize, now: Instant) {
        if let Some(since) = self.waiting.take() {
            self.left = self.left.saturating_sub(now.saturating_duration_since(since));
        }
        if bytes > 0 {
            let earned = match self.rate {
                0 => self.limit,
                rate => Duration::try_from_secs_f64(bytes as f64 / f64::from(rate)).unwrap_or(self.limit),
            };
            self.left = self.left.saturating_add(earned).min(self.limit);
        }
    }
}

/// Where a stream of gRPC messages stands: between two, where its sender may rest, or inside of one.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Bytes of the prefix seen, of 5.
    prefix: u8,
    length: u32,
    /// Bytes of the message to come.
    left: u32,
}

impl Messages {
    fn between(&self) -> bool {
        self.prefix == 0 && self.left == 0
    }

    fn feed(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.left > 0 {
                let skip = data.len().min(self.left as usize);
                self.left -= skip as u32; // at most `left`
                data.advance(skip);
                continue;
            }
            let byte = data.get_u8();
            // A flag of compression, then the length, big-endian. (gRPC over HTTP/2, Length-Prefixed-Message)
            self.length = if self.prefix == 0 { 0 } else { self.length << 8 | u32::from(byte) };
            self.prefix += 1;
            if self.prefix == 5 {
                (self.prefix, self.left) = (0, self.length);
            }
        }
    }
}

pin_project! {
    /// A request body that is not waited for without end, and notes why it failed.
    pub(super) struct Paced<B> {
        #[pin]
        body: B,
        #[pin]
        timer: Option<Sleep>,
        patience: Patience,
        messages: Option<Messages>,
        fate: Arc<Fate>,
    }
}

impl<B> Paced<B> {
    /// `messages`: a sender may rest between gRPC messages.
    pub(super) fn new(body: B, patience: Patience, messages: bool, fate: Arc<Fate>) -> Self {
        Self { body, timer: None, patience, messages: messages.then(Messages::default), fate }
    }
}

/// The sender of a request body was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request body came too slowly")]
pub(super) struct TooSlow;

impl<B> HttpBody for Paced<B>
where
    B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let mut this = self.project();
        if this.fate.get() == Some(Unfit::BodyTimeout) {
            return Poll::Ready(Some(Err(TooSlow.into())));
        }
        match this.body.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.patience.moved(data.len(), Instant::now());
                    if let Some(messages) = this.messages {
                        messages.feed(data);
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let error = error.into();
                if error.is::<LengthLimitError>() {
                    this.fate.set(Unfit::BodyTooLarge);
                }
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                if this.messages.as_ref().is_some_and(Messages::between) {
                    return Poll::Pending;
                }
                let end = this.patience.wait(Instant::now());
                if this.timer.is_none() {
                    this.timer.set(Some(sleep_until(end)));
                }
                let Some(mut timer) = this.timer.as_mut().as_pin_mut() else { return Poll::Pending };
                if timer.deadline() != end {
                    timer.as_mut().reset(end);
                }
                if timer.poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.fate.set(Unfit::BodyTimeout);
                Poll::Ready(Some(Err(TooSlow.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// How long `bytes` every `pause` are endured.
    fn endured(bytes: usize, pause: Duration, rate: u32) -> Duration {
        let start = Instant::now();
        let (mut patience, mut now) = (Patience::new(20 * S, rate), start);
        while now < start + 10_000 * S {
            let end = patience.wait(now);
            if end <= now + pause {
                return end - start;
            }
            now += pause;
            patience.moved(bytes, now);
        }
        now - start
    }

    #[test]
    fn patience_ends_with_a_stall_and_with_a_drip_and_not_with_a_slow_sender() {
        for (bytes, pause, rate, expected) in [
            (0, S, 240, 20),              // silence
            (1, S, 240, 20),              // a drip
            (120, S, 240, 39),            // half of the rate
            (240, S, 240, 10_000),        // the rate
            (4_560, 19 * S, 240, 10_000), // the same in lumps
            (1 << 20, 21 * S, 240, 20),   // a longer pause than `limit`, whatever came before
            (1, 19 * S, 0, 10_000),       // no rate: any byte will do
            (0, S, 0, 20),
        ] {
            assert_eq!(
                endured(bytes, pause, rate).as_secs().min(10_000),
                expected,
                "{bytes} every {pause:?} at {rate}"
            );
        }
    }

    #[test]
    fn grpc_messages_have_an_end() {
        let stream = [&[0, 0, 0, 1, 2][..], &[7; 258], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 3], &[7; 3]].concat();
        let ends = [0, 263, 268, 276];
        for size in [1, 2, 3, 5, 100, 1000] {
            let (mut messages, mut seen) = (Messages::default(), 0);
            for chunk in stream.chunks(size) {
                messages.feed(chunk);
                seen += chunk.len();
                assert_eq!(messages.between(), ends.contains(&seen), "{seen} in chunks of {size}");
            }
        }
    }
}
