//! What an attack did and what it got for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::wire::{GOAWAY, HEADERS, RST_STREAM};

/// Counters of all connections of one attack.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) units: Counter,
    pub(super) opened: Counter,
    pub(super) refused: Counter,
    pub(super) closed: Counter,
    pub(super) answers: Counter,
    resets: Counter,
    goaway: Mutex<BTreeMap<u32, u64>>,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    pub(super) fn report(&self) -> Value {
        let goaway = self.goaway.lock().unwrap_or_else(PoisonError::into_inner);
        let goaway: serde_json::Map<_, _> = goaway.iter().map(|(code, n)| (code.to_string(), json!(n))).collect();
        json!({
            "units": self.units.get(), "opened": self.opened.get(), "refused": self.refused.get(),
            "closed": self.closed.get(), "resets": self.resets.get(), "answers": self.answers.get(),
            "goaway": goaway,
        })
    }

    /// Counts the frames that come, until no more do.
    pub(super) async fn read(&self, mut io: impl AsyncRead + Unpin) {
        let mut head = [0; 9];
        let mut payload = Vec::new();
        while io.read_exact(&mut head).await.is_ok() {
            let [a, b, c, kind, ..] = head;
            payload.resize(u32::from_be_bytes([0, a, b, c]) as usize, 0);
            if io.read_exact(&mut payload).await.is_err() {
                break;
            }
            match (kind, payload.get(4..8)) {
                (HEADERS, _) => self.answers.add(1),
                (RST_STREAM, _) => self.resets.add(1),
                (GOAWAY, Some(code)) => self.said_goodbye(code),
                _ => {}
            }
        }
        self.closed.add(1);
    }

    fn said_goodbye(&self, code: &[u8]) {
        let code = code.iter().fold(0, |code, byte| code << 8 | u32::from(*byte));
        *self.goaway.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }
}
