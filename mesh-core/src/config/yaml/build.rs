//! From the parser's events to trees, within bounds.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, ScalarStyle, Span, Tag};

use super::node::{Entry, Node, Value, depth, relocate, size};
use super::scalar::core_schema;
use crate::config::issue::{Errors, Place, join};

/// Mappings and sequences inside each other.
pub const MAX_DEPTH: usize = 64;
/// Nodes of one file, those that aliases repeat included.
pub const MAX_NODES: usize = 100_000;
/// Bytes of strings and field paths of one file's tree: a long string repeated by aliases is no small thing.
const MAX_EXPANDED: usize = 32 * 1024 * 1024;

/// The problem was noted; nothing that follows in this file can be trusted.
pub(super) struct Broken;

enum Frame {
    List { place: Place, anchor: usize, items: Vec<Node> },
    Map { place: Place, anchor: usize, entries: Vec<Entry>, lines: HashMap<String, u32>, key: Option<Key> },
}

struct Key {
    text: String,
    place: Place,
    keep: bool,
}

/// Turns the parser's events into trees, without recursion.
pub(super) struct Builder<'e> {
    file: Arc<str>,
    pub(super) errors: &'e mut Errors,
    pub(super) documents: Vec<Node>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    bytes: usize,
}

impl<'e> Builder<'e> {
    pub(super) fn new(file: &str, errors: &'e mut Errors) -> Self {
        let (documents, stack, anchors) = (Vec::new(), Vec::new(), HashMap::new());
        Self { file: file.into(), errors, documents, stack, anchors, nodes: 0, bytes: 0 }
    }

    pub(super) fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Broken> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), span)?;
                if self.expects_key() {
                    return self.key(&text, &value, span);
                }
                let node = Node { place: self.place(span), value };
                self.charge(&node, span)?;
                self.finish(node, anchor, span)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(tag.as_deref(), "seq", span)?;
                let place = self.place(span);
                self.stack.push(Frame::List { place, anchor, items: Vec::new() });
                Ok(())
            }
            Event::MappingStart(anchor, tag) => {
                self.open(tag.as_deref(), "map", span)?;
                let place = self.place(span);
                self.stack.push(Frame::Map { place, anchor, entries: Vec::new(), lines: HashMap::new(), key: None });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Frame::List { place, anchor, items }) => {
                    self.finish(Node { place, value: Value::List(items) }, anchor, span)
                }
                Some(Frame::Map { place, anchor, entries, .. }) => {
                    self.finish(Node { place, value: Value::Map(entries) }, anchor, span)
                }
                None => Err(self.refuse(span, "not valid YAML: unbalanced end")),
            },
            Event::Alias(anchor) => self.alias(anchor, span),
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Broken> {
        if self.expects_key() {
            return Err(self.refuse(span, "an alias cannot be a key"));
        }
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(self.refuse(span, "an alias cannot stand inside the node that it repeats"));
        };
        if self.stack.len() + depth(anchored) > MAX_DEPTH {
            return Err(self.refuse(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let path = self.path();
        // Paid for before it is copied.
        let (nodes, bytes) = size(anchored);
        self.spend(nodes, bytes.saturating_add(nodes.saturating_mul(path.len())), span)?;
        let Some(mut node) = self.anchors.get(&anchor).cloned() else { return Err(Broken) };
        // The text stands at the anchor, the field is the one that uses it.
        relocate(&mut node, path);
        self.finish(node, 0, span)
    }

    fn open(&mut self, tag: Option<&Tag>, kind: &str, span: Span) -> Result<(), Broken> {
        if tag.is_some_and(|tag| !(tag.is_yaml_core_schema() && tag.suffix == kind)) {
            return Err(self.refuse(span, "tags are not supported: remove the `!...`"));
        }
        if self.expects_key() {
            return Err(self.refuse(span, "a key must be a string, not a list or a mapping"));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.refuse(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.spend(1, self.bytes_of_path(), span)
    }

    fn key(&mut self, text: &str, value: &Value, span: Span) -> Result<(), Broken> {
        let parent = self.path();
        let place = self.place_at(span, join(&parent, text));
        if !matches!(value, Value::String(_)) {
            self.errors.push(&place, format!("a key must be a string: write \"{text}\""));
        }
        let mut first = None;
        if let Some(Frame::Map { lines, key, .. }) = self.stack.last_mut() {
            first = lines.get(text).copied();
            lines.entry(text.to_owned()).or_insert(place.line);
            *key = Some(Key { text: text.to_owned(), place: place.clone(), keep: first.is_none() });
        }
        if let Some(line) = first {
            self.errors.push(&place, format!("duplicate key `{text}`: it was given in line {line}"));
        }
        self.spend(0, text.len(), span)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Value, Broken> {
        let plain = if style == ScalarStyle::Plain { core_schema(text) } else { Value::String(text.to_owned()) };
        let Some(tag) = tag else { return Ok(plain) };
        let string = Value::String(text.to_owned());
        let typed = match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
            (true, "str") => Some(string),
            (false, "") if tag.handle == "!" => Some(string),
            (true, "int") => Some(core_schema(text)).filter(|value| matches!(value, Value::Int(_))),
            (true, "bool") => Some(core_schema(text)).filter(|value| matches!(value, Value::Bool(_))),
            (true, "null") => Some(core_schema(text)).filter(|value| matches!(value, Value::Null)),
            (true, "float") => Some(core_schema(text)).filter(|value| matches!(value, Value::Int(_) | Value::Float(_))),
            _ => None,
        };
        typed.ok_or_else(|| self.refuse(span, "this tag is not supported: remove the `!...`"))
    }

    /// Puts a complete node where it belongs.
    fn finish(&mut self, node: Node, anchor: usize, span: Span) -> Result<(), Broken> {
        if anchor > 0 {
            self.charge(&node, span)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, key, .. }) => {
                if let Some(Key { text, place, keep: true }) = key.take() {
                    entries.push(Entry { key: text, place, value: node });
                }
            }
            None if node.value == Value::Null => {}
            None => self.documents.push(node),
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame::Map { key: None, .. }))
    }

    /// The path of the node that comes next.
    fn path(&self) -> String {
        match self.stack.last() {
            Some(Frame::List { place, items, .. }) => format!("{}[{}]", place.path, items.len()),
            Some(Frame::Map { key: Some(key), .. }) => key.place.path.clone(),
            Some(Frame::Map { place, .. }) => place.path.clone(),
            None => String::new(),
        }
    }

    fn bytes_of_path(&self) -> usize {
        match self.stack.last() {
            Some(Frame::List { place, .. } | Frame::Map { place, key: None, .. }) => place.path.len(),
            Some(Frame::Map { key: Some(key), .. }) => key.place.path.len(),
            None => 0,
        }
    }

    fn place(&self, span: Span) -> Place {
        self.place_at(span, self.path())
    }

    fn place_at(&self, span: Span, path: String) -> Place {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (line, column) = (number(span.start.line()), number(span.start.col()).saturating_add(1));
        Place { file: Arc::clone(&self.file), line, column, path }
    }

    pub(super) fn refuse(&mut self, span: Span, message: impl Into<String>) -> Broken {
        let place = self.place(span);
        self.errors.push(&place, message);
        Broken
    }

    /// Counts a whole subtree.
    fn charge(&mut self, node: &Node, span: Span) -> Result<(), Broken> {
        let (nodes, bytes) = size(node);
        self.spend(nodes, bytes, span)
    }

    fn spend(&mut self, nodes: usize, bytes: usize, span: Span) -> Result<(), Broken> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > MAX_NODES {
            return Err(self.refuse(span, format!("more than {MAX_NODES} nodes, aliases expanded")));
        }
        if self.bytes > MAX_EXPANDED {
            return Err(self.refuse(span, format!("more than {MAX_EXPANDED} bytes, aliases expanded")));
        }
        Ok(())
    }
}
