use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::*;
use crate::audit::{Audit, AuditOptions, AuditOutcome, MemorySink};
use crate::clock::ManualClock;
use crate::identity::testkit::{Ca, WEB, noon};
use crate::identity::{Identity, PrivateKey, Signer};
use crate::snapshot::Snapshot;

/// A trail of `boots` processes with `records` requests each, signed by `signer`, a checkpoint every ten records.
async fn trail(sink: &MemorySink, boots: usize, records: usize, signer: Option<Arc<dyn Signer>>) {
    for _ in 0..boots {
        let options = AuditOptions { checkpoint_records: 10, signer: signer.clone(), ..AuditOptions::default() };
        let audit = Audit::start(Box::new(sink.clone()), options, Arc::default());
        for n in 0..records {
            let mut record = AuditRecord::new(UNIX_EPOCH, AuditOutcome::Allow, "allow_rule", 200);
            record.path = format!("/orders/{n}");
            audit.record(record);
            if n % 5 == 4 {
                audit.flush().await;
            }
        }
        audit.stop().await;
    }
}

fn verify(lines: &[String], trust: &AuditTrust, anchors: &[&String]) -> AuditReport {
    let mut verifier = AuditVerifier::new(trust.clone());
    anchors.iter().for_each(|anchor| verifier.anchor(anchor.as_bytes()).unwrap());
    verifier.file("audit.jsonl");
    lines.iter().for_each(|line| verifier.line(line.as_bytes()));
    verifier.finish()
}

/// Line, number, reason.
type Told = (u64, Option<u64>, &'static str);

/// The first problem.
fn first(report: &AuditReport) -> Option<Told> {
    report.problems.first().map(|problem| (problem.line, problem.seq, problem.reason))
}

fn key() -> (Arc<dyn Signer>, AuditTrust) {
    let (key, mut trust) = (PrivateKey::generate().unwrap(), AuditTrust::default());
    trust.add_key(key.public_key().to_vec());
    (Arc::new(key), trust)
}

/// What whoever holds the file can do without the key: the hashes of everything from `from` on anew.
fn rehash(lines: &mut [String], from: usize) {
    let mut prev = None;
    for line in lines.iter_mut().skip(from) {
        let mut record: Map<String, Value> = serde_json::from_str(line).unwrap();
        record.remove("hash");
        if let Some(prev) = prev {
            record.insert("prev".to_owned(), Head::to_string(&prev).into());
        }
        let text = canonical(&record).unwrap();
        let head = Head::parse(record["prev"].as_str().unwrap()).unwrap().next(&text);
        *line = crate::audit::canonical::line(&text, &head.to_string());
        prev = Some(head);
    }
}

#[tokio::test]
async fn an_untouched_trail_is_whole() {
    let (signer, trust) = key();
    let sink = MemorySink::default();
    trail(&sink, 2, 25, Some(signer)).await;
    let lines = sink.lines();
    let report = verify(&lines, &trust, &[&lines[11]]);
    assert_eq!(report.problems, []);
    assert_eq!((report.records, report.boots, report.lost, report.unvouched_tail), (58, 2, 0, 0));
    assert_eq!((report.checkpoints, report.vouched), (8, 8));
    // The second half of a trail is vouched for by the head that it continues.
    let stop = &lines[28];
    assert_eq!(verify(&lines[29..], &trust, &[stop]).problems, []);
    // Nobody is asked to vouch: hashes alone.
    assert_eq!(verify(&lines, &AuditTrust::default(), &[]).vouched, 0);
}

/// Start, 25 requests with a checkpoint behind each ten, stop: lines 1 to 29, numbers 0 to 28.
#[tokio::test]
async fn every_way_to_touch_a_trail_is_found() {
    let (signer, trust) = key();
    let sink = MemorySink::default();
    trail(&sink, 1, 25, Some(Arc::clone(&signer))).await;
    let good = sink.lines();
    assert!(good[11].contains("audit.checkpoint") && good[28].contains("audit.stop"), "{good:#?}");
    // Another run that continues a copy of the first 15 lines, as a second process over the same file would.
    let fork = MemorySink::default();
    trail(&fork, 1, 25, Some(signer)).await;
    let forked = fork.lines();

    type Touch = Box<dyn Fn(&mut Vec<String>)>;
    let touch = |touch: fn(&mut Vec<String>)| Box::new(touch) as Touch;
    let table: Vec<(&str, Touch, Option<Told>)> = vec![
        ("untouched", touch(|_| {}), None),
        ("edit", touch(|l| l[4] = l[4].replace("/orders/3", "/orders/4")), Some((5, Some(4), "edited"))),
        (
            "edit of a hash",
            touch(|l| l[4] = format!("{}{}", &l[4][..l[4].len() - 66], &l[5][l[5].len() - 66..])),
            Some((5, Some(4), "edited")),
        ),
        (
            "a member twice",
            touch(|l| l[4] = l[4].replacen('{', "{\"outcome\":\"deny\",", 1)),
            Some((5, None, "malformed")),
        ),
        ("a member more", touch(|l| l[4] = l[4].replacen('{', "{\"aside\":\"x\",", 1)), Some((5, Some(4), "edited"))),
        ("half a line", touch(|l| l[4].truncate(40)), Some((5, None, "malformed"))),
        (
            "edit, hashed anew",
            touch(|l| {
                l[4] = l[4].replace("/orders/3", "/orders/4");
                rehash(l, 4)
            }),
            Some((12, Some(11), "bad_signature")),
        ),
        ("delete", touch(|l| drop(l.remove(4))), Some((5, Some(5), "deleted"))),
        ("delete the first", touch(|l| drop(l.remove(0))), Some((1, Some(1), "no_beginning"))),
        (
            "delete, hashed anew",
            touch(|l| {
                l.remove(4);
                rehash(l, 3)
            }),
            Some((5, Some(5), "sequence")),
        ),
        ("reorder", touch(|l| l.swap(4, 5)), Some((5, Some(5), "reordered"))),
        (
            "reorder far",
            touch(|l| {
                let line = l.remove(4);
                l.insert(20, line)
            }),
            Some((5, Some(5), "reordered")),
        ),
        (
            "repeat",
            touch(|l| {
                let line = l[4].clone();
                l.insert(9, line)
            }),
            Some((10, Some(4), "reordered")),
        ),
        ("truncate", touch(|l| l.truncate(20)), Some((21, None, "unfinished"))),
        ("truncate at a checkpoint", touch(|l| l.truncate(12)), Some((13, None, "unfinished"))),
        (
            "another trail behind it",
            {
                let forked = forked.clone();
                Box::new(move |l: &mut Vec<String>| l.extend_from_slice(&forked))
            },
            Some((30, Some(0), "fork")),
        ),
        (
            "signature of nobody",
            touch(|l| {
                for line in l.iter_mut() {
                    let mut r: Map<String, Value> = serde_json::from_str(line).unwrap();
                    r.remove("sig");
                    *line = serde_json::to_string(&r).unwrap();
                }
                rehash(l, 0)
            }),
            Some((1, Some(0), "unsigned")),
        ),
    ];
    for (name, touch, expected) in table {
        let mut lines = good.clone();
        touch(&mut lines);
        let report = verify(&lines, &trust, &[]);
        assert_eq!(first(&report), expected, "{name}: {report:#?}");
    }
    // Control: without a key, who hashes anew is not found. An anchor finds it.
    let mut lines = good.clone();
    lines[4] = lines[4].replace("/orders/3", "/orders/4");
    rehash(&mut lines, 4);
    assert_eq!(first(&verify(&lines, &AuditTrust::default(), &[])), None);
    assert_eq!(first(&verify(&lines, &AuditTrust::default(), &[&good[11]])).map(|p| p.2), Some("anchor_missing"));
    // Cut behind an `audit.stop` that was made up, or before an anchor: `unfinished` may be excused, the anchor not.
    let mut verifier = AuditVerifier::new(trust.clone()).allow_unfinished(true);
    verifier.anchor(good[22].as_bytes()).unwrap();
    good[..20].iter().for_each(|line| verifier.line(line.as_bytes()));
    assert_eq!(first(&verifier.finish()).map(|p| p.2), Some("truncated"));
}

/// Two processes append to one file, each from what it found at its start.
#[tokio::test]
async fn two_records_that_continue_one_are_a_fork() {
    let one = MemorySink::default();
    trail(&one, 1, 5, None).await;
    let common = one.lines();
    let two = one.apart();
    trail(&one, 1, 3, None).await;
    trail(&two, 1, 3, None).await;
    let (mut lines, other) = (one.lines(), two.lines());
    assert_eq!(verify(&lines, &AuditTrust::default(), &[]).problems, []);
    assert_eq!(verify(&other, &AuditTrust::default(), &[]).problems, []);
    lines.extend_from_slice(&other[common.len()..]);
    let report = verify(&lines, &AuditTrust::default(), &[]);
    assert_eq!(first(&report), Some((common.len() as u64 + 6, Some(0), "fork")), "{report:#?}");
}

#[tokio::test]
async fn the_svid_signs_where_no_key_is_configured() {
    let root = Ca::root("root");
    let bundles = Arc::new(root.trust("td"));
    let identity = Identity { svids: vec![Arc::new(root.svid(WEB))], bundles: Arc::clone(&bundles) };
    let (identity, clock) = (Snapshot::new(identity), Arc::new(ManualClock::new(noon())));
    let sink = MemorySink::default();
    let options = AuditOptions { identity: Some(identity), clock, ..AuditOptions::default() };
    let audit = Audit::start(Box::new(sink.clone()), options, Arc::default());
    audit.stop().await;
    let (lines, mut trust) = (sink.lines(), AuditTrust::default());
    assert_eq!(verify(&lines, &trust, &[]).vouched, 0);
    trust.set_bundles((*bundles).clone());
    let report = verify(&lines, &trust, &[]);
    assert_eq!((report.problems, report.vouched), (vec![], 2));
    let mut strangers = AuditTrust::default();
    strangers.set_bundles(Ca::root("root").trust("td"));
    assert_eq!(first(&verify(&lines, &strangers, &[])), Some((1, Some(0), "untrusted_certificate")));
    // A certificate of another workload of the same domain vouches for itself alone.
    let mut renamed: Vec<_> = lines.iter().map(|line| line.replace("sa/web\"", "sa/billing\"")).collect();
    rehash(&mut renamed, 0);
    assert_eq!(first(&verify(&renamed, &trust, &[])), Some((1, Some(0), "other_identity")));
}
