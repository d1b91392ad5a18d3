//! Tokens that this process attaches to its own calls.

use std::sync::Arc;

/// Gives the bearer token to attach to a call now.
pub trait TokenSource: std::fmt::Debug + Send + Sync + 'static {
    /// The current token, without `Bearer `. Must not block: sources renew in the background.
    fn token(&self) -> Result<Arc<str>, TokenError>;
}

/// Why there is no token to attach. Never carries a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TokenError(pub String);
