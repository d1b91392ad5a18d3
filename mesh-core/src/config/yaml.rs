//! A YAML tree in which every node knows its file, line, column and field path.

use std::fmt;
use std::sync::Arc;

use super::walk::Errors;

/// Where something stands in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as the user named it; `<code>` for values that did not come from a file.
    pub file: Arc<str>,
    /// 1-based; 0 when unknown.
    pub line: u32,
    /// 1-based; 0 when unknown.
    pub column: u32,
    /// For example `clusters.payments.outlier.base_ejection` or `spec.rules[0].from[1]`.
    pub path: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, ": {}", self.path) }
    }
}

/// One node of the tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it starts.
    pub place: Place,
    /// What it holds.
    pub value: Value,
}

/// What a [`Node`] holds. Plain scalars are typed by YAML 1.2's core schema; quoted ones are strings.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Everything else.
    String(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file; keys are unique strings.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands; its path is that of the value.
    pub place: Place,
    /// The value.
    pub value: Node,
}

/// Parses every document of `text`. Problems go to `errors`; a broken file yields the documents before the break.
///
/// Bounded: 1 MiB of text, 64 levels, 100,000 nodes after aliases are expanded. Duplicate and non-string keys are
/// errors.
pub fn parse(file: &str, text: &str, errors: &mut Errors) -> Vec<Node> {
    let _ = (file, text, errors);
    unimplemented!()
}

impl From<&serde_json::Value> for Node {
    /// A tree for settings given in code, at the place `<code>`.
    fn from(value: &serde_json::Value) -> Self {
        let _ = value;
        unimplemented!()
    }
}
