//! `mesh explain`: what a configuration decides about one request, and why.

use mesh_core::policy::{Headers, Protocol, Request, Verdict};
use mesh_core::token::{StrictJson, TokenError, VerifiedToken, accepts_claims};
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
    let host = args.host.as_deref().unwrap_or(&loaded.config.workload.name).to_ascii_lowercase();
    let read = match loaded.config.canonical.path(&args.path) {
        Ok(read) => read,
        Err(reason) => {
            let text = format!(
                "{} {}: refused ({reason}) before policy is asked: the path has no single reading",
                args.method, args.path
            );
            let request = json!({ "method": args.method, "path": args.path });
            return Answer { yes: false, text, json: json!({ "request": request, "status": 400, "reason": reason }) };
        }
    };
    let mut paths = read.views();
    let path = paths.next().unwrap_or_default();
    let request = Request {
        peer: args.principal.as_ref(),
        token,
        method: &args.method,
        path,
        resolved_path: paths.next(),
        host: &host,
        port: args.port.unwrap_or(listener),
        protocol: args.protocol,
        route: args.route.as_deref(),
        source_ip: args.source_ip,
        remote_ip: args.remote_ip.or(args.source_ip),
        destination_ip: args.destination_ip,
        sni: args.sni.as_deref(),
        headers: &Given(&args.header),
    };
    if let Some(token) = token.filter(|_| !loaded.config.tokens.is_empty())
        && let Err(error) = accepts_claims(&loaded.config.tokens, token)
    {
        return bad_token(args, request.protocol, error);
    }
    let explanation = loaded.engine.explain(&request);
    let decision = &explanation.decision;
    let yes = decision.verdict == Verdict::Allow;
    let status = policy::status(request.protocol, decision);
    let caller = args.principal.as_ref().map_or("anonymous", |id| id.as_str());
    let text = format!("{} {} by {caller}: {explanation}", args.method, args.path);
    let mut json = json!({
        "request": {
            "principal": args.principal.as_ref().map(|id| id.as_str()), "method": args.method, "path": args.path,
            "host": host, "port": request.port, "claims": token.map(|token| &token.claims),
        },
        "status": status,
    });
    if let (Some(fields), Ok(Value::Object(explained))) = (json.as_object_mut(), serde_json::to_value(&explanation)) {
        fields.extend(explained);
    }
    Answer { yes, text, json }
}

/// What no policy is asked about.
fn bad_token(args: &ExplainArgs, protocol: Protocol, error: TokenError) -> Answer {
    let (method, path, reason) = (&args.method, &args.path, error.reason());
    let text = format!("{method} {path}: refused ({reason}) before policy is asked: {error}");
    let status = policy::unauthenticated(protocol);
    let request = json!({ "method": method, "path": path });
    Answer { yes: false, text, json: json!({ "request": request, "status": status, "reason": reason }) }
}

/// The claims as if a token with them had been verified.
fn token(text: &str) -> Result<VerifiedToken, Failure> {
    let usage = |message: &str| Failure::Usage(format!("--claims: {message}"));
    let claims: StrictJson = serde_json::from_str(text).map_err(|e| usage(&format!("no JSON object: {e}")))?;
    claims::token(claims).map_err(|message| usage(&message))
}

struct Given<'a>(&'a [(String, String)]);

impl Headers for Given<'_> {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.0.iter().filter(|(given, _)| given == name).for_each(|(_, value)| each(value.as_bytes()));
    }
}
