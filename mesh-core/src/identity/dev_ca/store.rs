//! `ca.pem`: who signs, who will, and whose certificates are still accepted, in one file that changes as a whole.
//!
//! A rotation is a matter of time, not of messages: the file says when the successor takes over, and every process
//! reads that off its own clock. Nobody has to be awake at that moment.
//!
//! ```text
//!   rotate            takes over                 overlap ends
//!     |    spread         |         OVERLAP            |
//!     +-------------------+----------------------------+------>
//!     old signs             new signs
//!     both are trusted ------------------------------->  new alone
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::MAX_SVID_TTL;
use crate::identity::certificate;

/// How long the roots that no longer sign are trusted: until everything that they signed has ended.
pub(super) const OVERLAP: Duration = MAX_SVID_TTL;

/// Stands before the successor and before each old root, with a Unix time. PEM readers skip it.
const SUCCESSOR: &str = "mesh-dev-ca: successor, signs from ";
const RETIRED: &str = "mesh-dev-ca: retired, trusted until ";

/// Certificate and key of one authority.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) der: Arc<[u8]>,
    pub(super) certificate: String,
    /// The key's PEM section.
    pub(super) key: Zeroizing<String>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// A root that does not sign any more.
#[derive(Clone)]
pub(super) struct Retired {
    pub(super) der: Arc<[u8]>,
    certificate: String,
    until: SystemTime,
}

/// What the file holds.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) signs: Entry,
    pub(super) successor: Option<(Entry, SystemTime)>,
    pub(super) retired: Vec<Retired>,
}

impl Store {
    pub(super) fn of(signs: Entry) -> Self {
        Self { signs, successor: None, retired: Vec::new() }
    }

    /// Reads the file; an error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut starts, mut at) = (Vec::new(), 0);
        for line in text.split_inclusive('\n') {
            if line.starts_with(SUCCESSOR) || line.starts_with(RETIRED) {
                starts.push(at);
            }
            at += line.len();
        }
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        let first = starts.first().copied().unwrap_or(text.len());
        let mut store = Self::of(entry(text.get(..first).unwrap_or_default())?);
        for part in starts.iter().zip(ends).filter_map(|(from, to)| text.get(*from..to)) {
            if let Some(from) = time_after(part, SUCCESSOR)? {
                store.successor = Some((entry(part)?, from));
            } else if let Some(until) = time_after(part, RETIRED)? {
                let (der, certificate, ..) = authority(part)?;
                store.retired.push(Retired { der, certificate, until });
            }
        }
        Ok(store)
    }

    /// The text of the file.
    pub(super) fn text(&self) -> Zeroizing<String> {
        let capacity = 16 * 1024 * (2 + self.retired.len());
        let mut text = Zeroizing::new(String::with_capacity(capacity));
        let mut add = |header: Option<(&str, SystemTime)>, certificate: &str, key: &str| {
            if let Some((word, time)) = header {
                text.push_str(&format!("{word}{}\n", unix(time)));
            }
            text.push_str(certificate);
            text.push_str(key);
        };
        add(None, &self.signs.certificate, &self.signs.key);
        if let Some((entry, from)) = &self.successor {
            add(Some((SUCCESSOR, *from)), &entry.certificate, &entry.key);
        }
        for root in &self.retired {
            add(Some((RETIRED, root.until)), &root.certificate, "");
        }
        text
    }

    /// As it is at `now`: a successor whose time has come signs, and what was retired long enough is gone.
    pub(super) fn at(mut self, now: SystemTime) -> Self {
        if let Some((entry, from)) = self.successor.take_if(|(_, from)| *from <= now) {
            let old = std::mem::replace(&mut self.signs, entry);
            self.retired.push(Retired { der: old.der, certificate: old.certificate, until: from + OVERLAP });
        }
        self.retired.retain(|root| now < root.until);
        self
    }

    /// Everything that is trusted, the signing authority first.
    pub(super) fn roots(&self) -> Vec<Arc<[u8]>> {
        let successor = self.successor.iter().map(|(entry, _)| &entry.der);
        let retired = self.retired.iter().map(|root| &root.der);
        std::iter::once(&self.signs.der).chain(successor).chain(retired).cloned().collect()
    }

    /// The same as PEM, for `bundle.pem`.
    pub(super) fn bundle(&self) -> String {
        let successor = self.successor.iter().map(|(entry, _)| entry.certificate.as_str());
        let retired = self.retired.iter().map(|root| root.certificate.as_str());
        std::iter::once(self.signs.certificate.as_str()).chain(successor).chain(retired).collect()
    }
}

fn entry(part: &str) -> Result<Entry, String> {
    const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
    const END: &str = "-----END PRIVATE KEY-----";
    let (der, certificate, not_before, not_after) = authority(part)?;
    let key = part.find(BEGIN).zip(part.find(END)).and_then(|(from, to)| part.get(from..to + END.len()));
    let key = key.ok_or("no usable private key in it")?;
    let key = Zeroizing::new([key, "\n"].concat());
    Ok(Entry { der, certificate, key, not_before, not_after })
}

type Authority = (Arc<[u8]>, String, SystemTime, SystemTime);

fn authority(part: &str) -> Result<Authority, String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = part.find(BEGIN).zip(part.find(END)).and_then(|(from, to)| part.get(from..to + END.len()));
    let text = text.ok_or("no certificate in it")?;
    let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| "no certificate in it")?;
    let (not_before, not_after) = certificate::authority(&der).map_err(|what| format!("the certificate {what}"))?;
    Ok((Arc::from(der.as_ref()), format!("{text}\n"), not_before, not_after))
}

/// The time in the first line of `part`, if that line begins with `word`.
fn time_after(part: &str, word: &str) -> Result<Option<SystemTime>, String> {
    let Some(text) = part.lines().next().and_then(|line| line.strip_prefix(word)) else { return Ok(None) };
    let time = text.trim().parse().ok().and_then(|secs| UNIX_EPOCH.checked_add(Duration::from_secs(secs)));
    time.map(Some).ok_or_else(|| format!("`{word}` is followed by no Unix time"))
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
