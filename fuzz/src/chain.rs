//! The certificate chain of a stranger, who has proved nothing yet.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_core::identity::{
    PeerRole, SvidError, TrustBundle, TrustBundleSet, TrustDomain, VerifiedSvid, check_leaf, claimed_id,
    verify_svid as judge,
};

/// The authority that the good chains of the corpus lead to, and when all of them are valid.
static ROOT: &[u8] = include_bytes!("../corpus/root.der");
static NOW: LazyLock<SystemTime> = LazyLock::new(|| UNIX_EPOCH + Duration::from_secs(1_800_000_000));

/// Those who trust it, those who trust it for another name, and those who trust nobody.
static TRUST: LazyLock<TrustBundleSet> = LazyLock::new(|| trust("td", &[ROOT]));
static OTHER: LazyLock<TrustBundleSet> = LazyLock::new(|| trust("other", &[ROOT]));
static NOBODY: LazyLock<TrustBundleSet> = LazyLock::new(|| trust("td", &[]));

/// The verdict: `accepted`, or the reason of the refusal.
///
/// Certificates follow each other as DER, leaf first.
pub(crate) fn run(data: &[u8]) -> &'static str {
    let chain = certificates(data);
    let verdict = judge(&chain, &TRUST, PeerRole::Client, *NOW);
    assert_eq!(verdict, judge(&chain, &TRUST, PeerRole::Client, *NOW), "same chain, same answer");
    // Of two things that are wrong, each role may meet another one first.
    let server = judge(&chain, &TRUST, PeerRole::Server, *NOW);
    assert_eq!(verdict.as_ref().ok(), server.as_ref().ok(), "a peer is judged alike in both roles");
    match verdict {
        Ok(svid) => accepted(&chain, &svid),
        Err(error) => refused(&chain, &error),
    }
}

fn accepted(chain: &[&[u8]], svid: &VerifiedSvid) -> &'static str {
    let leaf = chain[0];
    assert_eq!((svid.id.trust_domain(), svid.id.path().is_empty()), ("td", false));
    assert_eq!(claimed_id(leaf).as_ref(), Ok(&svid.id));
    assert_eq!(check_leaf(leaf, *NOW).as_ref(), Ok(&svid.id));
    assert!(svid.not_after >= *NOW);
    // At no other time, in no other trust domain and by no other authority.
    let over = svid.not_after + Duration::from_secs(1);
    assert_eq!(judge(chain, &TRUST, PeerRole::Client, over), Err(SvidError::Expired));
    assert!(judge(chain, &OTHER, PeerRole::Client, *NOW).is_err());
    assert!(judge(chain, &NOBODY, PeerRole::Client, *NOW).is_err());
    "accepted"
}

/// Whatever a stranger sends, what we write down about it is short and can be printed.
fn refused(chain: &[&[u8]], error: &SvidError) -> &'static str {
    let said = error.to_string();
    assert!(said.len() < 512 && !said.contains(char::is_control), "{said:?}");
    if let Some(leaf) = chain.first() {
        let _ = (claimed_id(leaf), check_leaf(leaf, *NOW));
    }
    error.reason()
}

fn trust(domain: &str, roots: &[&[u8]]) -> TrustBundleSet {
    // Called with names and roots of this file alone, which are good: the corpus is replayed with them.
    let domain = TrustDomain::parse(domain).expect("a trust domain");
    let roots = roots.iter().map(|root| (*root).into()).collect();
    TrustBundleSet::of(TrustBundle::new(domain, roots).expect("roots"))
}

/// Cuts where the outermost DER elements end; what is left over is the last piece.
fn certificates(data: &[u8]) -> Vec<&[u8]> {
    let (mut pieces, mut rest) = (Vec::new(), data);
    while !rest.is_empty() && pieces.len() < 12 {
        let (piece, after) = rest.split_at_checked(element(rest).unwrap_or(rest.len())).unwrap_or((rest, &[]));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// The length of the DER element that `data` begins with, header and all. (X.690 8.1.3)
fn element(data: &[u8]) -> Option<usize> {
    let first = usize::from(*data.get(1)?);
    let Some(count) = first.checked_sub(0x80) else { return Some(2 + first) };
    let bytes = data.get(2..2 + count).filter(|bytes| bytes.len() <= 4)?;
    Some(2 + count + bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}
