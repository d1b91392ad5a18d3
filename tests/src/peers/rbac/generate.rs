//! Random policies, connections, tokens and requests.

use std::net::{IpAddr, Ipv4Addr};

use mesh_core::rng::Rng;
use serde_json::{Map, Value, json};

/// What one workload is protected by.
#[derive(Debug, Clone)]
pub(super) struct PolicySet {
    /// `AuthorizationPolicy` documents.
    pub(super) documents: Vec<Value>,
    /// The own trust domain, and its aliases.
    pub(super) trust_domains: &'static [&'static str],
}

/// One connection, and what it shows of the caller.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    /// Index in [`PEERS`]; nobody without.
    pub(super) peer: Option<usize>,
    pub(super) tls: bool,
    pub(super) sni: Option<&'static str>,
    /// What the caller binds to.
    pub(super) source: Ipv4Addr,
    /// What the PROXY protocol says.
    pub(super) client: IpAddr,
    pub(super) destination: (IpAddr, u16),
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    /// Index of its policies.
    pub(super) set: usize,
    pub(super) connection: usize,
    pub(super) method: &'static str,
    /// As it is sent, query included.
    pub(super) target: String,
    pub(super) host: &'static str,
    /// Values of `x-colour`.
    pub(super) colours: Vec<&'static str>,
    /// `x-forwarded-for`.
    pub(super) forwarded: Option<IpAddr>,
    pub(super) token: Option<Token>,
}

/// What a token says, and what was done to it.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) issuer: &'static str,
    pub(super) claims: Value,
    pub(super) flaw: Option<Flaw>,
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    Signature,
    Expired,
    NoExpiry,
    LongLife,
    NoAudience,
    OtherAudience,
    UnknownIssuer,
    NoToken,
}

pub(super) const PEERS: &[&str] = &[
    "d.example/ns/shop/sa/web",
    "d.example/ns/shop/sa/batch",
    "d.example/ns/ops/sa/web",
    "old.example/ns/shop/sa/web",
    "other.example/ns/shop/sa/web",
    "d.example/gateway",
    "cluster.local/ns/shop/sa/web",
    "d.example/ns/shop/extra/sa/web",
    "d.example/zone/a/ns/shop/sa/web/pod",
];
pub(super) const DOMAINS: &[&str] = &["d.example", "old.example", "other.example", "cluster.local"];
pub(super) const ISSUERS: &[&str] = &["https://a.example", "https://b.example"];
/// The audiences that both sides accept.
pub(super) const AUDIENCES: &[&str] = &["red", "green", "blue"];
const NAMESPACES: &[&str] = &["shop", "ops", "sh"];
const ACCOUNTS: &[&str] = &["web", "shop/web", "ops/web", "shop/batch", "shop/we"];
const METHODS: &[&str] = &["GET", "POST", "PUT", "HEAD"];
const PATHS: &[&str] = &["/", "/orders", "/orders/7", "/orders/7/items", "/admin", "/a.c"];
const TEMPLATES: &[&str] =
    &["/{*}", "/{**}", "/orders/{*}", "/orders/{*}/items", "/orders/{**}", "/{**}/items", "/{*}/7/"];
const TARGETS: &[&str] = &["/orders/*", "/abc", "/orders/", "/orders/7/", "/orders?a=/admin", "/admin?", "/a%2Ec"];
const ODD_TARGETS: &[&str] = &[
    "//orders",
    "/x/../orders/7",
    "/./admin",
    "/%6frders",
    "/orders%2f7",
    "/orders/7;a",
    "/orders/..;/admin",
    "/orders/a|b",
    "/orders\\7",
    "/orders/%zz",
    "/orders/%2e%2e/admin",
    "/orders/caf%C3%A9",
    "/orders/{id}",
    "/../admin",
    "/orders/7#f",
    "/orders/a^b/items",
    "/orders/%00",
];
const HOSTS: &[&str] = &["orders", "Orders:8443", "x.orders"];
const SENT_HOSTS: &[&str] = &["orders", "orders:8443", "x.orders", "ORDERS", "X.Orders:8443"];
const ODD_HOSTS: &[&str] = &["orders.", "orders:08443", "[0:0::1]", "orders.:8443"];
const COLOURS: &[&str] = &["red", "green", "blue"];
/// The one range of IPv4 addresses in IPv6 form.
pub(super) const MAPPED: &str = "::ffff:10.0.0.0/104";
const BLOCKS: &[&str] = &[
    "10.0.0.1",
    "10.0.0.0/8",
    "10.0.0.9/31",
    "127.0.0.1",
    "127.0.0.2/31",
    "127.0.0.0/8",
    "0.0.0.0/0",
    "::1",
    "2001:db8::/32",
    "::/0",
    MAPPED,
];
const ADDRESSES: &[&str] = &["10.0.0.1", "10.0.0.8", "192.168.1.1", "::1", "2001:db8::7", "::ffff:10.0.0.1"];
const NAMES: &[&str] = &["orders.shop", "orders.example", "shop"];
const SUBJECTS: &[&str] = &["*", "*ice", "https://a.example/alice", "https://a.example/*", "*/bob", "h*", "*e/alice"];
/// What only Istio takes.
const ODD_SUBJECTS: &[&str] =
    &["*/*", "*example/al*", "https*/alice", "alice", "https://a.example/", "https://a.example*"];

/// What values a field takes.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Word(&'static [&'static str]),
    Pattern(&'static [&'static str]),
    /// Patterns of which Istio refuses odd ones.
    Domain,
    Path,
    Subject,
}

const SOURCE: &[(&str, Kind)] = &[
    ("principals", Kind::Pattern(PEERS)),
    ("principals", Kind::Pattern(PEERS)),
    ("namespaces", Kind::Pattern(NAMESPACES)),
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
    ("request.auth.principal", Kind::Subject),
    ("request.auth.audiences", Kind::Pattern(COLOURS)),
    ("request.auth.presenter", Kind::Pattern(COLOURS)),
    ("request.auth.claims[group]", Kind::Pattern(COLOURS)),
    ("request.auth.claims[scope]", Kind::Pattern(COLOURS)),
    ("request.auth.claims[nested][colour]", Kind::Pattern(COLOURS)),
    ("request.headers[X-Colour]", Kind::Pattern(COLOURS)),
    ("request.headers[x-colour]", Kind::Pattern(COLOURS)),
    ("request.headers[x-colour]", Kind::Pattern(COLOURS)),
    ("request.headers[x-colour]", Kind::Pattern(COLOURS)),
    ("request.headers[x-colour]", Kind::Pattern(COLOURS)),
];
/// What Istio takes and cannot translate.
const ODD_CONDITION: &[(&str, Kind)] =
    &[("request.headersx[y]", Kind::Pattern(COLOURS)), ("request.auth.claimsx[y]", Kind::Pattern(COLOURS))];

/// Everything random.
pub(super) struct Generator {
    pub(super) rng: Rng,
}

impl Generator {
    fn one<T: Copy>(&self, from: &[T]) -> T {
        from[self.rng.below(from.len())]
    }

    fn chance(&self, one_in: usize) -> bool {
        self.rng.below(one_in) == 0
    }

    fn pattern(&self, values: &[&str], odd: bool) -> String {
        let value = self.one(values);
        let cut = self.rng.below(value.len()).max(1);
        let (start, end) = (&value[..cut], &value[value.len() - cut..]);
        match self.rng.below(8) {
            0 => format!("{start}*"),
            1 => format!("*{end}"),
            2 => "*".to_owned(),
            3 if odd => format!("*{value}*"),
            4 if odd => format!("{start}*{end}"),
            5 if odd => format!("*{start}*{end}"),
            _ => value.to_owned(),
        }
    }

    fn value(&self, kind: Kind, odd: bool) -> String {
        let odd = odd && self.chance(4);
        match kind {
            Kind::Word(words) => self.one(words).to_owned(),
            Kind::Subject if odd => self.one(ODD_SUBJECTS).to_owned(),
            Kind::Subject => self.one(SUBJECTS).to_owned(),
            Kind::Path if self.chance(3) => self.one(TEMPLATES).to_owned(),
            Kind::Path => self.pattern(PATHS, odd),
            Kind::Domain => self.pattern(DOMAINS, false),
            Kind::Pattern(values) => self.pattern(values, odd),
        }
    }

    /// Writes one or both lists of a field.
    fn lists(&self, into: &mut Map<String, Value>, [yes, no]: [&str; 2], kind: Kind, odd: bool) {
        let list = || -> Value { (0..=self.rng.below(4)).map(|_| self.value(kind, odd)).collect::<Vec<_>>().into() };
        let which = self.rng.below(5);
        if which != 3 {
            into.insert(yes.to_owned(), list());
        }
        if which >= 3 {
            into.insert(no.to_owned(), list());
        }
    }

    /// One or two fields, each once; `serviceAccounts` excludes others.
    fn part(&self, fields: &[(&str, Kind)], odd: bool) -> Map<String, Value> {
        let mut part = Map::new();
        let mut names: Vec<&str> = Vec::new();
        for _ in 0..=self.rng.below(2) {
            let (name, kind) = self.one(fields);
            let exclusive = |a: &str, b: &str| a == "serviceAccounts" && matches!(b, "principals" | "namespaces");
            if names.iter().any(|known| *known == name || exclusive(known, name) || exclusive(name, known)) {
                continue;
            }
            names.push(name);
            let negative = format!("not{}{}", name[..1].to_uppercase(), &name[1..]);
            self.lists(&mut part, [name, &negative], kind, odd);
        }
        part
    }

    fn rule(&self, odd: bool) -> Value {
        let mut rule = Map::new();
        for (clause, item, fields) in [("from", "source", SOURCE), ("to", "operation", OPERATION)] {
            let parts: Vec<Value> = (0..self.rng.below(3)).map(|_| json!({ item: self.part(fields, odd) })).collect();
            if !parts.is_empty() {
                rule.insert(clause.to_owned(), parts.into());
            }
        }
        if self.chance(2) {
            let condition = || {
                let (key, kind) = self.one(if odd && self.chance(8) { ODD_CONDITION } else { CONDITION });
                let mut condition = Map::from_iter([("key".to_owned(), json!(key))]);
                self.lists(&mut condition, ["values", "notValues"], kind, odd);
                Value::Object(condition)
            };
            rule.insert("when".to_owned(), (0..=self.rng.below(2)).map(|_| condition()).collect());
        }
        Value::Object(rule)
    }

    /// One set in four holds what only Istio takes.
    pub(super) fn policies(&self) -> PolicySet {
        let odd = self.chance(4);
        let document = |at: usize| {
            let action = self.one(&["ALLOW", "ALLOW", "ALLOW", "DENY", "DENY", "AUDIT"]);
            let fewest = usize::from(action == "DENY" || !self.chance(10));
            let rules: Vec<Value> = (0..fewest + self.rng.below(3)).map(|_| self.rule(odd)).collect();
            let mut metadata = json!({ "name": format!("p{at}"), "namespace": self.one(&["shop", "shop", "root"]) });
            if action != "AUDIT" && self.chance(10) {
                metadata["annotations"] = json!({ "istio.io/dry-run": "true" });
            }
            let mut spec = json!({ "action": action });
            if !rules.is_empty() {
                spec["rules"] = rules.into();
            }
            json!({
                "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec,
            })
        };
        let documents = (0..self.rng.below(5)).map(document).collect();
        let trust_domains: &[&str] = if self.chance(2) { &DOMAINS[..1] } else { &DOMAINS[..2] };
        PolicySet { documents, trust_domains }
    }

    pub(super) fn connection(&self) -> Connection {
        let tls = !self.chance(8);
        // Both addresses of the PROXY protocol are of one family.
        let client: IpAddr = self.one(ADDRESSES).parse().unwrap();
        let mut destination: IpAddr = self.one(ADDRESSES).parse().unwrap();
        while destination.is_ipv4() != client.is_ipv4() {
            destination = self.one(ADDRESSES).parse().unwrap();
        }
        Connection {
            peer: (tls && !self.chance(8)).then(|| self.rng.below(PEERS.len())),
            tls,
            sni: (tls && self.chance(2)).then(|| self.one(NAMES)),
            source: Ipv4Addr::new(127, 0, 0, self.one(&[1, 2, 9])),
            client,
            destination: (destination, self.one(&[80, 8443])),
        }
    }

    pub(super) fn request(&self, set: usize, connections: usize) -> Sent {
        let target = match self.rng.below(10) {
            0 => self.one(ODD_TARGETS),
            1 => self.one(TARGETS),
            _ => self.one(PATHS),
        };
        Sent {
            set,
            connection: self.rng.below(connections),
            method: self.one(METHODS),
            target: target.to_owned(),
            host: self.one(if self.chance(12) { ODD_HOSTS } else { SENT_HOSTS }),
            colours: (0..self.rng.below(3)).map(|_| self.one(&["red", "green", "blue", ""])).collect(),
            forwarded: self.chance(2).then(|| self.one(ADDRESSES).parse().unwrap()),
            token: self.chance(2).then(|| self.token()),
        }
    }

    fn token(&self) -> Token {
        let mut claims = match self.rng.below(5) {
            0 => json!({ "aud": "red" }),
            1 => json!({ "group": "red", "scope": "red blue", "aud": ["red", "green"], "azp": "blue" }),
            2 => json!({ "group": ["green", 7, "blue"], "scope": "green", "aud": ["blue", "else"] }),
            3 => json!({ "group": 7, "nested": { "colour": "red" }, "aud": ["green"] }),
            _ => json!({ "nested": "red", "scope": ["red"], "aud": "blue" }),
        };
        if !self.chance(5) {
            claims["sub"] = self.one(&["alice", "bob", "*"]).into();
        }
        const FLAWS: [Flaw; 8] = [
            Flaw::Signature,
            Flaw::Expired,
            Flaw::NoExpiry,
            Flaw::LongLife,
            Flaw::NoAudience,
            Flaw::OtherAudience,
            Flaw::UnknownIssuer,
            Flaw::NoToken,
        ];
        let flaw = self.chance(12).then(|| self.one(&FLAWS));
        Token { issuer: self.one(ISSUERS), claims, flaw }
    }
}
