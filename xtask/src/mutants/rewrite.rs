//! One source text with all changes in it, each behind a switch.
//!
//! | change | becomes |
//! |---|---|
//! | a function's value | `if on(N) { return VALUE; }` before its first statement |
//! | an operator, a field | `(if on(N) { CHANGED } else { as it was })` around the expression |
//! | a match arm that goes | `PATTERN if !on(N) =>` |
//! | a guard that is true or false | `(on(N) \|\| (as it was))`, `(!on(N) && (as it was))` |
//!
//! At most one switch is on, so CHANGED has no other changes in it: the text grows, but not exponentially.

use std::collections::BTreeMap;
use std::ops::Range;

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use super::list::{Kind, Mutant};

/// `source` with `mutants` in it, which have these numbers.
pub(super) fn rewrite(source: &str, mutants: &[(usize, &Mutant)]) -> Result<String, String> {
    let file = syn::parse_file(source).map_err(|e| e.to_string())?;
    let mut hosts = Hosts::default();
    hosts.visit_file(&file);
    let mut insertions = Vec::new();
    for &(number, mutant) in mutants {
        insertions
            .push(insertion(source, number, mutant, &hosts).ok_or_else(|| format!("{}: not found", mutant.name))?);
    }
    // What is around others opens first, and closes last.
    insertions.sort_by_key(|insertion| usize::MAX - insertion.reach);
    let mut before: BTreeMap<usize, String> = BTreeMap::new();
    for insertion in insertions.iter().rev() {
        before.entry(insertion.around.end).or_default().push_str(&insertion.close);
    }
    for insertion in &insertions {
        before.entry(insertion.around.start).or_default().push_str(&insertion.open);
    }
    let mut text = String::new();
    let mut done = 0;
    for (at, inserted) in before {
        text.push_str(source.get(done..at).unwrap_or_default());
        text.push_str(&inserted);
        done = at;
    }
    text.push_str(source.get(done..).unwrap_or_default());
    Ok(text)
}

/// The change whose changed code is at `place` of a rewritten `text`.
pub(super) fn marked(text: &str, place: usize) -> Option<usize> {
    marks(text).into_iter().find_map(|(number, mark)| mark.contains(&place).then_some(number))
}

/// All changes in the function at `place`.
pub(super) fn in_function(text: &str, place: usize) -> Vec<usize> {
    let mut functions = Functions(Vec::new());
    if let Ok(file) = syn::parse_file(text) {
        functions.visit_file(&file);
    }
    let around = functions.0.into_iter().filter(|function| function.contains(&place));
    let Some(function) = around.min_by_key(Range::len) else { return Vec::new() };
    marks(text).into_iter().filter(|(_, mark)| function.contains(&mark.start)).map(|(number, _)| number).collect()
}

/// Which bytes are changed code of which change.
fn marks(text: &str) -> Vec<(usize, Range<usize>)> {
    let marks = text.match_indices("/*<").filter_map(|(start, _)| {
        let (number, rest) = text.get(start + 3..)?.split_once("*/")?;
        let end = text.len() - rest.len() + rest.find(&format!("/*{number}>*/"))?;
        Some((number.parse().ok()?, start..end))
    });
    marks.collect()
}

/// Where the functions are.
struct Functions(Vec<Range<usize>>);

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.0.push(function.span().byte_range());
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.0.push(function.span().byte_range());
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        self.0.push(function.span().byte_range());
        visit::visit_trait_item_fn(self, function);
    }
}

struct Insertion {
    around: Range<usize>,
    /// How much it is around, for the order of those at one place.
    reach: usize,
    open: String,
    close: String,
}

fn insertion(source: &str, number: usize, mutant: &Mutant, hosts: &Hosts) -> Option<Insertion> {
    let Mutant { span, replacement, .. } = mutant;
    let on = format!("crate::__mutants::on({number})");
    let marked = |code: &str| format!("/*<{number}*/{code}/*{number}>*/");
    let (around, reach, open, close) = match mutant.kind {
        Kind::Body => {
            let open = marked(&format!("if {on} {{ return {replacement}; }} "));
            (span.start..span.start, usize::MAX, open, String::new())
        }
        Kind::Expression => {
            let around = hosts.expressions.get(&span.start)?.clone();
            let (head, tail) = (source.get(around.start..span.start)?, source.get(span.end..around.end)?);
            let open = format!("({} else {{", marked(&format!("if {on} {{ {head}{replacement}{tail} }}")));
            (around.clone(), around.len(), open, "})".to_owned())
        }
        Kind::Arm => {
            let end = *hosts.patterns.get(&span.start)?;
            (end..end, 0, marked(&format!(" if !{on}")), String::new())
        }
        Kind::Guard => {
            let open = if replacement == "true" { format!("({on} || (") } else { format!("(!{on} && (") };
            (span.clone(), span.len(), marked(&open), "))".to_owned())
        }
    };
    Some(Insertion { around, reach, open, close })
}

/// What has to be wrapped for a change that begins at a byte.
#[derive(Default)]
struct Hosts {
    /// The operator, or the field, to its expression.
    expressions: BTreeMap<usize, Range<usize>>,
    /// The match arm to the end of its pattern.
    patterns: BTreeMap<usize, usize>,
}

impl<'ast> Visit<'ast> for Hosts {
    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        self.expressions.insert(binary.op.span().byte_range().start, binary.span().byte_range());
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        self.expressions.insert(unary.op.span().byte_range().start, unary.span().byte_range());
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_struct(&mut self, literal: &'ast syn::ExprStruct) {
        for field in &literal.fields {
            self.expressions.insert(field.span().byte_range().start, literal.span().byte_range());
        }
        visit::visit_expr_struct(self, literal);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        self.patterns.insert(arm.span().byte_range().start, arm.pat.span().byte_range().end);
        visit::visit_arm(self, arm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(source: &str, kind: Kind, what: &str, replacement: &str) -> Mutant {
        let start = source.find(what).unwrap();
        let span = start..start + what.len();
        let text = |text: &str| text.to_owned();
        Mutant {
            name: text(what),
            package: text("p"),
            file: text("p/src/a.rs"),
            kind,
            span,
            replacement: text(replacement),
        }
    }

    /// Only the switches are left of a switch's path, so that lines stay readable.
    fn rewritten(source: &str, mutants: &[Mutant]) -> String {
        let numbered: Vec<_> = mutants.iter().enumerate().collect();
        rewrite(source, &numbered).unwrap().replace("crate::__mutants::", "")
    }

    #[test]
    fn changes_at_one_place_stand_around_each_other() {
        let source = "fn f(a: u8) -> bool { !a < b && c }";
        let found = rewritten(
            source,
            &[
                mutant(source, Kind::Expression, "&&", "||"),
                mutant(source, Kind::Expression, "<", ">"),
                mutant(source, Kind::Expression, "<", "=="),
                mutant(source, Kind::Expression, "!", ""),
                mutant(source, Kind::Body, "!a < b && c", "true"),
            ],
        );
        assert_eq!(
            found,
            "fn f(a: u8) -> bool { /*<4*/if on(4) { return true; } /*4>*/\
             (/*<0*/if on(0) { !a < b || c }/*0>*/ else {\
             (/*<1*/if on(1) { !a > b }/*1>*/ else {\
             (/*<2*/if on(2) { !a == b }/*2>*/ else {\
             (/*<3*/if on(3) { a }/*3>*/ else {!a}) < b})}) && c}) }"
        );
        syn::parse_file(&found).unwrap();
    }

    #[test]
    fn arms_guards_and_fields() {
        let source = "fn f() -> S { match é { 'é' => 1, b if b == c => 2, _ => 3 }; S { d: 4, ..e } }";
        let found = rewritten(
            source,
            &[
                mutant(source, Kind::Arm, "'é' => 1,", ""),
                mutant(source, Kind::Guard, "b == c", "true"),
                mutant(source, Kind::Guard, "b == c", "false"),
                mutant(source, Kind::Expression, "d: 4,", ""),
            ],
        );
        assert_eq!(
            found,
            "fn f() -> S { match é { 'é'/*<0*/ if !on(0)/*0>*/ => 1, b if \
             /*<1*/(on(1) || (/*1>*//*<2*/(!on(2) && (/*2>*/b == c)))) => 2, _ => 3 }; \
             (/*<3*/if on(3) { S {  ..e } }/*3>*/ else {S { d: 4, ..e }}) }"
        );
        syn::parse_file(&found).unwrap();
    }

    #[test]
    fn an_error_is_put_down_to_what_it_points_at_or_to_the_function_around() {
        let source = "fn f() { a == b; c == d } fn g() { e < f } fn h() {}";
        let text = rewritten(
            source,
            &[
                mutant(source, Kind::Expression, "==", "!="),
                mutant(source, Kind::Body, "c == d", "1"),
                mutant(source, Kind::Expression, "<", ">"),
            ],
        );
        let at = |what: &str| text.find(what).unwrap();
        assert_eq!((marked(&text, at("return 1")), marked(&text, at("c == d"))), (Some(1), None));
        assert_eq!(in_function(&text, at("c == d")), [0, 1]);
        assert_eq!(in_function(&text, at("e < f")), [2]);
        assert_eq!(in_function(&text, at("fn h")), [0; 0]);
    }
}
