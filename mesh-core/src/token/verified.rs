//! The claims of a token that may be believed.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};

/// What a token proved.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedToken {
    /// `iss`
    pub issuer: Arc<str>,
    /// `sub`
    pub subject: Option<Arc<str>>,
    /// `aud`
    pub audiences: Vec<String>,
    /// `exp`
    pub expires: SystemTime,
    /// Every claim.
    pub claims: Map<String, Value>,
}
