//! The victim from outside: its configuration, its metrics, its memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mesh_core::clock::SystemClock;
use mesh_core::identity::dev_ca::DevCa;
use mesh_core::identity::{SpiffeId, TrustDomain};
use serde_json::Value;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::process::{Place, Process};
use crate::Error;
use crate::plan::{BASE, Settings};

const TRUST_DOMAIN: &str = "dos.example";
const NAMESPACE: &str = "test";
const SVID_TTL: Duration = Duration::from_secs(12 * 3600);
/// The victim's core; everybody else is on the other one.
const CPU: &str = "0";

/// Series of `/metrics`, by name with labels.
pub(super) type Metrics = BTreeMap<String, f64>;

/// What lives in the victim, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) live: u64,
    /// Since it was asked last.
    pub(super) peak: u64,
}

/// Certificates and keys of all three, in one directory.
pub(super) fn write_pki(dir: &Path) -> Result<(), Error> {
    let domain = TrustDomain::parse(TRUST_DOMAIN)?;
    let ca = DevCa::in_memory(&domain, Arc::new(SystemClock))?;
    for name in ["victim", "attacker", "caller"] {
        let pem = ca.issue_pem(&SpiffeId::for_workload(&domain, NAMESPACE, name)?, SVID_TTL)?;
        std::fs::write(dir.join(format!("{name}.pem")), &pem.certificate)?;
        let key = dir.join(format!("{name}.key"));
        std::fs::write(&key, pem.key.as_bytes())?;
        private(&key)?;
        std::fs::write(dir.join("ca.pem"), &pem.bundle)?;
    }
    Ok(())
}

#[cfg(unix)]
fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn private(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

/// A victim that runs.
#[derive(Debug)]
pub(super) struct Victim {
    process: Process,
    pub(super) address: SocketAddr,
    health: SocketAddr,
}

impl Victim {
    /// Starts it with these settings and waits until it listens.
    pub(super) async fn start(dir: &Path, settings: Settings, files: Option<u32>) -> Result<Self, Error> {
        let config = dir.join("mesh.yaml");
        std::fs::write(&config, yaml(settings)?)?;
        // Both may call everything: an attacker that policy refuses is stopped before it costs much.
        std::fs::write(
            dir.join("policy.yaml"),
            format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {{ name: victim, namespace: {NAMESPACE} }}\n\
                 spec: {{ rules: [ {{ from: [ {{ source: {{ principals: [\"{TRUST_DOMAIN}/ns/{NAMESPACE}/*\"] }} }} ] }} ] }}\n"
            ),
        )?;
        let args = ["victim".to_owned(), "--config".to_owned(), config.display().to_string()];
        let place = Place { cpu: CPU, nice: false, files };
        let mut process = Process::start(place, &args, &dir.join("victim.log"))?;
        let told = process.report().await?;
        let address = |name: &str| -> Result<SocketAddr, Error> {
            Ok(told.get(name).and_then(Value::as_str).ok_or("the victim says no address")?.parse()?)
        };
        Ok(Self { address: address("address")?, health: address("health")?, process })
    }

    pub(super) async fn memory(&mut self) -> Result<Memory, Error> {
        self.process.say("memory").await?;
        let told = self.process.report().await?;
        let bytes = |name: &str| told.get(name).and_then(Value::as_u64).ok_or("the victim says no memory");
        Ok(Memory { live: bytes("live")?, peak: bytes("peak")? })
    }

    pub(super) fn cpu_seconds(&self) -> f64 {
        self.process.cpu_seconds().unwrap_or(f64::NAN)
    }

    /// What its health listener says.
    pub(super) async fn metrics(&self) -> Result<Metrics, Error> {
        let mut stream = TcpStream::connect(self.health).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: victim\r\nconnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let series = text.lines().filter(|line| line.starts_with("mesh_")).filter_map(|line| line.rsplit_once(' '));
        Ok(series.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }
}

fn yaml(settings: Settings) -> Result<String, std::fmt::Error> {
    let mut listener: BTreeMap<_, _> = BASE.iter().copied().collect();
    listener.extend(settings.listener.iter().copied());
    let mut text = format!(
        "workload: {{ name: victim, namespace: {NAMESPACE} }}\n\
         identity: {{ trust_domain: {TRUST_DOMAIN}, source: {{ files: {{ certificate: victim.pem, key: victim.key, bundle: ca.pem, allow_development: true }} }} }}\n\
         policies: [ policy.yaml ]\nhealth: {{ address: \"127.0.0.1:0\" }}\nlisteners:\n  default:\n"
    );
    for (name, value) in listener {
        writeln!(text, "    {name}: {value}")?;
    }
    if !settings.limits.is_empty() {
        writeln!(text, "limits:")?;
        for (name, value) in settings.limits {
            writeln!(text, "  {name}: {value}")?;
        }
    }
    Ok(text)
}
