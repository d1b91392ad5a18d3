//! What a stranger's token makes us allocate is bounded. Alone in its binary, for its allocator.
#![allow(clippy::unwrap_used, missing_docs)] // a test

mod allocated;

use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mesh_core::token::{TokenError, TokenVerifier, bearer};

use allocated::allocated;

/// A token of this header and these claims.
fn token(header: &str, claims: &str) -> String {
    let b64 = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", b64(header), b64(claims), b64("signature"))
}

#[test]
fn a_token_costs_no_more_memory_than_its_caps_allow() {
    const HEADER: &str = r#"{"alg":"ES256","kid":"k"}"#;
    let verifier = TokenVerifier::default();
    let judge = |token: &str| allocated(|| verifier.verify(token, UNIX_EPOCH).map(drop));
    let deep = |levels: usize| format!("{{\"a\":{}", "[".repeat(levels));
    let list =
        |item: &str, length: usize| format!("{{\"a\":[{}0]}}", format!("{item},").repeat(length / (item.len() + 1)));
    let members = |length: usize| {
        let members: String = (0..length / 9).map(|n| format!("\"{n:04}\":0,")).collect();
        format!("{{{members}\"a\":0}}")
    };

    // Beyond the cap nothing is allocated, whatever it is.
    for large in [
        ".".repeat(1 << 20),
        "A".repeat(1 << 20),
        token(HEADER, &deep(1 << 20)),
        token(&list("[]", 1 << 20), "{}"),
        token(HEADER, &members(1 << 20)),
    ] {
        assert_eq!(judge(&large), (0, Err(TokenError::TooLarge)), "{large:.20}");
        let header = format!("Bearer {large}");
        assert_eq!(allocated(|| bearer([header.as_bytes()]).is_ok()), (0, true), "{large:.20}");
    }

    // Up to it the worst shapes cost some times their size.
    for (large, most) in [
        (".".repeat(8000), 0),
        (format!("{}..", "A".repeat(8000)), 16 << 10),
        (token(HEADER, &deep(5900)), 16 << 10),
        (token(HEADER, &list("0", 5900)), 512 << 10),
        (token(HEADER, &list("[]", 5900)), 512 << 10),
        (token(HEADER, &list("{}", 5900)), 512 << 10),
        (token(HEADER, &list("\"\"", 5900)), 512 << 10),
        (token(HEADER, &members(5900)), 512 << 10),
        (token(&members(5900), "{}"), 512 << 10),
    ] {
        assert!(large.len() <= 8192);
        let (bytes, verdict) = judge(&large);
        assert!(bytes <= most, "{bytes} bytes for {large:.60}: {verdict:?}");
        assert!(verdict.is_err(), "{large:.60}");
    }
    // Control: the counter counts what JSON costs.
    assert!(judge(&token(HEADER, &list("0", 5900))).0 > 32 << 10);
}
