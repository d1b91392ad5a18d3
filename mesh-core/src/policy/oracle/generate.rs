//! Random policies, as YAML and as what the naive evaluator reads; random requests.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::identity::SpiffeId;
use crate::policy::{Headers, Mode, Protocol, Request};
use crate::rng::Rng;
use crate::token::VerifiedToken;

/// One document.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) namespace: &'static str,
    app: Option<&'static str>,
    target: Option<&'static str>,
    pub(super) action: &'static str,
    pub(super) provider: Option<&'static str>,
    pub(super) dry_run: bool,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) from: Vec<Vec<Field>>,
    pub(super) to: Vec<Vec<Field>>,
    pub(super) when: Vec<Field>,
}

/// Both lists of a field, empty where they are not written.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// The positive name, or the key of a condition.
    pub(super) key: String,
    pub(super) values: Vec<String>,
    pub(super) not_values: Vec<String>,
}

impl Policy {
    /// The workload is `orders` in `shop`, with the label `app: orders`; the root namespace is `root`.
    pub(super) fn selects(&self) -> bool {
        match (self.target, self.app) {
            (Some(name), _) => self.namespace == "shop" && name == "orders",
            (None, app) => matches!(self.namespace, "shop" | "root") && app.is_none_or(|app| app == "orders"),
        }
    }

    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    pub(super) fn yaml(&self) -> String {
        let list = |values: &[String]| -> String {
            let quoted: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
            format!("[{}]", quoted.join(", "))
        };
        let capital = |key: &str| format!("not{}{}", key[..1].to_uppercase(), &key[1..]);
        let lists = |field: &Field, names: [String; 2]| -> Vec<String> {
            let written = [(&field.values, &names[0]), (&field.not_values, &names[1])];
            let written = written.into_iter().filter(|(values, _)| !values.is_empty());
            written.map(|(values, name)| format!("{name}: {}", list(values))).collect()
        };
        let part = |name: &str, fields: &[Field]| {
            let all: Vec<String> =
                fields.iter().flat_map(|field| lists(field, [field.key.clone(), capital(&field.key)])).collect();
            format!("{{ {name}: {{ {} }} }}", all.join(", "))
        };
        let rule = |rule: &Rule| {
            let mut clauses = Vec::new();
            for (name, item, parts) in [("from", "source", &rule.from), ("to", "operation", &rule.to)] {
                if !parts.is_empty() {
                    let all: Vec<String> = parts.iter().map(|fields| part(item, fields)).collect();
                    clauses.push(format!("{name}: [{}]", all.join(", ")));
                }
            }
            if !rule.when.is_empty() {
                let names = || ["values", "notValues"].map(str::to_owned);
                let one = |field: &Field| format!("{{ key: '{}', {} }}", field.key, lists(field, names()).join(", "));
                clauses.push(format!("when: [{}]", rule.when.iter().map(one).collect::<Vec<_>>().join(", ")));
            }
            format!("{{ {} }}", clauses.join(", "))
        };
        let mut spec = vec![format!("action: {}", self.action)];
        spec.extend(self.app.map(|app| format!("selector: {{ matchLabels: {{ app: {app} }} }}")));
        spec.extend(self.target.map(|name| format!("targetRefs: [{{ kind: Service, name: {name} }}]")));
        spec.extend(self.provider.map(|name| format!("provider: {{ name: {name} }}")));
        if !self.rules.is_empty() {
            spec.push(format!("rules: [{}]", self.rules.iter().map(rule).collect::<Vec<_>>().join(", ")));
        }
        let annotations = if self.dry_run { ", annotations: { istio.io/dry-run: 'true' }" } else { "" };
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: {}, namespace: {}{annotations} \
             }}\nspec: {{ {} }}\n",
            self.name,
            self.namespace,
            spec.join(", ")
        )
    }
}

const PEERS: &[&str] = &[
    "d.example/ns/shop/sa/web",
    "d.example/ns/shop/sa/batch",
    "d.example/ns/ops/sa/web",
    "old.example/ns/shop/sa/web",
    "other.example/ns/shop/sa/web",
    "d.example/gateway",
    "cluster.local/ns/shop/sa/web",
    "d.example/ns/shop/extra/sa/web",
    "d.example/zone/a/ns/shop/sa/web/pod",
    "d.example/ns/ns/sa/shop",
    "d.example/x/ns/ops/ns/shop/y",
];
const DOMAINS: &[&str] = &["d.example", "old.example", "other.example", "cluster.local"];
/// The end of the last one is that of `/sa` too.
const NAMESPACES: &[&str] = &["shop", "ops", "sh", "data"];
const ACCOUNTS: &[&str] = &["web", "shop/web", "ops/web", "shop/batch", "shop/we"];
const METHODS: &[&str] = &["GET", "POST", "PUT", "HEAD"];
const PATHS: &[&str] = &["/", "/orders", "/orders/7", "/orders/7/items", "/admin", "/a.c", "/orders/*", "/abc"];
const TEMPLATES: &[&str] =
    &["/{*}", "/{**}", "/orders/{*}", "/orders/{*}/items", "/orders/{**}", "/{**}/items", "/{*}/7/"];
const HOSTS: &[&str] = &["orders", "Orders:8443", "x.orders"];
const COLOURS: &[&str] = &["red", "green", "blue"];
const BLOCKS: &[&str] =
    &["10.0.0.1", "10.0.0.0/8", "10.0.0.9/31", "0.0.0.0/0", "::1", "2001:db8::/32", "::/0", "::ffff:10.0.0.0/104"];
const ADDRESSES: &[&str] = &["10.0.0.1", "10.0.0.8", "192.168.1.1", "::1", "2001:db8::7", "::ffff:10.0.0.1"];
const NAMES: &[&str] = &["orders.shop", "orders.example", "shop"];
const ROUTES: &[&str] = &["/orders/{id}", "/files/{*path}", "/shop.Orders/Get"];
const ISSUERS: &[&str] = &["https://a.example", "https://b.example"];
const SUBJECTS: &[&str] = &["*", "*ice", "https://a.example/alice", "https://a.example/*", "*/bob", "h*", "*e/alice"];
/// What only Istio takes.
const ODD_SUBJECTS: &[&str] =
    &["*/*", "*example/al*", "https*/alice", "alice", "https://a.example/", "https://a.example*"];

/// What values a field takes.
const SOURCE: &[(&str, Kind)] = &[
    ("principals", Kind::Pattern(PEERS)),
    ("principals", Kind::Pattern(PEERS)),
    ("namespaces", Kind::Pattern(NAMESPACES)),
    ("serviceAccounts", Kind::Word(ACCOUNTS)),
    ("trustDomains", Kind::Domain),
    ("ipBlocks", Kind::Word(BLOCKS)),
    ("remoteIpBlocks", Kind::Word(BLOCKS)),
    ("requestPrincipals", Kind::Subject),
];
const OPERATION: &[(&str, Kind)] = &[
    ("hosts", Kind::Pattern(HOSTS)),
    ("ports", Kind::Word(&["80", "8443", "0"])),
    ("methods", Kind::Pattern(METHODS)),
    ("paths", Kind::Path),
    ("paths", Kind::Path),
];
const CONDITION: &[(&str, Kind)] = &[
    ("source.principal", Kind::Pattern(PEERS)),
    ("source.namespace", Kind::Pattern(NAMESPACES)),
    ("source.serviceAccount", Kind::Word(ACCOUNTS)),
    ("source.trustDomain", Kind::Domain),
    ("source.ip", Kind::Word(BLOCKS)),
    ("remote.ip", Kind::Word(BLOCKS)),
    ("destination.ip", Kind::Word(BLOCKS)),
    ("destination.port", Kind::Word(&["80", "8443"])),
    ("connection.sni", Kind::Pattern(NAMES)),
    ("route", Kind::Route),
    ("request.auth.principal", Kind::Subject),
    ("request.auth.audiences", Kind::Pattern(COLOURS)),
    ("request.auth.presenter", Kind::Pattern(COLOURS)),
    ("request.auth.claims[group]", Kind::Pattern(COLOURS)),
    ("request.auth.claims[scope]", Kind::Pattern(COLOURS)),
    ("request.auth.claims[nested][colour]", Kind::Pattern(COLOURS)),
    ("request.headers[X-Colour]", Kind::Pattern(COLOURS)),
    ("request.headers[x-colour]", Kind::Pattern(COLOURS)),
];
const ODD_CONDITION: &[(&str, Kind)] =
    &[("request.headersx[y]", Kind::Pattern(COLOURS)), ("request.auth.claimsx[y]", Kind::Pattern(COLOURS))];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Word(&'static [&'static str]),
    Pattern(&'static [&'static str]),
    Domain,
    Path,
    Route,
    Subject,
}

/// Everything random.
pub(super) struct Generator {
    pub(super) rng: Rng,
    pub(super) mode: Mode,
}

impl Generator {
    fn one<T: Copy>(&self, from: &[T]) -> T {
        from[self.rng.below(from.len())]
    }

    fn chance(&self, one_in: usize) -> bool {
        self.rng.below(one_in) == 0
    }

    fn many<T>(&self, up_to: usize, make: impl Fn() -> T) -> Vec<T> {
        (0..self.rng.below(up_to + 1)).map(|_| make()).collect()
    }

    fn value(&self, kind: Kind) -> String {
        let odd = self.mode == Mode::Compat && self.chance(8);
        match kind {
            Kind::Word(words) => self.one(words).to_owned(),
            Kind::Subject if odd => self.one(ODD_SUBJECTS).to_owned(),
            Kind::Subject => self.one(SUBJECTS).to_owned(),
            Kind::Path if self.chance(3) => self.one(TEMPLATES).to_owned(),
            Kind::Path => self.pattern(&PATHS[..6], odd),
            Kind::Domain => self.pattern(DOMAINS, false),
            Kind::Route => match self.rng.below(4) {
                0 => "*".to_owned(),
                1 => "/orders/*".to_owned(),
                _ => self.one(ROUTES).to_owned(),
            },
            Kind::Pattern(values) => self.pattern(values, odd),
        }
    }

    fn pattern(&self, values: &[&str], odd: bool) -> String {
        let value = self.one(values);
        let cut = self.rng.below(value.len()).max(1);
        let (start, end) = (&value[..cut], &value[value.len() - cut..]);
        match self.rng.below(8) {
            0 => format!("{start}*"),
            1 => format!("*{end}"),
            2 if self.chance(4) => "*".to_owned(),
            3 if odd => format!("*{value}*"),
            4 if odd => format!("{start}*{end}"),
            5 if odd => format!("*{start}*{end}"),
            _ => value.to_owned(),
        }
    }

    fn field(&self, (key, kind): (&str, Kind)) -> Field {
        let list = || -> Vec<String> {
            // Beyond eight, the engine keeps them in another way.
            let more = if self.chance(12) { 9 } else { 0 };
            (0..=self.rng.below(3) + more).map(|_| self.value(kind)).collect()
        };
        let (yes, no) = self.one(&[(true, false), (true, false), (true, false), (false, true), (true, true)]);
        let written = |list: Vec<String>, yes: bool| if yes { list } else { vec![] };
        Field { key: key.to_owned(), values: written(list(), yes), not_values: written(list(), no) }
    }

    /// One to three fields, each once; `serviceAccounts` excludes others.
    fn part(&self, fields: &[(&str, Kind)]) -> Vec<Field> {
        let mut all: Vec<Field> = Vec::new();
        for _ in 0..=self.rng.below(3) {
            let field = self.field(self.one(fields));
            let exclusive = |a: &str, b: &str| a == "serviceAccounts" && matches!(b, "principals" | "namespaces");
            let clash = |known: &Field| {
                known.key == field.key || exclusive(&known.key, &field.key) || exclusive(&field.key, &known.key)
            };
            if !all.iter().any(clash) {
                all.push(field);
            }
        }
        all
    }

    fn rule(&self, action: &str) -> Rule {
        let identity = |key: &str| {
            !key.contains("Ip") && SOURCE.iter().any(|(name, _)| *name == key) && key != "ipBlocks"
                || key.starts_with("request.auth.")
                || (key.starts_with("source.") && key != "source.ip")
        };
        // Istio refuses identities there.
        let fits = |fields: &[(&'static str, Kind)]| -> Vec<(&'static str, Kind)> {
            let narrow = action == "CUSTOM" && self.mode == Mode::Compat;
            fields.iter().copied().filter(|(key, _)| !narrow || !identity(key)).collect()
        };
        let mut conditions = fits(CONDITION);
        if self.mode == Mode::Compat {
            conditions.extend(fits(ODD_CONDITION).into_iter().filter(|_| self.chance(3)));
        }
        let source = fits(SOURCE);
        Rule {
            from: self.many(2, || self.part(&source)),
            to: self.many(2, || self.part(OPERATION)),
            when: if self.chance(2) { self.many(2, || self.field(self.one(&conditions))) } else { vec![] },
        }
    }

    pub(super) fn policies(&self) -> Vec<Policy> {
        let policy = |at: usize| {
            let action = self.one(&["ALLOW", "ALLOW", "ALLOW", "DENY", "DENY", "AUDIT", "CUSTOM"]);
            let needed = matches!(action, "DENY" | "CUSTOM");
            let mut rules = self.many(4, || self.rule(action));
            if rules.is_empty() && needed {
                rules.push(self.rule(action));
            }
            let scope = self.rng.below(6);
            Policy {
                name: format!("p{at}"),
                namespace: self.one(&["shop", "shop", "root", "ops"]),
                app: (scope == 0).then(|| self.one(&["orders", "other"])),
                target: (scope == 1).then(|| self.one(&["orders", "other"])),
                action,
                provider: (action == "CUSTOM").then(|| self.one(&["first", "second"])),
                dry_run: matches!(action, "ALLOW" | "DENY") && self.chance(6),
                rules,
            }
        };
        (0..self.rng.below(6)).map(policy).collect()
    }

    pub(super) fn request(&self) -> Sent {
        let protocol = self.one(&[Protocol::Http, Protocol::Http, Protocol::Grpc, Protocol::Tcp]);
        let ip = || (!self.chance(8)).then(|| self.one(ADDRESSES).parse().unwrap());
        Sent {
            peer: (!self.chance(5)).then(|| SpiffeId::parse(&format!("spiffe://{}", self.one(PEERS))).unwrap()),
            token: self.chance(2).then(|| self.token()),
            protocol,
            method: self.one(METHODS),
            path: self.one(PATHS),
            resolved_path: self.chance(4).then(|| self.one(PATHS)),
            host: self.one(&["orders", "orders:8443", "x.orders", ""]),
            port: self.one(&[80, 8443]),
            route: self.chance(2).then(|| self.one(ROUTES)),
            ips: [ip(), ip(), ip()],
            sni: self.chance(2).then(|| self.one(NAMES)),
            colours: Colours(self.many(2, || self.one(&["red", "green", "blue", ""]))),
        }
    }

    fn token(&self) -> VerifiedToken {
        let claims = self.one(&[0, 1, 2, 3, 4]);
        let claims = match claims {
            0 => json!({ "aud": "red" }),
            1 => json!({ "group": "red", "scope": "red blue", "aud": ["red", "green"], "azp": "blue" }),
            2 => json!({ "group": ["green", 7, "blue"], "scope": "green" }),
            3 => json!({ "group": 7, "nested": { "colour": "red" } }),
            _ => json!({ "nested": "red", "scope": ["red"], "azp": ["blue"] }),
        };
        let (issuer, subject) = (self.one(ISSUERS), (!self.chance(5)).then(|| self.one(&["alice", "bob", "*", ""])));
        let mut claims: Map<String, Value> = claims.as_object().unwrap().clone();
        claims.insert("iss".to_owned(), issuer.into());
        claims.extend(subject.map(|subject| ("sub".to_owned(), subject.into())));
        let subject: Option<Arc<str>> = subject.map(Into::into);
        VerifiedToken { issuer: issuer.into(), subject, audiences: vec![], expires: std::time::UNIX_EPOCH, claims }
    }
}

/// Values of the header `x-colour`.
#[derive(Debug)]
pub(super) struct Colours(Vec<&'static str>);

impl Headers for Colours {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        if name == "x-colour" {
            self.0.iter().for_each(|value| each(value.as_bytes()));
        }
    }
}

#[derive(Debug)]
pub(super) struct Sent {
    peer: Option<SpiffeId>,
    token: Option<VerifiedToken>,
    protocol: Protocol,
    method: &'static str,
    path: &'static str,
    resolved_path: Option<&'static str>,
    host: &'static str,
    port: u16,
    route: Option<&'static str>,
    ips: [Option<IpAddr>; 3],
    sni: Option<&'static str>,
    colours: Colours,
}

impl Sent {
    pub(super) fn request(&self) -> Request<'_> {
        let [source_ip, remote_ip, destination_ip] = self.ips;
        Request {
            peer: self.peer.as_ref(),
            token: self.token.as_ref(),
            protocol: self.protocol,
            method: self.method,
            path: self.path,
            resolved_path: self.resolved_path,
            host: self.host,
            port: self.port,
            route: self.route,
            source_ip,
            remote_ip,
            destination_ip,
            sni: self.sni,
            headers: &self.colours,
        }
    }
}
