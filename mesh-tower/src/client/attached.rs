//! The header that carries a cluster's token.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use mesh_core::token::TokenSource;

/// A cluster's token source, and the header made of its last token: while the token is the same, nothing is formatted.
pub(crate) struct Attached {
    pub(super) source: Arc<dyn TokenSource>,
    header: ArcSwapOption<(Arc<str>, HeaderValue)>,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Attached {
    pub(crate) fn new(source: Arc<dyn TokenSource>) -> Self {
        Self { source, header: ArcSwapOption::empty() }
    }

    /// `None` without a cause: it might show the token.
    pub(super) fn header(&self, token: Arc<str>) -> Option<HeaderValue> {
        if let Some(made) = &*self.header.load()
            && Arc::ptr_eq(&made.0, &token)
        {
            return Some(made.1.clone());
        }
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        self.header.store(Some(Arc::new((token, value.clone()))));
        Some(value)
    }
}
