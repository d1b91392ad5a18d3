//! What processes have spent, from the kernel's own accounts.

/// User and system seconds of this process so far, to 10 ms; `None` where `/proc` is missing.
pub fn seconds() -> Option<f64> {
    parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// The same of this process and another together, the server say.
pub fn seconds_with(other: Option<u32>) -> Option<f64> {
    let Some(pid) = other else { return seconds() };
    Some(seconds()? + parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)
}

/// Fields 14 and 15 (`utime`, `stime`) in ticks of 1/100 s. The second field may hold spaces and parentheses, so
/// counting starts behind its last one. (proc(5))
fn parse(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_behind_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 100 0";
        assert_eq!(parse(stat), Some(3.0));
        assert!(seconds().is_some() || !cfg!(target_os = "linux"));
        let twice = seconds_with(Some(std::process::id()));
        assert!(twice.is_some() || !cfg!(target_os = "linux"));
        assert_eq!(seconds_with(Some(u32::MAX)), None);
    }
}
