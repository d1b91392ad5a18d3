//! What keeps resumed sessions from outliving the trust that they were made under.
//!
//! rustls restores the peer's certificates with a session and asks no verifier. (CVE-2022-21654 and CVE-2025-23419 are
//! what came of that elsewhere.) So there are two guards, and each holds alone against a removed root:
//!
//! | guard | against |
//! |---|---|
//! | sessions belong to one [`Generation`] of one listener or cluster | identity, trust, policy or configuration that changed, sessions of another listener or cluster |
//! | the restored chain is judged again, `Verifier::conclude` | certificates that expired, trust that changed during the handshake, servers that are not those expected here |

use std::sync::Arc;

use arc_swap::ArcSwapOption;

/// What a session was proved under. Sessions of another one are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Generation {
    /// Of SVIDs and trust bundles.
    pub(super) identity: u64,
    /// Of configuration and policy.
    pub(super) policy: u64,
}

/// One `T`, made anew for each generation, or for whatever else it depends on.
#[derive(Debug)]
pub(super) struct PerGeneration<T, G = Generation>(ArcSwapOption<(G, T)>);

impl<T: Clone, G: Copy + PartialEq> PerGeneration<T, G> {
    /// The one of `generation`. Handshakes that race a change may make it twice, which only costs full handshakes.
    pub(super) fn get<E>(&self, generation: G, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if let Some(kept) = &*self.0.load()
            && kept.0 == generation
        {
            return Ok(kept.1.clone());
        }
        let made = make()?;
        self.0.store(Some(Arc::new((generation, made.clone()))));
        Ok(made)
    }
}

impl<T, G> Default for PerGeneration<T, G> {
    fn default() -> Self {
        Self(ArcSwapOption::empty())
    }
}

/// Guards that a test takes away, to see that they are what holds.
#[cfg(test)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Without {
    pub(super) generations: bool,
    pub(super) judging: bool,
}
