//! Reads a trail and says what was done to it.

mod lineage;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value};

use self::lineage::{Kinship, Lineage};
use super::canonical::canonical;
use super::chain::Head;
use super::{AuditRecord, AuditTrust};
use crate::token::parse_object;

/// Problems that are described; further ones are counted.
const DESCRIBED: usize = 100;

/// Something that is wrong with a trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditProblem {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1; one beyond the last for what is missing at the end.
    pub line: u64,
    /// The number that the record gives itself, where it can be read.
    pub seq: Option<u64>,
    /// A stable code: see [`AuditVerifier`].
    pub reason: &'static str,
    /// The same for people.
    pub message: String,
}

/// What a trail is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
#[non_exhaustive]
pub struct AuditReport {
    /// Lines that were read.
    pub records: u64,
    /// Processes that wrote them: `audit.start`.
    pub boots: u64,
    /// Records that their processes say were lost, and the `audit.gap`s that say so.
    pub lost: u64,
    /// See `lost`.
    pub gaps: u64,
    /// Starts, checkpoints and stops.
    pub checkpoints: u64,
    /// Those of them that somebody who is trusted signed.
    pub vouched: u64,
    /// Records behind the last of those, for which nobody vouches.
    pub unvouched_tail: u64,
    /// The hash of the last record.
    pub head: Option<String>,
    /// What is wrong, in the order of the lines.
    pub problems: Vec<AuditProblem>,
    /// Problems beyond the first 100.
    pub further_problems: u64,
}

impl AuditReport {
    /// Nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Verifies a trail line by line, in constant memory.
///
/// | reason | what was found |
/// |---|---|
/// | `malformed` | a line that is no record |
/// | `edited` | a record that its own hash does not fit |
/// | `deleted` | records before this one are missing |
/// | `reordered` | records stand in another order than they were written in, or twice |
/// | `fork` | two records that continue the same one, or a start that continues none |
/// | `no_beginning` | the first record continues one that is not there and that no anchor vouches for |
/// | `sequence` | a number that neither a record nor an `audit.gap` has |
/// | `unfinished` | a process whose records end without `audit.stop`: it crashed, still runs, or its last records were cut off |
/// | `truncated` | an anchor lies behind the end |
/// | `anchor_missing` | the trail goes beyond an anchor and does not have it |
/// | `unsigned`, `bad_signature`, `unknown_key`, `bad_certificate`, `untrusted_certificate`, `other_identity` | a start, checkpoint or stop that nobody who is trusted vouches for |
///
/// Hashes alone show accidents and careless hands: who can write the file can compute them anew. Signatures show more,
/// if their key is not on the same host; anchors, copies of signed heads that were kept elsewhere, show everything
/// before them.
#[derive(Debug)]
pub struct AuditVerifier {
    trust: AuditTrust,
    allow_unfinished: bool,
    anchors: HashMap<Head, Anchor>,
    report: AuditReport,
    file: String,
    line: u64,
    head: Option<Head>,
    lineage: Lineage,
    boot: Option<Boot>,
}

#[derive(Debug)]
struct Boot {
    id: String,
    /// The number that its next record should have.
    next: u64,
    stopped: bool,
}

#[derive(Debug)]
struct Anchor {
    boot: String,
    seq: u64,
    found: bool,
    /// A later record of its process was seen.
    passed: bool,
}

/// What is asked of every record.
struct Parsed {
    /// Without `hash`.
    record: Map<String, Value>,
    hash: Head,
    prev: Head,
    boot: String,
    seq: u64,
    event: String,
    intact: bool,
}

impl AuditVerifier {
    /// Believes the signatures of `trust`; if it is empty, only hashes are checked.
    pub fn new(trust: AuditTrust) -> Self {
        Self {
            trust,
            allow_unfinished: false,
            anchors: HashMap::new(),
            report: AuditReport::default(),
            file: String::new(),
            line: 0,
            head: None,
            lineage: Lineage::default(),
            boot: None,
        }
    }

    /// Takes a process without `audit.stop` for one that still runs, or crashed.
    #[must_use]
    pub fn allow_unfinished(mut self, allow: bool) -> Self {
        self.allow_unfinished = allow;
        self
    }

    /// Demands that the trail has this record: a line of `mesh::audit::checkpoint` that was kept elsewhere.
    pub fn anchor(&mut self, line: &[u8]) -> Result<(), String> {
        let parsed = parse(line).ok_or("it is no audit record")?;
        if !parsed.intact {
            return Err("its own hash does not fit it".to_owned());
        }
        self.trust
            .judge(&parsed.record)
            .or_else(|reason| if self.trust.is_empty() { Ok(false) } else { Err(reason) })?;
        let anchor = Anchor { boot: parsed.boot, seq: parsed.seq, found: false, passed: false };
        self.anchors.insert(parsed.hash, anchor);
        Ok(())
    }

    /// The lines that follow are of this file, which continues the one before.
    pub fn file(&mut self, name: &str) {
        (self.file, self.line) = (name.to_owned(), 0);
    }

    /// The next line, without its line break.
    pub fn line(&mut self, line: &[u8]) {
        self.line += 1;
        self.report.records += 1;
        let Some(parsed) = parse(line) else {
            self.problem(None, "malformed", "no audit record".to_owned());
            return;
        };
        let seq = parsed.seq;
        if !parsed.intact {
            self.problem(Some(seq), "edited", "the record does not fit its hash".to_owned());
        }
        self.follow(&parsed);
        self.count(&parsed);
        self.report.unvouched_tail += 1;
        if matches!(parsed.event.as_str(), "audit.start" | "audit.checkpoint" | "audit.stop") {
            self.report.checkpoints += 1;
            match self.trust.judge(&parsed.record) {
                Ok(true) => (self.report.vouched, self.report.unvouched_tail) = (self.report.vouched + 1, 0),
                // Without anybody to trust, a missing signature is no news.
                Ok(false) => {}
                Err("unsigned") if self.trust.is_empty() => {}
                // An edit was told already.
                Err(_) if !parsed.intact => {}
                Err(reason) => self.problem(Some(seq), reason, format!("`{}`: {}", parsed.event, spelled(reason))),
            }
        }
        for (hash, anchor) in &mut self.anchors {
            anchor.found |= parsed.intact && *hash == parsed.hash;
            anchor.passed |= anchor.boot == parsed.boot && parsed.seq > anchor.seq;
        }
        self.head = Some(parsed.hash);
    }

    /// Whether the record continues the one before it, and if not, what happened.
    fn follow(&mut self, parsed: &Parsed) {
        let anchored = self.anchors.contains_key(&parsed.prev);
        let continues = match self.head {
            Some(head) => head == parsed.prev,
            None => parsed.prev == Head::GENESIS && parsed.event == "audit.start" || anchored,
        };
        let kinship = self.lineage.add(parsed.prev, parsed.hash);
        if continues {
            return;
        }
        let seq = Some(parsed.seq);
        let message = |text: &str| text.to_owned();
        if self.head.is_none() {
            let text = "the trail begins in the middle: what it continues is not here, and no anchor vouches for it";
            self.problem(seq, "no_beginning", message(text));
            return;
        }
        match kinship {
            Kinship::Awaited(told) => {
                if let Some(problem) = self.report.problems.get_mut(told) {
                    problem.reason = "reordered";
                    problem.message = message("records stand in another order than they were written in");
                }
                self.problem(seq, "reordered", message("the record belongs further up"));
            }
            Kinship::Repeated => self.problem(seq, "reordered", message("the record stands further up already")),
            Kinship::Sibling => {
                self.problem(seq, "fork", message("another record further up continues the same record"));
            }
            _ if parsed.prev == Head::GENESIS || parsed.event == "audit.start" => {
                self.problem(seq, "fork", message("a process began a trail that does not continue this one"));
            }
            Kinship::Only => self.problem(seq, "reordered", message("the record continues one further up")),
            Kinship::Unknown => {
                let told = self.report.problems.len();
                self.lineage.await_hash(parsed.prev, told);
                self.problem(seq, "deleted", message("the record that this one continues is missing"));
            }
        }
    }

    /// Whether every number is there or told of as lost.
    fn count(&mut self, parsed: &Parsed) {
        let number = |name: &str| parsed.record.get(name).and_then(Value::as_u64);
        let mut expected = self.boot.as_ref().filter(|boot| boot.id == parsed.boot).map(|boot| boot.next);
        if expected.is_none() {
            self.report.boots += u64::from(parsed.event == "audit.start");
            let left = self.boot.as_ref().is_some_and(|boot| !boot.stopped);
            if left && !self.allow_unfinished {
                let text =
                    "the process before ended without `audit.stop`: it crashed, or its last records were cut off";
                self.problem(Some(parsed.seq), "unfinished", text.to_owned());
            }
        }
        if parsed.event == "audit.gap" {
            let lost = number("count").unwrap_or(0);
            (self.report.lost, self.report.gaps) = (self.report.lost + lost, self.report.gaps + 1);
            let told = number("first").zip(number("last")).is_some_and(|(first, last)| {
                expected.is_none_or(|next| next == first) && last.checked_sub(first) == lost.checked_sub(1)
            });
            expected = expected.filter(|_| told).map(|next| next + lost);
        }
        let stopped = parsed.event == "audit.stop";
        self.boot = Some(Boot { id: parsed.boot.clone(), next: parsed.seq + 1, stopped });
        if self.head.is_some_and(|head| head == parsed.prev)
            && let Some(expected) = expected.filter(|expected| *expected != parsed.seq)
        {
            let message = format!("numbered {}, expected {expected}", parsed.seq);
            self.problem(Some(parsed.seq), "sequence", message);
        }
    }

    /// The verdict, when every line of every file was given.
    pub fn finish(mut self) -> AuditReport {
        self.line += 1;
        if self.boot.as_ref().is_none_or(|boot| !boot.stopped) && !self.allow_unfinished {
            let text =
                "the trail ends without `audit.stop`: its process still runs or crashed, or records were cut off";
            self.problem(None, "unfinished", text.to_owned());
        }
        for (hash, anchor) in std::mem::take(&mut self.anchors) {
            // An anchor before the first record vouched for that.
            if anchor.found || self.lineage.first_prev() == Some(hash) {
                continue;
            }
            let what = format!("anchor {hash} (process {}, record {})", anchor.boot, anchor.seq);
            if anchor.passed {
                self.problem(None, "anchor_missing", format!("{what} is not in the trail, which goes beyond it"));
            } else {
                self.problem(None, "truncated", format!("{what} lies behind the end of the trail"));
            }
        }
        self.report.head = self.head.map(|head| head.to_string());
        self.report
    }

    fn problem(&mut self, seq: Option<u64>, reason: &'static str, message: String) {
        if self.report.problems.len() >= DESCRIBED {
            self.report.further_problems += 1;
            return;
        }
        let (file, line) = (self.file.clone(), self.line);
        self.report.problems.push(AuditProblem { file, line, seq, reason, message });
    }
}

fn parse(line: &[u8]) -> Option<Parsed> {
    let mut record = parse_object(line).ok()?;
    let hash = Head::parse(record.remove("hash")?.as_str()?)?;
    let prev = Head::parse(record.get("prev")?.as_str()?)?;
    let boot = record.get("boot")?.as_str()?.to_owned();
    let event = record.get("event")?.as_str()?.to_owned();
    let seq = record.get("seq")?.as_u64()?;
    let schema = record.get("schema")?.as_u64()?;
    if schema != u64::from(AuditRecord::SCHEMA) {
        return None;
    }
    let intact = canonical(&record).is_some_and(|text| prev.next(&text) == hash);
    Some(Parsed { record, hash, prev, boot, seq, event, intact })
}

fn spelled(reason: &str) -> &'static str {
    match reason {
        "unsigned" => "it is not signed",
        "unknown_key" => "signed with a key that was not given",
        "bad_certificate" => "its certificate cannot be read",
        "untrusted_certificate" => "no bundle vouches for its certificate at that time",
        "other_identity" => "its certificate is another workload's",
        _ => "its signature does not fit it",
    }
}
