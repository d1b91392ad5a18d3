//! `servers:` - who answers, and how fast.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mesh_core::config::{Decode, Errors, Fields, Locality, Node, suggestion};

use super::load::Load;
use super::time::ServiceTime;

/// Servers that are alike. `count: 3` of `name: web` are called `web-1`, `web-2` and `web-3`; one alone is `web`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerGroup {
    /// What they are called.
    pub name: String,
    /// The cluster whose endpoints they are. Default: the one that has their name.
    pub cluster: String,
    /// How many. Default 1.
    pub count: usize,
    /// How long they work on a request. Default 10 ms, always.
    pub service_time: ServiceTime,
    /// Requests that one works on at once; absent: any number.
    pub concurrency: Option<usize>,
    /// Requests that wait at one for their turn; further ones are answered 503 at once. Default 1,024.
    pub queue: usize,
    /// From a client to the server, and the same back. Default 0.
    pub latency: Duration,
    /// Where they run.
    pub locality: Locality,
    /// As discovery says it. Default 0.
    pub priority: u32,
    /// As discovery says it. Default 1.
    pub weight: u32,
    /// The service that they call, once for each request, after their own work and before their answer.
    pub calls: Option<String>,
    /// What becomes of begun work whose caller is gone. Default false: it is given up, as a dropped handler's is.
    pub finishes_cancelled: bool,
    /// Whether work is begun for callers who went while it waited. Default false: what waits in a handler of ours is
    /// dropped with it.
    pub begins_cancelled: bool,
}

impl ServerGroup {
    pub(super) fn read(node: &Node, base_dir: &Path, errors: &mut Errors) -> Option<Self> {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut fields = Fields::of(node, errors)?;
        let name = fields.required::<String>("name");
        let cluster = fields.optional("cluster");
        let service_time = match fields.node("service_time") {
            Some(node) => ServiceTime::read(node, base_dir, fields.errors()),
            None => Some(ServiceTime::Constant(Duration::from_millis(10))),
        };
        let count = fields.within("count", 1, 1..=super::MAX_MEMBERS);
        let concurrency = fields.optional_within("concurrency", 1..=1_000_000);
        let queue = fields.within("queue", 1024, 0..=1_000_000);
        let latency = fields.within("latency", Duration::ZERO, Duration::ZERO..=MINUTE);
        let locality = fields.optional("locality").unwrap_or_default();
        let (priority, weight) = (fields.within("priority", 0, 0..=15), fields.within("weight", 1, 1..=65_535));
        let calls = fields.optional("calls");
        let finishes_cancelled = fields.or("finishes_cancelled", false);
        let begins_cancelled = fields.or("begins_cancelled", false);
        if begins_cancelled && !finishes_cancelled {
            let place = fields.place("begins_cancelled");
            fields.errors().push(
                &place,
                "work that is given up with its caller is not begun without him: set `finishes_cancelled` too",
            );
        }
        fields.finish();
        let name = name?;
        Some(Self {
            cluster: cluster.unwrap_or_else(|| name.clone()),
            name,
            count,
            service_time: service_time?,
            concurrency,
            queue,
            latency,
            locality,
            priority,
            weight,
            calls,
            finishes_cancelled,
            begins_cancelled,
        })
    }
}

/// `web` of one, else `web-1`, `web-2` ...
pub(super) fn numbered(name: &str, count: usize) -> Vec<String> {
    if count == 1 { vec![name.to_owned()] } else { (1..=count).map(|n| format!("{name}-{n}")).collect() }
}

/// What names stand for: whole groups, or one of them.
pub(super) struct Names(BTreeMap<String, Vec<usize>>);

impl Names {
    pub(super) fn of(groups: &[ServerGroup]) -> Self {
        Self::new(groups.iter().map(|group| (group.name.as_str(), group.count)))
    }

    pub(super) fn of_load(load: &[Load], groups: &[ServerGroup]) -> Self {
        let calling = groups.iter().filter(|group| group.calls.is_some());
        let load = load.iter().map(|load| (load.name.as_str(), load.clients));
        Self::new(load.chain(calling.map(|group| (group.name.as_str(), group.count))))
    }

    fn new<'a>(groups: impl Iterator<Item = (&'a str, usize)>) -> Self {
        let (mut names, mut next) = (BTreeMap::new(), 0);
        for (name, count) in groups {
            names.insert(name.to_owned(), (next..next + count).collect());
            for (index, name) in numbered(name, count).into_iter().enumerate() {
                names.insert(name, vec![next + index]);
            }
            if count == 1 {
                names.insert(name.to_owned(), vec![next]);
            }
            next += count;
        }
        Self(names)
    }

    pub(super) fn find(&self, name: &str) -> Vec<usize> {
        self.0.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn nearest(&self, name: &str) -> String {
        suggestion(name, self.0.keys().map(String::as_str))
    }
}

/// One name, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct NameList(pub(super) Vec<String>);

impl Decode for NameList {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        if node.as_str().is_some() {
            return String::decode(node, errors).map(|name| Self(vec![name]));
        }
        Vec::decode(node, errors).map(Self)
    }
}
