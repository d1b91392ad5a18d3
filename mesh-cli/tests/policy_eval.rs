//! `mesh policy eval`: verdicts by line, what is wrong by field, and memory that does not grow.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: orders, namespace: shop }
spec:
  selector: { matchLabels: { app: orders } }
  rules:
  - from: [ { source: { principals: [cluster.local/ns/shop/sa/web] } } ]
    to: [ { operation: { methods: [GET], paths: [/orders/*], hosts: [\"orders.shop:8443\"] } } ]
  - from: [ { source: { principals: [cluster.local/ns/shop/sa/web], requestPrincipals: [\"https://idp.example/*\"] } } ]
    to: [ { operation: { paths: [/shop.Orders/Pay] } } ]
  - when: [ { key: \"request.headers[x-team]\", values: [a] }, { key: connection.sni, values: [orders] } ]
  - when: [ { key: \"request.auth.claims[groups]\", values: [admins] }, { key: route, values: [\"/{id}\"] } ]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: closed, namespace: shop }
spec: { action: DENY, rules: [ { to: [ { operation: { paths: [/orders/closed] } } ] } ] }
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: all, namespace: istio-system }
spec:
  selector: { matchLabels: { kind: db } }
  rules:
  - to: [ { operation: { ports: [\"5432\"] } } ]
    from: [ { source: { remoteIpBlocks: [10.0.0.0/8], ipBlocks: [10.0.0.1] } } ]
    when: [ { key: destination.ip, values: [10.0.0.9] } ]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: trial, namespace: shop, annotations: { istio.io/dry-run: \"true\" } }
spec: { action: DENY, rules: [ { to: [ { operation: { paths: [/orders/7] } } ] } ] }
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ask, namespace: shop }
spec: { action: CUSTOM, provider: { name: hours }, rules: [ { to: [ { operation: { paths: [/orders/9] } } ] } ] }
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: watch, namespace: shop }
spec: { action: AUDIT, rules: [ { to: [ { operation: { paths: [/orders/8] } } ] } ] }
";

const EVAL: &[&str] = &[
    "policy",
    "eval",
    "--policies",
    "policies",
    "--workload",
    "shop/orders",
    "--labels",
    "app=orders,v=1",
    "--trust-domain",
    "shop.example",
    "--requests",
    "requests.jsonl",
];

fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    fs::write(dir.path().join("policies/orders.yaml"), POLICIES).unwrap();
    dir
}

/// Exit code, lines, and what stands on the standard error.
fn run(dir: &Path, args: &[&str]) -> (i32, Vec<String>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mesh")).current_dir(dir).args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(str::to_owned).collect();
    (output.status.code().unwrap(), lines, String::from_utf8(output.stderr).unwrap())
}

fn eval(dir: &Path, input: &str, more: &[&str]) -> (i32, Vec<Value>) {
    fs::write(dir.join("requests.jsonl"), input).unwrap();
    let (code, lines, _) = run(dir, &[EVAL, more].concat());
    (code, lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// A request of `web`, with members replaced.
fn web(change: Value) -> String {
    let mut line = json!({
        "id": 1, "source": { "principal": "spiffe://shop.example/ns/shop/sa/web" }, "method": "GET",
        "authority": "orders.shop:8443", "path": "/orders/6?q",
    });
    line.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    format!("{line}\n")
}

#[test]
fn each_request_gets_the_verdict_that_the_mesh_would_give() {
    let dir = workspace();
    let grpc = |change: Value| {
        let mut all = json!({ "protocol": "grpc", "method": null, "path": "/shop.Orders/Pay" });
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        all
    };
    let ann = json!({ "iss": "https://idp.example", "sub": "ann", "groups": ["x", "admins"] });
    let header = |name: &str, value: &str| json!({ "path": "/", "sni": "orders", "headers": [[name, value]] });
    let table = [
        (json!({}), ("allow", Value::Null, "allow_rule", Some(("shop/orders", 0)))),
        (json!({ "authority": "ORDERS.shop.:08443" }), ("allow", Value::Null, "allow_rule", Some(("shop/orders", 0)))),
        (json!({ "authority": "orders.shop" }), ("deny", 403.into(), "no_allow_rule", None)),
        (json!({ "authority": null }), ("deny", 403.into(), "no_allow_rule", None)),
        (json!({ "source": null }), ("deny", 403.into(), "no_allow_rule", None)),
        (json!({ "path": "/orders/closed" }), ("deny", 403.into(), "deny_rule", Some(("shop/closed", 0)))),
        (json!({ "path": "/orders/../orders/7" }), ("reject", 400.into(), "path_dot_segment", None)),
        (json!({ "authority": "u@orders" }), ("reject", 400.into(), "host", None)),
        (json!({ "headers": [["Host", "other"]] }), ("reject", 400.into(), "host_mismatch", None)),
        (json!({ "headers": [["bad name", ""]] }), ("reject", 400.into(), "header", None)),
        (grpc(json!({})), ("deny", 16.into(), "no_allow_rule", None)),
        (grpc(json!({ "claims": ann })), ("allow", Value::Null, "allow_rule", Some(("shop/orders", 1)))),
        (grpc(json!({ "path": "/shop.Orders/No" })), ("deny", 7.into(), "no_allow_rule", None)),
        (grpc(json!({ "path": "/x" })), ("reject", 12.into(), "grpc_path", None)),
        (grpc(json!({ "method": "GET" })), ("reject", 12.into(), "grpc_method", None)),
        (header("X-Team", "a"), ("allow", Value::Null, "allow_rule", Some(("shop/orders", 2)))),
        (header("X-Team", "b"), ("deny", 403.into(), "no_allow_rule", None)),
        (
            json!({ "path": "/", "route": "/{id}", "claims": ann }),
            ("allow", Value::Null, "allow_rule", Some(("shop/orders", 3))),
        ),
        (json!({ "path": "/", "route": "/{id}" }), ("deny", 401.into(), "no_allow_rule", None)),
        (json!({ "path": "/orders/9" }), ("deny", 403.into(), "custom_not_asked", Some(("shop/ask", 0)))),
    ];
    let input: String = table.iter().map(|(change, _)| web(change.clone())).collect();
    let (code, said) = eval(dir.path(), &input, &[]);
    assert_eq!((code, said.len()), (0, table.len()));
    for ((change, (decision, status, reason, by)), line) in table.iter().zip(&said) {
        assert_eq!((&line["decision"], &line["reason"]), (&(*decision).into(), &(*reason).into()), "{change} {line}");
        assert_eq!(line["policy"].as_str().zip(line["rule"].as_u64()), *by, "{change} {line}");
        assert_eq!(&line["status"], status, "{change} {line}");
    }
}

#[test]
fn paths_are_read_as_the_mode_says() {
    let dir = workspace();
    for (canonical, path, decision, reason) in [
        ("reject", "/x/../orders/6", "reject", "path_dot_segment"),
        ("dual", "/x/../orders/6", "deny", "no_allow_rule"),
        ("dual", "/orders/x/../closed", "deny", "deny_rule"),
        ("none", "/orders/x/../closed", "allow", "allow_rule"),
        ("base", "/orders/x/../closed", "deny", "deny_rule"),
        ("base", "/orders//closed", "allow", "allow_rule"),
        ("merge-slashes", "/orders//closed", "deny", "deny_rule"),
        ("merge-slashes", "/orders%2Fclosed", "deny", "no_allow_rule"),
        ("decode-and-merge-slashes", "/orders%2Fclosed", "deny", "deny_rule"),
    ] {
        let (code, said) = eval(dir.path(), &web(json!({ "path": path })), &["--canonical", canonical]);
        let expected = (0, &decision.into(), &reason.into());
        assert_eq!((code, &said[0]["decision"], &said[0]["reason"]), expected, "{canonical} {path}");
    }
    // Each mode has the default that it has in a service.
    let dots = web(json!({ "path": "/orders/x/../closed" }));
    for mode in ["strict", "compat"] {
        let config = format!(
            "workload: {{ name: orders, namespace: shop, labels: {{ app: orders }} }}\nlisteners: {{ default: {{ address: \"127.0.0.1:8443\" }} }}\n\
             identity: {{ trust_domain: shop.example, source: {{ dev_ca: {{ dir: .mesh }} }} }}\npolicies: [ policies ]\n\
             authorization: {{ mode: {mode} }}\n"
        );
        fs::write(dir.path().join("mesh.yaml"), config).unwrap();
        let web = ["--principal", "spiffe://shop.example/ns/shop/sa/web", "--path", "/orders/x/../closed"];
        let explain = ["--json", "explain", "--config", "mesh.yaml", "--host", "orders.shop:8443"];
        let (_, lines, _) = run(dir.path(), &[&explain[..], &web].concat());
        let service: Value = serde_json::from_str(&lines.concat()).unwrap();
        let reason = if mode == "strict" { "path_dot_segment" } else { "deny_rule" };
        let of_service = service.get("reason").unwrap_or(&service["decision"]["reason"]);
        let (_, said) = eval(dir.path(), &dots, &["--mode", mode]);
        assert_eq!((of_service, &said[0]["reason"]), (&reason.into(), &reason.into()), "{mode} {service}");
        assert_eq!(service["status"], said[0]["status"], "{mode}");
    }
}

#[test]
fn raw_tcp_has_no_status() {
    let dir = workspace();
    let line = |source: &str, remote: &str, port: u16| {
        format!(
            "{}\n",
            json!({ "protocol": "tcp", "source": { "ip": source }, "remote_ip": remote,
                "destination": { "ip": "10.0.0.9", "port": port }, "path": "/not/looked/../at" })
        )
    };
    let input = [
        line("10.0.0.1", "10.1.1.1", 5432),
        line("::ffff:10.0.0.1", "10.1.1.1", 5432),
        line("10.0.0.2", "10.1.1.1", 5432),
        line("10.0.0.1", "11.1.1.1", 5432),
        line("10.0.0.1", "10.1.1.1", 5433),
    ];
    fs::write(dir.path().join("requests.jsonl"), input.concat()).unwrap();
    let args = ["policy", "eval", "--policies", "policies", "--workload", "data/pg", "--labels", "kind=db"];
    let (code, lines, _) = run(dir.path(), &[&args[..], &["--requests", "requests.jsonl"]].concat());
    let line = |decision: &str, by: &str| {
        format!(r#"{{"id":null,"decision":"{decision}","status":null,{by},"dry_run":[],"dry_run_decision":null}}"#)
    };
    let allowed = line("allow", r#""policy":"istio-system/all","rule":0,"reason":"allow_rule""#);
    let denied = line("deny", r#""policy":null,"rule":null,"reason":"no_allow_rule""#);
    assert_eq!((code, lines), (0, vec![allowed.clone(), allowed, denied.clone(), denied.clone(), denied]));
}

#[test]
fn policies_under_trial_audit_and_external_authorizers() {
    let dir = workspace();
    let (code, said) = eval(dir.path(), &web(json!({ "path": "/orders/7" })), &[]);
    let rule = json!([{ "policy": "shop/trial", "rule": 0, "action": "DENY" }]);
    assert_eq!((code, &said[0]["decision"], &said[0]["dry_run"]), (0, &"allow".into(), &rule));
    assert_eq!(said[0]["dry_run_decision"], "deny");
    let (_, said) = eval(dir.path(), &web(json!({ "path": "/orders/8" })), &[]);
    assert_eq!((&said[0]["audit"], &said[0]["dry_run"]), (&json!(["shop/watch"]), &json!([])));
    assert_eq!(said[0]["dry_run_decision"], "allow");
    for (answer, reason) in [
        ("hours=allow", "allow_rule"),
        ("hours=deny", "custom_denied"),
        ("hours=error", "custom_error"),
        ("hours=timeout", "custom_timeout"),
        ("other=allow", "custom_not_asked"),
    ] {
        let (code, said) = eval(dir.path(), &web(json!({ "path": "/orders/9" })), &["--custom", answer]);
        assert_eq!((code, &said[0]["reason"]), (0, &reason.into()), "{answer}");
    }
    // The options are those of the engine.
    let nobody = ["policy", "eval", "--policies", "policies", "--workload", "x/y", "--requests", "requests.jsonl"];
    for (more, decision, reason) in [
        (&[][..], "deny", "no_policy_deny"),
        (&["--no-policy", "allow"], "allow", "no_policy_allow"),
        (&["--mode", "compat"], "allow", "no_policy_allow"),
        (&["--mode", "compat", "--no-policy", "deny"], "deny", "no_policy_deny"),
        (&["--root-namespace", "shop"], "deny", "custom_not_asked"),
    ] {
        let (code, lines, _) = run(dir.path(), &[&nobody[..], more].concat());
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((code, &line["decision"], &line["reason"]), (0, &decision.into(), &reason.into()), "{more:?}");
    }
    let alias = web(json!({ "source": { "principal": "spiffe://old.example/ns/shop/sa/web" } }));
    assert_eq!(eval(dir.path(), &alias, &[]).1[0]["decision"], "deny");
    assert_eq!(eval(dir.path(), &alias, &["--trust-domain-alias", "old.example"]).1[0]["decision"], "allow");
}

#[test]
fn a_line_that_is_wrong_costs_nobody_else_a_verdict() {
    let dir = workspace();
    let deep = format!(r#"{{"id":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
    let table: &[(&str, Value, &str)] = &[
        ("", Value::Null, "not a JSON object: EOF while parsing a value"),
        ("[]", Value::Null, "not a JSON object: invalid type: sequence, expected an object"),
        ("{} {}", Value::Null, "not a JSON object: trailing characters"),
        (r#"{"id":1"#, Value::Null, "not a JSON object: EOF while parsing an object"),
        (r#"{"method":5,"id":2}"#, 2.into(), "method: invalid type: integer `5`, expected a string"),
        (r#"{"id":"a","metod":"GET"}"#, "a".into(), "metod: unknown field"),
        (r#"{"id":{"n":1},"path":"/a","path":"/b"}"#, json!({ "n": 1 }), "path: written twice"),
        (r#"{"id":1,"id":2}"#, Value::Null, "id: written twice"),
        (r#"{"id":3,"source":{"principal":"web"}}"#, 3.into(), "source.principal: "),
        (r#"{"id":3,"source":{"principal":"spiffe://td"}}"#, 3.into(), "source.principal: names a trust domain"),
        (r#"{"id":3,"source":{"ip":"1.2.3"}}"#, 3.into(), "source.ip: invalid IP address syntax"),
        (r#"{"id":3,"source":{"ip":"1.2.3.4","port":1}}"#, 3.into(), "source.port: unknown field"),
        (r#"{"id":3,"source":5}"#, 3.into(), "source: invalid type: integer `5`, expected an object"),
        (r#"{"id":4,"destination":{"port":65536}}"#, 4.into(), "destination.port: invalid value"),
        (r#"{"id":5,"protocol":"HTTP"}"#, 5.into(), "protocol: unknown variant `HTTP`"),
        (r#"{"id":6,"headers":{"a":"b"}}"#, 6.into(), "headers: invalid type: map"),
        (r#"{"id":6,"headers":[["a"]]}"#, 6.into(), "headers: invalid length 1"),
        (r#"{"id":7,"claims":{"sub":"ann"}}"#, 7.into(), "claims: `iss` must be a string"),
        (r#"{"id":7,"claims":{"iss":"i","sub":1}}"#, 7.into(), "claims: `sub` must be a string"),
        (r#"{"id":7,"claims":{"iss":"i","aud":[1]}}"#, 7.into(), "claims: `aud` must be"),
        (r#"{"id":7,"claims":{"iss":"i","x":{"a":1,"a":2}}}"#, 7.into(), "claims: a JSON member is written twice"),
        (&deep, Value::Null, "id: the JSON is nested deeper than 32 levels"),
    ];
    let good = web(json!({}));
    let mut input = good.clone();
    for (line, ..) in table {
        input.push_str(&format!("{line}\n{good}"));
    }
    // Longer than a line may be.
    input.push_str(&format!("{{\"id\":1,\"path\":\"/{}\"}}\n", "a".repeat(2_000_000)));
    input.push_str(good.trim_end());
    let (code, said) = eval(dir.path(), &input, &[]);
    assert_eq!((code, said.len()), (1, 2 * table.len() + 3));
    for (line, expected) in said.iter().step_by(2).zip(std::iter::repeat("allow")) {
        assert_eq!(line["decision"], expected, "{line}");
    }
    for ((text, id, reason), line) in table.iter().zip(said.iter().skip(1).step_by(2)) {
        assert_eq!((&line["decision"], &line["id"]), (&"error".into(), id), "{text}");
        assert!(line["reason"].as_str().unwrap().starts_with(reason), "{text}: {line}");
    }
    let long = &said[2 * table.len() + 1];
    assert_eq!(long["reason"], "the line is longer than 1048576 bytes");
}

#[test]
fn refused_policies_give_no_verdict() {
    let dir = workspace();
    let broken = POLICIES.replace("methods: [GET]", "metods: [GET]").replace("paths: [/orders/8]", "paths: [//8]");
    fs::write(dir.path().join("policies/orders.yaml"), &broken).unwrap();
    fs::write(dir.path().join("requests.jsonl"), web(json!({}))).unwrap();
    for json in [&[][..], &["--json"]] {
        let (code, lines, error) = run(dir.path(), &[EVAL, json].concat());
        assert_eq!((code, lines), (1, vec![]), "{error}");
        let at = |part: &str| broken.lines().position(|line| line.contains(part)).unwrap() + 1;
        for (part, field) in
            [("metods", "spec.rules[0].to[0].operation.metods"), ("//8", "spec.rules[0].to[0].operation.paths[0]")]
        {
            let place = format!("policies/orders.yaml:{}:", at(part));
            assert!(error.lines().any(|line| line.contains(&place) && line.contains(field)), "{place} {error}");
        }
    }
    let usage = |args: &[&str]| run(dir.path(), args).0;
    fs::write(dir.path().join("policies/orders.yaml"), POLICIES).unwrap();
    for (more, code) in [
        (&["--canonical", "best"][..], 2),
        (&["--mode", "loose"], 2),
        (&["--custom", "hours=maybe"], 2),
        (&["--labels", "a=1,a=2"], 2),
        (&["--labels", "a"], 2),
        (&["--trust-domain-alias", "A.example"], 2),
    ] {
        assert_eq!(usage(&[EVAL, more].concat()), code, "{more:?}");
    }
    let nowhere = |at: usize, value: &'static str| {
        let mut args = EVAL.to_vec();
        args[at] = value;
        usage(&args)
    };
    assert_eq!((nowhere(3, "nowhere"), nowhere(11, "nowhere"), nowhere(5, "orders")), (3, 3, 2));
}

/// Control arm: with the output held back to the end, the reader below would wait for ever and the pipe would fill.
#[test]
fn a_stream_without_end_is_judged_as_it_comes_in_constant_memory() {
    const LINES: usize = 20_000;
    const LONG: usize = 8 << 10;
    let dir = workspace();
    let mut args = EVAL.to_vec();
    args[11] = "-";
    let mut child = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .current_dir(dir.path())
        .args(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let writer = std::thread::spawn(move || {
        let long = "a".repeat(LONG);
        for n in 0..LINES {
            stdin.write_all(web(json!({ "id": n, "sni": long })).as_bytes()).unwrap();
        }
        // The process is still there: its input has not ended.
        let peak = fs::read_to_string(status).ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("VmHWM:"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        (peak, stdin)
    });
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    for n in 0..LINES / 2 {
        let line: Value = serde_json::from_str(&out.next().unwrap().unwrap()).unwrap();
        assert_eq!((&line["id"], &line["decision"]), (&n.into(), &"allow".into()));
    }
    let rest = std::thread::spawn(move || out.count());
    let (peak, stdin) = writer.join().unwrap();
    drop(stdin);
    assert_eq!(rest.join().unwrap(), LINES - LINES / 2);
    assert!(child.wait().unwrap().success());
    if let Some(peak) = peak {
        assert!(peak < 48 << 10, "{peak} KiB at most in use at once; the input has {} KiB", (LINES * LONG) >> 10);
    }
}

#[test]
fn the_readme_shows_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let policy = readme.split("```yaml\n").find(|block| block.starts_with("apiVersion: security.istio.io")).unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    fs::write(dir.path().join("policies/orders.yaml"), policy.split("```").next().unwrap()).unwrap();
    let (_, shown) = readme.split_once("$ cat requests.jsonl\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let (requests, shown) = shown.split_once("$ mesh ").unwrap();
    let (command, verdicts) = shown.split_once('\n').unwrap();
    let (verdicts, lint) = verdicts.split_once("$ mesh ").unwrap_or((verdicts, ""));
    fs::write(dir.path().join("requests.jsonl"), requests).unwrap();
    let (code, lines, error) = run(dir.path(), &command.split(' ').collect::<Vec<_>>());
    assert_eq!((code, lines.join("\n") + "\n"), (0, verdicts.to_owned()), "{error}");
    if let Some((command, findings)) = lint.split_once('\n') {
        let (_, lines, error) = run(dir.path(), &command.split(' ').collect::<Vec<_>>());
        assert_eq!(lines.join("\n") + "\n", findings, "{error}");
    }
}

#[test]
fn tokens_are_held_against_the_rules_that_select_the_workload() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let jwt = "---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: jwt, namespace: shop }
spec: { selector: { matchLabels: { app: orders } }, jwtRules: [ { issuer: 'https://idp.example', audiences: [orders] } ] }
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: all, namespace: shop }
spec: { rules: [ {} ] }
";
    fs::write(dir.join("p.yaml"), jwt).unwrap();
    let eval = |labels: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mesh"))
            .current_dir(dir)
            .args(["policy", "eval", "--policies", "p.yaml", "--workload", "shop/orders", "--requests", "-"])
            .args(["--labels", labels])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = [
            json!({ "path": "/" }),
            json!({ "path": "/", "claims": { "iss": "https://idp.example", "aud": ["orders"] } }),
            json!({ "path": "/", "claims": { "iss": "https://idp.example" } }),
            json!({ "path": "/", "claims": { "iss": "https://idp.example", "aud": "payments" } }),
            json!({ "path": "/", "claims": { "iss": "https://other.example", "aud": "orders" } }),
            json!({ "path": "/p.S/M", "method": "POST", "protocol": "grpc", "claims": { "iss": "x" } }),
        ];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let rows = String::from_utf8(output.stdout).unwrap();
        let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| (row["decision"].clone(), row["status"].clone(), row["reason"].clone())).collect::<Vec<_>>()
    };
    let refused = |status: u16, reason: &str| (json!("deny"), json!(status), json!(reason));
    let rows = eval("app=orders");
    assert!(rows[..3].iter().all(|row| *row == rows[0] && row.0 == "allow"), "{rows:?}");
    let expected = [
        refused(401, "token_wrong_audience"),
        refused(401, "token_unknown_issuer"),
        refused(16, "token_unknown_issuer"),
    ];
    assert_eq!(rows[3..], expected);
    // Of a workload that no document selects, claims count as verified.
    assert!(eval("app=web").iter().all(|row| row.0 == "allow"));
}
