//! The rows that no simulator can play.

/// One promise.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// What `--only` takes.
    pub(super) name: &'static str,
    /// What has to be seen, with units.
    pub(super) target: &'static str,
    /// What the control arm leaves out, or what stands in its place.
    pub(super) without: &'static str,
    pub(super) how: How,
}

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// By tests that print `seen: ...`, and others, or the same, that print `control: ...`. Filters of cargo-nextest.
    Tests {
        seen: &'static str,
        control: &'static str,
        /// They need real peers.
        peers: bool,
    },
    /// By the benches of a pick.
    Bench,
    /// By code that is changed.
    Mutants { seed: u64, paths: &'static [&'static str] },
}

/// One test of the suite against real sockets.
macro_rules! suite {
    ($name:literal) => {
        concat!("package(mesh-tests) & test(=", $name, ")")
    };
}

pub(super) const ROWS: [Row; 8] = [
    Row {
        name: "rolling-restart",
        target: "10 servers restarted one by one under 500 charges a second that must not be sent twice, real sockets: 0 failed",
        without: "servers that end without being asked to",
        how: How::Tests {
            seen: suite!("restart::a_rolling_restart_of_ten_servers_fails_no_request"),
            control: suite!("restart::a_rolling_crash_of_ten_servers_does_fail_requests"),
            peers: false,
        },
    },
    Row {
        name: "dns-under-load",
        target: "SRV records in BIND change under load (nsupdate), the name server stops and starts: 0 failed",
        without: "an empty answer is believed after a second",
        how: How::Tests { seen: DNS, control: DNS, peers: true },
    },
    Row {
        name: "envoy-upstream",
        target: "HTTP/1.1, HTTP/2, gRPC and a gRPC stream behind Envoy are answered",
        without: "an Envoy of another name, and a caller of another name: both end in the handshake",
        how: How::Tests { seen: ENVOY, control: ENVOY, peers: true },
    },
    Row {
        name: "pick-cost",
        target: "a pick below 60 ns with 10, 1,000 and 10,000 endpoints on one thread (medians of three runs)",
        without: "tower's p2c::Balance in the same runs",
        how: How::Bench,
    },
    Row {
        name: "pick-memory",
        target: "no pick allocates, by any policy or locality rule; an endpoint that nobody called takes less than 400 bytes",
        without: "a string, which the counter has to see",
        how: How::Tests { seen: "binary(pick_alloc)", control: "binary(pick_alloc)", peers: false },
    },
    Row {
        name: "decision-table",
        target: "priorities, localities, zones and panic by tables of Envoy's formulas and a naive model",
        without: "other formulas: overprovisioning 100 % or 200 %, no panic, panic at another threshold",
        how: How::Tests {
            seen: "package(mesh-core) & test(/^balance::spread::tests::/) & !test(=balance::spread::tests::other_formulas_differ)",
            control: "package(mesh-core) & test(=balance::spread::tests::other_formulas_differ)",
            peers: false,
        },
    },
    Row {
        name: "interleavings",
        target: "every interleaving of the threads that share an endpoint's standing, latency and counts, or a budget (loom)",
        without: "the same read and written in two steps",
        how: How::Tests {
            seen: "binary(interleavings) & !test(/^naive::/)",
            control: "binary(interleavings) & test(/^naive::/)",
            peers: false,
        },
    },
    Row {
        name: "mutants",
        target: "at least 90 % of 185 changes, those that compile, to balancing, endpoints, health, retries and windows are caught by tests",
        without: "nothing is changed: every test passes",
        how: How::Mutants {
            seed: 9,
            paths: &[
                "mesh-core/src/balance",
                "mesh-core/src/cluster",
                "mesh-core/src/health",
                "mesh-core/src/retry",
                "mesh-core/src/window.rs",
            ],
        },
    },
];

const DNS: &str = suite!("peers::dns::records_change_and_the_name_server_stops_under_load_and_no_request_fails");
const ENVOY: &str = suite!("peers::envoy::envoy_as_a_server_for_our_client");
