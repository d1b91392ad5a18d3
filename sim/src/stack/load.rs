//! Callers that do not wait for each other, and what became of each call.

use std::time::Duration;

use mesh_core::rng::Rng;
use mesh_tower::Client;
use tokio::task::JoinSet;

use super::Fault;
use super::world::now;

/// One call, as its caller saw it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call {
    pub(super) number: usize,
    /// Virtual time since the simulation began.
    pub(super) begun: Duration,
    pub(super) took: Duration,
    /// The endpoint of each attempt and how it ended.
    pub(super) attempts: String,
    pub(super) ok: bool,
}

/// GETs of `path` at `rate` per second in a Poisson stream, until `end`. Every call is waited for.
pub(super) async fn open_loop(
    client: &Client,
    path: &'static str,
    rate: f64,
    rng: Rng,
    end: Duration,
) -> Result<Vec<Call>, Fault> {
    let mut calls = JoinSet::new();
    let (mut due, mut number) = (now().as_secs_f64(), 0);
    while now() < end {
        while due <= now().as_secs_f64() {
            calls.spawn(call(client.clone(), path, number));
            number += 1;
            due -= (1.0 - rng.unit()).ln() / rate;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut made = Vec::with_capacity(number);
    while let Some(call) = calls.join_next().await {
        made.push(call?); // a panic is nothing that may pass unseen
    }
    made.sort_unstable();
    Ok(made)
}

/// One GET to the end of its body.
pub(super) async fn call(client: Client, path: &'static str, number: usize) -> Call {
    let begun = now();
    let (ok, attempts) = match client.get(path).send().await {
        Ok(response) => {
            let attempts = response.attempts().map(ToString::to_string).unwrap_or_default();
            (response.status() == 200 && response.bytes().await.is_ok(), attempts)
        }
        Err(error) => (false, error.attempts().to_string()),
    };
    Call { number, begun, took: now() - begun, attempts, ok }
}
