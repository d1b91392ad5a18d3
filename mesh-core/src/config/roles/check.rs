//! Judges roles and bindings.

use std::collections::BTreeSet;

use super::{PermissionConfig, SubjectsConfig};
use crate::config::checker::Checker;
use crate::config::issue::Errors;
use crate::config::nearest::suggestion;
use crate::config::yaml::Node;
use crate::config::{Config, ConfigIssue};
use crate::policy::canonical::Canonicalization;
use crate::policy::roles;

impl Config {
    /// `roles`, `bindings` and `authorization.groups_claim`.
    pub(in crate::config) fn check_roles(&self, at: &mut Checker<'_>) {
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
