//! The PEM text of a trust bundle: a file that somebody else writes, or an answer of an issuer.

use mesh_core::identity::{TrustBundle, TrustDomain};

/// The verdict: `accepted`, or `refused`.
pub(crate) fn run(data: &[u8]) -> &'static str {
    // Letters alone are a trust domain.
    let read = |text: &[u8]| TrustBundle::from_pem(TrustDomain::parse("td").expect("a trust domain"), text);
    let (first, again) = (read(data), read(data));
    assert_eq!(first, again, "same text, same answer");
    match first {
        Err(error) => {
            let said = error.to_string();
            assert!(said.starts_with("trust bundle of td") && said.len() < 512, "{said:?}");
            assert!(error.position.is_none_or(|position| (1..=data.len()).contains(&position)), "{said}");
            "refused"
        }
        Ok(bundle) => {
            assert!((1..=64).contains(&bundle.authorities().len()));
            let text: String = bundle.authorities().iter().map(|der| pem(der)).collect();
            assert_eq!(read(text.as_bytes()).as_ref(), Ok(&bundle), "what was read can be written");
            "accepted"
        }
    }
}

fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::new();
    for chunk in der.chunks(3) {
        let bits = (0..3).fold(0, |bits: usize, at| bits << 8 | chunk.get(at).map_or(0, |byte| usize::from(*byte)));
        let digits = (0..4).map(|at| char::from(DIGITS[bits >> (18 - 6 * at) & 63]));
        base64.extend(digits.take(chunk.len() + 1).chain("==".chars()).take(4));
    }
    let lines: String = base64.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n").collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}
