//! Replays the corpus of every fuzz target: what was found once stays found.
//!
//! `fuzz/corpus/TARGET/VERDICT.NAME` holds one input and the verdict that it must get. The bodies are those of the fuzz
//! targets, with all that they assert.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a test

use std::fs;
use std::path::{Path, PathBuf};

use mesh_core::identity::forge::{Ca, TRUST_DOMAIN, Workshop, leaf_params};

#[path = "../../fuzz/src/bundle.rs"]
mod bundle;
#[path = "../../fuzz/src/canonical.rs"]
mod canonical;
#[path = "../../fuzz/src/chain.rs"]
mod chain;
#[path = "../../fuzz/src/jwt.rs"]
mod jwt;
#[path = "../../fuzz/src/policy.rs"]
mod policy;
#[path = "../../fuzz/src/spiffe_id.rs"]
mod spiffe_id;
#[path = "corpus/tokens.rs"]
mod tokens;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

/// How many inputs there were.
fn replay(target: &str, run: fn(&[u8]) -> &'static str) -> usize {
    let files = fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path());
    let verdicts = files.map(|file| {
        let name = file.file_name().unwrap().to_str().unwrap();
        let (expected, _) = name.split_once('.').expect("a file is called VERDICT.NAME");
        assert_eq!(run(&fs::read(&file).unwrap()), expected, "{target}/{name}");
    });
    verdicts.count()
}

type Target = (&'static str, fn(&[u8]) -> &'static str, usize);

/// Each target, and how many inputs it has at least.
const TARGETS: [Target; 6] = [
    ("spiffe_id", spiffe_id::run, 30),
    ("chain", chain::run, 60),
    ("bundle", bundle::run, 10),
    ("canonical", canonical::run, 40),
    ("policy", policy::run, 12),
    ("jwt", jwt::run, 100),
];

#[test]
fn every_input_of_the_corpus_gets_its_verdict() {
    for (target, run, at_least) in TARGETS {
        let count = replay(target, run);
        assert!(count >= at_least, "{target}: {count} inputs");
    }
}

/// Adds the files of `MESH_CORPUS_FROM=DIR`, `TARGET/NAME`, by their verdicts: read these before you commit them. `cargo test
/// -p mesh-core --all-features --test corpus -- --ignored found`.
#[test]
#[ignore = "writes into the repository"]
fn take_over_what_a_fuzzer_found() {
    let from = PathBuf::from(std::env::var_os("MESH_CORPUS_FROM").unwrap());
    for (target, run, _) in TARGETS {
        let Ok(files) = fs::read_dir(from.join(target)) else { continue };
        for file in files.map(|entry| entry.unwrap().path()) {
            let (input, name) = (fs::read(&file).unwrap(), file.file_name().unwrap().to_string_lossy());
            let name = name.get(..8).unwrap_or(&name);
            fs::write(corpus(target).join(format!("{}.found-{name}", run(&input))), input).unwrap();
        }
    }
}

/// Writes the certificates of the corpus afresh, with new keys: `cargo test -p mesh-core --all-features --test corpus
/// -- --ignored certificates`. For new attacks; the inputs that a fuzzer found do not survive it.
#[test]
#[ignore = "writes into the repository"]
fn write_the_certificates_of_the_corpus() {
    let workshop = Workshop::default();
    fs::write(corpus("root.der"), &workshop.root.der).unwrap();
    fs::remove_dir_all(corpus("chain")).unwrap_or_default();
    fs::create_dir_all(corpus("chain")).unwrap();
    for forgery in workshop.attacks().into_iter().chain(workshop.variants()) {
        let name: String = forgery.name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        // The corpus trusts our root alone.
        let verdict = match forgery.verdict {
            "issuer_of_another_trust_domain" if forgery.name.starts_with("our") => "unknown_trust_domain",
            "issuer_of_another_trust_domain" => "unknown_issuer",
            "accepted" if forgery.name.starts_with("the partner") => "unknown_trust_domain",
            verdict => verdict,
        };
        fs::write(corpus("chain").join(format!("{verdict}.{name}")), forgery.chain.concat()).unwrap();
    }
    fs::write(corpus("chain").join("no_certificate.nothing"), "").unwrap();
    fs::write(corpus("chain").join("malformed.junk"), "junk").unwrap();

    let (root, other) = (&workshop.root.pem, Ca::root("other").pem);
    let leaf = workshop.root.issue(&leaf_params(&format!("spiffe://{TRUST_DOMAIN}/a")));
    let section = |what: &str, base64: &str| format!("-----BEGIN {what}-----\n{base64}\n-----END {what}-----\n");
    fs::remove_dir_all(corpus("bundle")).unwrap_or_default();
    fs::create_dir_all(corpus("bundle")).unwrap();
    for (name, text) in [
        ("accepted.root", root.clone()),
        ("accepted.two-roots", format!("{root}{other}")),
        ("accepted.the-same-twice", root.repeat(2)),
        ("accepted.comments", format!("# ours\n{root}\n\n# theirs\n{other}# end\n")),
        ("accepted.other-line-ends", root.replace('\n', "\r\n")),
        ("refused.nothing", String::new()),
        ("refused.no-PEM", "ssh-ed25519 AAAA\n".to_owned()),
        ("refused.a-leaf", format!("{root}{}", leaf.pem)),
        ("refused.a-key", format!("{root}{}", section("PRIVATE KEY", "MAA="))),
        ("refused.no-base64", section("CERTIFICATE", "%")),
        ("refused.no-certificate", section("CERTIFICATE", "MAA=")),
        ("refused.no-end", root.lines().take(5).collect::<Vec<_>>().join("\n")),
        ("refused.a-long-first-line", format!("-----BEGIN CERTIFICATE{}\n", "x".repeat(1000))),
        ("refused.a-long-label", format!("-----BEGIN {}-----\n", "x".repeat(1000))),
        ("refused.too-many", root.repeat(65)),
    ] {
        fs::write(corpus("bundle").join(name), text).unwrap();
    }
}

/// Writes the tokens of the corpus afresh, as above: `... --ignored tokens`.
#[test]
#[ignore = "writes into the repository"]
fn write_the_tokens_of_the_corpus() {
    tokens::write();
}
