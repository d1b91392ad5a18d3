//! A YAML tree in which every node knows its file, line, column and field path.
//!
//! An error without a place is a search. Deserializers built on serde stop at the first problem and lose field paths,
//! so the tree is built from the parser's own events and [`walk`](super::walk) reads values out of it.
//!
//! The text may come from an editor that was interrupted or from an attacker's pull request: everything is bounded, and
//! what YAML allows but nobody means - duplicate keys, keys that are not strings, custom tags - is refused.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::issue::{Errors, Place, join};

/// Bytes of one file.
pub const MAX_TEXT: usize = 1024 * 1024;
/// Mappings and sequences inside each other.
pub const MAX_DEPTH: usize = 64;
/// Nodes of one file, those that aliases repeat included.
pub const MAX_NODES: usize = 100_000;
/// Bytes of strings and field paths of one file's tree: a long string repeated by aliases is no small thing.
const MAX_EXPANDED: usize = 32 * 1024 * 1024;

/// One node of the tree. Equality is that of the values: moved text is no change.
#[derive(Debug, Clone)]
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

/// One entry of a mapping. Equality is that of key and value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands; its path is that of the value.
    pub place: Place,
    /// The value.
    pub value: Node,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.value == other.value
    }
}

/// A value that can be read from a [`Node`].
pub trait Decode: Sized {
    /// Reads the value, or notes why it cannot and returns `None`.
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self>;
}

/// Parses every document of `text`. Problems go to `errors`; a broken file yields the documents before the break.
///
/// Bounded: 1 MiB of text, 64 levels, 100,000 nodes after aliases are expanded. Duplicate and non-string keys are
/// errors. A document that is empty or null is left out.
pub fn parse(file: &str, text: &str, errors: &mut Errors) -> Vec<Node> {
    let mut builder = Builder::new(file, errors);
    if text.len() > MAX_TEXT {
        let message = format!("the file has {} bytes; at most {MAX_TEXT} are read", text.len());
        builder.errors.push(&Place::file(file), message);
        return Vec::new();
    }
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let done = match next {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                let span = Span::empty(*error.marker());
                Err(builder.refuse(span, format!("not valid YAML: {}", error.info())))
            }
        };
        if done.is_err() {
            break;
        }
    }
    builder.documents
}

/// The problem was noted; nothing that follows in this file can be trusted.
struct Broken;

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
struct Builder<'e> {
    file: Arc<str>,
    errors: &'e mut Errors,
    documents: Vec<Node>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    bytes: usize,
}

impl<'e> Builder<'e> {
    fn new(file: &str, errors: &'e mut Errors) -> Self {
        let (documents, stack, anchors) = (Vec::new(), Vec::new(), HashMap::new());
        Self { file: file.into(), errors, documents, stack, anchors, nodes: 0, bytes: 0 }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Broken> {
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

    fn refuse(&mut self, span: Span, message: impl Into<String>) -> Broken {
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

// Recursion below is at most `MAX_DEPTH` deep: trees are built with that bound.

fn size(node: &Node) -> (usize, usize) {
    let own = node.place.path.len();
    let add = |(nodes, bytes): (usize, usize), (n, b): (usize, usize)| (nodes + n, bytes + b);
    match &node.value {
        Value::String(text) => (1, own + text.len()),
        Value::List(items) => items.iter().map(size).fold((1, own), add),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.value)).fold((1, own), add),
        _ => (1, own),
    }
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
        _ => 0,
    }
}

fn relocate(node: &mut Node, path: String) {
    match &mut node.value {
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                relocate(item, format!("{path}[{index}]"));
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                entry.place.path = join(&path, &entry.key);
                relocate(&mut entry.value, entry.place.path.clone());
            }
        }
        _ => {}
    }
    node.place.path = path;
}

/// The type of a plain scalar. (YAML 1.2.2, 10.3.2)
fn core_schema(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let radix = |prefix: &str, radix: u32| {
        let digits = text.strip_prefix(prefix)?;
        let unsigned = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        unsigned.then(|| i64::from_str_radix(digits, radix).ok())?
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| text.parse().ok()) {
        return Value::Int(number);
    }
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    match text.parse() {
        Ok(number) if decimal => Value::Float(number),
        _ => Value::String(text.to_owned()),
    }
}

impl From<&serde_json::Value> for Node {
    /// A tree for settings given in code, at the place `<code>`.
    fn from(value: &serde_json::Value) -> Self {
        let mut node = from_json(value);
        relocate(&mut node, String::new());
        node
    }
}

fn from_json(json: &serde_json::Value) -> Node {
    use serde_json::Value as Json;
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Int(whole),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(from_json).collect()),
        Json::Object(fields) => Value::Map(
            fields
                .iter()
                .map(|(key, value)| Entry { key: key.clone(), place: Place::code(), value: from_json(value) })
                .collect(),
        ),
    };
    Node { place: Place::code(), value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Node>, Vec<String>) {
        let mut errors = Errors::default();
        let nodes = parse("t.yaml", text, &mut errors);
        (nodes, errors.issues().iter().map(ToString::to_string).collect())
    }

    /// The tree as `path@line:column=scalar`, in order.
    fn flat(node: &Node, out: &mut Vec<String>) {
        match &node.value {
            Value::List(items) => items.iter().for_each(|item| flat(item, out)),
            Value::Map(entries) => entries.iter().for_each(|entry| flat(&entry.value, out)),
            value => out.push(format!("{}@{}:{}={value:?}", node.place.path, node.place.line, node.place.column)),
        }
    }

    #[test]
    fn every_node_knows_its_place_and_its_field() {
        let (nodes, errors) = read("a:\n  b: [1, 'x']\n  c: &c { d: ~ }\n---\nlist:\n- e: 2s\n- f:\n");
        assert_eq!(errors, [""; 0]);
        let mut seen = Vec::new();
        nodes.iter().for_each(|node| flat(node, &mut seen));
        assert_eq!(
            seen,
            [
                "a.b[0]@2:7=Int(1)",
                "a.b[1]@2:10=String(\"x\")",
                "a.c.d@3:14=Null",
                "list[0].e@6:6=String(\"2s\")",
                "list[1].f@7:4=Null",
            ]
        );
    }

    #[test]
    fn aliases_keep_the_text_place_and_get_the_field_that_uses_them() {
        let (nodes, errors) = read("a: &a { b: [1] }\nc: *a\n");
        assert_eq!(errors, [""; 0]);
        let mut seen = Vec::new();
        flat(&nodes[0], &mut seen);
        assert_eq!(seen, ["a.b[0]@1:13=Int(1)", "c.b[0]@1:13=Int(1)"]);
    }

    #[test]
    fn scalars_have_the_types_of_the_core_schema() {
        for (text, value) in [
            ("~", Value::Null),
            ("NULL", Value::Null),
            ("yes", Value::String("yes".into())),
            ("no", Value::String("no".into())),
            ("True", Value::Bool(true)),
            ("0x1F", Value::Int(31)),
            ("0o17", Value::Int(15)),
            ("0x-1", Value::String("0x-1".into())),
            ("-12", Value::Int(-12)),
            ("+12", Value::Int(12)),
            ("1_000", Value::String("1_000".into())),
            ("1e3", Value::Float(1000.0)),
            (".5", Value::Float(0.5)),
            ("-.inf", Value::Float(f64::NEG_INFINITY)),
            ("inf", Value::String("inf".into())),
            ("nan", Value::String("nan".into())),
            ("infinity", Value::String("infinity".into())),
            ("9223372036854775808", Value::Float(9_223_372_036_854_775_808.0)),
            ("127.0.0.1", Value::String("127.0.0.1".into())),
            ("'1'", Value::String("1".into())),
            ("!!str 1", Value::String("1".into())),
            ("!!int 1", Value::Int(1)),
        ] {
            let (nodes, errors) = read(&format!("v: {text}"));
            let Some(Value::Map(entries)) = nodes.first().map(|node| &node.value) else { panic!("{text}: {errors:?}") };
            assert_eq!(entries[0].value.value, value, "{text}");
        }
    }

    #[test]
    fn what_yaml_allows_but_nobody_means_is_refused() {
        let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
        let cases: &[(&str, &[&str])] = &[
            ("a: 1\nb: 2\na: 3\n", &["t.yaml:3:1: a: duplicate key `a`: it was given in line 1"]),
            (
                "x:\n  1: a\n  true: b\n",
                &[
                    "t.yaml:2:3: x.1: a key must be a string: write \"1\"",
                    "t.yaml:3:3: x.true: a key must be a string: write \"true\"",
                ],
            ),
            ("? [a]\n: 1\n", &["t.yaml:1:3: a key must be a string, not a list or a mapping"]),
            ("a: !secret x\n", &["t.yaml:1:4: a: this tag is not supported: remove the `!...`"]),
            ("a: !!int x\n", &["t.yaml:1:4: a: this tag is not supported: remove the `!...`"]),
            ("a: &a [*a]\n", &["t.yaml:1:8: a[0]: an alias cannot stand inside the node that it repeats"]),
            (&deep, &["t.yaml:1:65: PATH: nested deeper than 64 levels"]),
        ];
        for (text, expected) in cases {
            let seen: Vec<_> = read(text).1.iter().map(|issue| issue.replace(&"[0]".repeat(64), "PATH")).collect();
            assert_eq!(seen, *expected, "{text}");
        }
        let (_, errors) = read("a: [1, 2\nb: 3\n");
        assert!(
            errors.len() == 1 && errors[0].starts_with("t.yaml:2:") && errors[0].contains("not valid YAML"),
            "{errors:?}"
        );
    }

    #[test]
    fn alias_bombs_and_long_files_end_early() {
        let mut nodes = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
        for n in 1..9 {
            let uses = vec![format!("*a{}", n - 1); 10].join(",");
            nodes.push_str(&format!("a{n}: &a{n} [{uses}]\n"));
        }
        let (_, errors) = read(&nodes);
        assert!(errors[0].ends_with("more than 100000 nodes, aliases expanded"), "{errors:?}");

        let bytes = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 1000].join(","));
        assert!(read(&bytes).1[0].ends_with("more than 33554432 bytes, aliases expanded"));
        let keys = format!("? {}\n: [{}]\n", "k".repeat(500_000), vec!["1"; 1000].join(","));
        assert!(read(&keys).1[0].ends_with("more than 33554432 bytes, aliases expanded"));
        assert!(read(&"#".repeat(MAX_TEXT + 1)).1[0].ends_with("at most 1048576 are read"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_judged_without_a_panic(text in "[ -~\n&*{}\\[\\]:,'\"!?|>#-]{0,200}") {
            let (nodes, errors) = read(&text);
            proptest::prop_assert!(nodes.len() + errors.len() <= text.len() + 1);
        }
    }

    #[test]
    fn json_becomes_the_same_tree() {
        let node = Node::from(&serde_json::json!({ "a": [1, 1.5, null, { "b": "x" }] }));
        let mut seen = Vec::new();
        flat(&node, &mut seen);
        assert_eq!(seen, ["a[0]@0:0=Int(1)", "a[1]@0:0=Float(1.5)", "a[2]@0:0=Null", "a[3].b@0:0=String(\"x\")"]);
    }
}
