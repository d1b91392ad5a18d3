//! Istio's `PeerAuthentication`: what its documents demand of those who connect to a port of this workload.
//!
//! | | here | Istio |
//! |---|---|---|
//! | precedence | workload, namespace, mesh; UNSET inherits | the same |
//! | several at one level | the oldest holds (`creationTimestamp`, then name); the others are doubts | the oldest |
//! | no document, or UNSET everywhere | the listener's own `mtls`, default strict | PERMISSIVE |
//! | STRICT | strict, whatever the listener says | the same |
//! | PERMISSIVE | only until the listener's `permissive_until`; without one an error | without end |
//! | DISABLE | an error: without TLS nobody has a name | plaintext |
//! | a selector in the root namespace | ignored in compat mode, with a doubt; else an error | ignored |
//!
//! A port is that of a listener's `address`: one that is 0 there has no document of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::Mode;
use crate::config::{Config, ConfigIssue, Errors, Mtls, Place, Workload};

/// What a document demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PeerMode {
    /// What the next wider document says.
    #[default]
    Unset,
    /// Plaintext alone.
    Disable,
    /// Plaintext or mutual TLS.
    Permissive,
    /// Mutual TLS.
    Strict,
}

/// One document, validated.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PeerAuthentication {
    /// `NAMESPACE/NAME`.
    pub name: Arc<str>,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.creationTimestamp`; without one it is older than all that have one.
    pub created: Option<SystemTime>,
    /// `spec.selector.matchLabels`; empty: the whole namespace, or in the root namespace the whole mesh.
    pub selector: BTreeMap<String, String>,
    /// `spec.mtls.mode`.
    pub mode: PeerMode,
    /// `spec.portLevelMtls`; only with a selector.
    pub ports: BTreeMap<u16, PeerMode>,
    /// What Istio takes for what its author hardly meant.
    pub doubts: Vec<ConfigIssue>,
    /// Where it stands.
    pub place: Place,
}

/// How much a document holds for; the narrower comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Mesh,
    Namespace,
    Workload,
}

impl PeerAuthentication {
    fn level(&self, workload: &Workload, root_namespace: &str) -> Option<Level> {
        let (own, root) = (*self.namespace == *workload.namespace, *self.namespace == *root_namespace);
        let selects = || self.selector.iter().all(|(key, value)| workload.labels.get(key) == Some(value));
        match (root, self.selector.is_empty()) {
            (true, true) => Some(Level::Mesh),
            (true, false) => None,
            (false, true) => own.then_some(Level::Namespace),
            (false, false) => (own && selects()).then_some(Level::Workload),
        }
    }

    fn age(&self) -> (Option<SystemTime>, &str) {
        (self.created, &self.name)
    }
}

/// The documents that hold for one workload: the oldest of each level, the widest first.
#[derive(Debug)]
pub struct PeerPolicy<'a> {
    levels: BTreeMap<Level, &'a PeerAuthentication>,
    /// Documents that select nobody, wherever they stand.
    ignored: Vec<ConfigIssue>,
    doubts: Vec<ConfigIssue>,
}

impl<'a> PeerPolicy<'a> {
    /// The documents of `workload`.
    pub fn of(documents: &'a [PeerAuthentication], workload: &Workload, root_namespace: &str) -> Self {
        let (mut levels, mut doubts) = (BTreeMap::<Level, &PeerAuthentication>::new(), Vec::new());
        let ignored = documents.iter().filter(|it| *it.namespace == *root_namespace && !it.selector.is_empty());
        let ignored = ignored.map(|document| {
            let message = "a selector in the root namespace selects nothing: the document belongs beside its workload";
            ConfigIssue { place: document.place.field("spec.selector"), message: message.to_owned() }
        });
        let mut sorted: Vec<&PeerAuthentication> = documents.iter().collect();
        sorted.sort_by(|a, b| a.age().cmp(&b.age()));
        for document in sorted {
            let Some(level) = document.level(workload, root_namespace) else { continue };
            if let Some(older) = levels.get(&level) {
                let message = format!("`{}` holds for the same and is older: this document has no effect", older.name);
                doubts.push(ConfigIssue { place: document.place.clone(), message });
                continue;
            }
            levels.insert(level, document);
        }
        Self { levels, ignored: ignored.collect(), doubts }
    }

    /// What holds for a port, and which document says so; `None` where none does.
    pub fn mode(&self, port: u16) -> Option<(PeerMode, &'a PeerAuthentication)> {
        let narrowest = self.levels.get(&Level::Workload);
        let of_port = narrowest.and_then(|document| Some((*document.ports.get(&port)?, *document)));
        let of_levels = self.levels.values().rev().map(|document| (document.mode, *document));
        of_port.into_iter().chain(of_levels).find(|(mode, _)| *mode != PeerMode::Unset)
    }

    /// Documents that have no effect: because an older one holds, or because they select nobody.
    pub fn doubts(&self) -> impl Iterator<Item = &ConfigIssue> {
        self.doubts.iter().chain(&self.ignored)
    }

    /// Gives every listener the mode that its documents demand, or notes why not.
    pub fn apply(&self, config: &mut Config, errors: &mut Errors) {
        if config.policy_mode == Mode::Strict {
            self.ignored.iter().for_each(|issue| errors.push(&issue.place, &issue.message));
        }
        for (name, listener) in &mut config.listeners {
            let Some((mode, document)) = self.mode(listener.address.port()) else { continue };
            let policy = &document.name;
            match (mode, listener.mtls) {
                (PeerMode::Strict, _) => listener.mtls = Mtls::Strict,
                (PeerMode::Permissive, Mtls::Permissive { .. }) | (PeerMode::Unset, _) => {}
                (PeerMode::Permissive, Mtls::Strict) => {
                    let message = format!(
                        "`{policy}` is PERMISSIVE for listener `{name}`, which is strict: plaintext needs an end, write \
                         `mtls: permissive` and `permissive_until` there, or STRICT here"
                    );
                    errors.push(&document.place, message);
                }
                (PeerMode::Disable, _) => {
                    let message = format!(
                        "`{policy}` is DISABLE for listener `{name}`: without TLS nobody has a name, and TLS is never \
                         refused here; PERMISSIVE takes plaintext too, for a time"
                    );
                    errors.push(&document.place, message);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::config::{IdentityConfig, ListenerConfig, PlugConfig};
    use crate::policy::canonical::Canonicalization;
    use crate::policy::parse_file;

    fn document(namespace: &str, name: &str, more: &str) -> String {
        let (created, spec) = more.split_once('|').unwrap_or(("", more));
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{ name: {name}, namespace: {namespace}{created} }}\nspec: {{ {spec} }}\n"
        )
    }

    fn config() -> Config {
        let source = PlugConfig::new("memory", &serde_json::json!({}));
        let mut workload = Workload::new("orders", "shop");
        workload.labels.insert("app".to_owned(), "orders".to_owned());
        let mut config = Config::new(workload, IdentityConfig::new("td".parse().unwrap(), source));
        for (name, port) in [("default", 8443), ("other", 9443)] {
            let listener = ListenerConfig::new(SocketAddr::from(([0, 0, 0, 0], port)));
            config.listeners.insert(name.to_owned(), listener);
        }
        config
    }

    fn permissive() -> Mtls {
        Mtls::Permissive { until: SystemTime::UNIX_EPOCH + Duration::from_secs(1) }
    }

    /// The documents in force for ports 8443 and 9443, as `MODE NAME`.
    fn in_force(text: &str) -> [String; 2] {
        let mut errors = Errors::default();
        let peers = parse_file(Mode::Compat, Canonicalization::Reject, "p.yaml", text, &mut errors).peers;
        assert!(errors.is_empty(), "{text}: {:?}", errors.issues());
        let config = config();
        let policy = PeerPolicy::of(&peers, &config.workload, &config.root_namespace);
        [8443, 9443].map(|port| {
            policy.mode(port).map_or("-".to_owned(), |(mode, document)| format!("{mode:?} {}", document.name))
        })
    }

    /// How many documents have no effect.
    fn doubts(text: &str) -> usize {
        let mut errors = Errors::default();
        let peers = parse_file(Mode::Compat, Canonicalization::Reject, "p.yaml", text, &mut errors).peers;
        let config = config();
        PeerPolicy::of(&peers, &config.workload, &config.root_namespace).doubts().count()
    }

    const APP: &str = "selector: { matchLabels: { app: orders } }";

    #[test]
    fn peer_authentication_workload_then_namespace_then_mesh_and_unset_inherits() {
        let root = |spec: &str| document("istio-system", "mesh", spec);
        let own = |spec: &str| document("shop", "own", spec);
        let app = |spec: &str| document("shop", "app", &format!("{APP}, {spec}"));
        let (strict, permissive) = ("mtls: { mode: STRICT }", "mtls: { mode: PERMISSIVE }");
        let both = |found: &str| [found.to_owned(), found.to_owned()];
        let table = [
            (String::new(), both("-")),
            (root(permissive), both("Permissive istio-system/mesh")),
            (root(permissive) + &own(strict), both("Strict shop/own")),
            (root(permissive) + &own("mtls: { mode: UNSET }"), both("Permissive istio-system/mesh")),
            (root(permissive) + &own("mtls: {}"), both("Permissive istio-system/mesh")),
            (root(permissive) + &own(""), both("Permissive istio-system/mesh")),
            (root("") + &own(""), both("-")),
            (app(permissive) + &own(strict) + &root(strict), both("Permissive shop/app")),
            (app("mtls: {}") + &own(strict), both("Strict shop/own")),
            (document("web", "theirs", strict), both("-")),
            (document("shop", "web", &format!("selector: {{ matchLabels: {{ app: web }} }}, {strict}")), both("-")),
            (document("istio-system", "app", &format!("{APP}, {strict}")), both("-")),
        ];
        for (text, expected) in table {
            assert_eq!(in_force(&text), expected, "{text}");
            assert_eq!(
                doubts(&text),
                usize::from(text.contains("istio-system") && text.contains(APP) && !text.contains("name: mesh")),
                "{text}"
            );
        }
        let ports = app("mtls: { mode: PERMISSIVE }, portLevelMtls: { '9443': { mode: STRICT } }");
        assert_eq!(in_force(&ports), ["Permissive shop/app", "Strict shop/app"]);
        let unset = app("portLevelMtls: { '9443': { mode: UNSET }, '8443': { mode: DISABLE } }") + &own(strict);
        assert_eq!(in_force(&unset), ["Disable shop/app", "Strict shop/own"]);
    }

    #[test]
    fn peer_authentication_of_several_the_oldest_wins() {
        let one = |name: &str, created: &str, mode: &str| {
            document("shop", name, &format!("{created}|mtls: {{ mode: {mode} }}"))
        };
        let (young, old) =
            (", creationTimestamp: '2026-02-01T00:00:00Z'", ", creationTimestamp: '2025-02-01T00:00:00Z'");
        for (text, expected) in [
            (one("a", young, "STRICT") + &one("b", old, "PERMISSIVE"), "Permissive shop/b"),
            (one("b", old, "STRICT") + &one("a", old, "PERMISSIVE"), "Permissive shop/a"),
            (one("b", "", "STRICT") + &one("a", ", creationTimestamp: null", "PERMISSIVE"), "Permissive shop/a"),
        ] {
            assert_eq!(in_force(&text), [expected, expected], "{text}");
            assert_eq!(doubts(&text), 1, "{text}");
        }
    }

    #[test]
    fn peer_authentication_never_takes_plaintext_without_an_end() {
        let until = permissive();
        let table = [
            (Mode::Strict, Mtls::Strict, "mtls: { mode: STRICT }", Ok(Mtls::Strict)),
            (Mode::Strict, until, "mtls: { mode: STRICT }", Ok(Mtls::Strict)),
            (Mode::Strict, until, "mtls: { mode: PERMISSIVE }", Ok(until)),
            (Mode::Strict, until, "", Ok(until)),
            (Mode::Compat, Mtls::Strict, "", Ok(Mtls::Strict)),
            (Mode::Strict, Mtls::Strict, "mtls: { mode: PERMISSIVE }", Err("`permissive_until` there")),
            (Mode::Compat, Mtls::Strict, "mtls: { mode: PERMISSIVE }", Err("for listener `default`, which is strict")),
            (Mode::Compat, until, "mtls: { mode: DISABLE }", Err("is DISABLE")),
        ];
        for (mode, mtls, spec, expected) in table {
            let (mut errors, mut config) = (Errors::default(), config());
            config.policy_mode = mode;
            config.listeners.values_mut().for_each(|listener| listener.mtls = mtls);
            let text = document("shop", "own", spec);
            let peers = parse_file(mode, Canonicalization::Reject, "p.yaml", &text, &mut errors).peers;
            let (workload, root) = (config.workload.clone(), config.root_namespace.clone());
            PeerPolicy::of(&peers, &workload, &root).apply(&mut config, &mut errors);
            match expected {
                Ok(mtls) => {
                    assert!(errors.is_empty(), "{mode:?} {spec}: {:?}", errors.issues());
                    assert!(config.listeners.values().all(|listener| listener.mtls == mtls), "{mode:?} {spec}");
                }
                Err(part) => {
                    let [first, second] = errors.issues() else { panic!("{:?}", errors.issues()) };
                    assert!(first.message.contains(part), "{first}");
                    assert!(first.to_string().starts_with("p.yaml:2:1"), "{first}");
                    assert!(second.message.contains("listener `other`"), "{second}");
                }
            }
        }
    }

    #[test]
    fn peer_authentication_documents_are_read_to_the_last_field() {
        let table = [
            ("portLevelMtls: { '80': { mode: STRICT } }", "`portLevelMtls` needs a `selector`"),
            (&*format!("{APP}, portLevelMtls: {{}}"), "at least one port"),
            (&*format!("{APP}, portLevelMtls: {{ '0': {{}} }}"), "expected a port from 1"),
            (&*format!("{APP}, portLevelMtls: {{ http: {{}} }}"), "expected a port from 1"),
            ("mtls: { mode: strict }", "unknown value"),
            ("mtls: { mod: STRICT }", "unknown field"),
            ("mtl: { mode: STRICT }", "unknown field"),
            ("selector: { matchLabels: {} }", "`matchLabels` is empty"),
            (", creationTimestamp: yesterday|mtls: {}", "expected a time"),
            (", annotations: { istio.io/dry-run: 'true' }|mtls: {}", "a dry run"),
        ];
        for (spec, expected) in table {
            let mut errors = Errors::default();
            let text = document("shop", "own", spec);
            let found = parse_file(Mode::Strict, Canonicalization::Reject, "p.yaml", &text, &mut errors);
            assert!(
                errors.issues().iter().any(|issue| issue.message.contains(expected)),
                "{spec}: {:?}",
                errors.issues()
            );
            assert!(found.is_empty(), "{spec}");
        }
    }

    #[test]
    fn peer_authentication_selectors_in_the_root_namespace_are_ignored_in_compat_and_refused_else() {
        let text = document("istio-system", "app", &format!("{APP}, mtls: {{ mode: STRICT }}"));
        for mode in [Mode::Strict, Mode::Compat] {
            let (mut errors, mut config) = (Errors::default(), config());
            config.policy_mode = mode;
            let peers = parse_file(mode, Canonicalization::Reject, "p.yaml", &text, &mut errors).peers;
            let (workload, root) = (config.workload.clone(), config.root_namespace.clone());
            let policy = PeerPolicy::of(&peers, &workload, &root);
            policy.apply(&mut config, &mut errors);
            assert_eq!((errors.is_empty(), policy.doubts().count()), (mode == Mode::Compat, 1));
        }
    }
}
