//! A SPIFFE ID from a stranger's certificate, from policy or from a command line.

use mesh_core::identity::{SpiffeId, SpiffeIdError, TrustDomain};

/// The verdict: `accepted`, or the reason of the refusal.
pub(crate) fn run(data: &[u8]) -> &'static str {
    let Ok(text) = std::str::from_utf8(data) else { return "not_utf8" };
    let parsed = SpiffeId::parse(text);
    assert_eq!(parsed.is_ok(), in_the_grammar(text), "parser and grammar disagree");
    let id = match parsed {
        Err(error) => return refused(text, &error),
        Ok(id) => id,
    };
    assert_eq!(id.as_str(), text, "nothing is normalised");
    assert_eq!(SpiffeId::parse(&id.to_string()).as_ref(), Ok(&id));
    assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
    // That it is one is what is checked here.
    let domain = TrustDomain::parse(id.trust_domain()).expect("the trust domain of an ID is one");
    if let Some(path) = id.workload() {
        assert_eq!(SpiffeId::for_workload(&domain, path.namespace, path.service_account).as_ref(), Ok(&id));
    }
    "accepted"
}

/// An error is short, whatever was given, and points into it.
fn refused(text: &str, error: &SpiffeIdError) -> &'static str {
    assert!(error.to_string().len() < 256, "{error}");
    match *error {
        SpiffeIdError::TrustDomainCharacter { at, found } | SpiffeIdError::PathCharacter { at, found } => {
            assert!(text[at..].starts_with(found), "{error}");
        }
        SpiffeIdError::EmptySegment { at } | SpiffeIdError::DotSegment { at } => {
            assert!(text[..at].ends_with('/'), "{error}");
        }
        _ => {}
    }
    error.reason()
}

/// SPIFFE-ID 2 as sentences, without a parser.
fn in_the_grammar(text: &str) -> bool {
    let letters = |word: &str, upper: bool| {
        word.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b) || upper && b.is_ascii_uppercase()
        })
    };
    let Some(rest) = text.strip_prefix("spiffe://") else { return false };
    let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
    text.len() <= 2048
        && (1..=255).contains(&domain.len())
        && letters(domain, false)
        && path.is_none_or(|path| path.split('/').all(|word| !matches!(word, "" | "." | "..") && letters(word, true)))
}
