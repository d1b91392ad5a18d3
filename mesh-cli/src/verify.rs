//! `mesh svid verify`: which certificate chains a peer would take.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mesh_core::clock::{SystemClock, WallClock as _};
use mesh_core::identity::{
    PeerRole, SpiffeId, SvidError, TrustBundle, TrustBundleSet, TrustDomain, claimed_id, verify_svid,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};
use serde::Serialize;

use crate::answer::{Failure, Lines, Said};
use crate::cli::VerifyArgs;

/// A chain of more than 64 KiB is refused, and its PEM text has comments at most.
const MAX_CHAIN_FILE: u64 = 1 << 20;
/// 64 authorities and their comments.
const MAX_BUNDLE_FILE: u64 = 4 << 20;

#[derive(Serialize)]
struct Line<'a> {
    valid: bool,
    reason: Option<&'static str>,
    spiffe_id: Option<&'a str>,
}

/// Every chain gets its line. What could not be read is told at the end, after all of them.
pub(crate) fn run(args: &VerifyArgs) -> Result<Said, Failure> {
    let now = match args.at {
        None => SystemClock.now(),
        Some(at) => SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(at))
            .ok_or_else(|| Failure::Usage(format!("--at {at} is no time")))?,
    };
    let mut unread = Vec::new();
    let trust = Trust::load(&args.bundles, &mut unread)?;
    let mut lines = Lines::new();
    for file in &args.chains {
        let (verdict, claimed) = match read(file, MAX_CHAIN_FILE) {
            Ok(Some(text)) => trust.judge(&text, now),
            Ok(None) => (Err("chain_too_large"), None),
            Err(error) => {
                unread.push(format!("cannot read {}: {error}", file.display()));
                (Err("unreadable"), None)
            }
        };
        let id = verdict.as_ref().ok().or(claimed.as_ref());
        let line = Line {
            valid: verdict.is_ok(),
            reason: verdict.as_ref().err().copied(),
            spiffe_id: id.map(SpiffeId::as_str),
        };
        if !lines.say(line.valid, &line) {
            break;
        }
    }
    let said = lines.end();
    if unread.is_empty() { Ok(said) } else { Err(Failure::Io(unread.join("\n"))) }
}

/// Whom the command line trusts.
pub(crate) struct Trust {
    pub(crate) bundles: TrustBundleSet,
    /// Trust domains whose bundle was named and cannot be used.
    unusable: BTreeSet<String>,
}

impl Trust {
    /// Two bundles of one trust domain are refused rather than pooled or picked from. (SPIFFE Federation 7.3)
    pub(crate) fn load(bundles: &[(TrustDomain, PathBuf)], unread: &mut Vec<String>) -> Result<Self, Failure> {
        let mut files = BTreeMap::new();
        for (domain, file) in bundles {
            if files.insert(domain, file).is_some() {
                let advice = "a trust domain has one bundle; put all of its authorities into one file";
                return Err(Failure::Usage(format!("--bundle {domain}=... is given twice: {advice}")));
            }
        }
        let mut trust = Self { bundles: TrustBundleSet::default(), unusable: BTreeSet::new() };
        for (domain, file) in files {
            let bundle = match read(file, MAX_BUNDLE_FILE) {
                Ok(Some(text)) => TrustBundle::from_pem(domain.clone(), &text).map_err(|error| error.to_string()),
                Ok(None) => Err(format!("more than {MAX_BUNDLE_FILE} bytes")),
                Err(error) => Err(error.to_string()),
            };
            match bundle {
                Ok(bundle) => trust.bundles.insert(bundle),
                Err(error) => {
                    unread.push(format!("cannot use {}: {error}", file.display()));
                    trust.unusable.insert(domain.as_str().to_owned());
                }
            }
        }
        Ok(trust)
    }

    /// The verdict, with its reason, and what the leaf calls itself.
    fn judge(&self, text: &[u8], now: SystemTime) -> (Result<SpiffeId, &'static str>, Option<SpiffeId>) {
        let mut sections = CertificateDer::pem_slice_iter(text).peekable();
        let claimed = match sections.peek() {
            Some(Ok(leaf)) => claimed_id(leaf).ok(),
            _ => None,
        };
        let verdict = sections.collect::<Result<Vec<_>, _>>().map_err(|_: pem::Error| "malformed");
        let verdict = verdict.and_then(|chain| self.verify(&chain, now).map_err(|error| self.reason(&error)));
        (verdict, claimed)
    }

    /// An X.509-SVID must serve in both roles.
    fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<SpiffeId, SvidError> {
        verify_svid(chain, &self.bundles, PeerRole::Client, now)?;
        verify_svid(chain, &self.bundles, PeerRole::Server, now).map(|svid| svid.id)
    }

    fn reason(&self, error: &SvidError) -> &'static str {
        match error {
            SvidError::UnknownTrustDomain(domain) if self.unusable.contains(domain) => "bundle_unusable",
            error => error.reason(),
        }
    }
}

/// The whole file, or nothing if it has more than `limit` bytes.
fn read(file: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    let read = File::open(file)?.take(limit + 1).read_to_end(&mut text)?;
    Ok((read as u64 <= limit).then_some(text))
}
