//! `PeerAuthentication`.

use std::collections::BTreeMap;

use super::super::peer_authentication::{PeerAuthentication, PeerMode};
use super::metadata::{self, Metadata};
use super::{Mode, Reading};
use crate::config::yaml::{Decode, Value};
use crate::config::{Errors, Fields, Node, Timestamp};

impl Decode for PeerMode {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let words = [
            ("UNSET", Self::Unset),
            ("DISABLE", Self::Disable),
            ("PERMISSIVE", Self::Permissive),
            ("STRICT", Self::Strict),
        ];
        node.choice(&words, errors)
    }
}

/// `{ mode: MODE }`.
fn mtls(node: &Node, errors: &mut Errors) -> Option<PeerMode> {
    let mut fields = Fields::of(node, errors)?;
    let mode = fields.or("mode", PeerMode::Unset);
    fields.finish();
    Some(mode)
}

pub(super) fn document(
    node: &Node,
    metadata: &Node,
    spec: &Node,
    mode: Mode,
    errors: &mut Errors,
) -> Option<PeerAuthentication> {
    let mut fields = Fields::of(metadata, errors)?;
    // Kubernetes writes `null` where there is none yet.
    let created = fields.node("creationTimestamp").filter(|node| node.value != Value::Null);
    let created = created.and_then(|node| Timestamp::decode(node, fields.errors()));
    let Metadata { namespace, name, .. } = metadata::without_trial(metadata, errors)?;
    let reading = Reading::without_rules(mode, &namespace);
    let mut fields = Fields::of(spec, errors)?;
    let selector = match fields.node("selector") {
        None => BTreeMap::new(),
        Some(node) => metadata::selector(node, &reading, fields.errors()).unwrap_or_default(),
    };
    let mode = fields.node("mtls").and_then(|node| mtls(node, fields.errors())).unwrap_or_default();
    let mut ports = BTreeMap::new();
    if let Some(node) = fields.node("portLevelMtls") {
        let entries = node.entries(fields.errors()).unwrap_or_default();
        if selector.is_empty() {
            fields.errors().push(&node.place, "`portLevelMtls` needs a `selector`: a port is one of a workload");
        }
        if entries.is_empty() {
            fields.errors().push(&node.place, "at least one port is required");
        }
        for entry in entries {
            match entry.key.parse::<u16>() {
                Ok(port @ 1..) => ports.extend(mtls(&entry.value, fields.errors()).map(|mode| (port, mode))),
                _ => fields.errors().push(&entry.place, "expected a port from 1 to 65535"),
            }
        }
    }
    fields.finish();
    Some(PeerAuthentication {
        name: format!("{namespace}/{name}").into(),
        namespace: namespace.as_str().into(),
        created: created.map(|Timestamp(time)| time),
        selector,
        mode,
        ports,
        doubts: reading.doubts.into_inner(),
        place: node.place.clone(),
    })
}
