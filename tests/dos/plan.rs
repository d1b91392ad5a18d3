//! The attacks of the table: how hard, against which settings, and what should stop them.

use crate::attack::Kind;

/// One attack.
#[derive(Debug)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Units a second; of attacks that hold connections, those opened in a second.
    pub(crate) rate: u32,
    /// Connections at once.
    pub(crate) connections: u32,
    /// What the victim's configuration says beside [`BASE`].
    pub(crate) settings: Settings,
    /// The same with the limit lifted: the attack must then do damage, or the row proves nothing.
    pub(crate) lifted: Option<Settings>,
    /// The open files that the victim may have, where the attack is about that.
    pub(crate) files: Option<u32>,
    /// The series of `/metrics` that must grow, one of them at least; empty: the attack is only to be borne.
    pub(crate) acts: &'static [&'static str],
}

/// Fields of the listener `default`, and of `limits`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) listener: &'static [(&'static str, &'static str)],
    pub(crate) limits: &'static [(&'static str, &'static str)],
}

/// Times short enough to pass within a run; all else is as it is by default.
pub(crate) const BASE: &[(&str, &str)] = &[
    ("address", "\"127.0.0.1:0\""),
    ("hello_timeout", "500ms"),
    ("handshake_timeout", "1s"),
    ("header_timeout", "1s"),
    ("body_timeout", "1s"),
    ("send_timeout", "1s"),
];

/// Few, so that an attacker could have them all; its address may have as many, so that its identity is what counts.
const ALL_CONNECTIONS: &[(&str, &str)] = &[("max_connections", "40"), ("max_connections_per_ip", "40")];
const DEFAULT: Settings = Settings { listener: &[], limits: &[] };
const HELLO_TIMEOUT: &[&str] = &["mesh_server_handshakes_total{result=\"hello_timeout\"}"];
/// Whoever says too little, or is one too many who did not say enough yet.
const HANDSHAKE: &[&str] =
    &["mesh_server_handshakes_total{result=\"timeout\"}", "mesh_server_handshakes_total{result=\"evicted\"}"];
/// With few places the share of one address may be reached before the oldest stranger has to give way.
const FEW_PLACES: &[&str] =
    &["mesh_server_handshakes_total{result=\"evicted\"}", "mesh_server_connections_refused_total{reason=\"per_ip\"}"];
const HEADER_TIMEOUT: &[&str] = &["mesh_server_connections_closed_total{reason=\"header_timeout\"}"];
const PER_PEER: &[&str] = &["mesh_server_connections_refused_total{reason=\"per_peer\"}"];
const RESETS: &[&str] = &["mesh_server_connections_closed_total{reason=\"reset_budget\"}"];
/// Whichever notices first, by how the bursts fall.
const BURSTS: &[&str] = &[
    "mesh_server_connections_closed_total{reason=\"reset_budget\"}",
    "mesh_server_connections_closed_total{reason=\"flood\"}",
];
const BODY_TIMEOUT: &[&str] = &["mesh_server_rejected_total{reason=\"body_timeout\"}"];
const SEND_TIMEOUT: &[&str] = &["mesh_server_rejected_total{reason=\"send_timeout\"}"];
const BODY_SIZE: &[&str] = &["mesh_server_rejected_total{reason=\"body_too_large\"}"];
/// axum's own 413: what comes out of a decompressing layer is no business of the mesh's counters.
const UNPACKED: &[&str] =
    &["mesh_server_request_duration_seconds_count{method=\"POST\",route=\"/unpack\",status=\"4xx\",grpc_status=\"-\"}"];
const FLOOD: &[&str] = &["mesh_server_connections_closed_total{reason=\"flood\"}"];
const PROTOCOL: &[&str] = &["mesh_server_connections_closed_total{reason=\"error\"}"];
const PANICS: &[&str] = &["mesh_server_panics_total"];

const fn attack(name: &'static str, kind: Kind, rate: u32, connections: u32, acts: &'static [&'static str]) -> Attack {
    Attack { name, kind, rate, connections, settings: DEFAULT, lifted: None, files: None, acts }
}

pub(crate) const ATTACKS: &[Attack] = &[
    attack("silent connections", Kind::Silent, 500, 500, HELLO_TIMEOUT),
    attack("half-open handshakes", Kind::HalfOpen, 600, 2_000, HANDSHAKE),
    attack("slow handshakes", Kind::SlowHandshake, 500, 500, HELLO_TIMEOUT),
    attack("slow heads, HTTP/1.1", Kind::SlowHead1, 200, 500, HEADER_TIMEOUT),
    attack("slow heads, HTTP/2", Kind::SlowHead2, 200, 500, HEADER_TIMEOUT),
    Attack {
        settings: Settings { listener: ALL_CONNECTIONS, limits: &[] },
        ..attack("all connections", Kind::SlowBody1, 200, 500, PER_PEER)
    },
    attack("slow bodies, HTTP/1.1", Kind::SlowBody1, 200, 500, BODY_TIMEOUT),
    Attack {
        settings: Settings { listener: &[], limits: &[("max_concurrent_requests", "300")] },
        lifted: Some(Settings {
            listener: &[("body_timeout", "1h")],
            limits: &[("max_concurrent_requests", "300"), ("max_concurrent_requests_per_peer", "300")],
        }),
        ..attack("slow bodies, HTTP/2", Kind::SlowBody2, 20, 20, BODY_TIMEOUT)
    },
    attack("window of zero", Kind::ZeroWindow, 20, 20, SEND_TIMEOUT),
    attack("rapid reset, in bursts", Kind::RapidReset, 10_000, 2, BURSTS),
    attack("rapid reset, spread", Kind::RapidReset, 10_000, 20, RESETS),
    attack("made-you-reset", Kind::MadeYouReset, 10_000, 10, PROTOCOL),
    attack("CONTINUATION flood", Kind::Continuation, 50_000, 10, FLOOD),
    attack("empty CONTINUATION", Kind::EmptyContinuation, 50_000, 10, FLOOD),
    attack("header bomb, bytes", Kind::HeaderBytes, 500, 10, FLOOD),
    attack("header bomb, number", Kind::HeaderCount, 500, 10, FLOOD),
    attack("HPACK bomb", Kind::Hpack, 1_000, 10, FLOOD),
    attack("empty DATA", Kind::EmptyData, 50_000, 10, FLOOD),
    attack("DATA of one byte", Kind::TinyData, 20_000, 10, &[]),
    attack("SETTINGS flood", Kind::Settings, 20_000, 10, &[]),
    attack("PING flood", Kind::Ping, 20_000, 10, &[]),
    attack("endless bodies", Kind::EndlessBody, 20, 4, BODY_SIZE),
    Attack {
        // Decompressing as much as is allowed holds a core up, too.
        settings: Settings { listener: &[("max_body_bytes", "1MiB")], limits: &[] },
        lifted: Some(Settings { listener: &[("max_body_bytes", "1GiB")], limits: &[] }),
        ..attack("decompression bomb", Kind::Gzip, 20, 4, UNPACKED)
    },
    Attack {
        settings: Settings { listener: &[("decompress_requests", "true"), ("max_body_bytes", "1MiB")], limits: &[] },
        lifted: Some(Settings {
            listener: &[("decompress_requests", "true"), ("max_body_bytes", "1GiB")],
            limits: &[],
        }),
        ..attack("decompression bomb, listener", Kind::GzipListener, 20, 4, BODY_SIZE)
    },
    attack("panicking handlers, 1 %", Kind::Panics, 1_000, 4, PANICS),
    Attack {
        // The time limit alone would let them have all files.
        settings: Settings { listener: &[("hello_timeout", "3s")], limits: &[] },
        files: Some(256),
        ..attack("256 open files", Kind::Silent, 500, 500, FEW_PLACES)
    },
];
