//! The end of the queue: numbers records, ties them into the chain, seals it, and hands them to the sink.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::canonical::{canonical, line};
use super::chain::Head;
use super::json::{Frame, rfc3339};
use super::seal::Sealer;
use super::subject::Subjects;
use super::{AuditEvent, AuditLine, AuditRecord, AuditSink, SubjectMode};
use crate::clock::WallClock;
use crate::rng::Rng;

/// Where sealed heads also go, so that a log pipeline holds them where the trail is not.
const CHECKPOINTS: &str = "mesh::audit::checkpoint";

/// What waits to be written.
#[derive(Debug)]
pub(super) enum Entry {
    Request(Box<AuditRecord>),
    Event(AuditEvent),
}

/// What is written in one piece.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    /// Records that were lost since the last batch that was written.
    pub(super) lost: u64,
    /// A head is sealed at the end even if few records came.
    pub(super) seal: bool,
    /// The trail ends here.
    pub(super) stop: bool,
}

/// Lives on a blocking thread while it works, and in the drain task between.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) sink: Box<dyn AuditSink>,
    pub(super) sealer: Sealer,
    pub(super) subjects: Subjects,
    pub(super) clock: Arc<dyn WallClock>,
    pub(super) rng: Rng,
    pub(super) boot: String,
    /// Records after which a head is sealed.
    pub(super) checkpoint_records: u64,
    pub(super) chain: Chain,
}

/// What a batch moves forward, and a failed one leaves where it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    head: Head,
    /// The number of the next record.
    seq: u64,
    /// The number of the first record that no seal covers yet.
    unsealed: u64,
    begun: bool,
    stopped: bool,
}

impl Chain {
    pub(super) const NEW: Self = Self { head: Head::GENESIS, seq: 0, unsealed: 0, begun: false, stopped: false };

    /// Whether records were written that no seal covers.
    pub(super) fn is_open(&self) -> bool {
        self.seq > self.unsealed
    }
}

impl Writer {
    /// Writes all of it, or nothing and says why.
    pub(super) fn write(&mut self, batch: Batch) -> Result<(), String> {
        let before = self.chain;
        let written = self.lines(batch).and_then(|lines| {
            if !lines.is_empty() {
                self.sink.write(&lines).map_err(|error| error.to_string())?;
            }
            Ok(lines)
        });
        let lines = written.inspect_err(|_| self.chain = before)?;
        for line in lines.iter().filter(|line| line.sealed) {
            tracing::info!(target: CHECKPOINTS, record = line.text(), "audit checkpoint");
        }
        Ok(())
    }

    fn lines(&mut self, batch: Batch) -> Result<Vec<AuditLine>, String> {
        let mut lines = Vec::with_capacity(batch.entries.len() + 3);
        if !self.chain.begun {
            let last = self.sink.last().map_err(|error| error.to_string())?;
            self.chain.head = last.as_deref().and_then(head_of).unwrap_or(Head::GENESIS);
            self.chain.begun = true;
            lines.push(self.start());
        }
        if batch.lost > 0 {
            self.chain.stopped = false;
            lines.push(self.gap(batch.lost));
        }
        let service = self.service();
        for entry in batch.entries {
            self.chain.stopped = false;
            lines.push(match entry {
                Entry::Request(record) => self.request(record, service.as_ref()),
                Entry::Event(event) => {
                    let (time, kind) = (event.time, event.kind);
                    self.event(kind, time, event.into_fields())
                }
            });
        }
        if batch.stop && !self.chain.stopped {
            lines.push(self.sealed("audit.stop", Map::new()));
            self.chain.stopped = true;
        } else if self.chain.is_open()
            && (batch.seal || self.chain.seq - self.chain.unsealed >= self.checkpoint_records)
        {
            lines.push(self.sealed("audit.checkpoint", Map::new()));
        }
        Ok(lines)
    }

    fn service(&self) -> Option<Arc<str>> {
        let identity = self.sealer.identity.as_ref()?.peek();
        identity.svid().map(|svid| svid.id().as_str().into())
    }

    fn start(&mut self) -> AuditLine {
        let mut fields = Map::new();
        fields.insert("subject".to_owned(), self.subjects.mode().as_str().into());
        if self.subjects.mode() == SubjectMode::Hmac {
            fields.insert("subject_key".to_owned(), self.subjects.key_id().into());
        }
        self.sealed("audit.start", fields)
    }

    /// The numbers `first` to `last` are those of the lost records: together with the lines, none is missing.
    fn gap(&mut self, lost: u64) -> AuditLine {
        let first = self.chain.seq;
        self.chain.seq += lost;
        let mut fields = Map::new();
        for (name, value) in [("count", lost), ("first", first), ("last", self.chain.seq - 1)] {
            fields.insert(name.to_owned(), value.into());
        }
        self.event("audit.gap", self.clock.now(), fields)
    }

    fn request(&mut self, mut record: Box<AuditRecord>, service: Option<&Arc<str>>) -> AuditLine {
        record.spell_token(&self.subjects);
        record.seq = self.chain.seq;
        record.service = record.service.or_else(|| service.cloned());
        let prev = self.chain.head.to_string();
        let canonical = record.canonical(Frame { boot: &self.boot, prev: &prev });
        self.link(&canonical, Some(record), false)
    }

    fn event(&mut self, kind: &str, time: std::time::SystemTime, mut fields: Map<String, Value>) -> AuditLine {
        self.frame(kind, time, &mut fields);
        self.link(&canonical(&fields).unwrap_or_default(), None, false)
    }

    /// A record that vouches for all before it: its `prev` is their hash, and its signature covers that.
    fn sealed(&mut self, kind: &str, mut fields: Map<String, Value>) -> AuditLine {
        fields.insert("first".to_owned(), self.chain.unsealed.into());
        fields.insert("records".to_owned(), self.chain.seq.into());
        self.frame(kind, self.clock.now(), &mut fields);
        if let Err(error) = self.sealer.seal(&mut fields) {
            for name in ["alg", "sig", "key", "cert"] {
                fields.remove(name);
            }
            tracing::error!(target: "mesh", %error, "an audit checkpoint could not be signed: a verifier will say so");
        }
        let line = self.link(&canonical(&fields).unwrap_or_default(), None, true);
        self.chain.unsealed = self.chain.seq;
        line
    }

    /// Adds what every line says.
    fn frame(&self, kind: &str, time: std::time::SystemTime, fields: &mut Map<String, Value>) {
        fields.insert("schema".to_owned(), AuditRecord::SCHEMA.into());
        fields.insert("event".to_owned(), kind.into());
        fields.insert("id".to_owned(), new_id(time, &self.rng).to_string().into());
        fields.insert("time".to_owned(), rfc3339(time.into()).into());
        fields.insert("boot".to_owned(), self.boot.as_str().into());
        fields.insert("seq".to_owned(), self.chain.seq.into());
        fields.insert("prev".to_owned(), self.chain.head.to_string().into());
        if let Some(service) = self.service() {
            fields.insert("service".to_owned(), (*service).into());
        }
    }

    fn link(&mut self, canonical: &str, record: Option<Box<AuditRecord>>, sealed: bool) -> AuditLine {
        self.chain.head = self.chain.head.next(canonical);
        self.chain.seq += 1;
        AuditLine { text: line(canonical, &self.chain.head.to_string()), record, sealed }
    }
}

/// The hash of a line that an earlier process wrote.
fn head_of(line: &str) -> Option<Head> {
    let record: Map<String, Value> = serde_json::from_str(line).ok()?;
    Head::parse(record.get("hash")?.as_str()?)
}

/// A UUIDv7: its time, and 74 random bits. (RFC 9562 5.7)
pub(super) fn new_id(time: std::time::SystemTime, rng: &Rng) -> Uuid {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let random = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
    let [bytes @ .., _, _, _, _, _, _] = random.to_be_bytes();
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
}
