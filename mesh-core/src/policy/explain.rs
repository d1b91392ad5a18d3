//! Why a verdict fell, rule by rule, for people and for `--json`.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::compile::{Alternative, CompiledRule, Test, Token};
use super::{Action, CustomAnswers, Decision, PolicyEngine, Request, Verdict};

/// A decision with the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// What [`PolicyEngine::decide`] says.
    pub decision: Decision,
    /// Every rule in the order of evaluation - CUSTOM, DENY, ALLOW - then AUDIT and what is under trial.
    pub steps: Vec<ExplainStep>,
    /// Index into `steps` of the ALLOW rule that came nearest, where none matched.
    pub nearest: Option<usize>,
    /// ALLOW policies without rules: each selects the workload and allows nothing.
    pub allow_nothing: Vec<String>,
}

/// How one rule fared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainStep {
    /// `NAMESPACE/NAME`.
    #[serde(serialize_with = "text")]
    pub policy: Arc<str>,
    /// What the rule does.
    pub action: Action,
    /// Whether it is only under trial.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// 0-based.
    pub rule: u32,
    /// Whether it matched.
    pub matched: bool,
    /// The fields that did not match, of the source and operation that came nearest.
    ///
    /// Empty where it matched.
    pub misses: Vec<Miss>,
    /// Why it matched, where that is more than it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// One field that did not match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Miss {
    /// For example `from[0].source.principals`.
    pub field: String,
    /// What the field wants, for example ``one of `GET`, `HEAD` ``.
    pub expected: String,
    /// What the request has; `None` where it has nothing.
    pub found: Option<String>,
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl PolicyEngine {
    /// The same verdict with the way to it. Slower; for people.
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        self.explain_with(request, &CustomAnswers::NONE)
    }

    /// [`decide_with`](Self::decide_with) with the way to it.
    pub fn explain_with(&self, request: &Request<'_>, answers: &CustomAnswers) -> Explanation {
        let decision = self.decide_with(request, answers);
        let steps: Vec<ExplainStep> = self
            .rules()
            .filter_map(|rule| {
                let policy = self.policies().get(rule.policy)?;
                let matched = rule.matches(request, Token::AsSent);
                let misses = if matched { Vec::new() } else { misses(rule, request) };
                let note = (matched && matches_by_get(rule, request)).then_some("the handler of GET answers HEAD");
                let (action, dry_run) = (rule.action, policy.dry_run);
                Some(ExplainStep {
                    policy: Arc::clone(&policy.name),
                    action,
                    dry_run,
                    rule: rule.index,
                    matched,
                    misses,
                    note,
                })
            })
            .collect();
        let nearest = (decision.verdict == Verdict::Deny && decision.policy.is_none())
            .then(|| steps.iter().enumerate().filter(|(_, step)| step.action == Action::Allow && !step.dry_run))
            .and_then(|allow| allow.min_by_key(|(_, step)| step.misses.len()))
            .map(|(at, _)| at);
        let allow_nothing = self
            .policies()
            .iter()
            .filter(|policy| policy.action == Action::Allow && policy.rules == 0 && !policy.dry_run)
            .map(|policy| policy.name.to_string())
            .collect();
        Explanation { decision, steps, nearest, allow_nothing }
    }
}

/// Whether a rule that matches would not if it kept out the methods alone that it names.
fn matches_by_get(rule: &CompiledRule, request: &Request<'_>) -> bool {
    let holds = |test: &Test| test.holds(request, rule.action, Token::AsSent);
    let named = |test: &Test| test.negated || !test.check.is_head_of_get(request);
    !rule.to.is_empty() && !rule.to.iter().any(|tests| tests.iter().all(|test| holds(test) && named(test)))
}

/// Every field that kept a rule from matching.
fn misses(rule: &CompiledRule, request: &Request<'_>) -> Vec<Miss> {
    let failed = |tests: &[Test], at: &str| -> Vec<Miss> {
        let failing = tests.iter().filter(|test| !test.holds(request, rule.action, Token::AsSent));
        failing.map(|test| test.miss(at, request)).collect()
    };
    let nearest = |alternatives: &[Alternative], part: &str| -> Vec<Miss> {
        let all = alternatives.iter().enumerate().map(|(at, tests)| failed(tests, &format!("{part}[{at}].")));
        all.min_by_key(Vec::len).unwrap_or_default()
    };
    let mut misses = nearest(&rule.from, "from");
    misses.extend(nearest(&rule.to, "to"));
    misses.extend(failed(&rule.when, "when."));
    misses
}

impl Test {
    fn miss(&self, at: &str, request: &Request<'_>) -> Miss {
        let wants = if self.negated { "none of" } else { "one of" };
        Miss {
            field: format!("{at}{}", self.field),
            expected: format!("{wants} {}", self.check),
            found: self.check.found(request),
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            // Debug formatting: what a caller sent must not be able to write into a terminal.
            Some(found) => write!(f, "{}: the request has {found:?}, the rule wants {}", self.field, self.expected),
            None => write!(f, "{}: the request has none, the rule wants {}", self.field, self.expected),
        }
    }
}

impl fmt::Display for ExplainStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trial = if self.dry_run { " (dry run)" } else { "" };
        write!(f, "{}{trial} {} rule {}: ", self.action, self.policy, self.rule)?;
        match self.misses.as_slice() {
            [] if self.matched => {
                f.write_str("matched")?;
                self.note.map_or(Ok(()), |note| write!(f, ": {note}"))
            }
            // On raw TCP, in a source or operation that does not count.
            [] => f.write_str("no match: raw TCP has nothing of what it looks at"),
            [miss] => write!(f, "no match: {miss}"),
            [miss, others @ ..] => write!(f, "no match: {miss} (and {} more)", others.len()),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Allow => "allowed",
            Verdict::Deny => "denied",
        };
        write!(f, "{verdict} ({})", self.reason.as_str())?;
        if let (Some(policy), Some(rule)) = (&self.policy, self.rule) {
            write!(f, " by {policy}, rule {rule}")?;
        }
        if self.token_would_help {
            f.write_str("; a token would help (401)")?;
        }
        if !self.audit.is_empty() {
            write!(f, "; audited by {}", self.audit.join(", "))?;
        }
        match self.dry_run.as_ref().map(|trial| trial.verdict) {
            Some(Verdict::Allow) => f.write_str("; with the policies under trial: allowed"),
            Some(Verdict::Deny) => f.write_str("; with the policies under trial: denied"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.decision.fmt(f)?;
        if let Some(step) = self.nearest.and_then(|at| self.steps.get(at)) {
            write!(f, "\nnearest: {} rule {}", step.policy, step.rule)?;
            step.misses.iter().try_for_each(|miss| write!(f, "\n  {miss}"))?;
        }
        self.steps.iter().try_for_each(|step| write!(f, "\n{step}"))?;
        self.allow_nothing.iter().try_for_each(|name| write!(f, "\nALLOW {name}: has no rules and allows nothing"))
    }
}
