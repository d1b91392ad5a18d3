//! `mesh explain`: what a configuration decides about one request, and why.

use std::fmt;

use mesh_core::policy::{Protocol, Request, Verdict};
use mesh_core::token::{StrictJson, VerifiedToken, accepts_claims};
use mesh_tower::offline::Sent;
use serde_json::{Value, json};

use crate::answer::{Answer, Failure};
use crate::check;
use crate::claims;
use crate::cli::ExplainArgs;
use crate::load::{self, Loaded};
use crate::policy;

pub(crate) fn run(args: &ExplainArgs) -> Result<Answer, Failure> {
    let token = args.claims.as_deref().map(token).transpose()?;
    match load::load(&args.config)? {
        Ok(loaded) => Ok(decide(args, token.as_ref(), &loaded)),
        Err(error) => Ok(check::refused(&args.config.display().to_string(), &error)),
    }
}

fn decide(args: &ExplainArgs, token: Option<&VerifiedToken>, loaded: &Loaded) -> Answer {
    let listener = loaded.config.listeners.get("default").map_or(0, |listener| listener.address.port());
    let connection = Request {
        peer: args.principal.as_ref(),
        protocol: args.protocol,
        port: args.port.unwrap_or(listener),
        source_ip: args.source_ip.map(|ip| ip.to_canonical()),
        remote_ip: args.remote_ip.or(args.source_ip).map(|ip| ip.to_canonical()),
        destination_ip: args.destination_ip.map(|ip| ip.to_canonical()),
        sni: args.sni.as_deref(),
        ..Request::UNKNOWN
    };
    if args.protocol == Protocol::Tcp {
        return explain(args, "raw TCP", &connection, loaded);
    }
    let grpc = args.protocol == Protocol::Grpc;
    let method = args.method.as_deref().unwrap_or(if grpc { "POST" } else { "GET" });
    let what = format!("{} {}", method.escape_debug(), args.path.escape_debug());
    let sent = Sent {
        grpc,
        canonical: loaded.config.canonical,
        token: token.is_some(),
        method: Some(method),
        authority: Some(args.host.as_deref().unwrap_or(&loaded.config.workload.name)),
        target: Some(&args.path),
        headers: &args.header,
    };
    let reading = match sent.read() {
        Ok(reading) => reading,
        Err(reason) => {
            let status = policy::code(args.protocol, 400, 12);
            return refused(args, &what, method, status, reason, &"it has no single reading");
        }
    };
    let (path, resolved_path) = reading.paths();
    let request = Request {
        token,
        method: reading.method(),
        path,
        resolved_path,
        host: reading.host(),
        route: args.route.as_deref(),
        headers: &reading.headers(),
        ..connection
    };
    // Of a service that takes nobody's tokens too: it refuses every one.
    if let Some(token) = token
        && let Err(error) = accepts_claims(&loaded.config.tokens, token)
    {
        let status = policy::unauthenticated(args.protocol);
        let nobody = loaded.config.tokens.is_empty();
        let why = if nobody { format!("{error}: `tokens` names no issuer") } else { error.to_string() };
        return refused(args, &what, method, status, error.reason(), &why);
    }
    explain(args, &what, &request, loaded)
}

fn explain(args: &ExplainArgs, what: &str, request: &Request<'_>, loaded: &Loaded) -> Answer {
    let explanation = loaded.engine.explain(request);
    let decision = &explanation.decision;
    let yes = decision.verdict == Verdict::Allow;
    let status = policy::status(request.protocol, decision);
    let caller = args.principal.as_ref().map_or("anonymous", |id| id.as_str());
    let text = format!("{what} by {caller}: {explanation}");
    let mut json = json!({
        "request": {
            "principal": args.principal.as_ref().map(|id| id.as_str()), "method": request.method, "path": args.path,
            "read_as": request.paths().collect::<Vec<_>>(), "host": request.host, "port": request.port,
            "claims": request.token.map(|token| &token.claims),
        },
        "status": status,
    });
    if let (Some(fields), Ok(Value::Object(explained))) = (json.as_object_mut(), serde_json::to_value(&explanation)) {
        fields.extend(explained);
    }
    Answer { yes, text, json }
}

/// What no policy is asked about. Its `decision` has the fields of one that policy made.
fn refused(
    args: &ExplainArgs,
    what: &str,
    method: &str,
    status: Option<u16>,
    reason: &str,
    why: &dyn fmt::Display,
) -> Answer {
    let text = format!("{what}: refused ({reason}) before policy is asked: {why}");
    let decision =
        json!({ "verdict": Verdict::Deny, "reason": reason, "policy": null, "rule": null, "token_would_help": false });
    let request = json!({ "method": method, "path": args.path });
    let json = json!({
        "request": request, "status": status, "reason": reason, "decision": decision, "steps": [], "nearest": null,
        "allow_nothing": [],
    });
    Answer { yes: false, text, json }
}

/// The claims as if a token with them had been verified.
fn token(text: &str) -> Result<VerifiedToken, Failure> {
    let usage = |message: &str| Failure::Usage(format!("--claims: {message}"));
    let claims: StrictJson = serde_json::from_str(text).map_err(|e| usage(&format!("no JSON object: {e}")))?;
    claims::token(claims).map_err(|message| usage(&message))
}
