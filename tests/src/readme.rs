//! What the README shows is what users copy: its YAML must be accepted as it stands.

use std::fs;
use std::path::Path;

const README: &str = include_str!("../../README.md");

/// The fenced blocks of one language, in order.
fn blocks<'a>(language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    README.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[tokio::test]
async fn the_configuration_and_the_policy_are_accepted() {
    let [config, policy, roles] = blocks("yaml")[..] else { panic!("the README has three YAML blocks") };
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    fs::write(dir.path().join("policies/orders.yaml"), policy).unwrap();
    fs::write(dir.path().join("mesh.yaml"), config).unwrap();
    let report = mesh_core::check(dir.path().join("mesh.yaml")).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((report.policies, report.clusters.len()), (1, 1), "{report:?}");
    fs::write(dir.path().join("mesh.yaml"), format!("{config}{roles}")).unwrap();
    let report = mesh_core::check(dir.path().join("mesh.yaml")).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((report.policies, report.selected, report.warnings.len()), (3, 3, 0), "{report:?}");
    let (_, policies) = mesh_core::load(dir.path().join("mesh.yaml")).unwrap();
    let names: Vec<_> = policies.iter().map(|policy| &*policy.name).collect();
    assert_eq!(names, ["shop/orders", "shop/role:orders-reader/web", "shop/role:orders-writer/staff"]);
}

#[test]
fn every_file_it_points_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let links = README.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let missing: Vec<_> = links.filter(|link| !link.starts_with('#') && !root.join(link).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
