//! A choice among registered kinds: `source: { files: { ... } }`.

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
