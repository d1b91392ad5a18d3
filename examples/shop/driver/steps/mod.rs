//! What is played, one file for each step.

mod identity;
mod order;
mod policy;
mod propagation;
mod reload;
mod resilience;
mod revocation;
mod rotation;
mod start;
mod tokens;

use std::pin::Pin;

use super::town::Town;
use crate::Error;

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) title: &'static str,
    pub(crate) run: for<'t> fn(&'t mut Town) -> Playing<'t>,
}

/// A step while it is played.
pub(crate) type Playing<'t> = Pin<Box<dyn Future<Output = Result<Observed, Error>> + 't>>;

/// What came of a step.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    checks: Vec<Check>,
}

/// One thing that was expected of a step.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) expected: &'static str,
    pub(crate) seen: String,
    pub(crate) as_expected: bool,
}

impl Observed {
    pub(crate) fn check(&mut self, expected: &'static str, seen: impl Into<String>, as_expected: bool) {
        self.checks.push(Check { expected, seen: seen.into(), as_expected });
    }

    pub(crate) fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Nothing checked is nothing shown.
    pub(crate) fn as_expected(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.as_expected)
    }
}

/// Every step, in order: later ones build on what earlier ones left.
pub(crate) const ALL: &[Step] = &[
    start::STEP,
    order::STEP,
    identity::STEP,
    policy::STEP,
    tokens::STEP,
    resilience::STEP,
    rotation::STEP,
    revocation::STEP,
    reload::STEP,
    propagation::STEP,
];
