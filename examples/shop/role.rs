//! One process of the shop: starts its mesh, serves its role, and says where it listens.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_tower::Mesh;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use crate::{Error, gateway, orders, payments};

/// What a process can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Gateway,
    Orders,
    Payments,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Orders => "orders",
            Self::Payments => "payments",
        }
    }

    fn parse(name: &str) -> Result<Self, Error> {
        let all = [Self::Gateway, Self::Orders, Self::Payments];
        all.into_iter().find(|role| role.name() == name).ok_or_else(|| format!("no role `{name}`").into())
    }
}

/// What a running process tells the driver, as JSON in its `published` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    pub(crate) health: SocketAddr,
}

/// In the directory of a process: its configuration, and where it listens once it does.
pub(crate) const CONFIG: &str = "mesh.yaml";
pub(crate) const PUBLISHED: &str = "published.json";
/// Beside the directories of all processes.
pub(crate) const LEDGER: &str = "ledger";

/// Serves until standard input ends, which it does when the driver does, however the driver ends.
pub(crate) async fn run(name: &str, dir: &Path) -> Result<(), Error> {
    tracing_subscriber::fmt().with_env_filter("info").with_ansi(false).with_writer(std::io::stderr).init();
    let role = Role::parse(name)?;
    let mesh = Mesh::builder().config_file(dir.join(CONFIG)).start().await?;
    let listener = mesh_tower::bind(&mesh, "default").await?;
    let address = listener.local_addr()?;
    tokio::spawn(publish(mesh.clone(), address, dir.join(PUBLISHED)));
    match role {
        Role::Gateway => gateway::serve(&mesh, listener, end_of_input()).await?,
        Role::Orders => orders::serve(&mesh, listener, end_of_input()).await?,
        Role::Payments => {
            let ledger = dir.parent().ok_or("no directory around this one")?.join(LEDGER);
            payments::serve(&mesh, listener, ledger, end_of_input()).await?;
        }
    }
    mesh.shutdown().await;
    Ok(())
}

/// Waits for the health listener, which `serve` starts, and then tells both addresses at once.
async fn publish(mesh: Mesh, address: SocketAddr, file: PathBuf) {
    let health = loop {
        match mesh_tower::admin::address(&mesh) {
            Some(address) => break address,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let written = serde_json::to_string(&Published { pid: std::process::id(), address, health })
        .map_err(Error::from)
        .and_then(|text| write_whole(&file, &text));
    if let Err(error) = written {
        tracing::error!(%error, "cannot publish the address; nobody will find this process");
    }
}

/// Replaces `file` at once: a reader sees the old text or the new one.
pub(crate) fn write_whole(file: &Path, text: &str) -> Result<(), Error> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(&new, file)?)
}

async fn end_of_input() {
    let mut sink = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut sink).await;
}
