//! `load:` - who asks, how often, and what.

use std::time::Duration;

use mesh_core::config::{Decode, Errors, Fields, Node, Value};

/// Requests that arrive whether or not earlier ones were answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// What its client processes are called: `client`, or `client-1`, `client-2` ... of several. Default `client`.
    pub name: String,
    /// What they call. Default: the only service that there is.
    pub service: String,
    /// Requests a second, of all clients together.
    pub rate: f64,
    /// How they are spread over time.
    pub arrivals: Arrivals,
    /// Client processes; each request is one's at random. Each has a picker, budgets and opinions of its own. Default 1.
    pub clients: usize,
    /// When it begins.
    pub from: Duration,
    /// When it ends. Default: with the run.
    pub until: Option<Duration>,
    /// For routes that match on it, and for whether it may be repeated. Default GET.
    pub method: String,
    /// For routes that match on it. Default `/`.
    pub path: String,
    /// Of how many keys each request has one, for policies that go by keys; 0 (default): none.
    pub keys: usize,
}

/// How requests are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arrivals {
    /// Independent of each other: now and then many at once.
    #[default]
    Poisson,
    /// One after the other at the same distance.
    Fixed,
}

impl Decode for Arrivals {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        node.choice(&[("poisson", Self::Poisson), ("fixed", Self::Fixed)], errors)
    }
}

impl Load {
    /// One mapping, or a list of them.
    pub(super) fn read(node: &Node, errors: &mut Errors) -> Option<Vec<Self>> {
        match &node.value {
            Value::List(_) => Vec::decode(node, errors),
            _ => Self::decode(node, errors).map(|load| vec![load]),
        }
    }

    /// When it ends, in a run of this length.
    pub fn until(&self, duration: Duration) -> Duration {
        self.until.map_or(duration, |until| until.min(duration))
    }
}

impl Decode for Load {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let mut fields = Fields::of(node, errors)?;
        let rate = if fields.node("rate").is_some() {
            fields.optional_within("rate", 0.001..=10_000_000.0)
        } else {
            fields.required("rate")
        };
        let load = Self {
            name: fields.or("name", "client".to_owned()),
            service: fields.or("service", String::new()),
            rate: rate.unwrap_or_default(),
            arrivals: fields.or("arrivals", Arrivals::Poisson),
            clients: fields.within("clients", 1, 1..=super::MAX_MEMBERS),
            from: fields.within("from", Duration::ZERO, Duration::ZERO..=DAY),
            until: fields.optional_within("until", Duration::ZERO..=DAY),
            method: fields.or("method", "GET".to_owned()),
            path: fields.or("path", "/".to_owned()),
            keys: fields.within("keys", 0, 0..=100_000_000),
        };
        fields.finish();
        rate.map(|_| load)
    }
}
