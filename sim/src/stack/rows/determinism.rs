//! The same seed is the same run, to the last decision.
//!
//! What a run follows from are its seed and the order in which a runtime's tasks have their turns. Three things of tokio make
//! that order another one in each run, and must not be met on the way of a request:
//!
//! - **Threads.** A current-thread runtime prefers what was woken from outside, packets here, in one of 31 turns, and whoever
//!   comes back from `spawn_blocking` ends a turn more or less, as the machine would have it: from then on all later choices
//!   between a packet and a timer are shifted. So nothing here may read files, and a mesh that is configured in code does not.
//! - **Lots.** `tokio::select!` draws one unless it is `biased`, and `tokio::sync::watch` tells several who wait in an order by
//!   lot. Whoever breaks with a connection or waits for the first endpoints is told in the order in which he came. Identities,
//!   revisions and the end of a server are still told by `watch`: a row that publishes one to several who wait for it does not
//!   replay.
//! - **Clocks.** Virtual time is that of tokio and of the injected calendar. h2 alone asks the machine, when it forgets streams
//!   that it has reset: after 30 s where the mesh is the client, and after 1 s where it is the server, for which hyper has no
//!   setting. What comes on a forgotten stream is answered otherwise. A server resets few: of callers who are answered before
//!   they have sent all, or do not read, and those whose handler panics.
//!
//! Decisions alone would show little: two calls must meet at the moment that counts. So the order of all that the client's
//! connections carry is compared too, and real time is lost in one of the runs.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use mesh_core::config::{RetryConfig, RouteConfig};
use mesh_core::rng::Rng;
use mesh_tower::{Client, connect};
use tokio::time::sleep;
use turmoil::{hold, release};

use super::{Arm, Scale, seen};
use crate::scorecard::{Control, Row, Seen};
use crate::stack::Fault;
use crate::stack::load::{Call, open_loop};
use crate::stack::tap::{Event, Tap};
use crate::stack::world::{self, CLIENT, Process, cluster, mesh, network, servers};

/// Of every seed that is asked for: 20 of them are 100 runs.
const SEEDS: u64 = 5;
/// What the second run of the first seed loses of real time, in the midst of it. More than the second that h2 remembers
/// streams for which were reset, unless it is told otherwise.
const LOST: Duration = Duration::from_millis(1_100);

pub(super) fn rows() -> Vec<Row> {
    vec![Row {
        name: "determinism-stack",
        target: "100 seeds (5 for each) run twice: identical decision logs (request, endpoints, outcome, virtual time), and order on the wire",
        mesh: |seed| seen(twice(seed, Arm::Mesh, Scale::FULL)),
        controls: &[Control {
            without: "seeds: chance begins anew in each run",
            run: |seed| seen(twice(seed, Arm::Control, Scale::FULL)),
        }],
    }]
}

pub(super) fn twice(seed: u64, arm: Arm, scale: Scale) -> Result<Seen, Fault> {
    let (mut differ, mut logged, mut logs) = (Vec::new(), 0, Vec::new());
    let seeds = scale.pick(SEEDS, 1);
    let first = seed * SEEDS;
    for seed in first..first + seeds {
        let lost = if seed == first { LOST } else { Duration::ZERO };
        let (one, other) = (log(seed, arm, Duration::ZERO)?, log(seed, arm, lost)?);
        logged += one.calls.len();
        if one != other {
            differ.push(seed);
        }
        logs.push(one.calls);
    }
    logs.sort_unstable();
    logs.dedup();
    // Were they all the same, they would not depend on the seed at all.
    let distinct = logs.len() as u64 == seeds;
    Ok(Seen {
        met: differ.is_empty() && distinct,
        text: format!("{} of {seeds} logs differ ({differ:?}), of {logged} calls in all", differ.len()),
        badness: differ.len() as f64,
    })
}

/// What a client decided, and all that its connections carried.
#[derive(Debug, PartialEq)]
struct Log {
    calls: Vec<Call>,
    wire: Vec<Event>,
}

/// Four endpoints, of which one fails at times, one is killed and comes back, and one falls silent.
fn log(seed: u64, arm: Arm, lost: Duration) -> Result<Log, Fault> {
    let mut sim = network(seed, Duration::from_secs(60));
    let rng = match arm {
        Arm::Mesh => Rng::seeded(seed),
        Arm::Control => Rng::from_entropy(),
    };
    let router = |_: &_, rng: Rng| {
        let answer = move || {
            let (work, fails) = (Duration::from_micros(2_000 + rng.below(20_000) as u64), rng.below(20) == 0);
            async move {
                sleep(work).await;
                if fails { StatusCode::SERVICE_UNAVAILABLE.into_response() } else { "done".into_response() }
            }
        };
        Ok(Router::new().route("/", get(answer)))
    };
    let names = (0..4).map(|n| format!("server-{n}"));
    let (addresses, processes): (Vec<_>, Vec<_>) =
        servers(&mut sim, names, &rng, |_| Ok(()), router).into_iter().unzip();
    world::run(sim, async move {
        let web = mesh("web", rng.fork(), |config| {
            let retry = RetryConfig::default().per_try_timeout(Duration::from_millis(50));
            let route = RouteConfig::to("servers").timeout(Duration::from_millis(200)).retry(retry);
            config.clusters.insert("servers".to_owned(), cluster(&addresses)?);
            config.routes.insert("servers".to_owned(), vec![route]);
            Ok(())
        });
        let (web, tap) = (web.await?, Tap::default());
        connect::install(&web, Arc::new(tap.clone()));
        let client = Client::new(&web, "servers")?;
        let faults = async {
            let killed = processes.get(1);
            for step in 0.. {
                sleep(Duration::from_millis(100)).await;
                match step {
                    0 => drop(killed.map(Process::kill)),
                    1 => hold(CLIENT, "server-2"),
                    2 => drop(killed.map(Process::start)),
                    3 => {
                        std::thread::sleep(lost); // every host is on this thread: the whole world stands still
                        release(CLIENT, "server-2");
                    }
                    _ => break,
                }
            }
        };
        let end = Duration::from_millis(500);
        let calls = tokio::join!(open_loop(&client, "/", 400.0, rng.fork(), end), faults).0?;
        Ok(Log { calls, wire: tap.events() })
    })
}
