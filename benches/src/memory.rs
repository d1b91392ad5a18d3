//! What this process holds, as the kernel sees it.

use serde_json::{Value, json};

use crate::cpu;

/// Private resident bytes; `None` where `/proc` is missing. Code that was mapped from files does not count.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// One look at this process: bytes resident, `live` bytes as its allocator counts them, CPU seconds spent.
pub fn look(live: usize) -> Value {
    json!({ "resident": resident(), "live": live, "cpu_seconds": cpu::seconds() })
}
