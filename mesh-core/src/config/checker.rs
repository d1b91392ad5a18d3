//! Notes problems of values that were decoded already, at the place where the file has them.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::issue::{Errors, Place};
use super::values::Quantity;
use super::yaml::{Node, Value};

/// Notes problems of fields by their path, and finds their place in the file, if there is one.
pub(super) struct Checker<'a> {
    root: Option<&'a Node>,
    errors: &'a mut Errors,
    path: String,
    /// What could not be read was noted and left out: its absence is no second problem.
    partial: bool,
}

impl<'a> Checker<'a> {
    /// `root` is the file's tree, for places; `partial` says that some of it could not be read.
    pub(super) fn new(root: Option<&'a Node>, partial: bool, errors: &'a mut Errors) -> Self {
        Self { root, errors, path: String::new(), partial }
    }

    /// Runs `check` for the fields of `name`.
    pub(super) fn below(&mut self, name: &str, check: impl FnOnce(&mut Checker<'_>)) {
        let path = self.path(name);
        check(&mut Checker { root: self.root, errors: self.errors, path, partial: self.partial });
    }

    /// Notes a problem of a field.
    pub(super) fn error(&mut self, field: &str, message: impl Into<String>) {
        let path = self.path(field);
        self.errors.push(&place(self.root, &path), message);
    }

    /// Whether the file has this field.
    pub(super) fn is_written(&self, field: &str) -> bool {
        self.root.is_some_and(|root| find(root, &self.path(field)).is_some())
    }

    /// Whether items of this list could not be read, so that neither their number nor their indices are known.
    pub(super) fn has_gaps(&self, field: &str, read: usize) -> bool {
        let path = self.path(field);
        let node = self.root.filter(|_| self.partial).and_then(|root| find(root, &path));
        node.is_some_and(|node| !matches!(&node.value, Value::List(items) if items.len() == read))
    }

    /// Whether the file has this name in a top-level section, but with settings that could not be read.
    pub(super) fn has_unread(&self, section: &str, name: &str) -> bool {
        let node = self.root.filter(|_| self.partial).and_then(|root| find(root, section));
        node.is_some_and(|node| match &node.value {
            Value::Map(entries) => entries.iter().any(|entry| entry.key == name),
            value => *value != Value::Null,
        })
    }

    /// A value out of its range is a problem.
    pub(super) fn range<T: Quantity>(&mut self, field: &str, value: T, range: RangeInclusive<T>) {
        if !range.contains(&value) {
            let (min, max) = (range.start().show(), range.end().show());
            self.error(field, format!("{} is out of range: expected {min} to {max}", value.show()));
        }
    }

    /// A value below another is a problem.
    pub(super) fn at_least(&mut self, field: &str, value: Duration, floor_name: &str, floor: Duration) {
        if value < floor {
            self.error(field, format!("{} is less than {floor_name} ({})", value.show(), floor.show()));
        }
    }

    /// A value above another is a problem.
    pub(super) fn at_most(&mut self, field: &str, value: Duration, ceiling_name: &str, ceiling: Duration) {
        if value > ceiling {
            self.error(field, format!("{} is more than {ceiling_name} ({})", value.show(), ceiling.show()));
        }
    }

    fn path(&self, field: &str) -> String {
        let joined = self.path.is_empty() || field.is_empty() || field.starts_with('[');
        if joined { format!("{}{field}", self.path) } else { format!("{}.{field}", self.path) }
    }
}

/// The node at a field path.
fn find<'n>(node: &'n Node, path: &str) -> Option<&'n Node> {
    if node.place.path == path {
        return Some(node);
    }
    let rest = path.strip_prefix(node.place.path.as_str())?;
    // `a.b` lies below `a`, `a.bc` does not lie below `a.b`.
    if !node.place.path.is_empty() && !rest.starts_with(['.', '[']) {
        return None;
    }
    match &node.value {
        Value::List(items) => items.iter().find_map(|item| find(item, path)),
        Value::Map(entries) => entries.iter().find_map(|entry| find(&entry.value, path)),
        _ => None,
    }
}

/// Where the field stands; a field that was left out stands where its mapping does.
pub(crate) fn place(root: Option<&Node>, path: &str) -> Place {
    let Some(root) = root else { return Place { path: path.to_owned(), ..Place::code() } };
    let mut shorter = path;
    loop {
        if let Some(node) = find(root, shorter) {
            return Place { path: path.to_owned(), ..node.place.clone() };
        }
        shorter = shorter.rfind(['.', '[']).and_then(|end| shorter.get(..end)).unwrap_or_default();
        if shorter.is_empty() {
            return Place { path: path.to_owned(), ..root.place.clone() };
        }
    }
}
