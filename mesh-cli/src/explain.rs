//! `mesh explain`: what a configuration decides about one request, and why.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use mesh_core::policy::{Headers, Request, Verdict};
use mesh_core::token::VerifiedToken;
use serde_json::{Map, Value, json};

use crate::answer::{Answer, Failure};
use crate::check;
use crate::cli::ExplainArgs;
use crate::load::{self, Loaded};

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
        source_ip: args.source_ip,
        remote_ip: args.source_ip,
        headers: &Given(&args.header),
        ..Request::UNKNOWN
    };
    let explanation = loaded.engine.explain(&request);
    let decision = &explanation.decision;
    let yes = decision.verdict == Verdict::Allow;
    let status = match (yes, decision.token_would_help) {
        (true, _) => None,
        (false, true) => Some(401),
        (false, false) => Some(403),
    };
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

/// The claims as if a token with them had been verified: `explain` asks what policy says, not whether a key fits.
fn token(claims: &str) -> Result<VerifiedToken, Failure> {
    let usage = |message: &str| Failure::Usage(format!("--claims: {message}"));
    let claims: Map<String, Value> =
        serde_json::from_str(claims).map_err(|e| usage(&format!("no JSON object: {e}")))?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let audiences = match claims.get("aud") {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(_) => return Err(usage("`aud` must be a string or a list of strings")),
    };
    Ok(VerifiedToken {
        issuer: Arc::from(text("iss").ok_or_else(|| usage("`iss` must be a string"))?),
        subject: Some(Arc::from(text("sub").ok_or_else(|| usage("`sub` must be a string"))?)),
        audiences,
        expires: UNIX_EPOCH + Duration::from_secs(claims.get("exp").and_then(Value::as_u64).unwrap_or_default()),
        claims,
    })
}

struct Given<'a>(&'a [(String, String)]);

impl Headers for Given<'_> {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.0.iter().filter(|(given, _)| given == name).for_each(|(_, value)| each(value.as_bytes()));
    }
}
