//! Programs that are started, watched and ended with the test.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

/// A running program; it is killed when this is dropped. What it prints goes to one file.
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `log`.
    pub(super) fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = std::fs::File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, log }
    }

    /// Kills it and waits for its end.
    pub(super) async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }

    /// What it has printed so far. Panics if it is not there any more: nobody asks of a program that should have ended.
    pub(super) fn log(&mut self) -> String {
        let ended = self.child.try_wait().unwrap();
        let mut text = String::new();
        std::fs::File::open(&self.log).unwrap().read_to_string(&mut text).unwrap();
        assert!(ended.is_none(), "ended with {ended:?}: {text}");
        text
    }
}

/// A program of the system; `None` only where nobody demands it.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Daemons live in `sbin`, which is not in everybody's path.
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    let found = places.map(|dir| dir.join(name)).find(|path| path.is_file());
    demanded(found, &format!("no {name} in the PATH"))
}

/// Passes `found` on. Missing, it is a failure in continuous integration and a remark elsewhere.
pub(super) fn demanded(found: Option<PathBuf>, missing: &str) -> Option<PathBuf> {
    if found.is_none() {
        assert!(std::env::var("CI").is_err(), "{missing}: run `cargo xtask peers`");
        println!("SKIPPED: {missing}: run `cargo xtask peers`");
    }
    found
}

/// A template of `tests/peers` with its words filled in.
pub(super) fn template(name: &str, dir: &Path, words: &[(&str, String)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name);
    let text = std::fs::read_to_string(path).unwrap().replace("@DIR@", dir.to_str().unwrap());
    words.iter().fold(text, |text, (word, value)| text.replace(word, value))
}
