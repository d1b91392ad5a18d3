//! What a policy chose, and by what: kept so that a choice can be told afterwards.

use serde::Serialize;

/// By what rule an endpoint was chosen among those that could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PickRule {
    /// The least of latency times load, of a few at random (`peak_ewma`). The cost is in seconds.
    LeastLatency,
    /// The least load by weight, of a few at random (`least_request`). The cost is in attempts under way.
    LeastLoad,
    /// It was its turn (`round_robin`).
    Turn,
    /// By chance and weight (`random`; a ring, for a request without a key).
    Chance,
    /// The key of the request is its own (`ring_hash`).
    RingOwner,
    /// The key's owner is out or was tried; this one is next on the ring.
    RingNext,
    /// The key's owner has as much to do as the balance factor allows.
    RingOverflow,
    /// A policy of the program's own said so.
    Custom,
}

/// A choice by index, with what it was compared to. Small: it is handed up through every step of a pick.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Picked {
    pub(crate) index: u32,
    pub(crate) rule: PickRule,
    /// How many were looked at; 1: nobody else could be chosen, or nobody was asked for.
    pub(crate) compared: u8,
    pub(crate) cost: f32,
    /// The cheapest of the others.
    pub(crate) rival: Option<(u32, f32)>,
}

impl Picked {
    /// A choice without comparison.
    #[inline]
    pub(crate) fn by(rule: PickRule, index: usize) -> Self {
        // No group has 2^32 endpoints; a place that there is not chooses nobody.
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        Self { index, rule, compared: 0, cost: 0.0, rival: None }
    }

    /// The chosen one's place in its group.
    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.index as usize
    }

    /// The same choice by another name.
    pub(super) fn named(self, rule: PickRule) -> Self {
        Self { rule, ..self }
    }
}
