//! `mesh policy lint`, and its summary in `mesh check`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn mesh(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh")).current_dir(dir).args(args).output().unwrap()
}

fn ask(dir: &Path, args: &[&str]) -> (i32, Value) {
    let output = mesh(dir, &[&["--json"], args].concat());
    let json = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), json.unwrap_or_else(|e| panic!("{e}: {output:?}")))
}

const CLEAN: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: web, namespace: shop }
spec: { rules: [ { from: [ { source: { principals: [td/ns/shop/sa/web] } } ] } ] }
";

const TRAP: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: closed, namespace: shop }
spec:
  action: DENY
  rules:
  - to: [ { operation: { paths: [/admin] } } ]
";

#[test]
fn warnings_name_their_place_and_decide_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let lint = ["policy", "lint", "--policies", "p.yaml"];
    fs::write(dir.join("p.yaml"), CLEAN).unwrap();
    assert_eq!(
        ask(dir, &lint),
        (0, json!({ "valid": true, "policies": 1, "warnings": 0, "notes": 0, "findings": [] }))
    );

    fs::write(dir.join("p.yaml"), format!("{CLEAN}{TRAP}")).unwrap();
    let (code, said) = ask(dir, &lint);
    assert_eq!((code, &said["warnings"]), (1, &1.into()), "{said}");
    let finding = &said["findings"][0];
    let place = [&finding["file"], &finding["line"], &finding["policy"], &finding["rule"], &finding["code"]];
    assert_eq!(place, [&json!("p.yaml"), &json!(13), &json!("shop/closed"), &json!(0), &json!("deny_one_slash_form")]);
    assert_eq!(finding["field"], "spec.rules[0].to[0].operation.paths");
    let text = String::from_utf8(mesh(dir, &lint).stdout).unwrap();
    assert!(
        text.starts_with("p.yaml:13:5: spec.rules[0].to[0].operation.paths: warning [deny_one_slash_form]"),
        "{text}"
    );
    assert!(text.ends_with("\n2 policies: 1 warning(s), 0 note(s)\n"), "{text}");

    let elsewhere = [&lint[..], &["--workload", "other/x"]].concat();
    assert_eq!(ask(dir, &elsewhere).1["warnings"], 3, "neither policy selects it");
    fs::write(dir.join("p.yaml"), CLEAN.replace("principals", "notPrincipals")).unwrap();
    for (mtls, code) in [("permissive", 1), ("strict", 0)] {
        assert_eq!(ask(dir, &[&lint[..], &["--mtls", mtls]].concat()).0, code, "{mtls}");
    }
    fs::write(dir.join("p.yaml"), CLEAN.replace("rules", "ruels")).unwrap();
    let (code, said) = ask(dir, &lint);
    assert_eq!((code, &said["valid"], &said["issues"][0]["line"]), (1, &false.into(), &5.into()), "{said}");
    assert_eq!(mesh(dir, &["policy", "lint", "--policies", "nowhere"]).status.code(), Some(3));
    assert_eq!(mesh(dir, &[&lint[..], &["--labels", "a=b"]].concat()).status.code(), Some(2), "labels of nobody");
}

#[test]
fn check_counts_what_lint_finds_for_the_workload() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let config = "
workload:  { name: orders, namespace: shop }
identity:  { trust_domain: td, source: { dev_ca: { dir: .mesh } } }
listeners: { default: { address: \"127.0.0.1:8443\" } }
policies:  [ p.yaml ]
";
    fs::write(dir.join("mesh.yaml"), config).unwrap();
    let elsewhere = TRAP.replace("namespace: shop", "namespace: other");
    for (policies, warnings) in
        [(CLEAN.to_owned(), 0), (format!("{CLEAN}{TRAP}"), 1), (format!("{CLEAN}{elsewhere}"), 0)]
    {
        fs::write(dir.join("p.yaml"), policies).unwrap();
        let (code, said) = ask(dir, &["check", "mesh.yaml"]);
        assert_eq!((code, &said["lint"]), (0, &json!({ "warnings": warnings, "notes": 0 })), "{said}");
        let text = String::from_utf8(mesh(dir, &["check", "mesh.yaml"]).stdout).unwrap();
        assert_eq!(text.contains("policies: 1 warning(s), 0 note(s); `mesh policy lint` says which"), warnings == 1);
    }
}

const JWT: &str = "---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: jwt, namespace: shop }
spec: { jwtRules: [ { issuer: 'https://idp.example', audiences: [orders] } ] }
";

#[test]
fn tokens_that_nobody_must_bring_are_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let lint = ["policy", "lint", "--policies", "p.yaml"];
    fs::write(dir.join("p.yaml"), format!("{CLEAN}{JWT}")).unwrap();
    let (code, said) = ask(dir, &lint);
    assert_eq!((code, &said["warnings"]), (1, &1.into()), "{said}");
    let finding = &said["findings"][0];
    assert_eq!((&finding["code"], &finding["policy"]), (&json!("tokens_optional"), &json!("shop/jwt")));
    assert_eq!(finding["line"], 7);
    fs::write(
        dir.join("p.yaml"),
        format!("{}{JWT}", CLEAN.replace("principals: [td", "requestPrincipals: ['*'], principals: [td")),
    )
    .unwrap();
    assert_eq!(ask(dir, &lint).1["findings"], json!([]));
}
