//! Whether an endpoint is in, out, or waits for the one request that proves it: one word for all threads.
//!
//! Who ejects, who lets in and whose request is the probe are different threads that know nothing of each other. Each
//! change names the state that it begins from and is one compare-and-swap, so that of two only one happens.

use crate::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// Where an endpoint stands.
///
/// Times are milliseconds since an epoch of the caller's choosing, below 2^62.
///
/// ```text
///               trip                    half_open                 claim
///   In ───────────────────▶ Out ─────────────────────▶ HalfOpen ─────────▶ Probing
///   ▲                      │  ▲                          ▲                   │ │ │
///   │        let in        │  └──────────────────────────┼───── fail ────────┘ │ │
///   ├──────────────────────┘                             └───── give back ─────┘ │
///   └────────────────────────────────── pass ────────────────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Standing {
    /// In: a breaker calls it closed.
    #[default]
    In,
    /// Out until then; a breaker calls it open.
    Out {
        /// When its time is up.
        until: u64,
    },
    /// Its time is up, and the next request to it is the probe.
    HalfOpen,
    /// The probe is under way.
    Probing {
        /// Which probe.
        probe: u64,
    },
}

const TAG: u64 = 3;

impl Standing {
    fn pack(self) -> u64 {
        match self {
            Self::In => 0,
            Self::Out { until } => (until << 2) | 1,
            Self::HalfOpen => 2,
            Self::Probing { probe } => (probe << 2) | 3,
        }
    }

    #[inline]
    fn unpack(word: u64) -> Self {
        match word & TAG {
            0 => Self::In,
            1 => Self::Out { until: word >> 2 },
            2 => Self::HalfOpen,
            _ => Self::Probing { probe: word >> 2 },
        }
    }

    /// Whether a request may be sent there.
    #[inline]
    pub fn admits(self) -> bool {
        matches!(self, Self::In | Self::HalfOpen)
    }
}

/// The [`Standing`] of one endpoint, as threads change it.
#[derive(Debug, Default)]
pub(crate) struct StandingCell {
    word: AtomicU64,
    probes: AtomicU64,
}

/// Whose request a pick of an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Anybody's: it is in, or out and used all the same.
    Ordinary,
    /// The probe.
    Probe(u64),
    /// Another one has just become the probe.
    Taken,
}

impl Claim {
    /// Whether the request may go there, and as which probe.
    #[inline]
    pub(crate) fn won(self) -> Option<Option<u64>> {
        match self {
            Self::Ordinary => Some(None),
            Self::Probe(probe) => Some(Some(probe)),
            Self::Taken => None,
        }
    }
}

impl StandingCell {
    /// Where it stands.
    #[inline]
    pub(crate) fn load(&self) -> Standing {
        Standing::unpack(self.word.load(Relaxed))
    }

    /// The same, in one order with all changes: for whoever must not miss one.
    pub(crate) fn latest(&self) -> Standing {
        Standing::unpack(self.word.load(SeqCst))
    }

    fn change(&self, from: Standing, to: Standing) -> bool {
        self.word.compare_exchange(from.pack(), to.pack(), SeqCst, SeqCst).is_ok()
    }

    /// Takes it out.
    pub(crate) fn trip(&self, until: u64) -> bool {
        self.change(Standing::In, Standing::Out { until })
    }

    /// Waits for a probe if its time is up.
    pub(crate) fn half_open(&self, now: u64) -> bool {
        let out = self.latest();
        matches!(out, Standing::Out { until } if until <= now) && self.change(out, Standing::HalfOpen)
    }

    /// Makes a request the probe, if one is waited for.
    #[inline]
    pub(crate) fn claim(&self) -> Claim {
        match self.load() {
            Standing::In | Standing::Out { .. } => Claim::Ordinary,
            Standing::Probing { .. } => Claim::Taken,
            Standing::HalfOpen => {
                // Numbered, from 1, so that a probe that was overtaken by events ends nobody else's.
                let probe = self.probes.fetch_add(1, Relaxed).wrapping_add(1);
                let won = self.change(Standing::HalfOpen, Standing::Probing { probe });
                if won { Claim::Probe(probe) } else { Claim::Taken }
            }
        }
    }

    /// The probe was answered well.
    pub(crate) fn pass(&self, probe: u64) -> bool {
        self.change(Standing::Probing { probe }, Standing::In)
    }

    /// The probe failed.
    pub(crate) fn fail(&self, probe: u64, until: u64) -> bool {
        self.change(Standing::Probing { probe }, Standing::Out { until })
    }

    /// The probe says nothing: the next request is another one.
    pub(crate) fn give_back(&self, probe: u64) -> bool {
        self.change(Standing::Probing { probe }, Standing::HalfOpen)
    }

    /// Lets it in, wherever it stood; says whether it was not in.
    pub(crate) fn let_in(&self) -> bool {
        self.word.swap(Standing::In.pack(), SeqCst) != Standing::In.pack()
    }
}
