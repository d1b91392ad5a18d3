//! Every denial-of-service attack once, briefly: nobody honest is refused, memory comes back, the named limit acts.
//!
//! Latencies are judged by `cargo xtask dos`, on an optimised build and a quiet machine.

use std::process::Command;

#[test]
fn every_attack_is_borne() {
    let table = Command::new(env!("CARGO_BIN_EXE_dos"))
        .args(["table", "--rounds", "1", "--secs", "1", "--scale", "0.2", "--no-latency"])
        .output()
        .unwrap();
    let (rows, errors) = (String::from_utf8_lossy(&table.stdout), String::from_utf8_lossy(&table.stderr));
    assert!(table.status.success(), "{}\n{rows}{errors}", table.status);
    assert!(rows.lines().count() > 20, "{rows}");
    println!("{rows}");
}
