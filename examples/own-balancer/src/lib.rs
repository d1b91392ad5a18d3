//! Fills one endpoint before it uses the next, so that an autoscaler finds idle ones to take away.

use std::sync::Arc;

use mesh_tower::mesh_core::Plugin;
use mesh_tower::mesh_core::balance::{Candidates, PickRequest, Picker};
use mesh_tower::mesh_core::config::{Errors, Fields, Node};
use mesh_tower::mesh_core::plugin::Context;

/// The policy `packed`, for `MeshBuilder::with`.
pub fn plugin() -> Plugin {
    Plugin::new("own-balancer").balancer("packed", Packed::from_node)
}

/// The first endpoint with fewer than `most` requests under way; if there is none, the one with the fewest.
#[derive(Debug)]
struct Packed {
    most: usize,
}

impl Packed {
    /// Reads `balance.settings`: `{ most: N }`, the only setting, from 1 on.
    fn from_node(settings: &Node, _context: &Context, errors: &mut Errors) -> Option<Arc<dyn Picker>> {
        let mut fields = Fields::of(settings, errors)?;
        let most = fields.within("most", 10, 1..=usize::MAX);
        fields.finish();
        Some(Arc::new(Self { most }))
    }
}

impl Picker for Packed {
    // Called for every attempt, by many threads: no lock, no allocation.
    fn pick(&self, candidates: &dyn Candidates, _request: &PickRequest<'_>) -> Option<usize> {
        let eligible = || (0..candidates.len()).filter(|index| candidates.eligible(*index));
        let room = eligible().find(|index| candidates.in_flight(*index) < self.most);
        room.or_else(|| eligible().min_by_key(|index| candidates.in_flight(*index)))
    }
}
