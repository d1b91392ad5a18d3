//! First paragraphs of documentation that say in a breath what a thing is for: at most 15 words.
//!
//! Read from the text of the published crates: what stands above `pub fn`, `struct`, `enum`, `trait`, `type`, `const`,
//! `static` and `mod`. Fields and variants are left to their reader: unit, range and default belong into their line.

use std::fs;
use std::path::Path;

use crate::run::{Counts, Verdict};
use crate::sizes::rust_files;

const WORDS: usize = 15;
const CRATES: [&str; 4] = ["mesh-core", "mesh-tower", "mesh-tonic", "mesh-cli"];
const ITEMS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod"];

pub(crate) fn check(root: &Path) -> Verdict {
    let (mut files, mut long) = (Vec::new(), Vec::new());
    for krate in CRATES {
        rust_files(&root.join(krate).join("src"), &mut files)?;
    }
    for file in &files {
        let text = fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(file).display();
        long.extend(
            too_long(&text).map(|(line, words)| format!("{name}:{line}: {words} words in the first paragraph")),
        );
    }
    if long.is_empty() {
        Ok(Counts::one(format!("{} files", files.len())))
    } else {
        Err(format!(
            "at most {WORDS} words say what a thing is for; the rest is a paragraph of its own:\n{}",
            long.join("\n")
        ))
    }
}

/// Line and words of each first paragraph that is too long.
fn too_long(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let (mut found, mut begin, mut words, mut first) = (Vec::new(), 0, 0, true);
    for (at, line) in text.lines().map(str::trim).enumerate() {
        if let Some(doc) = line.strip_prefix("///") {
            if begin == 0 {
                (begin, words, first) = (at + 1, 0, true);
            }
            first &= !doc.trim().is_empty();
            words += if first { doc.split_whitespace().count() } else { 0 };
        } else if !line.starts_with("#[") && !line.starts_with(")]") {
            if begin > 0 && words > WORDS && is_public_item(line) {
                found.push((begin, words));
            }
            begin = 0;
        }
    }
    found.into_iter()
}

fn is_public_item(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("pub ") else { return false };
    let mut words = rest.split(' ').skip_while(|word| ["async", "unsafe"].contains(word));
    words.next().is_some_and(|word| ITEMS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_first_paragraphs_of_public_items_are_counted() {
        let (long, short) = ("word ".repeat(WORDS + 1), "word ".repeat(WORDS));
        for (docs, item, expected) in [
            (format!("/// {long}"), "pub fn a() {}", Some((1, WORDS + 1))),
            (format!("/// {short}\n/// more"), "#[must_use]\npub async fn a() {}", Some((1, WORDS + 1))),
            (format!("/// {short}\n///\n/// {long}"), "pub struct A;", None),
            (format!("/// {long}"), "pub(crate) fn a() {}", None),
            (format!("/// {long}"), "pub field: u8,", None),
            (format!("/// {long}\n\nfn b() {{}}"), "pub fn a() {}", None),
        ] {
            assert_eq!(too_long(&format!("{docs}\n{item}\n")).next(), expected, "{docs}\n{item}");
        }
    }
}
