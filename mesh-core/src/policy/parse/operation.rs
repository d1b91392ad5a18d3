//! `to[].operation`: what is called.

use super::{Reading, clause, matchable, noted, port, text};
use crate::config::{Errors, Fields, Node};
use crate::policy::document::{Operation, PathPattern};
use crate::policy::unmatched;

pub(super) fn operation(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<Operation> {
    let mut fields = Fields::of(node, errors)?;
    let at = &mut fields;
    let operation = Operation {
        hosts: clause(at, reading, ["hosts", "notHosts"], |node, errors| {
            matchable(node, reading, errors, unmatched::host)
        }),
        ports: clause(at, reading, ["ports", "notPorts"], port),
        methods: clause(at, reading, ["methods", "notMethods"], |node, errors| {
            matchable(node, reading, errors, unmatched::method)
        }),
        paths: clause(at, reading, ["paths", "notPaths"], |node, errors| path(node, reading, errors)),
    };
    if operation == Operation::default() {
        fields.error("an empty `operation` is refused; leave `to` out to accept every operation");
    }
    fields.finish();
    Some(operation)
}

fn path(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<PathPattern> {
    let text = text(node, errors)?;
    if let Some(template) = PathPattern::template(text) {
        return noted(template, node, errors);
    }
    matchable(node, reading, errors, |path| unmatched::path(path, reading.canonical)).map(PathPattern::Text)
}
