//! Callers of mode `mesh`.

/// The service that a mesh client calls.
#[derive(Debug)]
pub struct MeshTarget {}
