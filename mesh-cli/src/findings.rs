//! Findings of the lint, counted.

use mesh_core::policy::lint::{Finding, Severity};

/// How many warnings and notes.
pub(crate) fn count(findings: &[Finding]) -> (usize, usize) {
    let warnings = findings.iter().filter(|finding| finding.code.severity() == Severity::Warning).count();
    (warnings, findings.len() - warnings)
}
