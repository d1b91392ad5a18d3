//! A YAML tree in which every node knows its file, line, column and field path.
//!
//! An error without a place is a search. Deserializers built on serde stop at the first problem and lose field paths,
//! so the tree is built from the parser's own events and [`walk`](super::walk) reads values out of it.
//!
//! The text may come from an editor that was interrupted or from an attacker's pull request: everything is bounded, and
//! what YAML allows but nobody means - duplicate keys, keys that are not strings, custom tags - is refused.

mod build;
mod node;
mod scalar;

pub use build::{MAX_DEPTH, MAX_NODES};
pub use node::{Decode, Entry, Node, Value};

use saphyr_parser::{Event, Parser, Span};

use super::issue::{Errors, Place};
use build::Builder;

/// Bytes of one file.
pub const MAX_TEXT: usize = 1024 * 1024;

/// Parses every document of `text`.
///
/// Problems go to `errors`; a broken file yields the documents before the break.
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
