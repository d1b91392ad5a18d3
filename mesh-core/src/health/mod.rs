//! Which endpoints are taken out, and how they come back.
//!
//! A broken endpoint is seldom polite enough to refuse connections: it answers 503 in no time, or accepts requests and
//! never answers. Each caller watches the outcomes of its own attempts and stops sending there for a while; nothing is
//! shared with other callers, because a one-way partition looks different from each side.
//!
//! Whoever finds an endpoint wanting, one machine takes it out: two that each have an opinion would let it in and out by
//! turns. There are five reasons, and two ways back, of which a cluster has one:
//!
//! | reason | what is looked at | from |
//! |---|---|---|
//! | `consecutive_failures` | one endpoint's failures in a row | `outlier` or `breaker` |
//! | `timeouts` | two timeouts, or one where nothing else is heard | the same |
//! | `success_rate` | its success rate in an interval, beside the others' | `outlier.success_rate` |
//! | `failure_percentage` | its share of failures in an interval | `outlier.failure_percentage` |
//! | `window_success_rate` | its successes over the last seconds | `breaker` |
//!
//! **Timed ejection** (without `breaker:`; Envoy, gRPC A50):
//!
//! ```text
//!   ┌──────────────────────────┐  a reason, unless too large a share       ┌─────────────────────────┐
//!   │ in                       │  would be out                             │ out                     │
//!   │ outcomes are counted     │ ────────────────────────────────────────▶ │ until: base x n, at     │
//!   │                          │                                           │ most max, and jitter    │
//!   └──────────────────────────┘                                           └─────────────────────────┘
//!                 ▲          time is up: counters start anew, latency is the cluster's median │
//!                 └───────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! **Circuit breaker** (with `breaker:`; Linkerd, Finagle):
//!
//! ```text
//!   ┌────────┐  a reason, unless too large a share would be out   ┌──────────────────────────────┐
//!   │ closed │ ─────────────────────────────────────────────────▶ │ open: backoff x 2^(n-1), at  │
//!   └────────┘                                                    │ most max, jitter included    │
//!        ▲                                                        └──────────────────────────────┘
//!        │ success, at the end of the body                          │ time is up           ▲
//!        │ (or a stream of a whole window)                          ▼                      │ failure, 429
//!   ┌─────────────────────────────┐   one live request   ┌─────────────────────┐           │ included:
//!   │ half-open, probe under way  │ ◀─────────────────── │ half-open           │           │ n + 1
//!   └─────────────────────────────┘ ───────────────────▶ └─────────────────────┘           │
//!        │                            its caller left                                      │
//!        └─────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! - `n` grows with each ejection and shrinks by one for each `base_ejection` (breaker: for as long as it was last
//!   open, at least its window) that the endpoint then stays in, so an endpoint that was bad last week is not punished for it today
//!   (envoyproxy/envoy#26758).
//! - `max_ejection_percent` is tested as if the ejection had been made, with `<=`: at 50 %, one of two or three may be
//!   out, two of four, and the only one never (Envoy's reading; gRPC A50 tests before, and so always ejects one).
//!   Endpoints that their transport holds to be unreachable count as out. So there is always somebody to send to.
//! - Nobody is ejected while more than half of the others fail as well, unless it is for a success rate far below theirs:
//!   that is a dependency or an overload, and no endpoint's own fault. Others fail as well if they are out, if their last
//!   attempt failed, or of their last sixteen a third as many as of its own, asked within `outlier.interval`. Where another
//!   priority has anybody who is in, this does not hold: the load can go there.
//! - A timeout is a failure too. That two of them suffice where nothing else was heard finds black holes, whose
//!   failures are as slow as the timeout is long.
//! - A restarted process is back in a second, not after half a minute: where nothing but silence was heard of it - no
//!   bad answer - and the transport reconnects, a first ejection ends there and then (a breaker is half-open at once). An
//!   endpoint that flaps (its `n` is above 1) has to sit out its time.
//! - While it is out, outcomes of its last attempts are not counted.
//! - Active checks (`health_check:`) are a third opinion that is kept apart: an endpoint is picked if its transport, its
//!   standing and its checks all say so, and a check that succeeds ends no ejection unless `ends_ejection` is set.
//! - Which reason acted is in `mesh_client_endpoint_ejections_total`, in the log, in the span of the request that was the
//!   last straw, and in [`EndpointReport`](crate::cluster::EndpointReport); what a breaker did, in
//!   `mesh_client_breaker_events_total`.

mod check;
mod http;
mod latest;
mod outcome;
mod outlier;
mod recent;
mod rules;
mod standing;
mod statistics;
#[cfg(test)]
mod tests;

pub use check::{CheckAnswer, CheckQuestion, CheckVerdict, HealthCheck};
pub use outcome::Outcome;
pub use standing::Standing;

pub(crate) use check::Checked;
pub(crate) use http::HttpCheck;
pub(crate) use outlier::{OutlierDetector, Return, may_eject};
pub(crate) use rules::{Absence, Rules, compares};
pub(crate) use standing::Claim;
pub(crate) use statistics::{Counts, outliers};
