//! `roles:` and `bindings:` - who may do what, in two short lists instead of policy documents.

mod check;

use super::issue::Errors;
use super::walk::Fields;
use super::yaml::{Decode, Node, Value};

/// One thing that a role may do.
///
/// `methods` and `paths` both hold where both are written; `grpc` stands alone.
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

/// Callers.
///
/// One entry of one list is enough; whoever must be several things at once is bound by one of them, and the route asks
/// for the other (`mesh_tower::require`), or a policy does.
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
