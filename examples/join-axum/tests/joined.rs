//! Joining is a small step: ten changed lines at most and one YAML file, counted here.

use axum::http::StatusCode;
use mesh_tower::test_util::{TestMesh, TestService};

#[allow(dead_code, reason = "its `main` is not called here")]
#[path = "../src/main.rs"]
mod joined;

/// Lines to take out of `before` and to put into it, so that it becomes `after`.
fn changed(before: &str, after: &str) -> usize {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    // The longest common subsequence; `best[j]` is that of the lines of `before` so far and the first `j` of `after`.
    let mut best = vec![0; after.len() + 1];
    for line in &before {
        let mut diagonal = 0;
        for (j, other) in after.iter().enumerate() {
            let above = best[j + 1];
            best[j + 1] = if line == other { diagonal + 1 } else { above.max(best[j]) };
            diagonal = above;
        }
    }
    before.len() + after.len() - 2 * best[after.len()]
}

#[test]
fn joining_changes_ten_lines_at_most() {
    assert_eq!(changed("a\nb\nc", "a\nx\nc\nd"), 3);

    let code = changed(include_str!("../before/src/main.rs"), include_str!("../src/main.rs"));
    // Without the dependency of this test.
    let (manifest, _tests) = include_str!("../Cargo.toml").split_once("\n[dev-dependencies]").unwrap();
    let (plain, _) = include_str!("../before/Cargo.toml").split_once("\n[workspace]").unwrap();
    let dependencies = changed(plain, manifest);
    assert!((1..=10).contains(&(code + dependencies)), "{code} lines of code, {dependencies} of Cargo.toml");
}

#[tokio::test]
async fn the_joined_service_works_and_knows_who_calls() -> Result<(), Box<dyn std::error::Error>> {
    let stock = TestService::new("stock").config_file("mesh.yaml").app(|_mesh| Ok(joined::router()));
    let shop = TestMesh::new().trust_domain("shop.example").with(stock).start().await?;
    let web = shop.client_as("spiffe://shop.example/ns/shop/sa/web", "stock").await?;

    let filled = web.put("/stock/tea").json(&joined::Stock { pieces: 3 }).send().await?;
    assert_eq!(filled.status(), StatusCode::NO_CONTENT);
    let stock: joined::Stock = web.get("/stock/tea").send().await?.json().await?;
    assert_eq!(stock.pieces, 3);

    let records = shop.audit("stock").await?;
    assert_eq!(records[0].peer.as_deref(), Some("spiffe://shop.example/ns/shop/sa/web"));
    Ok(())
}
