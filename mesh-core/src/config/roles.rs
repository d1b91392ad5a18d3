//! `roles:` and `bindings:` - who may do what, in two short lists instead of policy documents.

use std::collections::BTreeSet;

use super::checker::Checker;
use super::issue::Errors;
use super::nearest::suggestion;
use super::walk::Fields;
use super::yaml::{Decode, Node, Value};
use super::{Config, ConfigIssue};
use crate::policy::canonical::Canonicalization;
use crate::policy::roles;

/// One thing that a role may do. `methods` and `paths` both hold where both are written; `grpc` stands alone.
///
/// ```yaml
/// roles:
///   orders-reader:
///     - { methods: [ GET, HEAD ], paths: [ "/orders/*" ] }
///     - { grpc: [ "shop.Orders/Get", "shop.Catalog/*" ] }
/// ```
///
/// A role may do what any of its entries says. A list that is written must hold something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PermissionConfig {
    /// Methods in upper case, whole. Default: every method.
    pub methods: Option<Vec<String>>,
    /// Paths as in policies: exact, `/orders/*`, `*.json`, or with `{*}` and `{**}`; no request may have another form than
    /// `authorization.canonical` gives. Default: every path.
    pub paths: Option<Vec<String>>,
    /// gRPC methods: `shop.Payments/Charge`, or `shop.Payments/*` for all of a service.
    pub grpc: Option<Vec<String>>,
}

/// Gives a role to callers.
///
/// ```yaml
/// bindings:
///   - name: web
///     role: orders-reader
///     to: { identities: [ "spiffe://shop.example/ns/shop/sa/web" ], scopes: [ "orders:read" ] }
/// ```
///
/// Each binding of a role is compiled to an ALLOW policy of the workload, `NAMESPACE/role:ROLE/BINDING`, with one rule for
/// each list in `to`. Such policies stand beside those of `policies`: what any of them allows is allowed, and DENY and
/// CUSTOM policies come first as ever. A role that nobody has is a policy that allows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BindingConfig {
    /// What audit records and explanations call it. Default: its place in the list, `0`, `1`, ...
    pub name: Option<String>,
    /// One of `roles`.
    pub role: String,
    /// Who has it.
    pub to: SubjectsConfig,
}

/// Callers. One entry of one list is enough; whoever must be several things at once is bound by one of them, and the route
/// asks for the other (`mesh_tower::require`), or a policy does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SubjectsConfig {
    /// SPIFFE IDs, as the certificate or a pinned gateway proves them; `spiffe://shop.example/ns/shop/*` for all below.
    pub identities: Option<Vec<String>>,
    /// `ISSUER/SUBJECT` of the verified token, `ISSUER/*` for all of an issuer; as `requestPrincipals` in policies.
    pub request_principals: Option<Vec<String>>,
    /// Groups in the claim that `authorization.groups_claim` names, whole, of a token of any accepted issuer.
    pub groups: Option<Vec<String>>,
    /// Scopes in `scope` or `scp`, whole, of a token of any accepted issuer. (RFC 6749 3.3, RFC 9068 2.2.3)
    pub scopes: Option<Vec<String>>,
}

impl BindingConfig {
    /// A binding without a name.
    pub fn new(role: impl Into<String>, to: SubjectsConfig) -> Self {
        Self { name: None, role: role.into(), to }
    }

    /// What it is called at this place of the list.
    pub(crate) fn label(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| index.to_string())
    }
}

impl Decode for PermissionConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let permission = Self {
            methods: fields.optional("methods"),
            paths: fields.optional("paths"),
            grpc: fields.optional("grpc"),
        };
        fields.finish();
        Some(permission)
    }
}

impl Decode for BindingConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let (name, role, to) = (fields.optional("name"), fields.required("role"), fields.required("to"));
        fields.finish();
        Some(Self { name, role: role?, to: to? })
    }
}

impl Decode for SubjectsConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let subjects = Self {
            identities: fields.optional("identities"),
            request_principals: fields.optional("request_principals"),
            groups: fields.optional("groups"),
            scopes: fields.optional("scopes"),
        };
        fields.finish();
        Some(subjects)
    }
}

/// `groups`, or `[realm_access, roles]` for a claim inside of another.
pub(super) struct ClaimPath(pub(super) Vec<String>);

impl Decode for ClaimPath {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match &node.value {
            Value::String(name) => Some(Self(vec![name.clone()])),
            Value::List(_) => Vec::decode(node, errors).map(Self),
            _ => node.expected("the name of a claim, or a list of the names that lead to it", errors),
        }
    }
}

impl Config {
    /// `roles`, `bindings` and `authorization.groups_claim`.
    pub(super) fn check_roles(&self, at: &mut Checker<'_>) {
        let claim = &self.groups_claim;
        if (claim.is_empty() || claim.iter().any(String::is_empty))
            && !at.has_gaps("authorization.groups_claim", claim.len())
        {
            at.error("authorization.groups_claim", "the name of a claim cannot be empty");
        }
        for (name, permissions) in &self.roles {
            at.below(&format!("roles.{name}"), |at| {
                check_name("", name, at);
                if at.has_gaps("", permissions.len()) {
                    return;
                }
                if permissions.is_empty() {
                    at.error("", "a role needs at least one entry: `{ methods: [GET], paths: [\"/orders/*\"] }`");
                }
                for (index, permission) in permissions.iter().enumerate() {
                    at.below(&format!("[{index}]"), |at| permission.check(self.canonical, at));
                }
            });
        }
        if at.has_gaps("bindings", self.bindings.len()) {
            return;
        }
        let mut seen = BTreeSet::new();
        for (index, binding) in self.bindings.iter().enumerate() {
            at.below(&format!("bindings[{index}]"), |at| {
                if !self.roles.contains_key(&binding.role) && !at.has_unread("roles", &binding.role) {
                    let hint = suggestion(&binding.role, self.roles.keys().map(String::as_str));
                    at.error("role", format!("no role is called `{}`{hint}", binding.role));
                }
                if let Some(name) = &binding.name {
                    check_name("name", name, at);
                }
                let label = binding.label(index);
                if !seen.insert((&binding.role, label.clone())) {
                    at.error("name", format!("`{}` has a binding `{label}` already", binding.role));
                }
                at.below("to", |at| binding.to.check(at));
            });
        }
    }

    /// Roles that no binding gives to anybody, with their places: nobody has them, which is hardly meant.
    pub(crate) fn unbound_roles(&self, root: Option<&Node>) -> Vec<ConfigIssue> {
        let mut found = Errors::default();
        let at = &mut Checker::new(root, false, &mut found);
        for name in self.roles.keys().filter(|name| !self.bindings.iter().any(|binding| binding.role == **name)) {
            at.error(&format!("roles.{name}"), "no binding gives this role to anybody");
        }
        found.issues().to_vec()
    }
}

impl PermissionConfig {
    fn check(&self, canonical: Canonicalization, at: &mut Checker<'_>) {
        let Self { methods, paths, grpc } = self;
        check_list("methods", methods, at, |text| roles::method(text).map(drop));
        check_list("paths", paths, at, |text| roles::path(text, canonical).map(drop));
        check_list("grpc", grpc, at, |text| roles::grpc(text).map(drop));
        if grpc.is_some() && (methods.is_some() || paths.is_some()) {
            at.error(
                "grpc",
                "`grpc` says method and path itself: write `methods` and `paths` in an entry of their own",
            );
        }
        let unread = ["methods", "paths", "grpc"].into_iter().any(|field| at.has_gaps(field, 0));
        if methods.is_none() && paths.is_none() && grpc.is_none() && !unread {
            at.error("", "expected `methods`, `paths` or `grpc`; for everything write `paths: [\"/*\"]`");
        }
    }
}

impl SubjectsConfig {
    fn check(&self, at: &mut Checker<'_>) {
        let Self { identities, request_principals, groups, scopes } = self;
        check_list("identities", identities, at, |text| roles::identity(text).map(drop));
        check_list("request_principals", request_principals, at, |text| roles::request_principal(text).map(drop));
        check_list("groups", groups, at, |text| roles::group(text).map(drop));
        check_list("scopes", scopes, at, |text| roles::scope(text).map(drop));
        let fields = ["identities", "request_principals", "groups", "scopes"];
        let unread = fields.into_iter().any(|field| at.has_gaps(field, 0));
        let nobody = [identities, request_principals, groups, scopes].into_iter().all(Option::is_none);
        if nobody && !unread {
            at.error("", "expected `identities`, `request_principals`, `groups` or `scopes`");
        }
    }
}

/// Names stand in audit records and metrics, between `/` and `:`.
fn check_name(field: &str, name: &str, at: &mut Checker<'_>) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=63).contains(&name.len()) || !name.bytes().all(plain) {
        at.error(field, format!("{name:?} is no name: expected at most 63 of [a-zA-Z0-9._-]"));
    }
}

fn check_list(
    field: &str,
    list: &Option<Vec<String>>,
    at: &mut Checker<'_>,
    check: impl Fn(&str) -> Result<(), String>,
) {
    let Some(list) = list else { return };
    if at.has_gaps(field, list.len()) {
        return;
    }
    if list.is_empty() {
        at.error(field, "an empty list is refused: leave the field out, or say what it holds");
    }
    for (index, text) in list.iter().enumerate() {
        if let Err(why) = check(text) {
            at.error(&format!("{field}[{index}]"), why);
        }
    }
}
