//! Policies judged as Istio's and Envoy's own texts read: string by string, with the regular expressions that Istio
//! generates. Nothing here is shared with the engine but the types of requests and verdicts.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

use regex::Regex;
use serde_json::Value;

use super::generate::{Field, Policy, Rule};
use crate::config::NoPolicy;
use crate::policy::{CustomAnswer, Mode, Protocol, Reason, Request, Verdict};

/// What policies are judged under.
pub(super) struct Naive {
    pub(super) mode: Mode,
    /// The own one first.
    pub(super) trust_domains: Vec<&'static str>,
    pub(super) no_policy: NoPolicy,
    pub(super) regexes: RefCell<HashMap<String, Regex>>,
}

/// Policy and rule.
pub(super) type By = (String, u32);

/// A whole decision.
#[derive(Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) reason: Reason,
    pub(super) by: Option<By>,
    pub(super) audit: Vec<String>,
    pub(super) dry_run: Option<(Verdict, Vec<By>)>,
    /// Who would have to be asked.
    pub(super) custom: Vec<(String, By)>,
}

impl Naive {
    pub(super) fn judge(
        &self,
        policies: &[Policy],
        request: &Request<'_>,
        answer: impl Fn(&str) -> Option<CustomAnswer>,
    ) -> Judged {
        let selected: Vec<&Policy> = policies.iter().filter(|policy| policy.selects()).collect();
        let matching = |action: &str, dry_run: bool| -> Vec<(&Policy, u32)> {
            let of_action = selected.iter().filter(|policy| policy.action == action && policy.dry_run == dry_run);
            let rules = of_action.flat_map(|policy| (0..).zip(&policy.rules).map(|(at, rule)| (*policy, at, rule)));
            rules
                .filter(|(policy, _, rule)| self.rule(policy, rule, request))
                .map(|(policy, at, _)| (policy, at))
                .collect()
        };
        let by = |(policy, at): &(&Policy, u32)| (policy.full_name(), *at);
        let count = |action: &str, dry_run| {
            selected.iter().filter(|policy| policy.action == action && policy.dry_run == dry_run).count()
        };
        let (deny, allow) = (matching("DENY", false), matching("ALLOW", false));
        let custom = matching("CUSTOM", false);
        let refused = custom.iter().find_map(|hit| {
            let reason = match answer(hit.0.provider?) {
                Some(CustomAnswer::Allow) => return None,
                Some(CustomAnswer::Deny) => Reason::CustomDenied,
                Some(CustomAnswer::Error) => Reason::CustomError,
                Some(CustomAnswer::Timeout) => Reason::CustomTimeout,
                Some(CustomAnswer::Unknown) => Reason::CustomUnknownProvider,
                None => Reason::CustomNotAsked,
            };
            Some((reason, by(hit)))
        });
        let in_force = count("ALLOW", false) + count("DENY", false) + count("CUSTOM", false);
        let (verdict, reason, decider) = if let Some((reason, hit)) = refused.clone() {
            (Verdict::Deny, reason, Some(hit))
        } else if let Some(hit) = deny.first() {
            (Verdict::Deny, Reason::DenyRule, Some(by(hit)))
        } else if in_force == 0 && self.no_policy == NoPolicy::Deny {
            (Verdict::Deny, Reason::NoPolicyDeny, None)
        } else if count("ALLOW", false) == 0 {
            (Verdict::Allow, Reason::NoPolicyAllow, None)
        } else if let Some(hit) = allow.first() {
            (Verdict::Allow, Reason::AllowRule, Some(by(hit)))
        } else {
            (Verdict::Deny, Reason::NoAllowRule, None)
        };
        let (dry_deny, dry_allow) = (matching("DENY", true), matching("ALLOW", true));
        let dry_run = (count("ALLOW", true) + count("DENY", true) > 0).then(|| {
            let denied = refused.is_some() || !deny.is_empty() || !dry_deny.is_empty();
            let closed = count("ALLOW", false) + count("ALLOW", true) > 0 && allow.is_empty() && dry_allow.is_empty();
            let verdict = if denied || closed { Verdict::Deny } else { Verdict::Allow };
            (verdict, dry_deny.first().into_iter().chain(dry_allow.first()).map(by).collect())
        });
        let mut audit: Vec<String> = matching("AUDIT", false).iter().map(|(policy, _)| policy.full_name()).collect();
        audit.sort_unstable();
        audit.dedup();
        let mut asked: Vec<(String, By)> = Vec::new();
        for hit in &custom {
            let provider = hit.0.provider.unwrap_or_default();
            if !asked.iter().any(|(known, _)| known == provider) {
                asked.push((provider.to_owned(), by(hit)));
            }
        }
        Judged { verdict, reason, by: decider, audit, dry_run, custom: asked }
    }

    fn rule(&self, policy: &Policy, rule: &Rule, request: &Request<'_>) -> bool {
        let allow = policy.action == "ALLOW";
        let fields = rule.from.iter().chain(&rule.to).flatten().chain(&rule.when);
        let untranslatable = |field: &Field| field.key.starts_with("request.headersx") || field.key.contains("claimsx");
        let lost = |field: &Field| untranslatable(field) || (request.protocol == Protocol::Tcp && is_http(&field.key));
        if allow && fields.clone().any(lost) {
            return false;
        }
        let all = |fields: &[Field]| fields.iter().all(|field| lost(field) || self.field(policy, field, request));
        (rule.from.is_empty() || rule.from.iter().any(|source| all(source)))
            && (rule.to.is_empty() || rule.to.iter().any(|operation| all(operation)))
            && all(&rule.when)
    }

    fn field(&self, policy: &Policy, field: &Field, request: &Request<'_>) -> bool {
        let allow = policy.action == "ALLOW";
        if field.key == "route" && request.route.is_none() {
            return !allow;
        }
        if let Some(name) = field.key.strip_prefix("request.headers[") {
            return self.header(name.trim_end_matches(']'), field, request, allow);
        }
        if let (Some(resolved), "paths") = (request.resolved_path, &*field.key) {
            let read = |path| Request { path, resolved_path: None, ..*request };
            let listed = |values: &[String], path| {
                values.iter().any(|value| self.listed(self.mode, policy, "paths", value, &read(path)))
            };
            let (yes, no) = (&field.values, &field.not_values);
            let both = [request.path, resolved];
            return if allow {
                both.iter().all(|path| (yes.is_empty() || listed(yes, path)) && !listed(no, path))
            } else {
                (yes.is_empty() || both.iter().any(|path| listed(yes, path)))
                    && (no.is_empty() || both.iter().any(|path| !listed(no, path)))
            };
        }
        let (yes, no) = (&field.values, &field.not_values);
        let by = |reading, values: &[String], request: &Request<'_>| {
            values.iter().any(|value| self.listed(reading, policy, &field.key, value, request))
        };
        if self.mode == Mode::Compat {
            return (yes.is_empty() || by(Mode::Compat, yes, request))
                && (no.is_empty() || !by(Mode::Compat, no, request));
        }
        // Where Istio reads a list in another way, ALLOW wants both readings in order, and else one that is not is enough.
        let of_both = |holds: &dyn Fn(Mode) -> bool| {
            let both = [holds(Mode::Strict), holds(Mode::Compat)];
            if allow { both == [true; 2] } else { both != [false; 2] }
        };
        let plain = (yes.is_empty() || of_both(&|reading| by(reading, yes, request)))
            && (no.is_empty() || of_both(&|reading| !by(reading, no, request)));
        if (&*field.key, request.method) != ("methods", "HEAD") {
            return plain;
        }
        // A HEAD request is one of GET in whatever keeps requests out.
        let get = Request { method: "GET", ..*request };
        let (head, get) = (|values| by(Mode::Strict, values, request), |values| by(Mode::Strict, values, &get));
        if allow {
            plain && !get(no)
        } else {
            (yes.is_empty() || head(yes) || get(yes)) && (no.is_empty() || !head(no))
        }
    }

    fn header(&self, name: &str, field: &Field, request: &Request<'_>, allow: bool) -> bool {
        let mut sent: Vec<String> = Vec::new();
        request.headers.values(&name.to_lowercase(), &mut |value| {
            sent.push(String::from_utf8(value.to_vec()).unwrap());
        });
        let compat = self.mode == Mode::Compat;
        // Istio: `*` is met by a header that is there.
        let istio = |values: &[String], value: &String| values.iter().any(|p| p == "*" || string(p, value));
        let with_value = |values: &[String], value: &String| values.iter().any(|p| string(p, value));
        let (yes, no) = (&field.values, &field.not_values);
        let any = |list: &[String]| sent.iter().any(|value| istio(list, value));
        let every = |list: &[String]| !sent.is_empty() && sent.iter().all(|value| with_value(list, value));
        match (compat, allow) {
            (true, _) | (false, false) if !yes.is_empty() && !any(yes) => false,
            (true, _) | (false, true) => (compat || yes.is_empty() || every(yes)) && (no.is_empty() || !any(no)),
            (false, false) => no.is_empty() || !every(no),
        }
    }

    /// `reading`: whose idea of namespaces and service accounts.
    fn listed(&self, reading: Mode, policy: &Policy, key: &str, value: &str, request: &Request<'_>) -> bool {
        let uri = request.peer.map(|id| id.as_str());
        let regex = |regex: String| uri.is_some_and(|uri| self.full_match(&regex, uri));
        let parts: Vec<&str> = uri.map(|uri| uri.split('/').collect()).unwrap_or_default();
        let five = if let ["spiffe:", "", _, "ns", ns, "sa", account] = parts[..] { Some((ns, account)) } else { None };
        let compat = reading == Mode::Compat;
        match key {
            "principals" | "source.principal" => self.aliases(value).iter().any(|value| {
                let value: &str = value;
                if value == "*" {
                    regex(".+".to_owned())
                } else if let Some(end) = value.strip_prefix('*') {
                    regex(format!("spiffe://.*{}", regex::escape(end)))
                } else {
                    uri.is_some_and(|uri| string(&format!("spiffe://{value}"), uri))
                }
            }),
            "namespaces" | "source.namespace" if compat => {
                let value: Vec<String> = value.split('*').map(regex::escape).collect();
                regex(format!(".*/ns/{}/.*", value.join(".*")))
            }
            "namespaces" | "source.namespace" => five.is_some_and(|(ns, _)| string(value, ns)),
            "serviceAccounts" | "source.serviceAccount" => {
                let (ns, account) = value.split_once('/').unwrap_or((policy.namespace, value));
                if compat {
                    regex(format!("spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?", regex::escape(ns), regex::escape(account)))
                } else {
                    five == Some((ns, account))
                }
            }
            "trustDomains" | "source.trustDomain" => {
                let own = self.trust_domains.contains(&value);
                let all = if own { self.trust_domains.clone() } else { vec![value] };
                all.into_iter().any(|value| match value.split_once('*') {
                    Some(("", "")) => uri.is_some(),
                    Some((a, b)) => regex(format!("spiffe://{}[^/]*{}/.*", regex::escape(a), regex::escape(b))),
                    None => uri.is_some_and(|uri| uri.starts_with(&format!("spiffe://{value}/"))),
                })
            }
            "ipBlocks" | "source.ip" => in_block(value, request.source_ip),
            "remoteIpBlocks" | "remote.ip" => in_block(value, request.remote_ip),
            "destination.ip" => in_block(value, request.destination_ip),
            "ports" | "destination.port" => value == request.port.to_string(),
            "connection.sni" => string(value, request.sni.unwrap_or_default()),
            "route" => string(value, request.route.unwrap_or_default()),
            "hosts" => string(&value.to_lowercase(), &request.host.to_lowercase()),
            "methods" => string(value, request.method),
            "paths" if value.contains("{*}") || value.contains("{**}") => {
                let regex = regex::escape(value).replace(r"\{\*\*\}", ".*").replace(r"\{\*\}", "[^/]+");
                self.full_match(&regex, request.path)
            }
            "paths" => string(value, request.path),
            "requestPrincipals" | "request.auth.principal" => request.token.is_some_and(|token| {
                let claim = |name: &str| token.claims.get(name).and_then(Value::as_str);
                claim("iss").zip(claim("sub")).is_some_and(|(iss, sub)| subject(value, iss, sub))
            }),
            "request.auth.audiences" => claim(request, &["aud"], value),
            "request.auth.presenter" => claim(request, &["azp"], value),
            _ => {
                let path = key.strip_prefix("request.auth.claims[").unwrap().strip_suffix(']').unwrap();
                claim(request, &path.split("][").collect::<Vec<_>>(), value)
            }
        }
    }

    fn full_match(&self, regex: &str, text: &str) -> bool {
        let mut known = self.regexes.borrow_mut();
        let compile = || Regex::new(&format!("^(?:{regex})$")).unwrap();
        known.entry(regex.to_owned()).or_insert_with(compile).is_match(text)
    }

    /// Istio's `ReplaceTrustDomainAliases`, for aliases without stars.
    fn aliases(&self, principal: &str) -> Vec<String> {
        let parts: Vec<&str> = principal.split('/').collect();
        let [domain, rest @ ..] = &parts[..] else { return vec![principal.to_owned()] };
        let like = |own: &&&str| string(domain, own) && *domain != "*";
        let ours = *domain == "cluster.local" || self.trust_domains.iter().any(|own| like(&own));
        if rest.len() != 4 || *domain == "*" || !ours {
            return vec![principal.to_owned()];
        }
        let renamed = |own: &&str| {
            let keep = domain.starts_with('*') && string(domain, own);
            if keep { principal.to_owned() } else { format!("{own}/{}", rest.join("/")) }
        };
        self.trust_domains.iter().map(renamed).collect()
    }
}

fn is_http(key: &str) -> bool {
    matches!(key, "requestPrincipals" | "hosts" | "methods" | "paths" | "route") || key.starts_with("request.")
}

/// Envoy's string matchers as Istio uses them.
fn string(pattern: &str, value: &str) -> bool {
    if pattern == "*" {
        !value.is_empty()
    } else if let Some(end) = pattern.strip_prefix('*') {
        value.ends_with(end)
    } else if let Some(start) = pattern.strip_suffix('*') {
        value.starts_with(start)
    } else {
        pattern == value
    }
}

/// `requestPrincipalGenerator`.
fn subject(value: &str, iss: &str, sub: &str) -> bool {
    let slash = value.rfind('/');
    let (want_iss, want_sub) = slash.map_or((value, ""), |at| (&value[..at], &value[at + 1..]));
    if value == "*" {
        !iss.is_empty() && !sub.is_empty()
    } else if value.starts_with('*') && slash.is_some() {
        (if want_iss == "*" { !iss.is_empty() } else { iss.ends_with(&want_iss[1..]) }) && sub == want_sub
    } else if let Some(end) = value.strip_prefix('*') {
        !iss.is_empty() && sub.ends_with(end)
    } else if value.ends_with('*') && slash.is_some() {
        iss == want_iss && string(want_sub, sub)
    } else if let Some(start) = value.strip_suffix('*') {
        iss.starts_with(start) && !sub.is_empty()
    } else {
        iss == want_iss && sub == want_sub
    }
}

fn claim(request: &Request<'_>, path: &[&str], pattern: &str) -> bool {
    let Some(token) = request.token else { return false };
    let mut value = &Value::Object(token.claims.clone());
    for key in path {
        let Some(inner) = value.get(key) else { return false };
        value = inner;
    }
    let values: Vec<&str> = match value {
        Value::String(text) if path == ["scope"] || path == ["permission"] => text.split(' ').collect(),
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    values.into_iter().any(|value| string(pattern, value))
}

/// Addresses as strings of bits.
fn in_block(block: &str, ip: Option<IpAddr>) -> bool {
    let bits = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => format!("{:032b}", ip.to_bits()),
        IpAddr::V6(ip) => format!("{:0128b}", ip.to_bits()),
    };
    let Some(ip) = ip.map(bits) else { return false };
    let (network, length) = block.split_once('/').unwrap_or((block, "999"));
    let mapped = if network.starts_with("::ffff:") { 96 } else { 0 };
    let network = bits(network.parse().unwrap());
    let length = (length.parse::<usize>().unwrap() - mapped).min(network.len());
    network.len() == ip.len() && ip.starts_with(&network[..length])
}
