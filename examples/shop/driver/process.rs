//! One child process: started, found ready, frozen, thawed, killed.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::Error;
use crate::role::{PUBLISHED, Published, Role};

const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// A role that runs. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) at: Published,
    dir: PathBuf,
}

impl Process {
    /// Starts this same program in a role and waits until `/readyz` says 200.
    pub(crate) async fn start(role: Role, dir: &Path) -> Result<Self, Error> {
        let published = dir.join(PUBLISHED);
        if published.exists() {
            std::fs::remove_file(&published)?;
        }
        let log = File::options().create(true).append(true).open(dir.join("log.txt"))?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["role", role.name()])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let ready = timeout(START, ready(&mut child, &published)).await;
        let at = ready.map_err(|_| format!("{} is not ready after {START:?}", dir.display()))?;
        let at = at.map_err(|error| format!("{}: {error}\n{}", dir.display(), last_lines(dir)))?;
        Ok(Self { child, at, dir: dir.to_owned() })
    }

    /// `SIGKILL`: no goodbye to anyone.
    pub(crate) async fn kill(&mut self) -> Result<(), Error> {
        self.child.kill().await.map_err(|e| format!("cannot kill {}: {e}", self.dir.display()).into())
    }

    /// `SIGSTOP`: connections stay open, nothing is answered.
    pub(crate) async fn freeze(&self) -> Result<(), Error> {
        self.signal("-STOP").await
    }

    /// `SIGCONT`.
    pub(crate) async fn thaw(&self) -> Result<(), Error> {
        self.signal("-CONT").await
    }

    /// Ends its standard input, which asks it to drain; kills it if it does not.
    pub(crate) async fn stop(mut self) {
        drop(self.child.stdin.take());
        if timeout(STOP, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    async fn signal(&self, signal: &str) -> Result<(), Error> {
        let pid = self.child.id().ok_or("the process has ended")?;
        let status = Command::new("kill").args([signal, &pid.to_string()]).status().await?;
        if status.success() { Ok(()) } else { Err(format!("kill {signal} {pid}: {status}").into()) }
    }

    /// The sum of all series of `metric` whose labels hold each of `labels`, as the process's `/metrics` says now.
    pub(crate) async fn metric(&self, metric: &str, labels: &[&str]) -> Result<f64, Error> {
        let (status, text) = get(self.at.health, "/metrics").await?;
        if status != 200 {
            return Err(format!("{}: /metrics answers {status}", self.dir.display()).into());
        }
        let series = text.lines().filter_map(|line| line.rsplit_once(' '));
        let found = series.filter(|(series, _)| {
            let name = series.split('{').next().unwrap_or_default();
            name == metric && labels.iter().all(|label| series.contains(label))
        });
        found.map(|(_, value)| value.parse::<f64>().map_err(Error::from)).sum()
    }
}

/// Waits for the published address and then for readiness; an early end is an error.
async fn ready(child: &mut Child, published: &Path) -> Result<Published, Error> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Err(format!("ended at start with {status}").into());
        }
        if let Ok(text) = std::fs::read_to_string(published) {
            let at: Published = serde_json::from_str(&text)?;
            if matches!(get(at.health, "/readyz").await, Ok((200, _))) {
                return Ok(at);
            }
        }
        sleep(POLL).await;
    }
}

async fn get(address: SocketAddr, path: &str) -> Result<(u16, String), Error> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no HTTP response")?;
    let status = head.split(' ').nth(1).ok_or("no HTTP status")?;
    Ok((status.parse()?, body.to_owned()))
}

fn last_lines(dir: &Path) -> String {
    let log = std::fs::read_to_string(dir.join("log.txt")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(10)).map(|line| format!("  {line}\n")).collect()
}
