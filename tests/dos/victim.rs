//! The server that is attacked: an ordinary one, which says how much memory lives in it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::routing::{get, post};
use http_body_util::BodyExt as _;
use mesh_tower::Mesh;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tower_http::decompression::RequestDecompressionLayer;
use tracing_subscriber::EnvFilter;

use crate::{Error, memory};

/// What `/hello` answers with.
pub(crate) const HELLO: usize = 1024;
/// What `/large` answers with.
const LARGE: usize = 1024 * 1024;
/// One in so many requests to `/dice` panics.
const DICE: u64 = 100;

static HELLO_BYTES: [u8; HELLO] = [b'x'; HELLO];
static LARGE_BYTES: [u8; LARGE] = [b'x'; LARGE];
static THROWS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `mesh.yaml`.
    #[arg(long)]
    config: PathBuf,
}

/// Serves until standard input ends. Each line there is answered with `{"live","peak"}` in bytes.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    let filter = EnvFilter::new("info");
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let mesh = Mesh::builder().config_file(args.config).start().await?;
    let listener = mesh_tower::bind(&mesh, "default").await?;
    let address = listener.local_addr()?;
    let mut serving = std::pin::pin!(mesh_tower::serve(&mesh, listener, app()).into_future());
    // The health listener is bound before the first connection is accepted.
    let health = loop {
        tokio::select! {
            ended = &mut serving => return Ok(ended?),
            () = tokio::task::yield_now() => {}
        }
        if let Some(health) = mesh_tower::admin::address(&mesh) {
            break health;
        }
    };
    println!("{}", json!({ "address": address.to_string(), "health": health.to_string() }));
    let asked = tokio::spawn(async {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = lines.next_line().await {
            println!("{}", json!({ "live": memory::live(), "peak": memory::peak() }));
        }
    });
    tokio::select! {
        ended = serving => Ok(ended?),
        _ = asked => Ok(()),
    }
}

fn app() -> Router {
    Router::new()
        .route("/hello", get(async || Bytes::from_static(&HELLO_BYTES)))
        .route("/large", get(async || Bytes::from_static(&LARGE_BYTES)))
        .route("/upload", post(upload))
        .route("/dice", get(dice))
        .route("/keep", post(keep))
        .route("/unpack", post(keep).layer(RequestDecompressionLayer::new()))
}

/// Has the whole body in memory.
async fn keep(body: Bytes) -> String {
    body.len().to_string()
}

/// Reads the body to its end, as a handler does that stores it elsewhere.
async fn upload(mut body: Body) -> Result<String, StatusCode> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(length.to_string())
}

#[allow(clippy::panic, reason = "what this handler is for")]
async fn dice() -> &'static str {
    if THROWS.fetch_add(1, Ordering::Relaxed).is_multiple_of(DICE) {
        panic!("one in {DICE}");
    }
    "not a panic"
}
