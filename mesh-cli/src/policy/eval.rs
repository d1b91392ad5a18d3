//! `mesh policy eval`: what policies decide about many requests.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use mesh_core::config::{Errors, IssuerConfig, Workload};
use mesh_core::policy::canonical::Canonicalization;
use mesh_core::policy::{
    self, CustomAnswer, CustomAnswers, Decision, DryRunMatch, NoHeaders, PolicyEngine, Request, RequestPolicy, Verdict,
};
use mesh_core::token::{StrictJson, accepts_claims};
use mesh_tower::offline::Sent;
use serde::Serialize;
use serde_json::Value;

use super::line::{self, Line, Protocol};
use super::{PolicyArgs, code, label, labelled, workload};
use crate::answer::{Failure, Lines, Said};
use crate::lines::{next_line, open};

#[derive(Debug, Args)]
#[command(
    after_help = "Each line of the input is {\"id\":any,\"protocol\":\"http\"|\"grpc\"|\"tcp\",\"source\":{\"principal\":\"spiffe://...\",\
    \"ip\":\"...\"},\"remote_ip\":\"...\",\"destination\":{\"ip\":\"...\",\"port\":N},\"sni\":\"...\",\"method\":\"GET\",\"authority\":\
    \"host:port\",\"path\":\"/path?query\",\"route\":\"/{id}\",\"headers\":[[\"name\",\"value\"]],\"claims\":{...}}. What is absent or null \
    is unknown, the protocol http. On raw tcp, what only HTTP has is not looked at. Claims count as verified; where a \
    RequestAuthentication selects the workload, `iss`, and `aud` if it is given, must be among its rules, or the decision is deny, \
    the status 401, the reason token_unknown_issuer or token_wrong_audience.\n\n\
    Each line of the output is {\"id\",\"decision\",\"status\",\"policy\",\"rule\",\"reason\",\"dry_run\",\"dry_run_decision\"}, in the order \
    of the input; `audit` too, where AUDIT policies match. `decision` is allow, deny, reject (the request has no single reading) or error (the line \
    is wrong; `reason` names the field). `status` is what the mesh answers with: for http 403, 401 where only a token is missing, \
    400 for reject; for grpc 7, 16, 12; null for tcp, allow and error. `dry_run` holds the matching rules of policies under trial, \
    `dry_run_decision` the verdict if they were in force, null without any.\n\n\
    Exit codes: 0 every line was judged, 1 a line was wrong, or the policies are (then there is no output), 2 wrong command line, \
    3 cannot read."
)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    policies: PolicyArgs,
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

pub(super) fn run(args: &EvalArgs) -> Result<Said, Failure> {
    let workload = labelled(&args.workload, &args.labels)?;
    let mut input = open(&args.requests)?;
    let policies = match args.policies.load()? {
        Ok(policies) => policies,
        Err(error) => {
            eprintln!("{error}");
            return Ok(Said::Lines { yes: false });
        }
    };
    let mut answers = CustomAnswers::default();
    for (name, answer) in &args.custom {
        answers.insert(Arc::from(name.as_str()), *answer);
    }
    let engine = PolicyEngine::compile(&policies.documents, &workload, &policies.options);
    let mut errors = Errors::default();
    let requests = RequestPolicy::of(&policies.requests, &workload, &policies.options.root_namespace);
    let issuers = requests.documents().next().map(|_| requests.issuers(&mut errors));
    if let Some(error) = errors.into_error() {
        eprintln!("{error}");
        return Ok(Said::Lines { yes: false });
    }
    let judge = Judge { engine, answers, canonical: policies.canonical, issuers };
    let mut lines = Lines::new();
    let failed = |error: std::io::Error| Failure::Io(format!("cannot read {}: {error}", args.requests.display()));
    while let Some(line) = next_line(&mut input, MAX_LINE + 1).map_err(failed)? {
        let still_read = match read(&line) {
            Ok(request) => judge.judge(&request, &mut lines),
            Err(reason) => {
                let id = line::id(&line);
                lines.say(false, &Row { reason: &reason, ..Row::new(&id, "error") })
            }
        };
        if !still_read {
            break;
        }
    }
    Ok(lines.end())
}

fn read(line: &[u8]) -> Result<Line, String> {
    if line.len() > MAX_LINE {
        return Err(format!("the line is longer than {MAX_LINE} bytes"));
    }
    line::read(line)
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a Value,
    decision: &'static str,
    status: Option<u16>,
    policy: Option<&'a str>,
    rule: Option<u32>,
    reason: &'a str,
    dry_run: &'a [DryRunMatch],
    dry_run_decision: Option<Verdict>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    audit: &'a [String],
}

impl<'a> Row<'a> {
    fn new(id: &'a Value, decision: &'static str) -> Self {
        Self {
            id,
            decision,
            status: None,
            policy: None,
            rule: None,
            reason: "",
            dry_run: &[],
            dry_run_decision: None,
            audit: &[],
        }
    }
}

struct Judge {
    engine: PolicyEngine,
    answers: CustomAnswers,
    canonical: Canonicalization,
    /// Whose tokens are taken; `None`: nothing says so.
    issuers: Option<Vec<IssuerConfig>>,
}

impl Judge {
    /// Says the verdict; whether anybody still reads.
    fn judge(&self, line: &Line, lines: &mut Lines) -> bool {
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
        let id = line.id.as_ref().map_or(&Value::Null, |StrictJson(id)| id);
        if protocol == policy::Protocol::Tcp {
            return self.decide(id, &connection, lines);
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
            Err(reason) => {
                let row = Row { status: code(protocol, 400, 12), reason, ..Row::new(id, "reject") };
                lines.say(true, &row)
            }
            Ok(reading) => {
                if let Some((issuers, claims)) = self.issuers.as_ref().zip(line.claims.as_ref())
                    && let Err(error) = accepts_claims(issuers, &claims.0)
                {
                    let status = super::unauthenticated(protocol);
                    return lines.say(true, &Row { status, reason: error.reason(), ..Row::new(id, "deny") });
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
                self.decide(id, &request, lines)
            }
        }
    }

    fn decide(&self, id: &Value, request: &Request<'_>, lines: &mut Lines) -> bool {
        let decision = self.engine.decide_with(request, &self.answers);
        let Decision { verdict, reason, policy, rule, audit, dry_run, .. } = &decision;
        let decided = match verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        };
        let audit: Vec<String> = audit.iter().map(|name| name.to_string()).collect();
        let row = Row {
            status: super::status(request.protocol, &decision),
            policy: policy.as_deref(),
            rule: *rule,
            reason: reason.as_str(),
            dry_run: dry_run.as_ref().map_or(&[], |trial| &trial.matched),
            dry_run_decision: dry_run.as_ref().map(|trial| trial.verdict),
            audit: &audit,
            ..Row::new(id, decided)
        };
        lines.say(true, &row)
    }
}
