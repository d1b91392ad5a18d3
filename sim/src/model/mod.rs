//! One heap of events in virtual time that drives the shipped algorithms: picker, ejection, breaker, budget, routes.
//!
//! What is simulated is everything around them: arrivals, connections, servers and what befalls these. Decisions are
//! mesh-core's own, of the configuration's own sections, so that what is rehearsed is what runs. `docs/simulation.md` says
//! what a scenario holds, what comes out, and where the model ends.
//!
//! ```
//! use mesh_sim::model::{Scenario, run};
//!
//! let scenario = Scenario::parse("example.yaml", r#"
//! duration: 2s
//! load: { rate: 500 }
//! servers: [{ name: web, count: 3, service_time: { exponential: 20ms } }]
//! clusters: { web: { discover: { dns: "web:8443" }, identities: ["spiffe://shop/web"] } }
//! "#, ".".as_ref()).unwrap();
//! let report = run(&scenario, 7);
//! assert_eq!(report.failed(), 0);
//! assert_eq!(report, run(&scenario, 7)); // the same seed gives the same run
//! ```

mod balancer;
mod call;
mod engine;
mod histogram;
mod json;
mod link;
mod process;
mod report;
mod scenario;
mod server;
mod slab;
mod text;
mod tower;

pub use engine::run;
pub use histogram::Histogram;
pub use json::to_json;
pub use report::{Ejection, Failed, FaultReport, Report, Second, ServerReport};
pub use scenario::{Arrivals, Fault, FaultKind, Load, Scenario, ServerGroup, ServiceTime, Slow, TOWER_POLICY};
pub use text::to_text;
