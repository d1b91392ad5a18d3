//! The built binary: exit codes and the stable fields of its JSON.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mesh_core::identity::forge::{ACCEPTED, Workshop, noon};
use serde_json::{Value, json};

#[path = "commands/tokens.rs"]
mod tokens;

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

/// A file with the public key of somebody.
fn keys_of_an_issuer(dir: &Path) -> PathBuf {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"; // RFC 8037 A.2
    let path = dir.join("keys.json");
    fs::write(&path, format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#)).unwrap();
    path
}
