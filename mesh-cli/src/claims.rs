//! Claims as if a token with them had been verified: the question is what policy says, not whether a key fits.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use mesh_core::token::{StrictJson, VerifiedToken};
use serde_json::Value;

/// The token; the error names the claim.
pub(crate) fn token(claims: StrictJson) -> Result<VerifiedToken, String> {
    let StrictJson(Value::Object(claims)) = claims else { return Err("expected a JSON object".to_owned()) };
    let text = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(Arc::<str>::from(text.as_str()))),
        Some(_) => Err(format!("`{name}` must be a string")),
    };
    let issuer = text("iss")?.ok_or("`iss` must be a string: every verified token has one")?;
    let subject = text("sub")?;
    let audiences = match claims.get("aud") {
        None => Some(Vec::new()),
        Some(Value::String(one)) => Some(vec![one.clone()]),
        Some(Value::Array(many)) => many.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    };
    let audiences = audiences.ok_or("`aud` must be a string or a list of strings")?;
    let expires = UNIX_EPOCH + Duration::from_secs(claims.get("exp").and_then(Value::as_u64).unwrap_or_default());
    Ok(VerifiedToken { issuer, subject, audiences, expires, claims })
}
