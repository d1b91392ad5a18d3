//! The directory of one run: configurations, policies, endpoint files, logs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Error;
use crate::role::{CONFIG, LEDGER, Role, write_whole};

/// How long an SVID lasts: a new one is taken at half of it.
const SVID_TTL: &str = "10s";

/// ```text
/// ca/                          the dev CA that all processes share
/// jwks.json                    keys of the shop's token issuer
/// ledger/                      one file for each charge
/// endpoints/CLUSTER.yaml       watched discovery files
/// PROCESS/mesh.yaml            and policies/, audit.jsonl, log.txt, published.json
/// ```
#[derive(Debug)]
pub(crate) struct Layout {
    root: TempDir,
}

impl Layout {
    pub(crate) fn make() -> Result<Self, Error> {
        let root = tempfile::Builder::new().prefix("shop-").tempdir()?;
        std::fs::create_dir(root.path().join("endpoints"))?;
        std::fs::create_dir(root.path().join(LEDGER))?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Keeps the directory after the run, for a look at what differed.
    pub(crate) fn keep(&mut self) {
        self.root.disable_cleanup(true);
    }

    pub(crate) fn process(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn config(&self, name: &str) -> PathBuf {
        self.process(name).join(CONFIG)
    }

    pub(crate) fn policy(&self, name: &str, role: Role) -> PathBuf {
        self.process(name).join("policies").join(format!("{}.yaml", role.name()))
    }

    /// Writes the configuration and the policy of one process. Port 0 takes a free one.
    pub(crate) fn write_service(&self, name: &str, role: Role, port: u16) -> Result<PathBuf, Error> {
        let (config, policy) = match role {
            Role::Gateway => (include_str!("../config/gateway.yaml"), include_str!("../config/policies/gateway.yaml")),
            Role::Orders => (include_str!("../config/orders.yaml"), include_str!("../config/policies/orders.yaml")),
            Role::Payments => {
                (include_str!("../config/payments.yaml"), include_str!("../config/policies/payments.yaml"))
            }
        };
        std::fs::create_dir_all(self.process(name).join("policies"))?;
        write_whole(&self.policy(name, role), policy)?;
        self.write_config(name, config, &[("@PORT@", &port.to_string())])
    }

    /// Writes the configuration of someone who only calls.
    pub(crate) fn write_caller(&self, name: &str) -> Result<PathBuf, Error> {
        std::fs::create_dir_all(self.process(name))?;
        self.write_config(name, include_str!("../config/caller.yaml"), &[("@NAME@", name)])
    }

    fn write_config(&self, name: &str, template: &str, words: &[(&str, &str)]) -> Result<PathBuf, Error> {
        let root = self.root().display().to_string();
        let common = [("@DIR@", root.as_str()), ("@SVID_TTL@", SVID_TTL)];
        let text =
            common.iter().chain(words).fold(template.to_owned(), |text, (word, value)| text.replace(word, value));
        let file = self.config(name);
        write_whole(&file, &text)?;
        Ok(file)
    }

    /// Tells everybody where a cluster is.
    pub(crate) fn write_endpoints(&self, cluster: &str, addresses: &[SocketAddr]) -> Result<(), Error> {
        let list: String = addresses.iter().map(|address| format!("- \"{address}\"\n")).collect();
        write_whole(&self.root().join("endpoints").join(format!("{cluster}.yaml")), &list)
    }

    /// Whether an order was charged.
    pub(crate) fn charged(&self, order: u64) -> bool {
        self.root().join(LEDGER).join(format!("order-{order}")).exists()
    }

    /// The audit records of the requests of one process so far.
    pub(crate) fn audit(&self, name: &str) -> Result<Vec<serde_json::Value>, Error> {
        let text = match std::fs::read_to_string(self.process(name).join("audit.jsonl")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let records = whole.lines().map(|line| Ok(serde_json::from_str(line)?));
        records
            .filter(|record: &Result<serde_json::Value, Error>| {
                record.as_ref().map_or(true, |it| it["event"] == "request")
            })
            .collect()
    }
}
