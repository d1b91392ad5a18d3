//! What a scenario file says, read with mesh-core's own walker: unknown fields and values out of range are refused, each
//! with file, line and field.

mod fault;
mod load;
mod server;
mod time;

pub use fault::{Fault, FaultKind, Slow};
pub use load::{Arrivals, Load};
pub use server::ServerGroup;
pub use time::ServiceTime;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use mesh_core::Config;
use mesh_core::config::{
    BalancePolicy, ClusterConfig, ClusterLimitsConfig, ConfigError, Decode as _, Errors, Fields, IdentityConfig, Node,
    Place, PlugConfig, PoolConfig, RouteConfig, Workload, suggestion, yaml,
};

use server::Names;

/// The control arm that a cluster may be balanced by: tower's own `p2c::Balance` over `PeakEwma`, as it comes.
pub const TOWER_POLICY: &str = "tower_p2c_peak_ewma";

/// More servers, or client processes, than this are refused.
const MAX_MEMBERS: usize = 10_000;
/// Every client knows every server: more pairs than this are refused.
const MAX_PAIRS: usize = 2_000_000;
/// More requests than this are refused: a run has an end.
const MAX_REQUESTS: f64 = 100e6;

/// Everything that one run is made of, apart from its seed.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// How long requests are offered. Those under way at the end are waited for.
    pub duration: Duration,
    /// What seeds the run unless the command line says otherwise.
    pub seed: u64,
    /// Who answers.
    pub servers: Vec<ServerGroup>,
    /// What goes wrong, and when.
    pub faults: Vec<Fault>,
    /// Who asks.
    pub load: Vec<Load>,
    /// The `clusters:` and `routes:` of the client.
    pub config: Config,
}

impl Scenario {
    /// Reads and checks a file; paths in it start at its own directory. Blocks on the disk.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&name, &text, path.parent().unwrap_or(Path::new("."))),
            Err(error) => {
                let mut errors = Errors::default();
                errors.push(&Place::file(&name), format!("cannot be read: {error}"));
                errors.finish(None)
            }
        }
    }

    /// Reads and checks the text of a file called `file`. Every problem is reported at once.
    pub fn parse(file: &str, text: &str, base_dir: &Path) -> Result<Self, ConfigError> {
        let mut errors = Errors::default();
        let documents = yaml::parse(file, text, &mut errors);
        let scenario = match documents.as_slice() {
            [root] => Self::of(root, base_dir, &mut errors),
            [] if !errors.is_empty() => None,
            [] => {
                errors.push(&Place::file(file), "the file is empty: `servers`, `load` and `clusters` are required");
                None
            }
            [_, second, ..] => {
                errors.push(&second.place, "a second document: a scenario is one");
                None
            }
        };
        errors.finish(scenario)
    }

    fn of(root: &Node, base_dir: &Path, errors: &mut Errors) -> Option<Self> {
        const SECOND: Duration = Duration::from_secs(1);
        let mut fields = Fields::of(root, errors)?;
        let duration = fields.within("duration", 60 * SECOND, SECOND / 1000..=24 * 3600 * SECOND);
        let seed = fields.or("seed", 1);
        let config = Self::config(&mut fields, root, base_dir);
        let servers = fields.required::<Node>("servers").and_then(|node| {
            let items = node.list(fields.errors())?;
            Some(items.iter().filter_map(|item| ServerGroup::read(item, base_dir, fields.errors())).collect::<Vec<_>>())
        });
        let load = fields.required::<Node>("load").and_then(|node| Load::read(&node, fields.errors()));
        let faults = fields.optional::<Vec<Fault>>("faults").unwrap_or_default();
        fields.finish();
        let broken = !errors.is_empty();
        let mut scenario = Self { duration, seed, servers: servers?, faults, load: load?, config: config? };
        if !broken {
            scenario.default_service(root, errors);
            scenario.check(root, errors);
        }
        Some(scenario)
    }

    /// The sections as they stand in `mesh.yaml`, or those of the file that `mesh:` names.
    fn config(fields: &mut Fields<'_>, root: &Node, base_dir: &Path) -> Option<Config> {
        if let Some(node) = fields.node("mesh") {
            for name in ["clusters", "routes", "locality"] {
                if fields.node(name).is_some() {
                    let place = fields.place(name);
                    fields.errors().push(&place, "`mesh` names a file that has it: give one of the two");
                }
            }
            let path = std::path::PathBuf::decode(node, fields.errors())?;
            return Config::load(base_dir.join(path)).map_err(|error| fields.errors().extend(&error)).ok();
        }
        let before = fields.errors().issues().len();
        let clusters = fields.required::<BTreeMap<String, ClusterConfig>>("clusters");
        let routes = fields.optional::<BTreeMap<String, Vec<RouteConfig>>>("routes").unwrap_or_default();
        let locality = fields.optional("locality").unwrap_or_default();
        let partial = fields.errors().issues().len() > before;
        let source = PlugConfig::new("simulated", &serde_json::Value::Null);
        let trust_domain = "simulation.invalid".parse().ok()?;
        let workload = Workload { locality, ..Workload::new("client", "simulation") };
        let mut config = Config::new(workload, IdentityConfig { trust_domain, source });
        config.clusters = clusters.unwrap_or_default();
        config.routes = routes;
        config.check_into(Some(root), partial, fields.errors());
        Some(config)
    }

    /// The names of all client processes, in their order: those of the load, then the servers that call others.
    pub fn clients(&self) -> Vec<String> {
        let names = self.load.iter().flat_map(|load| server::numbered(&load.name, load.clients));
        let calling = self.servers.iter().filter(|group| group.calls.is_some());
        names.chain(calling.flat_map(|group| server::numbered(&group.name, group.count))).collect()
    }

    /// The names of all servers, in their order.
    pub fn server_names(&self) -> Vec<String> {
        self.servers.iter().flat_map(|group| server::numbered(&group.name, group.count)).collect()
    }

    /// The only service that there is, for a load that names none.
    fn default_service(&mut self, root: &Node, errors: &mut Errors) {
        let only = match self.services().as_slice() {
            [only] => Some((*only).to_owned()),
            _ => None,
        };
        let known = self.services().join(", ");
        for (index, load) in self.load.iter_mut().enumerate().filter(|(_, load)| load.service.is_empty()) {
            match &only {
                Some(only) => load.service.clone_from(only),
                None => {
                    let message = format!("this field is required: there are several services ({known})");
                    errors.push(&place(root, &format!("load[{index}].service")), message);
                }
            }
        }
    }

    /// What the sections are held against each other for.
    fn check(&self, root: &Node, errors: &mut Errors) {
        let at = |path: &str| place(root, path);
        let services: Vec<&str> = self.services();
        let known = |service: &str| services.contains(&service);
        for (index, load) in self.load.iter().enumerate() {
            if !load.service.is_empty() && !known(&load.service) {
                let (path, hint) = (format!("load[{index}].service"), suggestion(&load.service, services.clone()));
                errors.push(&at(&path), format!("no route or cluster is called `{}`{hint}", load.service));
            }
            if load.until(self.duration) <= load.from {
                errors.push(&at(&format!("load[{index}].from")), "the load ends before it begins");
            }
        }
        let offered: f64 = self.load.iter().map(|load| load.rate * self.duration.as_secs_f64()).sum();
        if offered > MAX_REQUESTS {
            errors.push(&at("load"), format!("{offered:.0} requests in all: at most {MAX_REQUESTS:.0} are simulated"));
        }
        for (index, group) in self.servers.iter().enumerate() {
            let clusters = || self.config.clusters.keys().map(String::as_str);
            if !self.config.clusters.contains_key(&group.cluster) {
                let hint = suggestion(&group.cluster, clusters());
                let message = format!("no cluster is called `{}`{hint}", group.cluster);
                errors.push(&at(&format!("servers[{index}].cluster")), message);
            }
            if let Some(service) = group.calls.as_ref().filter(|service| !known(service)) {
                let hint = suggestion(service, services.clone());
                let message = format!("no route or cluster is called `{service}`{hint}");
                errors.push(&at(&format!("servers[{index}].calls")), message);
            }
        }
        for (name, cluster) in &self.config.clusters {
            if let BalancePolicy::Custom(plug) = &cluster.balance.policy
                && plug.kind != TOWER_POLICY
            {
                let names = BalancePolicy::NAMES.into_iter().chain([TOWER_POLICY]);
                let message = format!(
                    "`{}` is no policy that can be rehearsed: those that a program registers are not here{}",
                    plug.kind,
                    suggestion(&plug.kind, names)
                );
                errors.push(&at(&format!("clusters.{name}.balance.policy")), message);
            }
        }
        let (clients, servers) = (self.clients(), self.server_names());
        for (what, names) in [("load", &clients), ("servers", &servers)] {
            let mut sorted = names.clone();
            sorted.sort();
            if let Some([name, _]) = sorted.windows(2).find(|pair| matches!(pair, [a, b] if a == b)) {
                errors.push(&at(what), format!("two are called `{name}`: give them different names"));
            }
            if names.is_empty() || names.len() > MAX_MEMBERS {
                errors.push(&at(what), format!("{} of them: expected 1 to {MAX_MEMBERS}", names.len()));
            }
        }
        if clients.len() * servers.len() > MAX_PAIRS {
            let message = format!("{} clients x {} servers: at most {MAX_PAIRS} pairs", clients.len(), servers.len());
            errors.push(&at("servers"), message);
        }
        self.check_circles(root, errors);
        let (groups, loads) = (Names::of(&self.servers), Names::of_load(&self.load, &self.servers));
        for (index, fault) in self.faults.iter().enumerate() {
            let path = |field: &str| at(&format!("faults[{index}].{field}"));
            for name in fault.servers.iter().filter(|name| groups.find(name).is_empty()) {
                let message = format!("no server is called `{name}`{}", groups.nearest(name));
                errors.push(&path("servers"), message);
            }
            for name in fault.kind.clients().iter().filter(|name| loads.find(name).is_empty()) {
                let message = format!("no client is called `{name}`{}", loads.nearest(name));
                errors.push(&path("partition.clients"), message);
            }
        }
    }

    fn services(&self) -> Vec<&str> {
        let (routes, clusters) = (self.config.routes.keys(), self.config.clusters.keys());
        let services: BTreeSet<&str> = routes.chain(clusters).map(String::as_str).collect();
        services.into_iter().collect()
    }

    /// A server that waits for itself would wait for ever.
    fn check_circles(&self, root: &Node, errors: &mut Errors) {
        let reached = |service: &str| -> Vec<&ServerGroup> {
            let clusters: Vec<&str> = match self.config.routes.get(service) {
                Some(routes) => routes.iter().map(|route| route.cluster.as_str()).collect(),
                None => vec![service],
            };
            self.servers.iter().filter(|group| clusters.contains(&group.cluster.as_str())).collect()
        };
        for (index, group) in self.servers.iter().enumerate() {
            let mut level: Vec<&ServerGroup> = vec![group];
            for _ in 0..=self.servers.len() {
                level = level.iter().filter_map(|group| group.calls.as_deref()).flat_map(reached).collect();
                level.dedup_by(|a, b| a.name == b.name);
            }
            if !level.is_empty() {
                let message = "servers that call each other in a circle: every request would cause requests for ever";
                errors.push(&place(root, &format!("servers[{index}].calls")), message);
                return;
            }
        }
    }

    /// The servers that a name stands for: of a whole group, or one of them; positions in [`server_names`](Self::server_names).
    pub fn servers_called(&self, name: &str) -> Vec<usize> {
        Names::of(&self.servers).find(name)
    }

    /// The clients that a name stands for; positions in [`clients`](Self::clients).
    pub fn clients_called(&self, name: &str) -> Vec<usize> {
        Names::of_load(&self.load, &self.servers).find(name)
    }

    /// What the sections say that a model without connections and cryptography cannot show.
    pub fn not_simulated(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, cluster) in &self.config.clusters {
            let mut note = |field: &str| notes.push(format!("clusters.{name}.{field}"));
            if cluster.health_check.is_some() {
                note("health_check");
            }
            if cluster.token.is_some() {
                note("token");
            }
            let (limits, default) = (&cluster.limits, ClusterLimitsConfig::default());
            let (pool, usual) = (&cluster.pool, PoolConfig::default());
            for (field, differs) in [
                ("limits.max_connections", limits.max_connections != default.max_connections),
                ("limits.max_handshakes", limits.max_handshakes != default.max_handshakes),
                ("pool.max_connections", pool.max_connections != usual.max_connections),
                ("pool.max_connection_age", pool.max_connection_age != usual.max_connection_age),
                ("pool.idle_timeout", pool.idle_timeout != usual.idle_timeout),
            ] {
                if differs {
                    note(field);
                }
            }
        }
        notes
    }
}

/// Where a field of the scenario stands; one that was left out stands where its mapping does. A section that is written as
/// one mapping is its own first item.
fn place(root: &Node, path: &str) -> Place {
    let mut node = root;
    for step in path.split('.') {
        let (name, index) = match step.split_once('[') {
            Some((name, index)) => (name, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (step, None),
        };
        let yaml::Value::Map(entries) = &node.value else { break };
        let Some(entry) = entries.iter().find(|entry| entry.key == name) else { break };
        node = &entry.value;
        if let (yaml::Value::List(items), Some(index)) = (&node.value, index)
            && let Some(item) = items.get(index)
        {
            node = item;
        }
    }
    Place { path: path.to_owned(), ..node.place.clone() }
}
