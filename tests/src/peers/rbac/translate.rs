//! From `AuthorizationPolicy` documents to the RBAC filters that Istio would give to Envoy.
//!
//! Written against the sources of Istio's pilot and Envoy's API, from the documents as they are written: nothing of
//! this mesh's own reading is used, so that both cannot be wrong in the same way.

use serde_json::{Map, Value, json};

use super::generate::PolicySet;

/// The rules of both filters; a filter without is not there.
#[derive(Debug, Clone)]
pub(super) struct Filters {
    pub(super) deny: Option<Value>,
    pub(super) allow: Option<Value>,
}

/// What Istio does not translate.
struct Untranslatable;

/// Permissions and principals have the same operators by other names.
struct Words {
    and: &'static str,
    or: &'static str,
    not: &'static str,
    list: &'static str,
}

const PERMISSION: Words = Words { and: "and_rules", or: "or_rules", not: "not_rule", list: "rules" };
const PRINCIPAL: Words = Words { and: "and_ids", or: "or_ids", not: "not_id", list: "ids" };

impl Words {
    fn all(&self, all: Vec<Value>) -> Value {
        let all = if all.is_empty() { vec![json!({ "any": true })] } else { all };
        json!({ self.and: { self.list: all } })
    }

    fn any(&self, all: Vec<Value>) -> Value {
        json!({ self.or: { self.list: all } })
    }

    /// Both lists of a field, where each value stands for itself.
    fn each(&self, [yes, no]: [&[&str]; 2], one: impl Fn(&str) -> Value) -> Vec<Value> {
        self.whole([yes, no], |values| self.any(values.iter().map(|value| one(value)).collect()))
    }

    /// Both lists of a field, each translated as a whole.
    fn whole(&self, [yes, no]: [&[&str]; 2], all: impl Fn(&[&str]) -> Value) -> Vec<Value> {
        let yes = (!yes.is_empty()).then(|| all(yes));
        let no = (!no.is_empty()).then(|| json!({ self.not: all(no) }));
        yes.into_iter().chain(no).collect()
    }
}

/// The filters for a workload that all of these documents select.
pub(super) fn filters(set: &PolicySet) -> Filters {
    let of = |action: &str| -> Option<Value> {
        let in_force = |document: &&Value| {
            document["spec"]["action"] == action && document["metadata"]["annotations"]["istio.io/dry-run"] != "true"
        };
        let documents: Vec<&Value> = set.documents.iter().filter(in_force).collect();
        let mut policies = Map::new();
        for document in &documents {
            let namespace = document["metadata"]["namespace"].as_str().unwrap();
            let name = document["metadata"]["name"].as_str().unwrap();
            let rules = document["spec"]["rules"].as_array();
            let key = |rule: usize| format!("ns[{namespace}]-policy[{name}]-rule[{rule}]");
            for (index, rule) in rules.into_iter().flatten().enumerate() {
                let translator = Translator { namespace, trust_domains: set.trust_domains, allow: action == "ALLOW" };
                if let Ok(policy) = translator.rule(rule) {
                    policies.insert(key(index), policy);
                }
            }
            if rules.is_none() {
                let never = json!({
                    "permissions": [{ "not_rule": { "any": true } }], "principals": [{ "not_id": { "any": true } }],
                });
                policies.insert(key(0), never);
            }
        }
        (!documents.is_empty()).then(|| json!({ "action": action, "policies": policies }))
    };
    Filters { deny: of("DENY"), allow: of("ALLOW") }
}

struct Translator<'a> {
    namespace: &'a str,
    trust_domains: &'a [&'a str],
    allow: bool,
}

/// The values of one list, empty where it is not written.
fn list<'a>(of: &'a Value, name: &str) -> Vec<&'a str> {
    of[name].as_array().into_iter().flatten().map(|value| value.as_str().unwrap()).collect()
}

impl Translator<'_> {
    fn rule(&self, rule: &Value) -> Result<Value, Untranslatable> {
        // Conditions hold beside every source and every operation.
        let (mut of_caller, mut of_request) = (Vec::new(), Vec::new());
        for when in rule["when"].as_array().into_iter().flatten() {
            let key = when["key"].as_str().unwrap();
            let (yes, no) = (list(when, "values"), list(when, "notValues"));
            let lists = [&yes[..], &no[..]];
            match key {
                "destination.ip" | "destination.port" | "connection.sni" => {
                    of_request.extend(Self::of_connection(key, lists));
                }
                _ => match self.condition(key, lists) {
                    Ok(tests) => of_caller.extend(tests),
                    // Whatever is not ALLOW gets wider.
                    Err(Untranslatable) if self.allow => return Err(Untranslatable),
                    Err(Untranslatable) => {}
                },
            }
        }
        let each = |clause: &str,
                    item: &str,
                    words: &Words,
                    base: &[Value],
                    make: &dyn Fn(&Value) -> Vec<Value>|
         -> Vec<Value> {
            let with = |mut tests: Vec<Value>| {
                tests.extend_from_slice(base);
                words.all(tests)
            };
            match rule[clause].as_array() {
                Some(parts) => parts.iter().map(|part| with(make(&part[item]))).collect(),
                None => vec![with(vec![])],
            }
        };
        let principals: Vec<Value> = each("from", "source", &PRINCIPAL, &of_caller, &|source| self.source(source));
        let permissions: Vec<Value> =
            each("to", "operation", &PERMISSION, &of_request, &|operation| Self::operation(operation));
        Ok(json!({ "permissions": permissions, "principals": principals }))
    }

    fn source(&self, source: &Value) -> Vec<Value> {
        const KEYS: [(&str, &str, &str); 7] = [
            ("principals", "notPrincipals", "source.principal"),
            ("requestPrincipals", "notRequestPrincipals", "request.auth.principal"),
            ("namespaces", "notNamespaces", "source.namespace"),
            ("serviceAccounts", "notServiceAccounts", "source.serviceAccount"),
            ("trustDomains", "notTrustDomains", "source.trustDomain"),
            ("ipBlocks", "notIpBlocks", "source.ip"),
            ("remoteIpBlocks", "notRemoteIpBlocks", "remote.ip"),
        ];
        let known = |name: &&String| KEYS.iter().any(|(yes, no, _)| name == yes || name == no);
        assert!(source.as_object().unwrap().keys().all(|name| known(&name)), "{source}");
        let translated = KEYS.iter().flat_map(|(yes, no, key)| {
            let (yes, no) = (list(source, yes), list(source, no));
            self.condition(key, [&yes, &no]).ok().unwrap()
        });
        translated.collect()
    }

    fn operation(operation: &Value) -> Vec<Value> {
        let field = |yes: &str, no: &str, one: &dyn Fn(&str) -> Value| {
            let (yes, no) = (list(operation, yes), list(operation, no));
            PERMISSION.each([&yes, &no], one)
        };
        let path = |value: &str| {
            if !value.contains("{*}") && !value.contains("{**}") {
                return json!({ "url_path": { "path": text(value) } });
            }
            let template = value.replace("{**}", "**").replace("{*}", "*");
            json!({ "uri_template": { "name": "uri-template", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
                "path_template": template,
            } } })
        };
        [
            field("hosts", "notHosts", &|value| json!({ "header": header(":authority", value, true) })),
            field("methods", "notMethods", &|value| json!({ "header": header(":method", value, false) })),
            field("paths", "notPaths", &path),
            field("ports", "notPorts", &port),
        ]
        .concat()
    }

    fn of_connection(key: &str, lists: [&[&str]; 2]) -> Vec<Value> {
        PERMISSION.each(lists, |value| match key {
            "destination.ip" => json!({ "destination_ip": block(value) }),
            "destination.port" => port(value),
            _ => json!({ "requested_server_name": text(value) }),
        })
    }

    fn condition(&self, key: &str, [yes, no]: [&[&str]; 2]) -> Result<Vec<Value>, Untranslatable> {
        let lists = [yes, no];
        let each = |one: &dyn Fn(&str) -> Value| PRINCIPAL.each(lists, one);
        let claim = |path: &[&str]| PRINCIPAL.whole(lists, |values| claim(path, values));
        Ok(match key {
            "source.ip" => each(&|value| json!({ "direct_remote_ip": block(value) })),
            "remote.ip" => each(&|value| json!({ "remote_ip": block(value) })),
            "source.namespace" => each(&|value| {
                let parts: Vec<String> = value.split('*').map(quoted).collect();
                authenticated(&regex(&format!(".*/ns/{}/.*", parts.join(".*"))))
            }),
            "source.serviceAccount" => each(&|value| {
                let (namespace, name) = value.split_once('/').unwrap_or((self.namespace, value));
                let (namespace, name) = (quoted(namespace), quoted(name));
                authenticated(&regex(&format!("spiffe://.+/ns/{namespace}/(.+/|)sa/{name}(/.+)?")))
            }),
            "source.trustDomain" => {
                let (yes, no) = (self.domains(yes), self.domains(no));
                PRINCIPAL.each([&yes, &no], |value| authenticated(&trust_domain(value)))
            }
            "source.principal" => {
                let (yes, no) = (self.principals(yes), self.principals(no));
                let [yes, no] = [&yes, &no].map(|all| all.iter().map(String::as_str).collect::<Vec<_>>());
                PRINCIPAL.each([&yes, &no], |value| authenticated(&spiffe(value)))
            }
            "request.auth.principal" => {
                PRINCIPAL.whole(lists, |values| PRINCIPAL.any(values.iter().map(|value| subject(value)).collect()))
            }
            "request.auth.audiences" => claim(&["aud"]),
            "request.auth.presenter" => claim(&["azp"]),
            _ => {
                let inner =
                    |prefix: &str| -> Option<&str> { key.strip_prefix(prefix)?.strip_prefix('[')?.strip_suffix(']') };
                match (inner("request.headers"), inner("request.auth.claims")) {
                    (Some(name), _) => each(&|value| json!({ "header": header(name, value, false) })),
                    (_, Some(path)) => claim(&path.split("][").collect::<Vec<_>>()),
                    _ => return Err(Untranslatable),
                }
            }
        })
    }

    /// A principal that names one of the own trust domains stands for all of them.
    fn principals(&self, values: &[&str]) -> Vec<String> {
        let rename = |value: &&str| -> Vec<String> {
            let parts: Vec<&str> = value.split('/').collect();
            let [domain, rest @ ..] = &parts[..] else { unreachable!() };
            let ends = |own: &str| domain.strip_prefix('*').is_some_and(|end| own.ends_with(end));
            let starts = |own: &str| domain.strip_suffix('*').is_some_and(|start| own.starts_with(start));
            let ours = *domain == "cluster.local"
                || self.trust_domains.iter().any(|own| own == domain || ends(own) || starts(own));
            if rest.len() != 4 || *domain == "*" || !ours {
                return vec![(*value).to_owned()];
            }
            let renamed =
                |own: &&str| if ends(own) { (*value).to_owned() } else { format!("{own}/{}", rest.join("/")) };
            self.trust_domains.iter().map(renamed).collect()
        };
        values.iter().flat_map(rename).collect()
    }

    fn domains<'a>(&'a self, values: &[&'a str]) -> Vec<&'a str> {
        let all = |value: &&'a str| {
            if self.trust_domains.contains(value) { self.trust_domains.to_vec() } else { vec![*value] }
        };
        values.iter().flat_map(all).collect()
    }
}

fn regex(text: &str) -> Value {
    json!({ "safe_regex": { "regex": text } })
}

/// Letter by letter in RE2.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for letter in text.chars() {
        if r"\.+*?()|[]{}^$".contains(letter) {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted
}

/// Exact, prefix, suffix or present. A star at the beginning counts before one at the end.
fn text(value: &str) -> Value {
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => regex(".+"),
        (Some(suffix), _) => json!({ "suffix": suffix }),
        (None, Some(prefix)) => json!({ "prefix": prefix }),
        (None, None) => json!({ "exact": value }),
    }
}

fn header(name: &str, value: &str, ignore_case: bool) -> Value {
    if value == "*" {
        return json!({ "name": name, "present_match": true });
    }
    let mut matcher = text(value);
    matcher["ignore_case"] = ignore_case.into();
    json!({ "name": name, "string_match": matcher })
}

/// A principal, as it stands in the certificate.
fn spiffe(value: &str) -> Value {
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => regex(".+"),
        (Some(suffix), _) => regex(&format!("spiffe://.*{}", quoted(suffix))),
        (None, Some(prefix)) => json!({ "prefix": format!("spiffe://{prefix}") }),
        (None, None) => json!({ "exact": format!("spiffe://{value}") }),
    }
}

fn trust_domain(value: &str) -> Value {
    match value.split_once('*') {
        Some(("", "")) => json!({ "prefix": "spiffe://" }),
        Some((start, end)) => regex(&format!("spiffe://{}[^/]*{}/.*", quoted(start), quoted(end))),
        None => json!({ "prefix": format!("spiffe://{value}/") }),
    }
}

fn authenticated(name: &Value) -> Value {
    json!({ "authenticated": { "principal_name": name } })
}

fn port(value: &str) -> Value {
    json!({ "destination_port": value.parse::<u16>().unwrap() })
}

fn block(value: &str) -> Value {
    let (address, bits) = value.split_once('/').unwrap_or((value, if value.contains(':') { "128" } else { "32" }));
    json!({ "address_prefix": address, "prefix_len": bits.parse::<u8>().unwrap() })
}

/// What `jwt_authn` leaves of a verified token.
fn metadata(path: &[&str], value: &Value) -> Value {
    let path: Vec<Value> = ["payload"].iter().chain(path).map(|key| json!({ "key": key })).collect();
    json!({ "metadata": { "filter": "envoy.filters.http.jwt_authn", "path": path, "value": value } })
}

/// A claim that is a string or a list of strings.
fn claim(path: &[&str], values: &[&str]) -> Value {
    let each: Vec<Value> = values.iter().map(|value| json!({ "string_match": text(value) })).collect();
    let one = match &each[..] {
        [only] => only.clone(),
        _ => json!({ "or_match": { "value_matchers": each } }),
    };
    metadata(path, &json!({ "or_match": { "value_matchers": [{ "list_match": { "one_of": one } }, one] } }))
}

/// `ISSUER/SUBJECT`, split at the last slash.
fn subject(value: &str) -> Value {
    let exact = |text: &str| json!({ "exact": text });
    let any = || regex(".+");
    let (issuer, subject) = match (value.rsplit_once('/'), value.starts_with('*'), value.ends_with('*')) {
        _ if value == "*" => (any(), any()),
        (Some((issuer, subject)), true, _) => {
            let end = &issuer[1..];
            (if end.is_empty() { any() } else { json!({ "suffix": end }) }, exact(subject))
        }
        (None, true, _) => (any(), json!({ "suffix": &value[1..] })),
        (Some((issuer, "*")), false, true) => (exact(issuer), any()),
        (Some((issuer, subject)), false, true) => (exact(issuer), json!({ "prefix": &subject[..subject.len() - 1] })),
        (None, false, true) => (json!({ "prefix": &value[..value.len() - 1] }), any()),
        (Some((issuer, subject)), false, false) => (exact(issuer), exact(subject)),
        (None, false, false) => (exact(value), exact("")),
    };
    let claim = |name: &str, matcher: &Value| metadata(&[name], &json!({ "string_match": matcher }));
    PRINCIPAL.all(vec![claim("iss", &issuer), claim("sub", &subject)])
}
