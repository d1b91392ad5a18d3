//! The health check that every HTTP service can answer.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::check::{CheckAnswer, CheckQuestion, CheckVerdict, HealthCheck};
use crate::config::{Decode, Errors, Fields, Node};
use crate::plugin::Context;

/// Kind `http`: `{ path: /readyz, statuses: [200-299, 404] }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpCheck {
    path: String,
    statuses: Vec<RangeInclusive<u16>>,
}

impl HttpCheck {
    pub(crate) fn from_node(node: &Node, _: &Context, errors: &mut Errors) -> Option<Arc<dyn HealthCheck>> {
        let mut fields = Fields::of(node, errors)?;
        let path: Option<String> = fields.required("path");
        let statuses: Vec<Statuses> = fields.or("statuses", vec![Statuses(200..=299)]);
        if path.as_ref().is_some_and(|path| !path.starts_with('/') || path.contains(['#', ' '])) {
            let place = fields.place("path");
            fields.errors().push(&place, "expected a path with its query, such as \"/readyz\"");
            return None;
        }
        if statuses.is_empty() {
            let place = fields.place("statuses");
            fields.errors().push(&place, "at least one status is required");
            return None;
        }
        fields.finish();
        Some(Arc::new(Self { path: path?, statuses: statuses.into_iter().map(|range| range.0).collect() }))
    }
}

/// `204`, or `200-299`.
struct Statuses(RangeInclusive<u16>);

impl Decode for Statuses {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let range = match node.as_str().and_then(|text| text.split_once('-')) {
            Some((first, last)) => first.parse().ok().zip(last.parse().ok()).map(|(first, last)| first..=last),
            None => u16::decode(node, &mut Errors::default()).map(|status| status..=status),
        };
        match range.filter(|range| *range.start() >= 100 && *range.end() <= 599 && !range.is_empty()) {
            Some(range) => Some(Self(range)),
            None => node.expected("a status such as 204, or a range such as 200-299", errors),
        }
    }
}

impl HealthCheck for HttpCheck {
    fn question(&self) -> CheckQuestion {
        let (method, path) = ("GET".to_owned(), self.path.clone());
        CheckQuestion::new(method, path)
    }

    fn judge(&self, answer: &CheckAnswer) -> CheckVerdict {
        match self.statuses.iter().any(|range| range.contains(&answer.status)) {
            true => CheckVerdict::Healthy,
            false => CheckVerdict::Unhealthy(format!("status {}", answer.status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Workload;
    use crate::identity::TrustDomain;

    fn check(settings: serde_json::Value) -> Result<Arc<dyn HealthCheck>, Vec<String>> {
        let context = Context::new(Workload::new("web", "shop"), TrustDomain::parse("td").unwrap());
        let mut errors = Errors::default();
        let check = HttpCheck::from_node(&Node::from(&settings), &context, &mut errors);
        check.ok_or_else(|| errors.issues().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn statuses_say_who_is_well() {
        let default = check(serde_json::json!({ "path": "/readyz?deep=1" })).unwrap();
        let own = check(serde_json::json!({ "path": "/", "statuses": ["200-204", 404] })).unwrap();
        assert_eq!(default.question().path, "/readyz?deep=1");
        for (status, by_default, by_own) in [
            (199, false, false),
            (200, true, true),
            (204, true, true),
            (205, true, false),
            (404, false, true),
            (503, false, false),
        ] {
            let answer = CheckAnswer::new(status);
            for (check, healthy) in [(&default, by_default), (&own, by_own)] {
                assert_eq!(check.judge(&answer) == CheckVerdict::Healthy, healthy, "{status} {check:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let status = "expected a status such as 204, or a range such as 200-299, found";
        for (settings, issue) in [
            (serde_json::json!({}), "<code>: path: this field is required".to_owned()),
            (
                serde_json::json!({ "path": "readyz" }),
                "<code>: path: expected a path with its query, such as \"/readyz\"".into(),
            ),
            (
                serde_json::json!({ "path": "/", "statuses": [] }),
                "<code>: statuses: at least one status is required".into(),
            ),
            (
                serde_json::json!({ "path": "/", "statuses": ["299-200"] }),
                format!("<code>: statuses[0]: {status} \"299-200\""),
            ),
            (serde_json::json!({ "path": "/", "statuses": [700] }), format!("<code>: statuses[0]: {status} 700")),
        ] {
            assert_eq!(check(settings).unwrap_err()[0], issue);
        }
    }
}
