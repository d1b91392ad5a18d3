//! `mesh audit verify` over files that a real trail wrote.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use mesh_core::audit::{Audit, AuditOptions, AuditOutcome, AuditRecord, FileSink, NotAudited};
use mesh_core::identity::PrivateKey;
use serde_json::Value;

/// `MESH_AUDIT_RECORDS=1000000` for the long form.
fn records() -> usize {
    std::env::var("MESH_AUDIT_RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000)
}

/// A private key, and its public half in PEM.
fn key(dir: &Path) -> PrivateKey {
    let pair = rcgen::KeyPair::generate().unwrap();
    fs::write(dir.join("audit.pub"), pair.public_key_pem()).unwrap();
    PrivateKey::from_pem(pair.serialize_pem().as_bytes()).unwrap()
}

async fn write(path: &Path, records: usize, key: Option<PrivateKey>) {
    let mut options = AuditOptions::default();
    (options.queue, options.checkpoint_records) = (4096, 1000);
    options.signer = key.map(|key| Arc::new(key) as Arc<_>);
    let audit = Audit::start(Box::new(FileSink::new(path)), options, Arc::default());
    for n in 0..records {
        let time = UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(n as u64);
        let mut record = AuditRecord::new(time, AuditOutcome::Allow, "allow_rule", 200);
        record.peer = Some("spiffe://shop.example/ns/shop/sa/web".into());
        record.host = "orders:8443".to_owned();
        record.method = "GET".to_owned();
        record.path = format!("/orders/{n}");
        record.policy = Some("shop/web".into());
        record.trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned());
        audit.record(record);
        if n % 2000 == 1999 {
            audit.flush().await;
        }
    }
    audit.stop().await;
    assert_eq!(audit.lost(), 0);
}

fn verify(dir: &Path, args: &[&str]) -> (i32, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .current_dir(dir)
        .args(["--json", "audit", "verify"])
        .args(args)
        .output();
    let output = output.unwrap();
    let json = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), json.unwrap_or_else(|e| panic!("{e}: {output:?}")))
}

/// Exit code and JSON as of [`verify`], and the most memory that it took, in KiB, where the system tells.
fn measured(dir: &Path, args: &[&str]) -> (i32, Value, Option<u64>) {
    let out = dir.join("out.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command.current_dir(dir).args(["--json", "audit", "verify"]).args(args);
    let mut child = command.stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = None;
    let code = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        most = most.max(peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok()));
        match child.try_wait().unwrap() {
            Some(status) => break status.code().unwrap(),
            // Both are looked at until it has ended: how long that takes is the machine's.
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    (code, serde_json::from_slice(&fs::read(&out).unwrap()).unwrap(), most)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_trail_is_read_in_constant_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, count) = (dir.path(), records());
    write(&dir.join("audit.jsonl"), count, Some(key(dir))).await;
    let begun = tokio::time::Instant::now();
    let (code, json, peak) = measured(dir, &["--key", "audit.pub", "audit.jsonl"]);
    println!(
        "{count} records, {} bytes: {:?}, {peak:?} KiB at most",
        fs::metadata(dir.join("audit.jsonl")).unwrap().len(),
        begun.elapsed()
    );
    assert_eq!((code, &json["valid"], &json["verified"]), (0, &true.into(), &true.into()), "{json:#}");
    assert!(json["records"].as_u64().unwrap() > count as u64);
    assert!(peak.is_none_or(|peak| peak < 64 * 1024), "{peak:?} KiB for {count} records");
}

#[tokio::test]
async fn any_touch_of_a_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(&dir.join("audit.jsonl"), 2500, Some(key(dir))).await;
    let text = fs::read_to_string(dir.join("audit.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.len() / 2;
    let requests: Vec<usize> = (at..).filter(|at| lines[*at].contains("\"request\"")).take(3).collect();
    let at = requests[0];
    let put = |name: &str, lines: &[&str]| fs::write(dir.join(name), lines.join("\n") + "\n").unwrap();
    let edited = lines[at].replacen("\"allow\"", "\"deny\"", 1);
    let mut touched = lines.clone();
    touched[at] = &edited;
    put("untouched", &lines);
    put("edit", &touched);
    put("delete", &[&lines[..at], &lines[at + 1..]].concat());
    put("reorder", &[&lines[..at], &[lines[at + 1], lines[at]], &lines[at + 2..]].concat());
    put("truncate", &lines[..at]);
    write(&dir.join("other"), 10, None).await;
    let other = fs::read_to_string(dir.join("other")).unwrap();
    put("fork", &[&lines[..], &other.lines().collect::<Vec<_>>()].concat());
    assert_eq!(verify(dir, &["--key", "audit.pub", "untouched"]).0, 0);
    let seq = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].clone();
    for (name, line, number, reason) in [
        ("edit", at + 1, seq(lines[at]), "edited"),
        ("delete", at + 1, seq(lines[at + 1]), "deleted"),
        ("reorder", at + 1, seq(lines[at + 1]), "reordered"),
        ("truncate", at + 1, Value::Null, "unfinished"),
        ("fork", lines.len() + 1, 0.into(), "fork"),
    ] {
        let (code, json) = verify(dir, &["--key", "audit.pub", name]);
        let first = &json["problems"][0];
        let told = (code, &first["line"], &first["seq"], &first["reason"]);
        assert_eq!(told, (1, &(line as u64).into(), &number, &reason.into()), "{name}: {json:#}");
    }
}

#[tokio::test]
async fn keys_anchors_and_files_are_what_they_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(&dir.join("audit.jsonl"), 2500, Some(key(dir))).await;
    let text = fs::read_to_string(dir.join("audit.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let checkpoint = lines.iter().rposition(|line| line.contains("audit.checkpoint")).unwrap();
    fs::write(dir.join("anchor"), lines[checkpoint]).unwrap();
    // Rotated away in the middle: the second file continues the first, or an anchor.
    fs::write(dir.join("1"), lines[..=checkpoint].join("\n") + "\n").unwrap();
    fs::write(dir.join("2"), lines[checkpoint + 1..].join("\n") + "\n").unwrap();
    for (args, expected) in [
        (&["--key", "audit.pub", "--anchor", "anchor", "audit.jsonl"][..], None),
        (&["--key", "audit.pub", "1", "2"], None),
        (&["--key", "audit.pub", "--anchor", "anchor", "2"], None),
        (&["--key", "audit.pub", "2"], Some("no_beginning")),
        (&["--key", "audit.pub", "2", "1"], Some("no_beginning")),
        (&["--key", "audit.pub", "1"], Some("unfinished")),
        (&["--key", "audit.pub", "--unfinished", "1"], None),
    ] {
        let (code, json) = verify(dir, args);
        let reason = json["problems"][0]["reason"].as_str();
        assert_eq!((code, reason), (i32::from(expected.is_some()), expected), "{args:?}: {json:#}");
    }
    // Cut before the anchor, with an end that looks right: only the anchor knows.
    fs::write(dir.join("cut"), lines[..checkpoint - 5].join("\n") + "\n").unwrap();
    let (code, json) = verify(dir, &["--unfinished", "--anchor", "anchor", "cut"]);
    assert_eq!((code, json["problems"][0]["reason"].as_str()), (1, Some("truncated")));
    assert_eq!(verify(dir, &["--unfinished", "cut"]).0, 0, "control: without the anchor nobody notices");
    // Another key does not vouch for it.
    fs::write(dir.join("other.pub"), rcgen::KeyPair::generate().unwrap().public_key_pem()).unwrap();
    let (code, json) = verify(dir, &["--key", "other.pub", "audit.jsonl"]);
    assert_eq!((code, json["problems"][0]["reason"].as_str()), (1, Some("unknown_key")));
    for args in
        [&["--key", "audit.jsonl", "1"][..], &["--key", "missing", "1"], &["missing"], &["--anchor", "audit.pub", "1"]]
    {
        assert_eq!(verify(dir, args).0, 3, "{args:?}");
    }
}

/// Runs [`a_full_disk_of_this_size`] in a mount namespace of its own, over a tmpfs of each size.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing_uncounted_and_leaves_whole_lines() {
    let inside = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        command.arg(std::env::current_exe().unwrap());
        command
    };
    let disk = tempfile::tempdir().unwrap();
    let mount = |size: u64| format!("mount -t tmpfs -o size={size}k tmpfs \"$MESH_AUDIT_SMALL_DISK\"");
    let run = |script: String| inside(&script).env("MESH_AUDIT_SMALL_DISK", disk.path()).output();
    if !run(mount(64)).is_ok_and(|output| output.status.success()) {
        println!("left out: this system lets nobody mount a tmpfs in a namespace of his own");
        return;
    }
    for size in [64, 128, 1024] {
        let test = "\"$0\" --exact a_full_disk_of_this_size --ignored --nocapture";
        let output = run(format!("{} && {test}", mount(size))).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{size} KiB: {output:?}");
        println!("{size} KiB: {}", said.lines().find(|line| line.contains(" offered")).unwrap());
    }
}

/// `mount -t tmpfs -o size=128k tmpfs DIR`, or another file system that is soon full.
#[ignore = "needs MESH_AUDIT_SMALL_DISK=DIR"]
#[tokio::test]
async fn a_full_disk_of_this_size() {
    let disk = std::path::PathBuf::from(std::env::var_os("MESH_AUDIT_SMALL_DISK").unwrap());
    let (path, ballast) = (disk.join("audit.jsonl"), disk.join("ballast"));
    fs::write(&ballast, vec![0; 32 * 1024]).unwrap();
    let audit = Audit::start(Box::new(FileSink::new(&path)), AuditOptions::default(), Arc::default());
    let mut offered = 0;
    let record = || AuditRecord::new(UNIX_EPOCH, AuditOutcome::Allow, "allow_rule", 200);
    let mut send = async |records: u64| {
        for _ in 0..records {
            audit.record(record());
        }
        audit.flush().await;
        offered += records;
    };
    while audit.lost() == 0 {
        send(17).await;
    }
    // What is left of the last page takes single records yet.
    let lost = audit.lost();
    while audit.lost() == lost {
        send(1).await;
    }
    send(100).await;
    // Whoever must be recorded is told so at once; he is nowhere, and nothing of his is lost.
    let lost = audit.lost();
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let begun = tokio::time::Instant::now();
        let (ticket, written) = audit.commit(record(), Duration::from_millis(900));
        assert_eq!((written.await, ticket.withdraw()), (Err(NotAudited::Failed), true));
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert_eq!(audit.lost(), lost);
    // Room again: the trail says how many it lost, and nobody is turned away any more.
    fs::remove_file(&ballast).unwrap();
    assert_eq!(audit.commit(record(), Duration::from_millis(900)).1.await, Ok(()));
    send(10).await;
    offered += 1;
    audit.stop().await;
    assert_eq!(audit.lost(), lost);
    let (code, json) = verify(&disk, &["audit.jsonl"]);
    assert_eq!(code, 0, "{json:#}");
    let text = fs::read_to_string(&path).unwrap();
    let written = text.lines().filter(|line| line.contains("\"event\":\"request\"")).count() as u64;
    println!("{offered} offered, {written} written, {lost} lost; denied within {slowest:?}");
    assert_eq!((written + lost, json["lost"].as_u64()), (offered, Some(lost)));
    fs::remove_file(&path).unwrap();
}
