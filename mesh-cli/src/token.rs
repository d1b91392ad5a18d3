//! `mesh token verify`: which tokens a service with these keys would take.

use std::fs::File;
use std::io::{self, BufRead, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_core::clock::{SystemClock, WallClock as _};
use mesh_core::config::{IssuerConfig, PlugConfig};
use mesh_core::token::{IssuerKeys, Jwks, JwsKey, TokenError, TokenVerifier};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::answer::{Failure, Lines, Said};
use crate::cli::TokenVerifyArgs;
use crate::lines::{next_line, open};

/// What is kept of a line: a byte more than any token may have.
const KEPT_TOKEN: usize = 8 * 1024 + 1;
const KEPT_JWS: usize = (1 << 20) + 1;
/// What is read of files with keys, and of a detached payload.
const MAX_FILE: u64 = 16 << 20;

#[derive(Serialize)]
struct Line<'a> {
    valid: bool,
    reason: Option<&'static str>,
    claims: Option<&'a Map<String, Value>>,
}

/// Every token gets its line. Keys that cannot be used are told at the end: nothing holds under them.
pub(crate) fn run(args: &TokenVerifyArgs) -> Result<Said, Failure> {
    let mut input = open(&args.file)?;
    let judge = if args.signature_only { Judge::signatures(args) } else { Judge::tokens(args) };
    let (judge, unusable) = match judge {
        Ok(judge) => (Some(judge), None),
        Err(Unusable::Command(failure)) => return Err(failure),
        Err(Unusable::Keys(why)) => (None, Some(why)),
    };
    let failed = |error: io::Error| Failure::Io(format!("cannot read {}: {error}", args.file.display()));
    let kept = if args.signature_only { KEPT_JWS } else { KEPT_TOKEN };
    let lines = each(&mut input, kept, judge.as_ref()).map_err(failed)?;
    match unusable {
        None => Ok(lines),
        Some(why) => Err(Failure::Io(why)),
    }
}

fn each(input: &mut impl BufRead, kept: usize, judge: Option<&Judge>) -> io::Result<Said> {
    let mut lines = Lines::new();
    while let Some(line) = next_line(input, kept)? {
        let verdict = match judge {
            Some(judge) if line.len() >= kept => judge.too_large(),
            Some(judge) => judge.judge(&line),
            None => Err("keys_unusable"),
        };
        let claims = verdict.as_ref().ok().and_then(Option::as_ref);
        let said = Line { valid: verdict.is_ok(), reason: verdict.as_ref().err().copied(), claims };
        if !lines.say(said.valid, &said) {
            break;
        }
    }
    Ok(lines.end())
}

enum Unusable {
    Command(Failure),
    Keys(String),
}

/// What judges a line.
enum Judge {
    Tokens { verifier: Box<TokenVerifier>, now: SystemTime },
    Signatures { key: Box<JwsKey>, payload: Option<Vec<u8>> },
}

impl Judge {
    fn tokens(args: &TokenVerifyArgs) -> Result<Self, Unusable> {
        let now = match args.at {
            None => SystemClock.now(),
            Some(at) => SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(at))
                .ok_or_else(|| Unusable::Command(Failure::Usage(format!("--at {at} is no time"))))?,
        };
        let (Some(issuer), Some(file)) = (&args.issuer, &args.jwks) else {
            return Err(Unusable::Command(Failure::Usage("--jwks and --issuer are required".to_owned())));
        };
        let keys = read(file).and_then(|text| Jwks::parse(&text).map_err(|error| unusable(file, error)))?;
        let jwks = PlugConfig::new("file", &Value::String(file.display().to_string()));
        let mut config = IssuerConfig::new(issuer, args.audience.clone(), jwks);
        if !args.algorithms.is_empty() {
            config.algorithms.clone_from(&args.algorithms);
        }
        if !args.typ.is_empty() {
            config.types.clone_from(&args.typ);
        }
        let verifier = TokenVerifier::default().with(config, IssuerKeys::new(Arc::new(keys)));
        Ok(Self::Tokens { verifier: Box::new(verifier), now })
    }

    fn signatures(args: &TokenVerifyArgs) -> Result<Self, Unusable> {
        let Some(file) = &args.key else {
            return Err(Unusable::Command(Failure::Usage("--signature-only needs --key".to_owned())));
        };
        let key = read(file).and_then(|text| JwsKey::parse(&text).map_err(|error| unusable(file, error)))?;
        let payload = match args.payload.as_deref().map(read).transpose() {
            Ok(payload) => payload,
            Err(Unusable::Keys(why)) => return Err(Unusable::Command(Failure::Io(why))),
            Err(other) => return Err(other),
        };
        Ok(Self::Signatures { key: Box::new(key), payload })
    }

    fn judge(&self, line: &[u8]) -> Result<Option<Map<String, Value>>, &'static str> {
        // A token is ASCII: what is not is no part of base64url.
        let text = std::str::from_utf8(line).map_err(|_| TokenError::Malformed("not UTF-8").reason())?;
        match self {
            Self::Tokens { verifier, now } => {
                let verified = verifier.verify(text, *now).map_err(|error| error.reason())?;
                Ok(Some(verified.claims.clone()))
            }
            Self::Signatures { key, payload } => {
                key.verify(text, payload.as_deref()).map(|()| None).map_err(|error| error.reason())
            }
        }
    }

    fn too_large(&self) -> Result<Option<Map<String, Value>>, &'static str> {
        Err(TokenError::TooLarge.reason())
    }
}

fn unusable(file: &Path, why: impl std::fmt::Display) -> Unusable {
    Unusable::Keys(format!("{}: {why}", file.display()))
}

fn read(file: &Path) -> Result<Vec<u8>, Unusable> {
    let failed = |error: io::Error| Unusable::Keys(format!("cannot read {}: {error}", file.display()));
    let mut bytes = Vec::new();
    File::open(file).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unusable(file, "it is larger than 16 MiB"));
    }
    Ok(bytes)
}
