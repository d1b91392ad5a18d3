//! The walls between rooms, read from `cargo tree`: which crate may not know which.

use std::path::Path;

use crate::run::{Counts, Log, Verdict, cargo};

struct Wall {
    package: &'static str,
    /// What `cargo tree` is asked to follow.
    view: &'static [&'static str],
    /// Exact package names that must not occur.
    forbidden: &'static [&'static str],
}

const WALLS: [Wall; 4] = [
    Wall { package: "mesh-core", view: &["--edges", "normal"], forbidden: &CORE },
    Wall { package: "mesh-core", view: &["--edges", "normal", "--all-features"], forbidden: &CORE },
    Wall { package: "mesh-tower", view: &[], forbidden: &["tonic", "prost"] },
    // OTLP is protobuf on the wire, so feature `otel` brings prost; tonic it must not bring.
    Wall { package: "mesh-tower", view: &["--all-features"], forbidden: &["tonic"] },
];

const CORE: [&str; 6] = ["http", "hyper", "tower", "axum", "tonic", "rustls"];

/// Checks every wall.
pub(crate) fn check(root: &Path, log: &Log) -> Verdict {
    let mut broken = Vec::new();
    for wall in &WALLS {
        let mut args = vec!["tree", "--package", wall.package, "--prefix", "none", "--format", "{p}"];
        args.extend(wall.view);
        let text = log.must(&mut cargo(root, &args))?;
        let view = wall.view.join(" ");
        broken.extend(found(&text, wall.forbidden).map(|name| format!("{} ({view}) depends on {name}", wall.package)));
    }
    if broken.is_empty() { Ok(Counts::one("")) } else { Err(broken.join("\n")) }
}

fn found<'a>(tree: &'a str, forbidden: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let names = move |wanted: &str| tree.lines().any(|line| line.split_whitespace().next() == Some(wanted));
    forbidden.iter().copied().filter(move |name| names(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_whole() {
        let tree = "mesh-core v0.1.0 (/x)\nhttp-body v1.0.0\ntower-service v0.3.3\nrustls-webpki v0.103.0 (*)\n";
        assert_eq!(found(tree, &["http", "tower", "rustls"]).count(), 0);
        assert_eq!(found("a v1\nrustls v0.23.0 (*)\n", &["http", "rustls"]).collect::<Vec<_>>(), ["rustls"]);
    }
}
