//! `RequestAuthentication`.

use super::super::request_authentication::{JwtRule, RequestAuthentication};
use super::metadata::{self, Metadata};
use super::{Mode, Reading, items, list, no_items, text};
use crate::config::yaml::{Entry, Value};
use crate::config::{ClaimHeader, Decode, Errors, Fields, IssuerConfig, Node, PlugConfig, TokenHeader, place};
use crate::token::{Jwks, check_url};

pub(super) fn document(
    node: &Node,
    metadata: &Node,
    spec: &Node,
    mode: Mode,
    errors: &mut Errors,
) -> Option<RequestAuthentication> {
    let Metadata { namespace, name, .. } = metadata::without_trial(metadata, errors)?;
    let reading = Reading::without_rules(mode, &namespace);
    let mut fields = Fields::of(spec, errors)?;
    let scope = metadata::scope(&mut fields, &reading);
    let rules = match fields.node("jwtRules") {
        None => {
            let message = "no rule: the document says nothing; delete it, or say whose tokens are taken";
            reading.doubt(&spec.place.field("jwtRules"), message, fields.errors());
            Vec::new()
        }
        Some(rules) if no_items(rules, &reading, fields.errors()) => Vec::new(),
        Some(rules) => items(rules, fields.errors(), |rule, errors| self::rule(rule, node, &reading, errors)),
    };
    fields.finish();
    let scope = scope?;
    Some(RequestAuthentication {
        name: format!("{namespace}/{name}").into(),
        namespace: namespace.as_str().into(),
        selector: scope.selector,
        target_services: scope.target_services,
        rules,
        doubts: reading.doubts.into_inner(),
        place: node.place.clone(),
    })
}

/// One of `jwtRules`; `document` is the tree that it stands in.
fn rule(node: &Node, document: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<JwtRule> {
    let before = errors.issues().len();
    let mut fields = Fields::of(node, errors)?;
    let texts = |fields: &mut Fields<'_>, name| {
        list(fields, reading, name, |item, errors| text(item, errors).map(str::to_owned)).unwrap_or_default()
    };
    let issuer = written(&mut fields, "issuer", reading);
    if issuer.is_none() {
        let place = fields.place("issuer");
        fields.errors().push(&place, "a rule needs the exact `iss` of its tokens: keys vouch for one issuer alone");
    }
    let audiences = texts(&mut fields, "audiences");
    if audiences.is_empty() && reading.mode == Mode::Strict {
        let message = "a rule without `audiences` takes tokens that are meant for other services: list what this one is \
                       called in `aud`, or have it read as Istio does by `authorization: { mode: compat }`";
        let place = fields.place("audiences");
        fields.errors().push(&place, message);
    }
    let jwks = keys(&mut fields, issuer, reading);
    let from_headers = list(&mut fields, reading, "fromHeaders", TokenHeader::decode).unwrap_or_default();
    let outputs = list(&mut fields, reading, "outputClaimToHeaders", ClaimHeader::decode).unwrap_or_default();
    let (from_params, from_cookies) = (texts(&mut fields, "fromParams"), texts(&mut fields, "fromCookies"));
    let payload = written(&mut fields, "outputPayloadToHeader", reading).and_then(Node::as_str);
    let forward_original_token = fields.or("forwardOriginalToken", false);
    split_claims(&mut fields, reading);
    fields.finish();
    let any_audience = audiences.is_empty();
    let issuer = IssuerConfig {
        dangerous_any_audience: any_audience,
        from_headers,
        from_params,
        from_cookies,
        output_payload_to_header: payload.map(str::to_owned),
        output_claim_to_headers: outputs,
        forward_original_token,
        ..IssuerConfig::new(issuer.and_then(Node::as_str)?, audiences, jwks?)
    };
    // Of what could not be read enough has been said.
    if errors.issues().len() == before {
        for issue in issuer.issues() {
            let path = format!("{}.{}", node.place.path, camel_case(&issue.place.path));
            errors.push(&place(Some(document), &path), issue.message);
        }
    }
    Some(JwtRule { issuer, place: node.place.clone() })
}

/// A text that says something. An empty one is to Istio as if it were not there.
fn written<'a>(fields: &mut Fields<'a>, name: &'static str, reading: &Reading<'_>) -> Option<&'a Node> {
    let node = fields.node(name)?;
    if text(node, fields.errors())?.is_empty() {
        reading.doubt(&node.place, "cannot be empty; leave the field out", fields.errors());
        return None;
    }
    Some(node)
}

/// Where the keys are.
fn keys(fields: &mut Fields<'_>, issuer: Option<&Node>, reading: &Reading<'_>) -> Option<PlugConfig> {
    let (uri, set) = (written(fields, "jwksUri", reading), written(fields, "jwks", reading));
    let timeout = fields.node("timeout");
    let wrong = |node: &Node, fields: &mut Fields<'_>, why: &str| fields.errors().push(&node.place, why);
    match (uri, set) {
        (Some(_), Some(set)) => {
            wrong(set, fields, "`jwks` and `jwksUri` exclude each other: one of them has the keys");
            None
        }
        (Some(uri), None) => {
            if let Err(why) = check_url(uri.as_str().unwrap_or_default(), false) {
                wrong(uri, fields, why);
            }
            Some(fetched("url", uri, Some(("uri", uri)), timeout))
        }
        (None, Some(set)) => {
            if let Err(error) = Jwks::parse(set.as_str().unwrap_or_default().as_bytes()) {
                wrong(set, fields, &error.0);
            }
            if let Some(timeout) = timeout {
                reading.doubt(&timeout.place, "nothing is fetched where `jwks` has the keys", fields.errors());
            }
            Some(PlugConfig { kind: "inline".to_owned(), settings: set.clone() })
        }
        (None, None) => {
            let issuer = issuer?;
            if let Err(why) = check_url(issuer.as_str().unwrap_or_default(), false) {
                let why = format!("without `jwks` and `jwksUri` the keys are discovered at the issuer: {why}");
                wrong(issuer, fields, &why);
            }
            Some(fetched("discovery", issuer, None, timeout))
        }
    }
}

/// Keys over HTTPS; what is wrong with them is said `at` this field.
fn fetched(kind: &str, at: &Node, uri: Option<(&str, &Node)>, timeout: Option<&Node>) -> PlugConfig {
    let entry =
        |(key, node): (&str, &Node)| Entry { key: key.to_owned(), place: node.place.clone(), value: node.clone() };
    let entries = timeout.map(|node| ("timeout", node)).into_iter().chain(uri).map(entry).collect();
    PlugConfig { kind: kind.to_owned(), settings: Node { place: at.place.clone(), value: Value::Map(entries) } }
}

/// Claims that are lists with spaces between: `scope` and `permission` are always read so, no other is.
fn split_claims(fields: &mut Fields<'_>, reading: &Reading<'_>) {
    list(fields, reading, "spaceDelimitedClaims", |item, errors| {
        let name = text(item, errors)?;
        if !matches!(name, "scope" | "permission") {
            errors
                .push(&item.place, format!("`{name}` is not split: `scope` and `permission` are, without being named"));
        }
        Some(())
    });
}

/// The path of a field of `tokens:` as it is written here.
fn camel_case(path: &str) -> String {
    let mut upper = false;
    let mut written = String::with_capacity(path.len());
    for letter in path.chars() {
        match letter {
            '_' => upper = true,
            _ if upper => {
                written.push(letter.to_ascii_uppercase());
                upper = false;
            }
            _ => written.push(letter),
        }
    }
    written
}
