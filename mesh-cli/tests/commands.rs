//! The built binary: exit codes and the stable fields of its JSON.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mesh_core::identity::forge::{ACCEPTED, Workshop, noon};
use serde_json::{Value, json};

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

    let strict = serde_json::json!({
        "name": "default", "mtls": "strict", "tls": "1.3", "resumption": false, "gateways": [],
    });
    assert_eq!((&json["listeners"][0], &json["warnings"]), (&strict, &serde_json::json!([])));
    let weaker = "8443\", tls: { min_version: \"1.2\", resumption: true }";
    fs::write(dir.join("weaker.yaml"), CONFIG.replace("8443\"", weaker)).unwrap();
    let (code, json) = ask(&dir, &["check", "weaker.yaml"]);
    let fields: Vec<_> = json["warnings"].as_array().unwrap().iter().map(|w| (&w["line"], &w["field"])).collect();
    let (line, version, resumption) =
        (&4.into(), "listeners.default.tls.min_version", "listeners.default.tls.resumption");
    assert_eq!((code, fields), (0, vec![(line, &version.into()), (line, &resumption.into())]), "{json}");

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
    for (check, code) in
        [("{ grpc: { service: shop.Payments } }", 0), ("{ grpc: { srevice: x } }", 1), ("{ tcp: {} }", 1)]
    {
        let cluster = format!(
            "{{ discover: {{ static: [\"127.0.0.1:1\"] }}, identities: [\"spiffe://td/x\"], health_check: {{ check: {check} }} }}"
        );
        fs::write(dir.join("checked.yaml"), format!("{CONFIG}\nclusters: {{ a: {cluster} }}\n")).unwrap();
        assert_eq!(ask(&dir, &["check", "checked.yaml"]).0, code, "{check}");
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
    // Whose tokens a service takes, nobody said yet: it would refuse this one.
    let with_claims =
        ["explain", "--config", "mesh.yaml", "--anonymous", "--path", "/x", "--method", "POST", "--claims", claims];
    let (code, json) = ask(&dir, &with_claims);
    assert_eq!((code, &json["status"], &json["decision"]["verdict"]), (1, &401.into(), &"deny".into()), "{json}");
    assert_eq!((&json["decision"]["reason"], &json["steps"]), (&"token_unknown_issuer".into(), &json!([])), "{json}");
    let text = String::from_utf8(mesh(&dir, &with_claims).stdout).unwrap();
    assert!(text.contains("`tokens` names no issuer"), "{text}");
    let keys = keys_of_an_issuer(&dir);
    let tokens =
        format!("tokens: [ {{ issuer: 'https://idp.example', audiences: [orders], jwks: {{ file: {keys:?} }} }} ]\n");
    fs::write(dir.join("mesh.yaml"), format!("{CONFIG}{tokens}")).unwrap();
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

    // Read as the server reads it: the query is no part of the path, the host has one form, what is forged is gone.
    let explain = |more: &[&str]| {
        let args = ["explain", "--config", "mesh.yaml", "--principal", web];
        ask(&dir, &[&args[..], more].concat())
    };
    let (code, json) = explain(&["--path", "/orders/7?a=b", "--host", "Orders.:08443"]);
    assert_eq!((code, &json["request"]["host"]), (0, &"orders:8443".into()), "{json}");
    assert_eq!((&json["request"]["read_as"], &json["request"]["method"]), (&json!(["/orders/7"]), &"GET".into()));
    for (more, reason, status) in [
        (&["--path", "/orders/../7"][..], "path_dot_segment", 400),
        (&["--path", "/orders/7", "--method", "G T"], "method", 400),
        (&["--path", "/orders/7", "--header", "bad name: x"], "header", 400),
        (&["--path", "/orders/7", "--header", "host: other"], "host_mismatch", 400),
        (&["--path", "/orders/7", "--header", "upgrade: websocket"], "upgrade", 400),
        (&["--path", "/orders/7", "--protocol", "grpc"], "grpc_path", 12),
        (&["--path", "/shop.Orders/Get", "--protocol", "grpc", "--method", "GET"], "grpc_method", 12),
    ] {
        let (code, json) = explain(more);
        assert_eq!((code, &json["reason"], &json["status"]), (1, &reason.into(), &status.into()), "{more:?} {json}");
        let decision = &json["decision"];
        assert_eq!((&decision["verdict"], &decision["reason"]), (&"deny".into(), &reason.into()), "{more:?} {json}");
    }
    let (_, json) = explain(&["--path", "/shop.Orders/Get", "--protocol", "grpc"]);
    assert_eq!((&json["request"]["method"], &json["status"]), (&"POST".into(), &16.into()), "{json}");

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
fn processes_that_start_at_once_share_one_authority_and_its_successor() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = ["--dir", "ca", "--trust-domain", "shop.example"];
    std::thread::scope(|scope| {
        let processes: Vec<_> = (0..12)
            .map(|n| {
                scope.spawn(move || {
                    let out = format!("w{n}");
                    let workload = ["--namespace", "shop", "--service-account", "web", "--out", out.as_str()];
                    ask(dir, &[&["dev-ca", "issue"][..], &authority, &workload].concat())
                })
            })
            .collect();
        for process in processes {
            let (code, json) = process.join().unwrap();
            assert_eq!(code, 0, "{json}");
        }
    });
    for n in 0..12 {
        let (leaf, bundle) = (format!("w{n}/svid.pem"), format!("w{}/bundle.pem", (n + 1) % 12));
        let (code, json) = ask(dir, &["svid", "inspect", &leaf, "--bundle", &bundle]);
        assert_eq!((code, &json["verified"]), (0, &Value::Bool(true)), "{json}");
    }

    let roots = || std::fs::read_to_string(dir.join("ca/bundle.pem")).unwrap().matches("BEGIN CERT").count();
    let (code, json) = ask(dir, &[&["dev-ca", "rotate"][..], &authority].concat());
    assert_eq!((code, json["old_until"].as_u64().unwrap() - json["signs_from"].as_u64().unwrap()), (0, 86_400));
    assert_eq!(roots(), 2);
    assert_eq!(ask(dir, &[&["dev-ca", "rotate"][..], &authority].concat()).0, 3, "one at a time");
    assert_eq!(roots(), 2);
}

#[test]
fn inspect_names_the_rule_that_a_leaf_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let uri = |path: &str| rcgen::SanType::URI(format!("spiffe://shop.example{path}").try_into().unwrap());
    for (names, usages, reason) in [
        (vec![], vec![rcgen::KeyUsagePurpose::DigitalSignature], "san_missing"),
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

/// Exit code and lines of JSON.
fn lines(dir: &Path, args: &[&str]) -> (i32, Vec<String>) {
    let output = mesh(dir, args);
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), text.lines().map(str::to_owned).collect())
}

#[test]
fn verify_says_one_line_for_each_chain_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let workload = ["--namespace", "shop", "--service-account", "web"];
    for (ca, domain) in [("a", "shop.example"), ("b", "partner.example"), ("c", "shop.example")] {
        let authority = ["--dir", ca, "--trust-domain", domain, "--out", &format!("{ca}/web")];
        assert_eq!(ask(dir, &[&["dev-ca", "issue"][..], &authority, &workload].concat()).0, 0);
    }
    fs::write(dir.join("junk.pem"), "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n").unwrap();
    fs::write(dir.join("broken.pem"), "-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n").unwrap();
    fs::write(dir.join("long.pem"), fs::read_to_string(dir.join("a/web/svid.pem")).unwrap().repeat(9)).unwrap();
    fs::write(dir.join("huge.pem"), vec![b'#'; (1 << 20) + 1]).unwrap();
    let line = |reason: Option<&str>, id: Option<&str>| {
        let json = |text: Option<&str>| text.map_or("null".to_owned(), |text| format!("{text:?}"));
        format!(r#"{{"valid":{},"reason":{},"spiffe_id":{}}}"#, reason.is_none(), json(reason), json(id))
    };
    let web = Some("spiffe://shop.example/ns/shop/sa/web");
    let partner = Some("spiffe://partner.example/ns/shop/sa/web");
    let table = [
        // Both authorities of the trust domain bear the same name.
        ("c/web/svid.pem", line(Some("bad_signature"), web)),
        ("a/web/svid.pem", line(None, web)),
        ("b/web/svid.pem", line(None, partner)),
        ("long.pem", line(Some("chain_too_long"), web)),
        ("huge.pem", line(Some("chain_too_large"), None)),
        ("junk.pem", line(Some("malformed"), None)),
        ("broken.pem", line(Some("malformed"), None)),
        ("a/web/svid.key", line(Some("no_certificate"), None)),
        ("a/web/svid.pem", line(None, web)),
    ];
    let (files, expected): (Vec<_>, Vec<_>) = table.into_iter().unzip();
    let (a, b) = ("shop.example=a/web/bundle.pem", "partner.example=b/web/bundle.pem");
    // However the bundles are spelled, and whatever stands between.
    for bundles in [vec!["--bundle", a, b], vec!["--bundle", a, "--bundle", b], vec!["--bundle", a, b, "--"]] {
        let (code, said) = lines(dir, &[&["svid", "verify"][..], &bundles, &files].concat());
        assert_eq!((code, said), (1, expected.clone()), "{bundles:?}");
    }
    // As in the README, word for word.
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let command = "svid verify --bundle shop.example=web/bundle.pem web/svid.pem";
    let (_, said) = lines(&dir.join("a"), &command.split(' ').collect::<Vec<_>>());
    assert!(readme.contains(&format!("$ mesh {command}\n{}\n", said[0])), "{said:?}");
    let verify = |args: &[&str]| lines(dir, &[&["svid", "verify"][..], args].concat());
    assert_eq!(verify(&["--bundle", a, "a/web/svid.pem"]), (0, vec![line(None, web)]));
    assert_eq!(
        verify(&["--bundle", a, "b/web/svid.pem"]),
        (1, vec![line(Some("unknown_trust_domain"), partner)]),
        "nobody said that the partner is trusted"
    );
    let swapped = ["--bundle", "shop.example=b/web/bundle.pem", "partner.example=a/web/bundle.pem", "a/web/svid.pem"];
    assert_eq!(verify(&swapped), (1, vec![line(Some("issuer_of_another_trust_domain"), web)]));
    for (at, reason) in [("0", "not_yet_valid"), ("4000000000", "expired")] {
        assert_eq!(verify(&["--bundle", a, "--at", at, "a/web/svid.pem"]), (1, vec![line(Some(reason), web)]));
    }
    // What cannot be read costs nobody else a verdict.
    let good = line(None, web);
    assert_eq!(
        verify(&["--bundle", a, "nowhere.pem", ".", "a/web/svid.pem"]),
        (3, vec![line(Some("unreadable"), None), line(Some("unreadable"), None), good.clone()])
    );
    for bundle in ["partner.example=nowhere.pem", "partner.example=b/web/svid.pem", "partner.example=huge.pem"] {
        let refused = line(Some("bundle_unusable"), partner);
        assert_eq!(
            verify(&["--bundle", a, bundle, "b/web/svid.pem", "a/web/svid.pem"]),
            (3, vec![refused, good.clone()])
        );
    }
    for wrong in [
        vec!["--bundle", a, "--bundle", "shop.example=c/web/bundle.pem", "a/web/svid.pem"],
        vec!["--bundle", "Shop.example=a/web/bundle.pem", "a/web/svid.pem"],
        vec!["--bundle", "a/web/bundle.pem", "a/web/svid.pem"],
        vec!["--bundle", a, "--at", "noon", "a/web/svid.pem"],
        vec!["--bundle", a],
        vec!["a/web/svid.pem"],
    ] {
        assert_eq!(verify(&wrong), (2, vec![]), "{wrong:?}");
    }
}

#[test]
fn id_check_says_one_line_for_each_line() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let id = |bytes: usize| format!("spiffe://td/{}", "a".repeat(bytes - "spiffe://td/".len()));
    let good = |domain: &str, path: &str| {
        format!(r#"{{"valid":true,"reason":null,"trust_domain":"{domain}","path":"{path}"}}"#)
    };
    let bad = |reason: &str| format!(r#"{{"valid":false,"reason":"{reason}","trust_domain":null,"path":null}}"#);
    let (longest, too_long) = (id(2048), id(2049));
    let table: &[(&[u8], String)] = &[
        (b"spiffe://shop.example/ns/shop/sa/web", good("shop.example", "/ns/shop/sa/web")),
        (b"spiffe://shop.example/a%2Fb", bad("id_path_character")),
        (b"spiffe://td", good("td", "")),
        (longest.as_bytes(), good("td", &longest[11..])),
        (too_long.as_bytes(), bad("id_too_long")),
        (&vec![b'a'; 10_000_000], bad("id_too_long")),
        (b"", bad("id_empty")),
        (b"SPIFFE://td/a", bad("id_scheme")),
        (b"https://td/a", bad("id_scheme")),
        (b" spiffe://td/a", bad("id_scheme")),
        (b"\xef\xbb\xbfspiffe://td/a", bad("id_scheme")),
        (b"spiffe://", bad("id_trust_domain_missing")),
        (b"spiffe://TD/a", bad("id_trust_domain_character")),
        (b"spiffe://td:80/a", bad("id_trust_domain_character")),
        (b"spiffe://user@td/a", bad("id_trust_domain_character")),
        (b"spiffe://td/", bad("id_empty_segment")),
        (b"spiffe://td/a//b", bad("id_empty_segment")),
        (b"spiffe://td/a/../b", bad("id_dot_segment")),
        (b"spiffe://td/%61", bad("id_path_character")),
        (b"spiffe://td/a?q", bad("id_path_character")),
        (b"spiffe://td/a\r", bad("id_path_character")),
        (b"spiffe://td/a\0", bad("id_path_character")),
        (b"spiffe://td/\xff", bad("id_not_utf8")),
        (b"spiffe://td/last", good("td", "/last")),
    ];
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    assert!(readme.contains(&format!("$ echo spiffe://shop.example/a%2Fb | mesh id check -\n{}\n", table[1].1)));
    let input = table.iter().map(|(line, _)| *line).collect::<Vec<_>>().join(&b'\n');
    let expected: Vec<String> = table.iter().map(|(_, said)| said.clone()).collect();
    fs::write(dir.join("ids"), &input).unwrap();
    assert_eq!(lines(dir, &["id", "check", "ids"]), (1, expected.clone()));
    let mut child = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(["id", "check", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&[&input[..], b"\n"].concat()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected.join("\n") + "\n", "a last line may have its end");

    for (text, code, count) in [("", 0, 0), ("\n", 1, 1), ("spiffe://td/a\nspiffe://td/b\n", 0, 2)] {
        fs::write(dir.join("ids"), text).unwrap();
        let (exit, said) = lines(dir, &["id", "check", "ids"]);
        assert_eq!((exit, said.len()), (code, count), "{text:?}");
    }
    assert_eq!(lines(dir, &["id", "check", "nowhere"]), (3, vec![]));
    assert_eq!(lines(dir, &["id", "check"]), (2, vec![]));
}

#[test]
fn token_verify_says_one_line_for_each_token_in_order() {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
    use serde_json::json;

    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let x = encode(rcgen::PublicKeyData::der_bytes(&key));
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x });
    fs::write(dir.join("keys.json"), json!({ "keys": [jwk] }).to_string()).unwrap();
    fs::write(dir.join("key.json"), jwk.to_string()).unwrap();
    fs::write(dir.join("twice.json"), json!({ "keys": [jwk, jwk] }).to_string()).unwrap();
    fs::write(dir.join("payload"), "any payload").unwrap();
    let sign = |header: Value, payload: &str| {
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(payload.as_bytes()));
        format!("{signed}.{}", encode(&rcgen::SigningKey::sign(&key, signed.as_bytes()).unwrap()))
    };
    let header = json!({ "alg": "EdDSA", "kid": "k" });
    let claims = json!({ "iss": "https://idp.example", "sub": "ann", "aud": "orders", "exp": 1_800_000_600, "iat": 1_800_000_000 });
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        sign(header.clone(), &claims.to_string())
    };
    let line = |reason: &str| format!(r#"{{"valid":false,"reason":"{reason}","claims":null}}"#);
    let ok = format!(r#"{{"valid":true,"reason":null,"claims":{claims}}}"#);
    let good = sign(header.clone(), &claims.to_string());
    let table = [
        (good.clone(), ok.clone()),
        (with("aud", json!("payments")), line("token_wrong_audience")),
        (String::new(), line("token_malformed")),
        (format!("{good}\r"), line("token_malformed")),
        (with("iss", json!("https://evil.example")), line("token_unknown_issuer")),
        (with("pad", json!("x".repeat(9000))), line("token_too_large")),
        ("a".repeat(1_000_000), line("token_too_large")),
        (sign(json!({ "alg": "none" }), &claims.to_string()), line("token_forbidden_algorithm")),
        (sign(json!({ "alg": "EdDSA", "kid": "k", "typ": "wit+jwt" }), &claims.to_string()), line("token_wrong_type")),
        (sign(json!({ "alg": "EdDSA", "kid": "other" }), &claims.to_string()), line("token_unknown_key")),
        (good.replace("eyJ", "eyK"), line("token_malformed")),
        (with("cnf", json!({ "jkt": "x" })), line("token_sender_constrained")),
        (good.clone(), ok.clone()),
    ];
    let (input, expected): (Vec<_>, Vec<_>) = table.into_iter().unzip();
    fs::write(dir.join("tokens"), input.join("\n")).unwrap();
    fs::write(dir.join("token"), format!("{good}\n")).unwrap();
    let issuer = ["token", "verify", "--jwks", "keys.json", "--issuer", "https://idp.example", "--audience", "orders"];
    let verify = |more: &[&str]| lines(dir, &[&issuer[..], more].concat());
    assert_eq!(verify(&["--at", "1800000001", "tokens"]), (1, expected));
    assert_eq!(verify(&["--at", "1800000001", "token"]), (0, vec![ok.clone()]));
    assert_eq!(
        verify(&["--at", "1800000001", "--audience", "other", "--typ", "jwt", "--algorithms", "ES256,EdDSA", "token"])
            .0,
        0
    );
    // However the audiences are spelled, and wherever the file stands.
    let head = &issuer[..issuer.len() - 2];
    for spelled in [
        &["--audience", "other", "orders", "--typ", "at+jwt", "JWT", "--at", "1800000001", "token"][..],
        &["--at", "1800000001", "--audience", "other", "orders", "token"],
        &["--at", "1800000001", "--typ", "at+jwt", "JWT", "token", "--audience", "other", "--audience", "orders"],
        &["token", "--at", "1800000001", "--audience", "other", "orders"],
        &["--at", "1800000001", "token", "--audience=orders"],
    ] {
        assert_eq!(lines(dir, &[head, spelled].concat()), (0, vec![ok.clone()]), "{spelled:?}");
    }
    for (more, reason) in [
        (["--at", "1800000630"], "token_expired"),
        (["--at", "1799999000"], "token_not_yet_valid"),
        (["--algorithms", "ES256"], "token_algorithm_not_accepted"),
        (["--typ", "at+jwt"], "token_wrong_type"),
    ] {
        let at: &[&str] = if more[0] == "--at" { &[] } else { &["--at", "1800000001"] };
        assert_eq!(verify(&[at, &more, &["token"]].concat()), (1, vec![line(reason)]), "{more:?}");
    }
    // Keys that cannot be used: nothing holds under them, and that is told.
    for keys in ["twice.json", "nowhere.json", "token"] {
        let said = lines(dir, &["token", "verify", "--jwks", keys, "--issuer", "i", "--audience", "a", "token"]);
        assert_eq!(said, (3, vec![line("keys_unusable")]), "{keys}");
    }
    // Signatures alone, over anything; detached too.
    let signed = sign(json!({ "alg": "EdDSA" }), "any payload");
    let (head, rest) = signed.split_once('.').unwrap();
    let detached = format!("{head}..{}", rest.split_once('.').unwrap().1);
    fs::write(dir.join("signed"), format!("{signed}\n{good}\n{}", signed.replacen("eyJ", "eyK", 1))).unwrap();
    fs::write(dir.join("detached"), &detached).unwrap();
    let only =
        |more: &[&str]| lines(dir, &[&["token", "verify", "--signature-only", "--key", "key.json"], more].concat());
    let holds = r#"{"valid":true,"reason":null,"claims":null}"#.to_owned();
    assert_eq!(only(&["signed"]), (1, vec![holds.clone(), holds.clone(), line("token_malformed")]));
    assert_eq!(only(&["--payload", "payload", "detached"]), (0, vec![holds]));
    assert_eq!(only(&["--payload", "key.json", "detached"]), (1, vec![line("token_bad_signature")]));
    assert_eq!(only(&["detached"]), (1, vec![line("token_bad_signature")]));
    assert_eq!(only(&["--payload", "nowhere", "detached"]), (3, vec![]));
    assert_eq!(verify(&["nowhere"]), (3, vec![]));
    for wrong in [
        vec!["--signature-only", "token"],
        vec!["--signature-only", "--key", "key.json", "--issuer", "i", "token"],
        vec!["--payload", "payload", "token"],
        vec!["--jwks", "keys.json", "--issuer", "i", "token"],
        vec!["--jwks", "keys.json", "--issuer", "i", "--audience", "a", "--algorithms", "HS256", "token"],
        vec!["--jwks", "keys.json", "--issuer", "i", "--audience", "a"],
    ] {
        assert_eq!(lines(dir, &[&["token", "verify"][..], &wrong].concat()), (2, vec![]), "{wrong:?}");
    }
    // As in the README, word for word.
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let command = format!("{} --at 1800000630 token", issuer.join(" "));
    assert!(readme.contains(&format!("$ mesh {command}\n{}\n", line("token_expired"))));
}

#[test]
fn verify_judges_the_table_of_attacks_as_a_mesh_does() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let workshop = Workshop::default();
    let mut args: Vec<String> = ["svid", "verify", "--bundle"].map(str::to_owned).into();
    for bundle in workshop.trust().iter() {
        let file = format!("{}.pem", bundle.domain());
        fs::write(dir.join(&file), bundle.authorities().iter().map(|der| pem(der)).collect::<String>()).unwrap();
        args.push(format!("{}={file}", bundle.domain()));
    }
    let at = noon().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    args.extend(["--at".to_owned(), at.to_string()]);
    let table: Vec<_> = workshop.attacks().into_iter().chain(workshop.variants()).collect();
    for (index, forgery) in table.iter().enumerate() {
        let file = format!("{index}.pem");
        fs::write(dir.join(&file), forgery.chain.iter().map(|der| pem(der)).collect::<String>()).unwrap();
        args.push(file);
    }
    let (code, said) = lines(dir, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((code, said.len()), (1, table.len()));
    for (forgery, line) in table.iter().zip(&said) {
        let line: Value = serde_json::from_str(line).unwrap();
        let good = forgery.verdict == ACCEPTED;
        let reason = if good { Value::Null } else { forgery.verdict.into() };
        assert_eq!((&line["valid"], &line["reason"]), (&good.into(), &reason), "{}: {line}", forgery.name);
        assert!(!good || line["spiffe_id"].is_string(), "{}: {line}", forgery.name);
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

#[test]
fn check_and_explain_know_whose_tokens_are_taken() {
    let (_guard, dir) = workspace();
    let set = fs::read_to_string(keys_of_an_issuer(&dir)).unwrap();
    let document = |name: &str, labels: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{ name: {name}, namespace: shop \
             }}\nspec:\n  selector: {{ matchLabels: {{ app: {labels} }} }}\n  jwtRules: [ {{ issuer: 'https://idp.example', \
             audiences: [{labels}], jwks: '{set}' }} ]\n"
        )
    };
    fs::write(dir.join("policies/jwt.yaml"), document("jwt", "orders") + &document("other", "web")).unwrap();
    let (code, json) = ask(&dir, &["check", "mesh.yaml"]);
    assert_eq!((code, &json["issuers"]), (0, &serde_json::json!(["https://idp.example"])), "{json}");
    let [listed] = json["request_authentications"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert_eq!((&listed["name"], &listed["line"]), (&"shop/jwt".into(), &2.into()));
    assert_eq!((&json["lint"]["warnings"], &json["warnings"]), (&0.into(), &serde_json::json!([])), "{json}");
    let text = String::from_utf8(mesh(&dir, &["check", "mesh.yaml"]).stdout).unwrap();
    assert!(text.contains("RequestAuthentication shop/jwt: https://idp.example, ./policies/jwt.yaml:2:1"), "{text}");

    for (claims, code, status, reason) in [
        (r#"{"iss":"https://idp.example","sub":"ann","aud":"orders"}"#, 0, None, None),
        (r#"{"iss":"https://idp.example","sub":"ann","aud":"web"}"#, 1, Some(401), Some("token_wrong_audience")),
        (r#"{"iss":"https://idp2.example","sub":"ann"}"#, 1, Some(401), Some("token_unknown_issuer")),
    ] {
        let args =
            ["explain", "--config", "mesh.yaml", "--anonymous", "--path", "/x", "--method", "POST", "--claims", claims];
        let (exit, json) = ask(&dir, &args);
        assert_eq!((exit, json["status"].as_u64(), json["reason"].as_str()), (code, status, reason), "{json}");
    }

    // What no document says is wrong with is wrong with the two together.
    let second = document("third", "orders").replace("audiences", "forwardOriginalToken: true, audiences");
    fs::write(dir.join("policies/jwt2.yaml"), second).unwrap();
    let (code, json) = ask(&dir, &["check", "mesh.yaml"]);
    assert_eq!((code, &json["issues"][0]["field"]), (1, &"spec.jwtRules[0].issuer".into()), "{json}");
    let message = json["issues"][0]["message"].as_str().unwrap();
    assert!(message.contains("policies/jwt.yaml:7 (spec.jwtRules[0])"), "{message}");
}

/// A file with the public key of somebody.
fn keys_of_an_issuer(dir: &Path) -> PathBuf {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"; // RFC 8037 A.2
    let path = dir.join("keys.json");
    fs::write(&path, format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#)).unwrap();
    path
}
