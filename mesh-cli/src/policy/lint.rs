//! `mesh policy lint`: policies that are valid and yet may surprise.

use clap::Args;
use mesh_core::config::Workload;
use mesh_core::policy::lint::{Finding, LintOptions, lint};
use serde_json::{Value, json};

use super::{PolicyArgs, label, labelled, word, workload};
use crate::answer::{Answer, Failure};
use crate::check;
use crate::findings::count;

#[derive(Debug, Args)]
#[command(
    after_help = "Each finding names file, line, field, policy, rule, a stable code, and what to do about it.\n\n\
    Exit codes: 0 no warnings (notes do not count), 1 warnings, or the policies are refused, 2 wrong command line, 3 cannot read."
)]
pub(crate) struct LintArgs {
    #[command(flatten)]
    policies: PolicyArgs,
    /// The workload that there is: policies that do not select it are told.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = workload)]
    workload: Option<Workload>,
    /// Its labels.
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = label, requires = "workload")]
    labels: Vec<(String, String)>,
    /// What listeners demand; with `strict` nobody comes over plaintext.
    #[arg(long, action = clap::ArgAction::Set, default_value = "permissive", value_parser = word(&[("strict", false), ("permissive", true)]))]
    mtls: bool,
}

pub(super) fn run(args: &LintArgs) -> Result<Answer, Failure> {
    let workload = args.workload.as_ref().map(|workload| labelled(workload, &args.labels)).transpose()?;
    let policies = match args.policies.load()? {
        Ok(policies) => policies,
        Err(error) => return Ok(check::refused(&args.policies.names(), &error)),
    };
    let workloads: Vec<Workload> = workload.into_iter().collect();
    let mut options = LintOptions::new(&policies.options.root_namespace);
    (options.workloads, options.plaintext, options.requests) = (&workloads, args.mtls, &policies.requests);
    let findings = lint(&policies.documents, &options);
    let (warnings, notes) = count(&findings);
    let mut text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    text.push_str(&format!("{} policies: {warnings} warning(s), {notes} note(s)", policies.documents.len()));
    let json = json!({
        "valid": true, "policies": policies.documents.len(), "warnings": warnings, "notes": notes,
        "findings": findings.iter().map(to_json).collect::<Vec<_>>(),
    });
    Ok(Answer { yes: warnings == 0, text, json })
}

fn to_json(finding: &Finding) -> Value {
    let Finding { code, policy, rule, place, text, .. } = finding;
    json!({
        "code": code.as_str(), "severity": code.severity().as_str(), "policy": &**policy, "rule": rule,
        "file": &*place.file, "line": place.line, "column": place.column, "field": place.path, "text": text,
        "remedy": code.remedy(),
    })
}
