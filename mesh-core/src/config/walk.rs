//! From tree to values: collects every error and leaves no field unread.

use std::fmt;

use super::yaml::{Node, Place};

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigIssue {
    /// Where.
    pub place: Place,
    /// What was found, what was expected, what to do.
    pub message: String,
}

impl fmt::Display for ConfigIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Collects problems, so that the user sees all of them at once.
#[derive(Debug, Default)]
pub struct Errors {
    issues: Vec<ConfigIssue>,
}

impl Errors {
    /// Notes a problem.
    pub fn push(&mut self, place: &Place, message: impl Into<String>) {
        self.issues.push(ConfigIssue { place: place.clone(), message: message.into() });
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.issues.is_empty()
    }

    /// What was noted, in order.
    pub fn issues(&self) -> &[ConfigIssue] {
        &self.issues
    }

    /// `Ok(value)` if nothing was noted and there is a value.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, super::ConfigError> {
        match value {
            Some(value) if self.issues.is_empty() => Ok(value),
            _ => Err(super::ConfigError::new(self.issues)),
        }
    }
}

/// A value that can be read from a [`Node`].
pub trait Decode: Sized {
    /// Reads the value, or notes why it cannot and returns `None`.
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self>;
}

/// Reads the fields of a mapping, one by one, and finally refuses those that nobody asked for.
///
/// ```ignore
/// let mut fields = Fields::of(node, errors)?;
/// let name = fields.required("name");
/// let timeout = fields.optional("timeout").unwrap_or(DEFAULT);
/// fields.finish();                       // unknown fields, with the nearest known name
/// Some(Self { name: name?, timeout })
/// ```
#[derive(Debug)]
pub struct Fields<'a> {
    node: &'a Node,
    errors: &'a mut Errors,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of `node`, which must be a mapping (null counts as an empty one).
    pub fn of(node: &'a Node, errors: &'a mut Errors) -> Option<Self> {
        let _ = (node, errors);
        unimplemented!()
    }

    /// A field that must be there.
    pub fn required<T: Decode>(&mut self, name: &'static str) -> Option<T> {
        let _ = name;
        unimplemented!()
    }

    /// A field that may be missing. `None` when it is missing or wrong; wrong has then been noted.
    pub fn optional<T: Decode>(&mut self, name: &'static str) -> Option<T> {
        let _ = name;
        unimplemented!()
    }

    /// The raw node of a field, marked as read.
    pub fn node(&mut self, name: &'static str) -> Option<&'a Node> {
        let _ = name;
        unimplemented!()
    }

    /// Notes a problem of this mapping's own.
    pub fn error(&mut self, message: impl Into<String>) {
        self.errors.push(&self.node.place, message);
    }

    /// The collector, for reading a field by hand.
    pub fn errors(&mut self) -> &mut Errors {
        self.errors
    }

    /// Refuses every field that was not asked for, and names the nearest that was.
    pub fn finish(self) {
        unimplemented!()
    }
}
