//! The `inline` key source: a JWK set that stands in the configuration itself.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::{Jwks, JwksError, KeySource, KeyUpdate, KeyUpdates};
use crate::config::{Decode as _, Errors, Node};
use crate::plugin::Context;
use crate::stream::unfold;

/// Keys that change only when the configuration does.
///
/// In YAML `jwks: { inline: '{"keys":[...]}' }`, the text of a set.
#[derive(Debug, Clone)]
pub struct InlineKeys(Arc<Jwks>);

impl InlineKeys {
    /// The keys of this text, at most [`Jwks::MAX_BYTES`]; one bad key refuses the set.
    pub fn parse(json: &str) -> Result<Self, JwksError> {
        Jwks::parse(json.as_bytes()).map(Arc::new).map(Self)
    }

    /// Settings: the text.
    pub(crate) fn from_node(node: &Node, _: &Context, errors: &mut Errors) -> Option<Arc<dyn KeySource>> {
        let text = String::decode(node, errors)?;
        let keys = Self::parse(&text).map_err(|error| errors.push(&node.place, error.0)).ok()?;
        Some(Arc::new(keys))
    }
}

impl KeySource for InlineKeys {
    fn watch(&self) -> KeyUpdates {
        unfold(Some(Arc::clone(&self.0)), |keys| async {
            match keys {
                Some(keys) => (KeyUpdate::Keys(keys), None),
                // There is no more news, and a source must not end.
                None => poll_fn(|_| Poll::Pending).await,
            }
        })
    }
}
