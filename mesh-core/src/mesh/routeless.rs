//! Services whose routes nobody knows, and the policies that cannot be decided for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Errors;
use crate::policy::PolicyEngine;

/// Kept while something is served whose routes nobody knows; see [`Mesh::without_routes`](super::Mesh::without_routes).
#[derive(Debug)]
#[must_use = "it says so only while it is kept"]
pub struct Routeless(Count);

/// How many such services there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(super) fn guard(&self) -> Routeless {
        self.0.fetch_add(1, Ordering::SeqCst);
        Routeless(self.clone())
    }

    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Routeless {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Notes every policy that names a route.
pub(super) fn refuse(policy: &PolicyEngine, errors: &mut Errors) {
    for policy in policy.naming_routes() {
        let message =
            format!("`{}` names a `route`, which only a router knows, and what is served here is none", policy.name);
        errors.push(&policy.place, message);
    }
}
