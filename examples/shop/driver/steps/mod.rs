//! What is played, one file for each step.

mod order;
mod start;

use std::pin::Pin;

use super::town::Town;
use crate::Error;

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) title: &'static str,
    pub(crate) expected: &'static str,
    pub(crate) run: for<'t> fn(&'t mut Town) -> Playing<'t>,
}

/// A step while it is played.
pub(crate) type Playing<'t> = Pin<Box<dyn Future<Output = Result<Observed, Error>> + Send + 't>>;

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) as_expected: bool,
    pub(crate) text: String,
}

impl Observed {
    pub(crate) fn expected(text: impl Into<String>) -> Self {
        Self { as_expected: true, text: text.into() }
    }

    pub(crate) fn differs(text: impl Into<String>) -> Self {
        Self { as_expected: false, text: text.into() }
    }
}

/// Every step, in order: later ones build on what earlier ones left.
pub(crate) const ALL: &[Step] = &[start::STEP, order::STEP];
