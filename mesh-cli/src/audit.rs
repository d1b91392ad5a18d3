//! `mesh audit verify`: whether an audit trail is whole, and who vouches for it.

use std::io;
use std::path::Path;

use mesh_core::audit::{AuditReport, AuditTrust, AuditVerifier};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use crate::answer::{Answer, Failure};
use crate::cli::AuditVerifyArgs;
use crate::lines::{next_line, open};
use crate::verify::Trust;

/// No record is longer.
const MAX_LINE: usize = 1 << 20;

pub(crate) fn verify(args: &AuditVerifyArgs) -> Result<Answer, Failure> {
    let mut verifier = AuditVerifier::new(trust(args)?).allow_unfinished(args.unfinished);
    for path in &args.anchors {
        let refused = |problem: String| Failure::Io(format!("cannot use {} as an anchor: {problem}", path.display()));
        each_line(path, |line| if line.is_empty() { Ok(()) } else { verifier.anchor(line).map_err(refused) })?;
    }
    for path in &args.files {
        verifier.file(&path.display().to_string());
        each_line(path, |line| {
            verifier.line(line);
            Ok(())
        })?;
    }
    Ok(answer(args, &verifier.finish()))
}

fn each_line(path: &Path, mut each: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Io(format!("cannot read {}: {error}", path.display()));
    let mut input = open(path)?;
    while let Some(line) = next_line(&mut input, MAX_LINE).map_err(failed)? {
        each(&line)?;
    }
    Ok(())
}

fn trust(args: &AuditVerifyArgs) -> Result<AuditTrust, Failure> {
    let mut unread = Vec::new();
    let mut trust = AuditTrust::default();
    trust.set_bundles(Trust::load(&args.bundles, &mut unread)?.bundles);
    for path in &args.keys {
        let read = std::fs::read(path).map_err(|error| error.to_string());
        let added = read.and_then(|text| match SubjectPublicKeyInfoDer::from_pem_slice(&text) {
            Ok(key) => {
                trust.add_key(key.to_vec());
                Ok(())
            }
            Err(_) if text.trim_ascii_start().starts_with(b"{") => trust.add_jwk(&text),
            Err(_) => Err("expected `BEGIN PUBLIC KEY` or a JWK".to_owned()),
        });
        if let Err(problem) = added {
            unread.push(format!("cannot use {}: {problem}", path.display()));
        }
    }
    if unread.is_empty() { Ok(trust) } else { Err(Failure::Io(unread.join("\n"))) }
}

fn answer(args: &AuditVerifyArgs, report: &AuditReport) -> Answer {
    let whole = report.is_whole();
    let asked = !args.keys.is_empty() || !args.bundles.is_empty();
    let mut text = format!(
        "{}: {} record(s) of {} process(es), {} lost in {} gap(s)",
        if whole { "whole" } else { "NOT whole" },
        report.records,
        report.boots,
        report.lost,
        report.gaps,
    );
    text.push_str(&match (asked, whole) {
        (false, _) => "\nno --key or --bundle was given, nobody vouches for it".to_owned(),
        (true, true) => format!(
            "\n{} of {} starts, checkpoints and stops are vouched for; {} record(s) behind the last of them are not",
            report.vouched, report.checkpoints, report.unvouched_tail,
        ),
        (true, false) => {
            format!("\n{} of {} starts, checkpoints and stops are vouched for", report.vouched, report.checkpoints)
        }
    });
    for problem in &report.problems {
        let seq = problem.seq.map(|seq| format!(" (record {seq})")).unwrap_or_default();
        text.push_str(&format!("\n{}:{}{seq}: {}: {}", problem.file, problem.line, problem.reason, problem.message));
    }
    if report.further_problems > 0 {
        text.push_str(&format!("\nand {} more", report.further_problems));
    }
    let mut json = json!(report);
    if let Some(fields) = json.as_object_mut() {
        fields.insert("valid".to_owned(), whole.into());
        fields.insert("verified".to_owned(), (whole && asked).into());
    }
    Answer { yes: whole, text, json }
}
