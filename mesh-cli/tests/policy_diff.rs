//! `mesh policy diff`: what changes for recorded requests, and how the exit code tells.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const OLD: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: orders, namespace: shop }
spec:
  rules:
  - from: [ { source: { principals: [cluster.local/ns/shop/sa/web] } } ]
    to: [ { operation: { methods: [GET] } } ]
  - from: [ { source: { requestPrincipals: [\"*\"] } } ]
    to: [ { operation: { paths: [/pay] } } ]
";

fn request(id: u64, path: &str, method: &str) -> String {
    let source = json!({ "principal": "spiffe://cluster.local/ns/shop/sa/web" });
    format!("{}\n", json!({ "id": id, "source": source, "method": method, "path": path }))
}

/// Exit code, lines, and the lines of the standard error.
fn diff(dir: &Path, more: &[&str]) -> (i32, Vec<Value>, Vec<String>) {
    let args = ["policy", "diff", "--policies", "old.yaml", "--new", "new.yaml", "--workload", "shop/orders"];
    let args = [&args[..], &["--requests", "requests.jsonl"], more].concat();
    let output = Command::new(env!("CARGO_BIN_EXE_mesh")).current_dir(dir).args(args).output().unwrap();
    let lines = |bytes| String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let said = lines(output.stdout).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code().unwrap(), said, lines(output.stderr))
}

fn workspace(new: &str, requests: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("old.yaml", OLD), ("new.yaml", new), ("requests.jsonl", requests)] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

const SUMMARY: &str = "5 requests: ";

fn requests() -> String {
    [
        request(0, "/a", "GET"),
        request(1, "/b", "GET"),
        request(2, "/b", "POST"),
        request(3, "/pay", "POST"),
        request(4, "/x/../a", "GET"),
    ]
    .concat()
}

#[test]
fn the_same_policies_differ_nowhere_and_neither_does_another_way_to_say_them() {
    // Rules in another order: the same verdicts by other rules.
    let (head, rules) = OLD.split_once("  rules:\n").unwrap();
    let (first, second) = rules.split_at(rules.find("  - from: [ { source: { requestPrincipals").unwrap());
    for new in [OLD.to_owned(), format!("{head}  rules:\n{second}{first}")] {
        let dir = workspace(&new, &requests());
        let (code, said, told) = diff(dir.path(), &[]);
        assert_eq!((code, said.len()), (0, 0), "{said:?}");
        assert!(told.last().unwrap().starts_with("5 requests: 0 differ (0 "), "{told:?}");
    }
}

#[test]
fn each_request_that_is_decided_otherwise_is_a_line_with_both_decisions() {
    let new = OLD.replace("methods: [GET]", "methods: [POST]").replace("paths: [/pay]", "paths: [/other]");
    let dir = workspace(&new, &requests());
    let (code, said, told) = diff(dir.path(), &[]);
    assert_eq!(code, 1, "{told:?}");
    let allowed =
        json!({ "decision": "allow", "status": null, "policy": "shop/orders", "rule": 0, "reason": "allow_rule" });
    let denied = |status| json!({ "decision": "deny", "status": status, "policy": null, "rule": null, "reason": "no_allow_rule" });
    assert_eq!(
        said,
        [
            json!({ "id": 0, "old": allowed, "new": denied(403) }),
            json!({ "id": 1, "old": allowed, "new": denied(403) }),
            json!({ "id": 2, "old": denied(403), "new": allowed }),
            json!({ "id": 3, "old": denied(401), "new": allowed }),
        ]
    );
    let summary = "4 differ (2 allowed by the new policies alone, 2 by the old ones alone, 0 refused in another way), 0 wrong lines";
    assert_eq!(told, [format!("{SUMMARY}{summary}")]);
    // A status alone counts too: nobody is told any more that a token would help.
    let dir = workspace(&OLD.replace("paths: [/pay]", "paths: [/other]"), &requests());
    let (code, said, told) = diff(dir.path(), &[]);
    assert_eq!((code, said), (1, vec![json!({ "id": 3, "old": denied(401), "new": denied(403) })]));
    assert!(
        told.last()
            .unwrap()
            .contains("1 differ (0 allowed by the new policies alone, 0 by the old ones alone, 1 refused")
    );
    // The options are those of `eval`: in compat mode the last one is `/a`.
    let (_, said, _) = diff(workspace(&new, &requests()).path(), &["--mode", "compat"]);
    assert_eq!(said.last().unwrap()["id"], 4);
}

#[test]
fn whatever_is_wrong_is_no_difference_and_no_agreement() {
    let wrong = format!("{}{{\"metod\":\"\\u001b[2J\"}}\n{{\n{}", request(0, "/a", "GET"), request(1, "/b", "GET"));
    let dir = workspace(OLD, &wrong);
    let (code, said, told) = diff(dir.path(), &[]);
    assert_eq!((code, said.len()), (2, 0));
    assert!(told[0].starts_with("line 2: \"metod: unknown field") && told[1].starts_with("line 3: "), "{told:?}");
    assert!(told[2].starts_with("4 requests: 0 differ") && told[2].ends_with(", 2 wrong lines"), "{told:?}");
    // A difference among them is still said.
    let dir = workspace(&OLD.replace("methods: [GET]", "methods: [PUT]"), &wrong);
    let (code, said, _) = diff(dir.path(), &[]);
    assert_eq!((code, said.len()), (2, 2));

    for (file, text) in [("old.yaml", OLD.replace("rules", "ruels")), ("new.yaml", OLD.replace("rules", "ruels"))] {
        let dir = workspace(OLD, &requests());
        fs::write(dir.path().join(file), text).unwrap();
        let (code, said, told) = diff(dir.path(), &[]);
        assert_eq!((code, said.len()), (2, 0));
        assert!(told.iter().any(|line| line.contains(&format!("{file}:6:"))), "{told:?}");
    }
    for file in ["old.yaml", "new.yaml", "requests.jsonl"] {
        let dir = workspace(OLD, &requests());
        fs::remove_file(dir.path().join(file)).unwrap();
        let (code, said, told) = diff(dir.path(), &[]);
        assert_eq!((code, said.len()), (2, 0));
        assert!(told.last().unwrap().contains(&format!("cannot read {file}")), "{told:?}");
    }
    let dir = workspace(OLD, &requests());
    assert_eq!(diff(dir.path(), &["--canonical", "best"]).0, 2);
    // A directory of policies, several paths on either side.
    fs::create_dir(dir.path().join("all")).unwrap();
    fs::rename(dir.path().join("new.yaml"), dir.path().join("all/new.yaml")).unwrap();
    fs::write(dir.path().join("more.yaml"), OLD.replace("name: orders", "name: more")).unwrap();
    let args = "policy diff --policies old.yaml more.yaml --new all more.yaml --workload shop/orders --requests -";
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command
        .current_dir(dir.path())
        .args(args.split(' '))
        .stdin(Stdio::from(fs::File::open(dir.path().join("requests.jsonl")).unwrap()));
    assert_eq!(command.status().unwrap().code(), Some(0));
}
