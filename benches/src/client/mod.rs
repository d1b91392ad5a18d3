//! The load: callers in a closed loop, and what they measured.

mod drive;
mod judge;
mod mesh;
mod plain;
mod report;

pub use drive::{Caller, Load, drive};
pub(crate) use judge::hello;
pub use mesh::MeshTarget;
pub use plain::PlainTarget;
pub use report::{Measured, Report};
