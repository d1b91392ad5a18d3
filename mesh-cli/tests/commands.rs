//! The built binary: exit codes and the stable fields of its JSON.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn mesh(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh")).current_dir(dir).args(args).output().unwrap()
}

/// Exit code and JSON of a command that is asked for JSON.
fn ask(dir: &Path, args: &[&str]) -> (i32, Value) {
    let output = mesh(dir, &[&["--json"], args].concat());
    let json = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), json.unwrap_or_else(|e| panic!("{e}: {output:?}")))
}

const CONFIG: &str = r#"
workload:  { name: orders, namespace: shop, labels: { app: orders } }
identity:  { trust_domain: shop.example, source: { dev_ca: { dir: .mesh } } }
listeners: { default: { address: "127.0.0.1:8443" } }
policies:  [ policies/ ]
"#;

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: web, namespace: shop }
spec:
  selector: { matchLabels: { app: orders } }
  rules:
  - from: [ { source: { principals: [shop.example/ns/shop/sa/web] } } ]
    to: [ { operation: { methods: [GET], paths: [/orders/*], ports: [\"8443\"] } } ]
  - from: [ { source: { requestPrincipals: [\"https://idp.example/*\"] } } ]
    to: [ { operation: { methods: [POST] } } ]
";

fn workspace() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    fs::write(dir.path().join("mesh.yaml"), CONFIG).unwrap();
    fs::write(dir.path().join("policies/web.yaml"), POLICY).unwrap();
    let path = dir.path().to_owned();
    (dir, path)
}

#[test]
fn check_tells_valid_from_broken_from_missing() {
    let (_guard, dir) = workspace();
    let (code, json) = ask(&dir, &["check", "mesh.yaml"]);
    assert_eq!((code, &json["valid"]), (0, &Value::Bool(true)), "{json}");
    assert_eq!(json["policies"][0]["name"], "shop/web");
    assert_eq!(json["policies"][0]["rules"], 2);

    let broken = POLICY.replace("methods: [GET]", "metods: [GET]");
    fs::write(dir.join("policies/web.yaml"), broken).unwrap();
    let (code, json) = ask(&dir, &["check", "mesh.yaml"]);
    assert_eq!((code, &json["valid"]), (1, &Value::Bool(false)), "{json}");
    let issue = &json["issues"][0];
    assert!(issue["file"].as_str().unwrap().ends_with("policies/web.yaml"), "{issue}");
    assert_eq!(issue["line"], 9, "{issue}");
    assert!(issue["field"].as_str().unwrap().starts_with("spec.rules[0].to[0].operation"), "{issue}");
    let text = mesh(&dir, &["check", "mesh.yaml"]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("web.yaml:9"));

    fs::write(dir.join("policies/web.yaml"), POLICY).unwrap();
    for (exporter, code) in [("{ otlp: { endpoint: \"http://127.0.0.1:4318\" } }", 0), ("{ otpl: {} }", 1)] {
        fs::write(dir.join("traced.yaml"), format!("{CONFIG}\ntelemetry: {{ exporter: {exporter} }}\n")).unwrap();
        assert_eq!(ask(&dir, &["check", "traced.yaml"]).0, code, "{exporter}");
    }

    let (code, json) = ask(&dir, &["check", "nowhere.yaml"]);
    assert_eq!((code, &json["exit_code"]), (3, &Value::from(3)), "{json}");
    assert_eq!(mesh(&dir, &["check"]).status.code(), Some(2));
}

#[test]
fn explain_decides_as_the_engine_does() {
    let (_guard, dir) = workspace();
    let web = "spiffe://shop.example/ns/shop/sa/web";
    let other = "spiffe://shop.example/ns/shop/sa/other";
    let claims = r#"{"iss":"https://idp.example","sub":"ann"}"#;
    for (args, code, reason, rule, status) in [
        (vec!["--principal", web, "--path", "/orders/7"], 0, "allow_rule", Some(0), None),
        (vec!["--principal", other, "--path", "/orders/7"], 1, "no_allow_rule", None, Some(403)),
        (vec!["--anonymous", "--path", "/orders/7"], 1, "no_allow_rule", None, Some(403)),
        (vec!["--principal", web, "--path", "/orders/7", "--port", "9"], 1, "no_allow_rule", None, Some(403)),
        (vec!["--principal", web, "--path", "/orders", "--method", "POST"], 1, "no_allow_rule", None, Some(401)),
        (
            vec!["--principal", web, "--path", "/x", "--method", "POST", "--claims", claims],
            0,
            "allow_rule",
            Some(1),
            None,
        ),
    ] {
        let (exit, json) = ask(&dir, &[&["explain", "--config", "mesh.yaml"], args.as_slice()].concat());
        assert_eq!(exit, code, "{args:?} {json}");
        assert_eq!(json["decision"]["reason"], reason, "{args:?} {json}");
        assert_eq!(json["decision"]["rule"].as_u64(), rule, "{args:?} {json}");
        assert_eq!(json["status"].as_u64(), status, "{args:?} {json}");
        assert_eq!(json["steps"].as_array().unwrap().len(), 2);
    }
    let text = mesh(&dir, &["explain", "--config", "mesh.yaml", "--principal", web, "--path", "/orders/7"]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("allowed (allow_rule) by shop/web, rule 0"));

    let usage = ["explain", "--config", "mesh.yaml", "--path", "/"];
    assert_eq!(mesh(&dir, &usage).status.code(), Some(2), "neither --principal nor --anonymous");
    let claims = [&usage[..], &["--anonymous", "--claims", "[]"]].concat();
    assert_eq!(mesh(&dir, &claims).status.code(), Some(2));
}

#[test]
fn dev_ca_issues_what_inspect_takes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = ["--dir", "ca", "--trust-domain", "shop.example"];
    let (code, json) = ask(dir, &[&["dev-ca", "init"][..], &authority].concat());
    assert_eq!((code, &json["trust_domain"]), (0, &Value::from("shop.example")), "{json}");
    let workload = ["--namespace", "shop", "--service-account", "web", "--out", "web"];
    let (code, json) = ask(dir, &[&["dev-ca", "issue"][..], &authority, &workload].concat());
    assert_eq!((code, &json["spiffe_id"]), (0, &Value::from("spiffe://shop.example/ns/shop/sa/web")), "{json}");

    let (code, json) = ask(dir, &["svid", "inspect", "web/svid.pem", "--bundle", "web/bundle.pem"]);
    assert_eq!((code, &json["verified"]), (0, &Value::Bool(true)), "{json}");
    assert_eq!(json["spiffe_id"], "spiffe://shop.example/ns/shop/sa/web");
    assert_eq!(json["chain"][0]["uris"][0], "spiffe://shop.example/ns/shop/sa/web");

    // Another authority does not vouch for it, an authority is no workload, a key is no certificate.
    ask(dir, &["dev-ca", "init", "--dir", "other", "--trust-domain", "shop.example"]);
    let (code, json) = ask(dir, &["svid", "inspect", "web/svid.pem", "--bundle", "other/bundle.pem"]);
    assert_eq!((code, &json["valid"]), (1, &Value::Bool(false)), "{json}");
    let (code, json) = ask(dir, &["svid", "inspect", "web/bundle.pem"]);
    assert_eq!(code, 1, "{json}");
    assert_eq!(mesh(dir, &["svid", "inspect", "web/svid.key"]).status.code(), Some(3));

    // The authority of another trust domain is not taken over.
    let (code, json) = ask(dir, &["dev-ca", "init", "--dir", "ca", "--trust-domain", "other.example"]);
    assert_eq!(code, 3, "{json}");
}

#[test]
fn inspect_names_the_rule_that_a_leaf_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let uri = |path: &str| rcgen::SanType::URI(format!("spiffe://shop.example{path}").try_into().unwrap());
    for (names, usages, reason) in [
        (vec![], vec![rcgen::KeyUsagePurpose::DigitalSignature], "uri_missing"),
        (vec![uri("/a"), uri("/b")], vec![rcgen::KeyUsagePurpose::DigitalSignature], "uri_ambiguous"),
        (vec![uri("")], vec![rcgen::KeyUsagePurpose::DigitalSignature], "spiffe_id_without_path"),
        (vec![uri("/a")], vec![], "key_usage_missing"),
    ] {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = names;
        params.key_usages = usages;
        fs::write(dir.path().join("leaf.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let (code, json) = ask(dir.path(), &["svid", "inspect", "leaf.pem"]);
        assert_eq!((code, &json["reason"]), (1, &Value::from(reason)), "{json}");
    }
}
