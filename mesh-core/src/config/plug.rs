//! A choice among registered kinds: `source: { files: { ... } }`.

use super::issue::Errors;
use super::yaml::Decode;
use super::yaml::Node;

/// The name of a kind and the settings its factory reads.
///
/// Written in YAML as a map with one entry: the kind, then its settings.
#[derive(Debug, Clone, PartialEq)]
pub struct PlugConfig {
    /// The registered name, for example `dev_ca`.
    pub kind: String,
    /// What the factory decodes; it knows its place in the file.
    pub settings: Node,
}

impl PlugConfig {
    /// A kind and its settings, given in code.
    ///
    /// ```
    /// use mesh_core::config::PlugConfig;
    /// let discover = PlugConfig::new("static", &serde_json::json!(["127.0.0.1:8443"]));
    /// # assert_eq!(discover.kind, "static");
    /// ```
    pub fn new(kind: impl Into<String>, settings: &serde_json::Value) -> Self {
        Self { kind: kind.into(), settings: Node::from(settings) }
    }
}

impl Decode for PlugConfig {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        match node.entries(errors)? {
            [entry] => Some(Self { kind: entry.key.clone(), settings: entry.value.clone() }),
            entries => {
                let found = entries.len();
                errors.push(&node.place, format!("expected one kind with its settings, found {found} fields"));
                None
            }
        }
    }
}
