//! A running Envoy.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_tower::test_util::RunningTestMesh;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::process::{Process, demanded, template};
use crate::kit::until;

/// The program that `cargo xtask peers` installs; `None` only where nobody demands it.
pub(super) fn binary() -> Option<PathBuf> {
    let peers = std::env::var_os("MESH_PEERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers"), PathBuf::from);
    let pythons = std::fs::read_dir(peers.join("envoy/lib")).into_iter().flatten().flatten();
    let found = pythons.map(|lib| lib.path().join("site-packages/envoy/_bin/envoy")).find(|path| path.exists());
    demanded(found, &format!("no Envoy below {}", peers.display()))
}

/// It is killed when this is dropped.
pub(super) struct Envoy {
    process: Process,
    pub(super) address: SocketAddr,
    _dir: TempDir,
}

impl Envoy {
    /// Fills in a template of `tests/peers` and starts Envoy with it. `certificates` go to files below `@DIR@`.
    pub(super) async fn start(
        binary: &Path,
        mesh: &RunningTestMesh,
        name: &str,
        certificates: &[&str],
        words: &[(&str, &dyn Display)],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for id in certificates {
            let name = id.rsplit('/').next().unwrap();
            mesh.svid_pem(id).unwrap().write(&dir.path().join(name)).unwrap();
        }
        Self::configured(binary, dir, name, words).await
    }

    /// The same over certificates that are in `dir` already, or come from elsewhere.
    pub(super) async fn configured(binary: &Path, dir: TempDir, name: &str, words: &[(&str, &dyn Display)]) -> Self {
        let words: Vec<_> = words.iter().map(|(word, value)| (*word, value.to_string())).collect();
        let (file, admin) = (dir.path().join("envoy.yaml"), dir.path().join("admin"));
        std::fs::write(&file, template(name, dir.path(), &words)).unwrap();
        let mut command = Command::new(binary);
        command.arg("-c").arg(&file).arg("--admin-address-path").arg(&admin);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        let mut process = Process::start(&mut command, dir.path().join("log"));
        let address = until("Envoy to listen", async || {
            process.log();
            let admin = std::fs::read_to_string(&admin).ok()?.trim().parse().ok()?;
            let address = listener(admin).await?;
            // It has its port long before it listens, where clusters wait for secrets.
            TcpStream::connect(address).await.ok().map(|_| address)
        })
        .await;
        Self { process, address, _dir: dir }
    }

    pub(super) fn log(&mut self) -> String {
        self.process.log()
    }
}

/// Where Envoy's only listener is, by its admin interface.
async fn listener(admin: SocketAddr) -> Option<SocketAddr> {
    let stream = TcpStream::connect(admin).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::get("/listeners?format=json").header("host", "admin").body(Body::empty()).unwrap();
    let body = sender.send_request(request).await.ok()?.into_body().collect().await.ok()?.to_bytes();
    let listeners: Value = serde_json::from_slice(&body).ok()?;
    let port = listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"].as_u64()?;
    (port > 0).then(|| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap())))
}
