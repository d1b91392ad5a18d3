//! A long trail that the real writer wrote, and what is found when it is touched at random places.
//!
//! Alone in its binary: the allocator counts for the whole process. `MESH_AUDIT_RECORDS=1000000` for the long form,
//! `MESH_AUDIT_SEED` for the places of an earlier run.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)] // a test

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};
use mesh_core::audit::{
    Audit, AuditOptions, AuditOutcome, AuditProblem, AuditRecord, AuditReport, AuditTrust, AuditVerifier, FileSink,
};
use mesh_core::identity::{PrivateKey, Signer};
use mesh_core::rng::Rng;
use peak_alloc::PeakAlloc;
use serde_json::{Map, Value};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What a verifier may hold, however long the trail is.
const MEMORY: usize = 8 << 20;
/// Touches of one kind in one reading; a verifier describes 100 problems, and one touch may be several.
const PLACES: usize = 20;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// A process that writes so many records, as fast as the sink takes them.
async fn write(path: &Path, records: usize, signer: Arc<dyn Signer>) {
    let mut options = AuditOptions::default();
    (options.queue, options.checkpoint_records, options.signer) = (4096, 1000, Some(signer));
    let audit = Audit::start(Box::new(FileSink::new(path)), options, Arc::default());
    for n in 0..records {
        let time = UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(n as u64);
        let mut record = AuditRecord::new(time, AuditOutcome::Allow, "allow_rule", 200);
        record.peer = Some("spiffe://shop.example/ns/shop/sa/web".into());
        (record.host, record.method) = ("orders:8443".to_owned(), "GET".to_owned());
        record.path = format!("/orders/{n}");
        record.policy = Some("shop/web".into());
        audit.record(record);
        if n % 2000 == 1999 {
            audit.flush().await;
        }
    }
    audit.stop().await;
    assert_eq!(audit.lost(), 0);
}

fn lines(path: &Path) -> impl Iterator<Item = String> {
    BufReader::new(File::open(path).unwrap()).lines().map(Result::unwrap)
}

struct Trail<'a> {
    path: &'a Path,
    trust: AuditTrust,
    count: usize,
    rng: Rng,
}

impl Trail<'_> {
    fn verify(&self, lines: impl Iterator<Item = String>, anchor: Option<&str>, unfinished: bool) -> AuditReport {
        ALLOCATOR.reset_peak_usage();
        let before = ALLOCATOR.current_usage();
        let mut verifier = AuditVerifier::new(self.trust.clone()).allow_unfinished(unfinished);
        anchor.iter().for_each(|anchor| verifier.anchor(anchor.as_bytes()).unwrap());
        lines.for_each(|line| verifier.line(line.as_bytes()));
        let peak = ALLOCATOR.peak_usage() - before;
        assert!(peak < MEMORY, "{peak} bytes for {} records", self.count);
        verifier.finish()
    }

    /// Line numbers from 0 in order, far enough from each other and from the ends that each touch stands alone.
    fn places(&self) -> BTreeSet<usize> {
        let apart = self.count / PLACES;
        (0..PLACES).map(|nth| nth * apart + 10 + self.below(apart - 80)).collect()
    }

    fn below(&self, bound: usize) -> usize {
        self.rng.below(bound)
    }

    /// Touches every place, and demands that each is told of, as `reasons` call it, and nothing else is. What moves lines is
    /// looked up by the numbers of the records, what edits these, by line.
    fn touched(&self, name: &str, by_seq: bool, reasons: &[&str], touch: impl Fn(usize, &mut Vec<String>)) {
        const REACH: usize = 64;
        let begun = Instant::now();
        let places = self.places();
        let mut pending = lines(self.path).enumerate();
        let stream = std::iter::from_fn(|| {
            let (at, line) = pending.next()?;
            let mut piece = vec![line];
            if places.contains(&at) {
                piece.extend(pending.by_ref().take(REACH).map(|(_, line)| line));
                touch(at, &mut piece);
            }
            Some(piece)
        });
        let report = self.verify(stream.flatten(), None, false);
        // Which line of the untouched trail is told of: lines that went or came before it do not count.
        let own = |problem: &AuditProblem| if by_seq { problem.seq.unwrap() } else { problem.line - 1 } as usize;
        let told: Vec<_> = report.problems.iter().map(|problem| (own(problem), problem.reason)).collect();
        let near = |place: usize, line: usize| (place..=place + REACH).contains(&line);
        for place in &places {
            let found = told.iter().any(|(line, reason)| near(*place, *line) && reasons.contains(reason));
            assert!(found, "{name} at {place}: {:#?}", report.problems);
        }
        for (line, reason) in &told {
            assert!(places.iter().any(|place| near(*place, *line)), "{name}: {reason} at {line}, places {places:?}");
        }
        assert_eq!(report.further_problems, 0, "{name}");
        println!("{name}: {} touches, all found, {:?}", places.len(), begun.elapsed());
    }
}

#[tokio::test]
async fn whatever_is_touched_at_random_places_is_found() {
    let records = env("MESH_AUDIT_RECORDS").map_or(5_000, |n| usize::try_from(n).unwrap());
    let seed = env("MESH_AUDIT_SEED").unwrap_or_else(|| Rng::from_entropy().next_u64());
    println!("{records} records, MESH_AUDIT_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let signer: Arc<dyn Signer> = Arc::new(PrivateKey::generate().unwrap());
    let mut trust = AuditTrust::default();
    trust.add_key(signer.public_key().to_vec());
    let begun = Instant::now();
    write(&path, records, Arc::clone(&signer)).await;
    println!("written: {} bytes, {:?}", fs::metadata(&path).unwrap().len(), begun.elapsed());
    let trail = Trail { path: &path, trust, count: lines(&path).count(), rng: Rng::seeded(seed) };

    let begun = Instant::now();
    let report = trail.verify(lines(&path), None, false);
    println!("verified: {:?}", begun.elapsed());
    assert_eq!((&report.problems, report.records, report.lost), (&vec![], trail.count as u64, 0));
    assert_eq!((report.vouched, report.unvouched_tail), (report.checkpoints, 0));
    // Every thousand records, at the end of a batch.
    assert!(report.checkpoints as usize >= records / 1300 + 2, "{report:?}");

    trail.touched("edit", false, &["edited", "malformed"], |_, piece| {
        // Any letter or digit, names and hashes included, becomes another.
        let mut bytes = piece[0].clone().into_bytes();
        let at = loop {
            let at = trail.below(bytes.len());
            if bytes[at].is_ascii_alphanumeric() {
                break at;
            }
        };
        bytes[at] = if bytes[at] == b'7' { b'3' } else { b'7' };
        piece[0] = String::from_utf8(bytes).unwrap();
    });
    trail.touched("delete", true, &["deleted"], |_, piece| drop(piece.remove(0)));
    trail.touched("delete several", true, &["deleted"], |_, piece| drop(piece.drain(..1 + trail.below(40))));
    trail.touched("reorder", true, &["reordered"], |_, piece| {
        let line = piece.remove(0);
        piece.insert(1 + trail.below(40), line);
    });
    trail.touched("repeat", true, &["reordered"], |_, piece| {
        let line = piece[0].clone();
        piece.insert(1 + trail.below(40), line);
    });
    truncated(&trail);
    hashed_anew(&trail);
    forked(&trail, &signer).await;
}

/// Cut at a random place: without its end, and where that is excused, by a head that was kept elsewhere.
fn truncated(trail: &Trail<'_>) {
    let at = trail.count / 2 + trail.below(trail.count / 2 - 1);
    let stop = lines(trail.path).last().unwrap();
    let first = |report: AuditReport| report.problems.first().map(|problem| (problem.line as usize, problem.reason));
    let cut = || lines(trail.path).take(at);
    assert_eq!(first(trail.verify(cut(), None, false)), Some((at + 1, "unfinished")));
    assert_eq!(first(trail.verify(cut(), Some(&stop), true)), Some((at + 1, "truncated")));
    assert_eq!(first(trail.verify(cut(), None, true)), None, "control: a process that still runs looks the same");
    println!("truncate: cut at {at}, found");
}

/// Edited by who can hash but not sign: the next head that is signed does not fit.
fn hashed_anew(trail: &Trail<'_>) {
    let at = 10 + trail.below(trail.count - 20);
    let sealed = lines(trail.path).enumerate().skip(at + 1).find(|(_, line)| line.contains("\"sig\":")).unwrap().0;
    let mut prev: Option<String> = None;
    let forged = lines(trail.path).take(sealed + 1).enumerate().map(|(number, line)| {
        if number < at {
            return line;
        }
        let mut record: Map<String, Value> = serde_json::from_str(&line).unwrap();
        record.remove("hash");
        if let Some(prev) = prev.take() {
            record.insert("prev".to_owned(), prev.into());
        }
        if number == at {
            record.insert("time".to_owned(), "2026-01-01T00:00:00Z".into());
        }
        let hash = hash(&record);
        prev = Some(hash.clone());
        record.insert("hash".to_owned(), hash.into());
        serde_json::to_string(&record).unwrap()
    });
    let report = trail.verify(forged, None, true);
    let told: Vec<_> = report.problems.iter().map(|problem| (problem.line as usize, problem.reason)).collect();
    // The edited record may itself be a signed one.
    let expected = [at, sealed].map(|line| (line + 1, "bad_signature"));
    assert!(told == expected[1..] || told == expected, "{told:?}, edited {at}, sealed {sealed}");
    println!("edit, hashed anew: at {at}, found at {sealed}");
}

/// By the documentation, not by the writer's code: ASCII, so that the order of names is that of bytes.
fn hash(record: &Map<String, Value>) -> String {
    let prev = record["prev"].as_str().unwrap();
    let mut context = Context::new(&SHA256);
    context.update(b"mesh.audit.record.v2\0");
    for at in (0..64).step_by(2) {
        context.update(&[u8::from_str_radix(&prev[at..at + 2], 16).unwrap()]);
    }
    context.update(serde_json::to_string(record).unwrap().as_bytes());
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A second process continues a copy of the beginning, and what it wrote is put behind the trail.
async fn forked(trail: &Trail<'_>, signer: &Arc<dyn Signer>) {
    let at = 1 + trail.below(trail.count - 2);
    let copy = trail.path.with_extension("copy");
    let common: String = lines(trail.path).take(at).map(|line| line + "\n").collect();
    fs::write(&copy, common).unwrap();
    write(&copy, 5, Arc::clone(signer)).await;
    let other = || lines(&copy).skip(at);
    let first = |report: AuditReport| report.problems.first().map(|problem| (problem.line as usize, problem.reason));
    let behind = trail.verify(lines(trail.path).chain(other()), None, true);
    assert_eq!(first(behind), Some((trail.count + 1, "fork")));
    // Or between: then the record that was there before is the second of two.
    let within = lines(trail.path).take(at).chain(other()).chain(lines(trail.path).skip(at));
    let within = trail.verify(within, None, true);
    assert!(within.problems.iter().any(|problem| problem.reason == "fork"), "{:#?}", within.problems);
    // Control: either of them alone is whole.
    assert_eq!(first(trail.verify(lines(&copy), None, true)), None);
    println!("fork: at {at}, found");
}
