//! `static`: endpoints written in the configuration.

use std::future::pending;
use std::sync::Arc;

use super::endpoint::{decode_all, issues};
use super::{Endpoint, Resolve, Update, Updates};
use crate::config::{Errors, Node};
use crate::plugin::Context;
use crate::stream::unfold;

/// A set that never changes.
///
/// In YAML: `discover: { static: ["127.0.0.1:8443", { address: "127.0.0.1:8444", weight: 2 }] }`.
#[derive(Debug, Clone)]
pub struct StaticResolver {
    endpoints: Arc<[Endpoint]>,
}

impl StaticResolver {
    /// Always these endpoints.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self { endpoints: endpoints.into() }
    }

    /// Reads the settings of `static:`.
    pub(crate) fn from_node(node: &Node, _context: &Context, errors: &mut Errors) -> Option<Arc<dyn Resolve>> {
        let before = issues(errors);
        let endpoints = decode_all(node, errors)?;
        if endpoints.is_empty() && issues(errors) == before {
            errors.push(&node.place, "at least one endpoint is required");
        }
        Some(Arc::new(Self::new(endpoints)))
    }
}

impl Resolve for StaticResolver {
    fn watch(&self) -> Updates {
        unfold(Some(Arc::clone(&self.endpoints)), |endpoints| async move {
            match endpoints {
                Some(endpoints) => (Update::Endpoints(endpoints.to_vec().into()), None),
                None => pending().await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::testing::context;
    use futures_util::{FutureExt, StreamExt};
    use serde_json::json;

    #[tokio::test]
    async fn yields_its_endpoints_once() {
        let settings = Node::from(&json!(["127.0.0.1:1", { "address": "[::1]:2", "weight": 3 }]));
        let mut errors = Errors::default();
        let resolver = StaticResolver::from_node(&settings, &context(".".as_ref()), &mut errors).unwrap();
        assert!(errors.is_empty());
        let mut updates = resolver.watch();
        let second = Endpoint { weight: 3, ..Endpoint::new("[::1]:2".parse().unwrap()) };
        let all = vec![Endpoint::new("127.0.0.1:1".parse().unwrap()), second];
        assert_eq!(updates.next().await, Some(Update::Endpoints(all.into())));
        assert_eq!(updates.next().now_or_never(), None);
    }

    #[test]
    fn every_mistake_is_reported() {
        let cases = [
            (json!([]), "at least one endpoint is required"),
            (json!("127.0.0.1:1"), "expected a list"),
            (json!(["localhost:1"]), "expected an address with a port"),
            (json!(["127.0.0.1:0"]), "port 0"),
            (json!(["127.0.0.1:1", "127.0.0.1:1"]), "already"),
            (json!([{ "key": "a" }]), "required"),
            (json!([{ "address": "127.0.0.1:1", "wieght": 1 }]), "did you mean `weight`"),
            (json!([{ "address": "127.0.0.1:1", "weight": 0 }]), "out of range"),
            (json!([{ "address": "127.0.0.1:1", "priority": 99 }]), "out of range"),
            (json!([{ "address": "127.0.0.1:1", "key": "" }]), "key"),
        ];
        for (settings, expected) in cases {
            let mut errors = Errors::default();
            let _ = StaticResolver::from_node(&Node::from(&settings), &context(".".as_ref()), &mut errors);
            let said: Vec<_> = errors.issues().iter().map(ToString::to_string).collect();
            assert!(said.len() == 1 && said[0].contains(expected), "{settings}: {said:?}");
        }
    }
}
