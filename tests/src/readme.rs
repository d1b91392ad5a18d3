//! What the README shows is what users copy: its YAML must be accepted as it stands.

use std::fs;
use std::path::Path;

use mesh_tower::test_util::TestMesh;

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

/// With every number as `#`: what a line of an explanation looks like.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for c in line.chars() {
        match c {
            '0'..='9' if shape.ends_with('#') => {}
            '0'..='9' => shape.push('#'),
            c => shape.push(c),
        }
    }
    shape
}

#[tokio::test]
async fn the_explanation_that_it_shows_is_one() {
    let shown = blocks("text").into_iter().find(|block| block.starts_with("GET /paid/7")).unwrap();
    let mesh = TestMesh::new().service("payments", axum::Router::new()).start().await.unwrap();
    let client = mesh.client_as("spiffe://test/ns/shop/sa/web", "payments").await.unwrap();
    while client.endpoints().is_empty() {
        tokio::task::yield_now().await;
    }
    let told = client.get("/paid/7").explain().unwrap().to_string();
    let lines: Vec<String> = shown.lines().map(shape).collect();
    // Its one endpoint is compared to nobody.
    for line in told.lines().map(shape).filter(|line| !line.starts_with("pick: ")) {
        assert!(lines.contains(&line), "the README does not show {line:?}, but\n{shown}");
    }
    assert!(shown.lines().last().unwrap().contains(" - least latency x load of 2: "));
}
