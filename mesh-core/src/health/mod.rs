//! Which endpoints are taken out, and when they come back.
//!
//! A broken endpoint is seldom polite enough to refuse connections: it answers 503 in no time, or accepts requests and
//! never answers. Each caller watches the outcomes of its own attempts and stops sending there for a while; nothing is
//! shared with other callers, because a one-way partition looks different from each side.
//!
//! ```text
//!                 any answer but a failure
//!                 ┌──────────┐
//!                 ▼          │
//!   ┌──────────────────────────┐  `consecutive_failures` in a row, or          ┌─────────────────────────┐
//!   │ watched                  │  2 timeouts and no answer in between          │ ejected                 │
//!   │ failures, timeouts       │ ────────────────────────────────────────────▶ │ until: base x n, at     │
//!   │                          │   unless too large a share would be out       │ most max                │
//!   └──────────────────────────┘                                               └─────────────────────────┘
//!                 ▲            time is up: counters start anew, latency is the cluster's median │
//!                 └─────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! - `n` grows with each ejection and shrinks by one for each `base_ejection` that the endpoint then stays in, so an
//!   endpoint that was bad last week is not punished for it today (envoyproxy/envoy#26758).
//! - `max_ejection_percent` is tested as if the ejection had been made, with `<=`: at 50 %, one of two or three may be
//!   out, two of four, and the only one never (Envoy's reading; gRPC A50 tests before, and so always ejects one).
//!   Endpoints that their transport holds to be unreachable count as out.
//! - A timeout is a failure too. That two of them suffice where nothing else was heard finds black holes, whose
//!   failures are as slow as the timeout is long.
//! - A restarted process is back in a second, not after half a minute: where nothing but silence was heard of it - no
//!   bad answer - and the transport reconnects, a first ejection ends there and then. An endpoint that flaps (its `n`
//!   is above 1) has to sit out its time.
//! - While it is out, outcomes of its last attempts are not counted.

mod outcome;
mod outlier;

pub use outcome::Outcome;
pub use outlier::{OutlierDetector, may_eject};
