//! Everything that bench-server and bench-client need, in one directory.

mod config;
mod pki;
mod token;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

const TRUST_DOMAIN: &str = "bench.example";
const ISSUER: &str = "https://idp.bench.example";
const AUDIENCE: &str = "bench-server";

/// Writes the directory; how to use it.
pub(crate) fn write(dir: &Path, address: SocketAddr) -> Result<String, String> {
    fs::create_dir_all(dir.join("policies")).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        if name.ends_with(".key") || name.ends_with(".jwt") { private(&path) } else { Ok(()) }
    };
    let pki = pki::issue(TRUST_DOMAIN).map_err(|e| format!("cannot issue certificates: {e}"))?;
    put("ca.pem", &pki.ca)?;
    for leaf in &pki.leaves {
        put(&format!("{}.pem", leaf.name), &leaf.chain)?;
        put(&format!("{}.key", leaf.name), &leaf.key)?;
    }
    let token = token::issue(ISSUER, AUDIENCE)?;
    put("jwks.json", &token.jwks)?;
    put("token.jwt", &token.jwt)?;
    put("server.yaml", &config::server(address))?;
    put("client.yaml", &config::client(address))?;
    put("policies/bench.yaml", &config::policies())?;
    Ok(usage(dir, address))
}

fn usage(dir: &Path, address: SocketAddr) -> String {
    let dir = dir.display();
    format!(
        "wrote {dir}: certificates and token are good for 24 h, {} policy rules\n\
         \n\
         bench-server --listen {address} --mode mesh --config {dir}/server.yaml\n\
         bench-client --url https://{address}/hello --proto h2 --mode mesh --config {dir}/client.yaml --service bench \\\n  \
         --conc 64 --conns 4 --secs 10 --warmup 2\n\
         \n\
         bench-server --listen {address} --mode mtls --cert {dir}/server.pem --key {dir}/server.key --ca {dir}/ca.pem\n\
         bench-client --url https://{address}/hello --proto h2 --mode mtls --cert {dir}/client.pem --key {dir}/client.key \\\n  \
         --ca {dir}/ca.pem --conc 64 --conns 4 --secs 10 --warmup 2",
        config::RULES
    )
}

#[cfg(unix)]
fn private(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|e| format!("cannot chmod {}: {e}", path.display()))
}

#[cfg(not(unix))]
fn private(_path: &Path) -> Result<(), String> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_everything_that_the_configurations_name() {
        let dir = tempfile::tempdir().unwrap();
        let usage = write(dir.path(), "127.0.0.1:8443".parse().unwrap()).unwrap();
        assert!(usage.contains("1000 policy rules"));
        for name in ["ca.pem", "server.pem", "server.key", "client.pem", "client.key", "jwks.json", "token.jwt"] {
            assert!(dir.path().join(name).metadata().unwrap().len() > 0, "{name}");
        }
        let policies = fs::read_to_string(dir.path().join("policies/bench.yaml")).unwrap();
        assert_eq!(policies.lines().filter(|line| line.starts_with("  - ")).count(), config::RULES);
        assert!(fs::read_to_string(dir.path().join("server.yaml")).unwrap().contains("127.0.0.1:8443"));
    }
}
