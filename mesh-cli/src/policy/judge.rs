//! Requests given as lines, and what policies decide about them: for `eval` and `diff`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use mesh_core::config::{ConfigError, Errors, IssuerConfig, Workload};
use mesh_core::policy::canonical::Canonicalization;
use mesh_core::policy::{
    self, CustomAnswer, CustomAnswers, Decision, DryRunMatch, NoHeaders, PolicyEngine, Request, RequestPolicy, Verdict,
};
use mesh_core::token::{StrictJson, accepts_claims};
use mesh_tower::offline::Sent;
use serde::Serialize;
use serde_json::Value;

use super::line::{self, Line, Protocol};
use super::{Policies, code, label, labelled, workload};
use crate::answer::Failure;
use crate::lines::{next_line, open};

/// What is called, and the requests.
#[derive(Debug, Args)]
pub(super) struct RequestArgs {
    /// The workload that is called.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = workload)]
    workload: Workload,
    /// Its labels.
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = label)]
    labels: Vec<(String, String)>,
    /// What an external authorizer says; may be repeated. Who is not named here is not asked, which denies.
    #[arg(long, value_name = "NAME=allow|deny|error|timeout", value_parser = answer)]
    custom: Vec<(String, CustomAnswer)>,
    /// The requests; `-` is the standard input.
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
}

fn answer(text: &str) -> Result<(String, CustomAnswer), String> {
    let (name, answer) = text.rsplit_once('=').ok_or("expected NAME=ANSWER")?;
    let answer = match answer {
        "allow" => CustomAnswer::Allow,
        "deny" => CustomAnswer::Deny,
        "error" => CustomAnswer::Error,
        "timeout" => CustomAnswer::Timeout,
        _ => return Err("expected allow, deny, error or timeout".to_owned()),
    };
    Ok((name.to_owned(), answer))
}

/// Bytes of a line at most; a longer one is an error line.
const MAX_LINE: usize = 1 << 20;

impl RequestArgs {
    /// Opens the requests, before any policy is read.
    pub(super) fn open(&self) -> Result<Requests<'_>, Failure> {
        let workload = labelled(&self.workload, &self.labels)?;
        let mut answers = CustomAnswers::default();
        for (name, answer) in &self.custom {
            answers.insert(Arc::from(name.as_str()), *answer);
        }
        Ok(Requests { input: open(&self.requests)?, file: &self.requests, workload, answers })
    }
}

/// The requests, one after the other.
pub(super) struct Requests<'a> {
    input: Box<dyn std::io::BufRead>,
    file: &'a Path,
    workload: Workload,
    answers: CustomAnswers,
}

/// A line that is no request: its `id`, and which field is wrong.
pub(super) type Wrong = (Value, String);

impl Requests<'_> {
    /// Who judges them by these policies; an error where rules for tokens contradict each other.
    pub(super) fn judge(&self, policies: &Policies) -> Result<Judge, ConfigError> {
        let mut errors = Errors::default();
        let rules = RequestPolicy::of(&policies.requests, &self.workload, &policies.options.root_namespace);
        let issuers = rules.documents().next().map(|_| rules.issuers(&mut errors));
        errors.finish(Some(Judge {
            engine: PolicyEngine::compile(&policies.documents, &self.workload, &policies.options),
            answers: self.answers.clone(),
            canonical: policies.canonical,
            issuers,
        }))
    }

    pub(super) fn next(&mut self) -> Result<Option<Result<Line, Wrong>>, Failure> {
        let failed = |e: std::io::Error| Failure::Io(format!("cannot read {}: {e}", self.file.display()));
        let Some(line) = next_line(&mut self.input, MAX_LINE + 1).map_err(failed)? else { return Ok(None) };
        let read = if line.len() > MAX_LINE {
            Err(format!("the line is longer than {MAX_LINE} bytes"))
        } else {
            line::read(&line)
        };
        Ok(Some(read.map_err(|reason| (line::id(&line), reason))))
    }
}

/// What was decided about one request.
#[derive(Debug)]
pub(super) struct Judged {
    /// `allow`, `deny`, or `reject` before policy was asked.
    pub(super) decision: &'static str,
    pub(super) status: Option<u16>,
    reason: &'static str,
    by: Option<Decision>,
}

/// What decided, and how; stable.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    decision: &'static str,
    status: Option<u16>,
    policy: Option<&'a str>,
    rule: Option<u32>,
    reason: &'a str,
}

/// What policies decide beside the verdict; stable.
#[derive(Serialize)]
pub(super) struct Aside<'a> {
    dry_run: &'a [DryRunMatch],
    dry_run_decision: Option<Verdict>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audit: Vec<&'a str>,
}

impl<'a> Row<'a> {
    /// The row of a line that is wrong.
    pub(super) fn wrong(reason: &'a str) -> Self {
        Self { decision: "error", status: None, policy: None, rule: None, reason }
    }
}

impl Aside<'_> {
    pub(super) const NOTHING: Self = Self { dry_run: &[], dry_run_decision: None, audit: Vec::new() };
}

impl Judged {
    pub(super) fn row(&self) -> Row<'_> {
        let Self { decision, status, reason, by } = self;
        let by = by.as_ref();
        Row {
            decision,
            status: *status,
            policy: by.and_then(|by| by.policy.as_deref()),
            rule: by.and_then(|by| by.rule),
            reason,
        }
    }

    pub(super) fn aside(&self) -> Aside<'_> {
        let Some(Decision { dry_run, audit, .. }) = &self.by else { return Aside::NOTHING };
        Aside {
            dry_run: dry_run.as_ref().map_or(&[], |trial| &trial.matched),
            dry_run_decision: dry_run.as_ref().map(|trial| trial.verdict),
            audit: audit.iter().map(|name| &**name).collect(),
        }
    }
}

/// The `id` of a request as it was written.
pub(super) fn id(line: &Line) -> &Value {
    line.id.as_ref().map_or(&Value::Null, |StrictJson(id)| id)
}

pub(super) struct Judge {
    engine: PolicyEngine,
    answers: CustomAnswers,
    canonical: Canonicalization,
    /// Whose tokens are taken; `None`: nothing says so.
    issuers: Option<Vec<IssuerConfig>>,
}

impl Judge {
    pub(super) fn judge(&self, line: &Line) -> Judged {
        let protocol = match line.protocol {
            None | Some(Protocol::Http) => policy::Protocol::Http,
            Some(Protocol::Grpc) => policy::Protocol::Grpc,
            Some(Protocol::Tcp) => policy::Protocol::Tcp,
        };
        let source = line.source.as_ref();
        let destination = line.destination.as_ref();
        let connection = Request {
            peer: source.and_then(|source| source.principal.as_ref()).map(|principal| &principal.0),
            protocol,
            port: destination.and_then(|destination| destination.port).unwrap_or_default(),
            source_ip: source.and_then(|source| source.ip).map(|ip| ip.to_canonical()),
            remote_ip: line.remote_ip.map(|ip| ip.to_canonical()),
            destination_ip: destination.and_then(|destination| destination.ip).map(|ip| ip.to_canonical()),
            sni: line.sni.as_deref(),
            headers: &NoHeaders,
            ..Request::UNKNOWN
        };
        if protocol == policy::Protocol::Tcp {
            return self.decide(&connection);
        }
        let sent = Sent {
            grpc: protocol == policy::Protocol::Grpc,
            canonical: self.canonical,
            token: line.claims.is_some(),
            method: line.method.as_deref(),
            authority: line.authority.as_deref(),
            target: line.path.as_deref(),
            headers: line.headers.as_deref().unwrap_or_default(),
        };
        match sent.read() {
            Err(reason) => Judged { decision: "reject", status: code(protocol, 400, 12), reason, by: None },
            Ok(reading) => {
                if let Some((issuers, claims)) = self.issuers.as_ref().zip(line.claims.as_ref())
                    && let Err(error) = accepts_claims(issuers, &claims.0)
                {
                    let status = super::unauthenticated(protocol);
                    return Judged { decision: "deny", status, reason: error.reason(), by: None };
                }
                let (path, resolved_path) = reading.paths();
                let request = Request {
                    token: line.claims.as_ref().map(|claims| &claims.0),
                    method: reading.method(),
                    path,
                    resolved_path,
                    host: reading.host(),
                    route: line.route.as_deref(),
                    headers: &reading.headers(),
                    ..connection
                };
                self.decide(&request)
            }
        }
    }

    fn decide(&self, request: &Request<'_>) -> Judged {
        let by = self.engine.decide_with(request, &self.answers);
        let decision = match by.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        };
        Judged { decision, status: super::status(request.protocol, &by), reason: by.reason.as_str(), by: Some(by) }
    }
}
