//! No circles among the modules of a crate, so that each can be read after those it stands on.
//!
//! What is checked: every `use crate::..`, `use super::..` and every such path in code is an edge between source files.
//! A name that a module re-exports from its own child (`pub use id::SpiffeId`) leads to the child. What is not: test
//! modules; paths inside macro calls; and edges from a module to its own descendants, because a parent that puts its
//! children together is a facade and no circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

use crate::run::{Counts, Verdict};
use crate::sizes::rust_files;

/// The crates whose modules are held to it.
const CRATES: [&str; 4] = ["mesh-core", "mesh-tower", "mesh-tonic", "mesh-cli"];

pub(crate) fn check(root: &Path) -> Verdict {
    let mut circles = Vec::new();
    let mut modules = 0;
    for krate in CRATES {
        let sources = read(&root.join(krate).join("src"))?;
        modules += sources.len();
        circles.extend(circles_of(&sources)?.into_iter().map(|circle| format!("{krate}: {circle}")));
    }
    if circles.is_empty() {
        Ok(Counts::one(format!("{modules} modules")))
    } else {
        Err(format!("modules import each other in a circle:\n{}", circles.join("\n")))
    }
}

/// Module path (`identity::id`; the crate root is empty) to source text.
type Sources = BTreeMap<Vec<String>, String>;

fn read(src: &Path) -> Result<Sources, String> {
    let mut files = Vec::new();
    rust_files(src, &mut files)?;
    let mut sources = Sources::new();
    for file in files {
        let relative = file.strip_prefix(src).unwrap_or(&file).with_extension("");
        let mut module: Vec<String> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if module.last().is_some_and(|name| name == "mod")
            || matches!(module.as_slice(), [one] if one == "lib" || one == "main")
        {
            module.pop();
        }
        let text = fs::read_to_string(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        sources.insert(module, text);
    }
    Ok(sources)
}

/// The circles among these modules, each as the way around.
fn circles_of(sources: &Sources) -> Result<Vec<String>, String> {
    let mut parsed = BTreeMap::new();
    for (module, text) in sources {
        let file = syn::parse_file(text).map_err(|e| format!("cannot parse module {}: {e}", label(module)))?;
        let mut paths = Paths { module, found: Vec::new(), facade: BTreeMap::new() };
        paths.visit_file(&file);
        parsed.insert(module.clone(), (paths.found, paths.facade));
    }
    let facades: BTreeMap<_, _> = parsed.iter().map(|(module, (_, facade))| (module.clone(), facade.clone())).collect();
    let mut edges = Edges::new();
    for (module, (found, _)) in &parsed {
        let targets = edges.entry(module).or_default();
        for path in found {
            let target = resolve(path, sources, &facades);
            // A parent that puts its children together is a facade.
            if !target.starts_with(module) {
                targets.entry(target).or_default().insert(path.last().cloned().unwrap_or_default());
            }
        }
    }
    let circles: BTreeSet<_> = sources.keys().filter_map(|start| way_back(start, &edges)).collect();
    Ok(circles.iter().map(|circle| told(circle, &edges)).collect())
}

/// Who imports which names from whom.
type Edges<'a> = BTreeMap<&'a Vec<String>, BTreeMap<Vec<String>, BTreeSet<String>>>;

/// `a -(X, Y)-> b -(Z)-> a`: what to move, to break it.
fn told(circle: &[Vec<String>], edges: &Edges<'_>) -> String {
    let mut text = String::new();
    for (at, module) in circle.iter().enumerate() {
        text.push_str(&label(module));
        let names = circle.get(at + 1).and_then(|next| edges.get(module)?.get(next));
        if let Some(names) = names {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            text.push_str(&format!(" -({})-> ", names.join(", ")));
        }
    }
    text
}

/// The deepest module that `path` names, through re-exports of its own children.
fn resolve(
    path: &[String],
    sources: &Sources,
    facades: &BTreeMap<Vec<String>, BTreeMap<String, String>>,
) -> Vec<String> {
    let mut at: Vec<String> = Vec::new();
    for name in path {
        let mut next = at.clone();
        next.push(name.clone());
        if sources.contains_key(&next) {
            at = next;
            continue;
        }
        // One name may pass several facades: `crate::Config` is `config::Config`.
        while let Some(child) = facades.get(&at).and_then(|facade| facade.get(name)) {
            at.push(child.clone());
            if !sources.contains_key(&at) {
                at.pop();
                break;
            }
        }
        break;
    }
    at
}

/// The shortest way from `start` back to it, begun at its smallest module so that each circle is told once.
fn way_back(start: &Vec<String>, edges: &Edges<'_>) -> Option<Vec<Vec<String>>> {
    let mut queue = std::collections::VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = queue.pop_front() {
        let Some(targets) = way.last().and_then(|last| edges.get(last)) else { continue };
        for target in targets.keys() {
            if target == start {
                let smallest = way.iter().min()?;
                let at = way.iter().position(|module| module == smallest)?;
                let mut circle: Vec<_> = way.iter().skip(at).chain(way.iter().take(at)).cloned().collect();
                circle.push(smallest.clone());
                return Some(circle);
            }
            if seen.insert(target.clone()) {
                let mut longer = way.clone();
                longer.push(target.clone());
                queue.push_back(longer);
            }
        }
    }
    None
}

fn label(module: &[String]) -> String {
    if module.is_empty() { "crate".to_owned() } else { module.join("::") }
}

/// Collects crate-local paths of one file as paths from the crate root.
struct Paths<'a> {
    module: &'a [String],
    found: Vec<Vec<String>>,
    /// Re-exported name to the child it comes from.
    facade: BTreeMap<String, String>,
}

impl Paths<'_> {
    fn add(&mut self, segments: &[String]) {
        let mut base = match segments.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("super") => self.module.to_vec(),
            _ => return,
        };
        let ups = segments.iter().take_while(|segment| *segment == "super").count();
        base.truncate(base.len().saturating_sub(ups));
        base.extend(segments.iter().skip(ups.max(1)).cloned());
        self.found.push(base);
    }

    fn add_use(&mut self, tree: &UseTree, prefix: &[String], public: bool) {
        match tree {
            UseTree::Path(path) => {
                let mut prefix = prefix.to_vec();
                prefix.push(path.ident.to_string());
                self.add_use(&path.tree, &prefix, public);
            }
            UseTree::Group(group) => group.items.iter().for_each(|item| self.add_use(item, prefix, public)),
            UseTree::Glob(_) => self.add(prefix),
            UseTree::Name(name) => self.leaf(prefix, &name.ident.to_string(), &name.ident.to_string(), public),
            UseTree::Rename(rename) => {
                self.leaf(prefix, &rename.ident.to_string(), &rename.rename.to_string(), public);
            }
        }
    }

    fn leaf(&mut self, prefix: &[String], name: &str, known_as: &str, public: bool) {
        let mut path = prefix.to_vec();
        path.push(name.to_owned());
        self.add(&path);
        let child = if prefix.first().is_some_and(|first| first == "self") { prefix.get(1) } else { prefix.first() };
        if let (true, Some(child)) = (public, child) {
            self.facade.insert(known_as.to_owned(), child.clone());
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !attributes.iter().any(only_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let public = !matches!(item.vis, Visibility::Inherited);
        self.add_use(&item.tree, &[], public);
    }

    /// Who may see an item is no import of theirs.
    fn visit_visibility(&mut self, _visibility: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&segments);
        visit::visit_path(self, path);
    }
}

fn only_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let split =
            |path: &str| path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let sources = files.iter().map(|(path, text)| (split(path), (*text).to_owned())).collect();
        circles_of(&sources).unwrap()
    }

    #[test]
    fn circles_are_found_once_and_named() {
        let found = circles(&[
            ("", "mod a; mod b; mod c;"),
            ("a", "use crate::b::B;"),
            ("b", "fn f() -> crate::c::C { crate::c::C }"),
            ("c", "use super::{a::A, d};"),
        ]);
        assert_eq!(found, ["a -(B)-> b -(C)-> c -(A)-> a"]);
    }

    #[test]
    fn a_facade_leads_to_the_child_and_is_no_circle() {
        // identity::principal -> token::verify -> config::token, and config::cluster -> identity::id: no file is on a way back.
        let found = circles(&[
            ("", "mod identity; mod token; mod config; pub use config::Config;"),
            ("identity", "mod id; mod principal; pub use id::SpiffeId; pub use principal::Principal;"),
            ("identity::id", "use crate::Config;"),
            ("identity::principal", "use super::SpiffeId; use crate::token::Token;"),
            ("token", "mod verify; pub use verify::Token;"),
            ("token::verify", "use crate::identity::SpiffeId;"),
            ("config", "pub struct Config;"),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn to_be_seen_by_the_parent_is_no_import_of_it() {
        let found = circles(&[
            ("serve", "mod error; use crate::admin;"),
            ("serve::error", "impl Error { pub(super) fn unknown() {} }"),
            ("admin", "use crate::serve::error::Error;"),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn test_modules_may_look_anywhere() {
        let found = circles(&[("a", "use crate::b::B;"), ("b", "#[cfg(test)] mod tests { use crate::a::A; }")]);
        assert_eq!(found, Vec::<String>::new());
        let found = circles(&[("a", "use crate::b::B;"), ("b", "mod inner { use crate::a::A; }")]);
        assert_eq!(found, ["a -(B)-> b -(A)-> a"]);
    }
}
