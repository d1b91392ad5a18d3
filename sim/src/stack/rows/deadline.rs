//! A call through five services, whose caller waits for half a second.
//!
//! Each handler does its work in a task of its own, so that it is not ended by a caller who hangs up: all that keeps it
//! from being done in vain is the deadline.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use mesh_core::rng::Rng;
use mesh_tower::{Client, context};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Arm, Scale};
use crate::scorecard::Seen;
use crate::stack::Fault;
use crate::stack::world::{self, address, cluster, mesh, network, now, servers};

const HOPS: usize = 5;
const TIMEOUT: Duration = Duration::from_millis(500);
/// The mean of each hop's work. Five of them take longer than the caller waits, as often as not.
const WORK: f64 = 0.1;
const PATH: &str = "/sim.Hop/Work";
/// When the caller stops waiting, in microseconds of the simulation. Only this row reads it.
const UNTIL: HeaderName = HeaderName::from_static("x-until");

/// Work that was begun.
#[derive(Debug, Default)]
struct Ledger {
    begun: AtomicUsize,
    late: AtomicUsize,
}

/// What each hop needs.
#[derive(Clone)]
struct Hop {
    arm: Arm,
    ledger: Arc<Ledger>,
    next: Option<Client>,
    rng: Rng,
}

impl Hop {
    async fn handle(self, headers: HeaderMap) -> Response {
        let Self { arm, ledger, next, rng } = self;
        let grpc = headers.get("content-type").is_some_and(|kind| kind == "application/grpc");
        let until = headers.get(UNTIL).and_then(|until| until.to_str().ok()?.parse().ok()).map(Duration::from_micros);
        let work = async move {
            ledger.begun.fetch_add(1, Relaxed);
            ledger.late.fetch_add(usize::from(until.is_none_or(|until| now() > until)), Relaxed);
            sleep(Duration::from_secs_f64(-WORK * (1.0 - rng.unit()).ln())).await;
            match (next, until) {
                (Some(next), Some(until)) => call(&next, grpc, until, None).await,
                _ => true,
            }
        };
        let work = match arm {
            Arm::Mesh => context::spawn(work),
            Arm::Control => tokio::spawn(work),
        };
        match work.await {
            Ok(true) if grpc => ([("content-type", "application/grpc"), ("grpc-status", "0")], "").into_response(),
            Ok(true) => "done".into_response(),
            _ => StatusCode::BAD_GATEWAY.into_response(),
        }
    }
}

async fn call(client: &Client, grpc: bool, until: Duration, timeout: Option<Duration>) -> bool {
    let mut request = client.post(PATH).header(UNTIL, until.as_micros().to_string());
    if grpc {
        request = request.header("content-type", "application/grpc");
    }
    if let Some(timeout) = timeout {
        request = request.timeout(timeout);
    }
    match request.send().await {
        Ok(response) => {
            let done = response.headers().get("grpc-status").is_none_or(|status| status == "0");
            done && response.status() == 200 && response.bytes().await.is_ok()
        }
        Err(_) => false,
    }
}

pub(super) fn deadline(seed: u64, arm: Arm, scale: Scale) -> Result<Seen, Fault> {
    let calls = scale.pick(2_000, 120);
    let mut sim = network(seed, Duration::from_secs(120));
    let rng = Rng::seeded(seed);
    let ledger = Arc::new(Ledger::default());
    let addresses: Vec<_> = (1..=HOPS).map(|n| address(&sim, &format!("hop-{n}"))).collect();
    for n in 1..=HOPS {
        let next = addresses.get(n).copied();
        let edit = move |config: &mut mesh_core::Config| {
            if let Some(next) = next {
                config.clusters.insert("next".to_owned(), cluster(&[next])?);
            }
            Ok(())
        };
        let ledger = Arc::clone(&ledger);
        let router = move |mesh: &mesh_core::Mesh, rng| {
            let next = next.map(|_| Client::new(mesh, "next")).transpose()?;
            let hop = Hop { arm, ledger: Arc::clone(&ledger), next, rng };
            Ok(Router::new().route(PATH, post(move |headers: HeaderMap| hop.clone().handle(headers))))
        };
        servers(&mut sim, std::iter::once(format!("hop-{n}")), &rng, edit, router);
    }
    let first = addresses.first().copied().ok_or("no hop")?;
    let answered = Rc::new(Cell::new(0));
    let count = Rc::clone(&answered);
    world::run(sim, async move {
        let web = mesh("web", rng.fork(), |config| {
            config.clusters.insert("next".to_owned(), cluster(&[first])?);
            Ok(())
        });
        let client = Client::new(&web.await?, "next")?;
        let mut callers = JoinSet::new();
        for n in 0..calls {
            let client = client.clone();
            callers.spawn(async move { call(&client, n % 2 == 0, now() + TIMEOUT, Some(TIMEOUT)).await });
            sleep(Duration::from_millis(2 + rng.below(5) as u64)).await;
        }
        while let Some(ok) = callers.join_next().await {
            count.set(count.get() + usize::from(ok?));
        }
        sleep(Duration::from_secs(2)).await; // what is done in vain is done by then
        Ok(())
    })?;
    let (begun, late) = (ledger.begun.load(Relaxed), ledger.late.load(Relaxed));
    let share = 100.0 * late as f64 / begun as f64;
    Ok(Seen {
        // Where every call is in time, or none, nothing is shown.
        met: share <= 1.0 && (calls / 10..calls - calls / 10).contains(&answered.get()),
        text: format!(
            "{late} of {begun} begun after expiry, {share:.2} %; {} of {calls} calls in time",
            answered.get()
        ),
        badness: share,
    })
}
