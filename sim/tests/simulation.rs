//! Scenarios: what is said of them, what they give, and what they refuse.
#![allow(clippy::unwrap_used)] // what fails here fails the test

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use mesh_sim::model::{Failed, Report, Scenario, run, to_json, to_text};

fn parse(text: &str) -> Result<Scenario, Vec<String>> {
    Scenario::parse("s.yaml", text, ".".as_ref())
        .map_err(|error| error.issues().iter().map(ToString::to_string).collect())
}

/// Ten servers of 20 ms, and whatever else is said.
fn ten(more: &str) -> Scenario {
    let text = format!(
        "{}\nservers: [{{ name: web, count: 10, service_time: {{ exponential: 20ms }} }}]\n{more}\n",
        "duration: 10s\nload: { rate: 500 }",
    );
    let clusters = "clusters: { web: { discover: { dns: \"web:1\" }, identities: [\"spiffe://shop/web\"] } }";
    parse(&if text.contains("clusters:") { text } else { format!("{text}{clusters}") }).unwrap()
}

fn samples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// Everything that is offered ends once, and every attempt is somebody's.
fn adds_up(report: &Report) {
    assert_eq!(report.offered, report.succeeded + report.failed());
    assert_eq!(report.latency.count(), report.offered);
    let servers: u64 = report.servers.iter().map(|server| server.requests).sum();
    assert_eq!(servers, report.attempts);
    for server in &report.servers {
        assert_eq!(server.requests, server.succeeded + server.failed + server.cancelled, "{}", server.name);
    }
}

#[test]
fn every_sample_is_read_and_shows_what_it_says() {
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(samples()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let mut scenario = Scenario::load(&path).unwrap_or_else(|error| panic!("{error}"));
        // Long enough for what it shows, and no longer.
        scenario.duration = scenario.duration.min(Duration::from_secs(40));
        let report = run(&scenario, scenario.seed);
        adds_up(&report);
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = to_text(&report);
        match name.as_str() {
            "killed-server" => assert!(report.failed() == 0 && report.retried > 0, "{text}"),
            "slow-endpoint" => assert!(report.success() > 0.999 && report.failed() > 0, "{text}"),
            "overload" => assert!(report.success() < 0.95 && report.budget_exhausted > 0, "{text}"),
            "rolling-restart" => assert!(report.failed() == 0 && report.faults[0].times == 1, "{text}"),
            other => panic!("{other}: say what it shows"),
        }
        assert!(text.contains("succeeded") && text.contains("fault"), "{text}");
        seen.insert(name);
    }
    assert_eq!(seen.len(), 4);
}

/// The published figures, within what chance does: 1/11 of the requests of half of the time are lost to round robin.
#[test]
fn the_published_comparison_is_reproduced() {
    let text = std::fs::read_to_string(samples().join("slow-endpoint.yaml")).unwrap();
    let with = |balance: &str| {
        let text = text.replace("    identities", &format!("    {balance}\n    identities"));
        100.0 * run(&parse(&text).unwrap(), 3).success()
    };
    let off = "outlier: { consecutive_failures: 0, success_rate: { stdev_factor: 0.0 }, failure_percentage: { threshold: 0 } }";
    let round_robin = with(&format!("balance: {{ policy: round_robin }}\n    {off}"));
    assert!((95.3..95.7).contains(&round_robin), "{round_robin}");
    let least_loaded = with(&format!("balance: {{ policy: least_request }}\n    {off}"));
    assert!((98.8..99.3).contains(&least_loaded), "{least_loaded}");
    let tower = with("balance: { policy: tower_p2c_peak_ewma }");
    assert!((99.75..99.87).contains(&tower), "{tower}");
    let mesh = with("balance: { policy: peak_ewma }");
    assert!(mesh >= 99.9, "{mesh}");
}

#[test]
fn equals_share_equally_and_weights_and_priorities_count() {
    let report = run(&ten(""), 5);
    adds_up(&report);
    let shares: Vec<f64> = (0..10).map(|server| report.share(server)).collect();
    assert!(shares.iter().all(|share| (0.07..0.13).contains(share)), "{shares:?}");
    let text = r#"
        duration: 10s
        load: { rate: 500 }
        servers:
          - { name: small, cluster: web, count: 2 }
          - { name: large, cluster: web, count: 1, weight: 2 }
          - { name: spare, cluster: web, count: 3, priority: 1 }
        faults: [{ servers: [small, large], at: 5s, crash: }]
        clusters: { web: { discover: { dns: "web:1" }, identities: ["spiffe://shop/web"], balance: { policy: random } } }
        routes: { web: [{ cluster: web, timeout: 2s, retry: { attempts: 3 } }] }"#;
    let report = run(&parse(text).unwrap(), 5);
    adds_up(&report);
    let [small, large, spare] = [0, 2, 3].map(|server| report.share(server));
    assert!((0.22..0.28).contains(&large) && (0.1..0.15).contains(&small) && spare > 0.14, "{}", to_text(&report));
    assert_eq!(report.failed(), 0, "{}", to_text(&report));
}

/// Each kind of fault does what it says, to whom it says it, for as long as it says.
#[test]
fn faults_befall_whom_they_name() {
    // Without retries and ejection every request that meets one fails.
    let plain = |fault: &str, timeout: &str| {
        let text = format!(
            "faults: [{{ servers: web-3, at: 4s, for: 2s, {fault} }}]\n{}\nroutes: {{ web: [{{ cluster: web, timeout: {timeout} }}] }}",
            "clusters: { web: { discover: { dns: \"web:1\" }, identities: [\"spiffe://shop/web\"], balance: { policy: round_robin }, \
             outlier: { consecutive_failures: 0, success_rate: { stdev_factor: 0.0 }, failure_percentage: { threshold: 0 } } } }",
        );
        let report = run(&ten(&text), 1);
        adds_up(&report);
        assert!(report.servers.iter().enumerate().all(|(server, of)| server == 2 || of.failed == 0), "{fault}");
        let failed = |failed| report.failures.get(&failed).copied().unwrap_or_default();
        (report.servers[2].failed, failed(Failed::Answered), failed(Failed::Timeout), failed(Failed::Unreachable))
    };
    let (fair, second) = (50, "1s");
    let (all, answered, _, _) = plain("errors: { rate: 50%, status: 500 }", second);
    assert!((fair / 2..fair * 3 / 2).contains(&all) && answered == all, "{all} {answered}");
    let (all, _, timeout, _) = plain("slow: { to: 2s }", second);
    assert!((fair..fair * 5 / 2).contains(&all) && timeout == all, "{all} {timeout}");
    let (all, _, timeout, _) = plain("hang:", second);
    assert!((fair / 2..fair * 2).contains(&timeout) && all == timeout, "what hangs for a second fails: {timeout}");
    let (all, _, timeout, _) = plain("partition:", second);
    assert!((fair / 2..fair * 2).contains(&timeout) && all == timeout, "{timeout}");
    let (all, _, _, unreachable) = plain("crash:", second);
    assert!(all < 10 && unreachable <= all, "connections that break, and one that is refused: {all}");
    // Nobody waits less than it lasts.
    let (all, _, timeout, _) = plain("hang:", "5s");
    assert_eq!((all, timeout), (0, 0));
}

#[test]
fn a_client_that_is_cut_off_does_without_and_the_others_do_not_notice() {
    let text = r#"
        duration: 20s
        load: [{ name: near, rate: 400 }, { name: far, rate: 400 }]
        servers: [{ name: web, count: 10, service_time: { exponential: 20ms } }]
        faults: [{ servers: [web-1, web-2, web-3], at: 5s, partition: { clients: near } }]
        clusters: { web: { discover: { dns: "web:1" }, identities: ["spiffe://shop/web"] } }
        routes: { web: [{ cluster: web, timeout: 3s, retry: { attempts: 3, per_try_timeout: 300ms } }] }"#;
    let report = run(&parse(text).unwrap(), 1);
    adds_up(&report);
    assert_eq!(report.failed(), 0, "{}", to_text(&report));
    assert!(!report.ejections.is_empty() && report.ejections.iter().all(|ejection| ejection.client == 0));
}

#[test]
fn a_restart_in_good_order_fails_nobody_and_is_used_again_at_once() {
    let text = "faults: [{ servers: web-3, at: 3s, restart: { drain: 1s, down: 1s } }]";
    let report = run(&ten(text), 2);
    assert_eq!((report.failed(), report.retried), (0, 0), "{}", to_text(&report));
    let share = report.share(2);
    assert!((0.06..0.1).contains(&share), "it was away for two of ten seconds: {share}");
}

#[test]
fn servers_that_call_others_pass_on_what_became_of_it() {
    let text = |fault: &str| {
        format!(
            r#"
        duration: 5s
        load: {{ rate: 200, service: front }}
        servers: [{{ name: front, count: 2, calls: back }}, {{ name: back, count: 2, latency: 1ms }}]
        faults: [{fault}]
        clusters:
          front: {{ discover: {{ dns: "front:1" }}, identities: ["spiffe://shop/front"] }}
          back: {{ discover: {{ dns: "back:1" }}, identities: ["spiffe://shop/back"] }}"#
        )
    };
    let well = run(&parse(&text("")).unwrap(), 1);
    adds_up(&well);
    assert_eq!((well.failed(), well.attempts), (0, 2 * well.offered));
    let median = well.latency.quantile(0.5).as_micros();
    assert!((21_900..22_300).contains(&median), "two services of 10 ms and a round trip of 2: {median}");
    let sick = run(&parse(&text("{ servers: back, errors: { status: 503 } }")).unwrap(), 1);
    adds_up(&sick);
    assert_eq!(sick.failures.get(&Failed::Answered), Some(&sick.offered));
}

/// Whoever may not repeat an attempt says so, or each tier above would repeat it in his place.
#[test]
fn a_retry_that_a_limit_refuses_is_not_made_up_for_further_up() {
    let text = |max_retries: &str| {
        format!(
            r#"
        duration: 5s
        load: {{ rate: 200, service: front }}
        servers: [{{ name: front, count: 2, calls: back }}, {{ name: back, count: 2 }}]
        faults: [{{ servers: back, errors: {{ status: 503 }} }}]
        clusters:
          front: {{ discover: {{ dns: "front:1" }}, identities: ["spiffe://shop/front"], outlier: {{ max_ejection_percent: 0 }} }}
          back: {{ discover: {{ dns: "back:1" }}, identities: ["spiffe://shop/back"], outlier: {{ max_ejection_percent: 0 }}{max_retries} }}
        routes:
          front: [{{ cluster: front, retry: {{ attempts: 3 }} }}]
          back: [{{ cluster: back, retry: {{ attempts: 3 }} }}]"#
        )
    };
    let refused = run(&parse(&text(", limits: { max_retries: 0 }")).unwrap(), 1);
    adds_up(&refused);
    assert_eq!((refused.attempts, refused.retried), (2 * refused.offered, 0), "{}", to_text(&refused));
    assert!(run(&parse(&text("")).unwrap(), 1).retried > 0);
}

/// What is done for a caller who is gone: nothing, what was begun, or all that waits.
#[test]
fn work_for_callers_who_are_gone_is_dropped_finished_or_even_begun() {
    // Half as much again as it can do.
    let gone = |options: &str| {
        let text = format!(
            r#"
        duration: 10s
        load: {{ rate: 10 }}
        servers: [{{ name: web, service_time: 150ms, concurrency: 1{options} }}]
        clusters: {{ web: {{ discover: {{ dns: "web:1" }}, identities: ["spiffe://shop/web"], outlier: {{ consecutive_failures: 0 }} }} }}
        routes: {{ web: [{{ cluster: web, timeout: 400ms }}] }}"#
        );
        let report = run(&parse(&text).unwrap(), 1);
        adds_up(&report);
        report.succeeded
    };
    let (dropped, finished, begun) =
        (gone(""), gone(", finishes_cancelled: true"), gone(", finishes_cancelled: true, begins_cancelled: true"));
    assert!(dropped > finished && finished > 5 * begun, "{dropped} {finished} {begun}");
}

#[test]
fn limits_of_the_cluster_hold() {
    let text = r#"clusters: { web: { discover: { dns: "web:1" }, identities: ["spiffe://shop/web"], limits: { max_requests: 5 } } }"#;
    let report = run(&ten(text), 1);
    adds_up(&report);
    assert!(report.failures[&Failed::Limit] > 1_000, "{}", to_text(&report));
    let report = run(&ten(""), 1);
    assert_eq!(report.failed(), 0);
}

#[test]
fn settings_without_effect_are_told() {
    let settings = [
        "limits.max_connections",
        "limits.max_handshakes",
        "pool.max_connections",
        "pool.max_connection_age",
        "pool.idle_timeout",
    ];
    for setting in settings {
        let (section, field) = setting.split_once('.').unwrap();
        let value = if setting.starts_with("pool.") && field != "max_connections" { "61s" } else { "61" };
        let text = format!(
            r#"clusters: {{ web: {{ discover: {{ dns: "web:1" }}, identities: ["spiffe://shop/web"], {section}: {{ {field}: {value} }} }} }}"#
        );
        assert_eq!(ten(&text).not_simulated(), [format!("clusters.web.{setting}")]);
    }
    assert!(ten("").not_simulated().is_empty());
}

#[test]
fn keys_meet_their_server() {
    let text = r#"
        duration: 5s
        load: { rate: 500, keys: 3 }
        servers: [{ name: web, count: 10 }]
        clusters: { web: { discover: { dns: "web:1" }, identities: ["spiffe://shop/web"], balance: { policy: ring_hash, hash: { header: x-user } } } }"#;
    let report = run(&parse(text).unwrap(), 1);
    assert!(report.servers.iter().filter(|server| server.requests > 0).count() <= 3, "{}", to_text(&report));
}

#[test]
fn runs_are_replayed_by_their_seed() {
    let scenario =
        ten("faults: [{ servers: web-3, at: 2s, errors: { rate: 30% } }, { servers: web-4, at: 3s, crash: }]");
    for seed in 0..5 {
        assert_eq!(run(&scenario, seed), run(&scenario, seed), "seed {seed}");
    }
    assert_ne!(run(&scenario, 1).decisions, run(&scenario, 2).decisions);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let rest = "\nservers: [{ name: web }]\nload: { rate: 1 }\nclusters: { web: { discover: { dns: \"web:1\" }, identities: [\"spiffe://shop/web\"] } }";
    let cases = [
        ("", "s.yaml: the file is empty: `servers`, `load` and `clusters` are required"),
        ("servers: []\nload: { rate: 1 }", "s.yaml:1:1: clusters: this field is required"),
        (&format!("duratoin: 1s{rest}"), "s.yaml:1:1: duratoin: unknown field; did you mean `duration`?"),
        (&format!("duration: 5{rest}"), "s.yaml:1:11: duration: expected a duration: a whole number with its unit"),
        (&rest.replace("rate: 1", "rate: 0"), "s.yaml:3:15: load.rate: 0 is out of range: expected 0.001 to 10000000"),
        (
            &rest.replace("rate: 1", "rate: 1, servce: web"),
            "s.yaml:3:18: load.servce: unknown field; did you mean `service`?",
        ),
        (&rest.replace("rate: 1", "rate: 1, service: wbe"), "no route or cluster is called `wbe`; did you mean `web`?"),
        (
            &rest.replace("name: web }", "name: web, cluster: wbe }"),
            "s.yaml:2:33: servers[0].cluster: no cluster is called `wbe`",
        ),
        (&rest.replace("name: web }", "name: web, calls: web }"), "servers that call each other in a circle"),
        (
            &rest.replace("name: web }", "name: web, service_time: { gauss: 1ms } }"),
            "servers[0].service_time.gauss: unknown field",
        ),
        (
            &rest.replace("name: web }", "name: web, service_time: { file: nowhere.txt } }"),
            "nowhere.txt: cannot be read",
        ),
        (&rest.replace("name: web }", "name: web, concurrency: 0 }"), "servers[0].concurrency: 0 is out of range"),
        (&rest.replace("name: web }", "name: web, begins_cancelled: true }"), "set `finishes_cancelled` too"),
        (&rest.replace("name: web }]", "name: web }, { name: web }]"), "two are called `web`"),
        (
            &format!("faults: [{{ servers: wbe, crash: }}]{rest}"),
            "s.yaml:1:21: faults[0].servers: no server is called `wbe`; did you mean `web`?",
        ),
        (
            &format!("faults: [{{ servers: web }}]{rest}"),
            "expected one of crash, hang, slow, errors, partition, restart, found 0",
        ),
        (&format!("faults: [{{ servers: web, crash: , hang: }}]{rest}"), "found 2"),
        (&format!("faults: [{{ servers: web, slow: {{}} }}]{rest}"), "expected either `factor: 3` or `to: 2s`"),
        (
            &format!("faults: [{{ servers: web, every: 1s, for: 2s, crash: }}]{rest}"),
            "faults[0].every: what comes again must be over before",
        ),
        (
            &format!("faults: [{{ servers: web, errors: {{ status: 404 }} }}]{rest}"),
            "errors.status: 404 is out of range: expected 429 to 599",
        ),
        (
            &format!("faults: [{{ servers: web, partition: {{ clients: x }} }}]{rest}"),
            "no client is called `x`; known: client",
        ),
        (
            &format!("faults: [{{ servers: web, for: 1s, restart: }}]{rest}"),
            "a restart lasts as long as its `drain` and `down`",
        ),
        (
            &rest.replace("discover:", "outlier: { base_ejection: 1us }, discover:"),
            "clusters.web.outlier.base_ejection: 1us is out of range",
        ),
        (
            &rest.replace("discover:", "balance: { policy: magic }, discover:"),
            "clusters.web.balance.policy: `magic` is no policy that can be rehearsed",
        ),
        (
            &format!("routes: {{ web: [{{ cluster: wbe }}] }}{rest}"),
            "s.yaml:1:28: routes.web[0].cluster: no cluster is called `wbe`",
        ),
        (&format!("mesh: mesh.yaml{rest}"), "`mesh` names a file that has it: give one of the two"),
    ];
    for (text, expected) in cases {
        let errors = parse(text).unwrap_err();
        assert!(errors.iter().any(|error| error.contains(expected)), "{text}\n{errors:#?}");
    }
}

#[test]
fn recorded_samples_are_drawn_from_a_file_beside_the_scenario() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("recorded.txt"), "10\n20.5\n\n30\n").unwrap();
    let text = r#"
        duration: 2s
        load: { rate: 200, arrivals: fixed }
        servers: [{ name: web, service_time: { file: recorded.txt } }]
        clusters: { web: { discover: { dns: "web:1" }, identities: ["spiffe://shop/web"] } }"#;
    std::fs::write(directory.path().join("s.yaml"), text).unwrap();
    let report = run(&Scenario::load(&directory.path().join("s.yaml")).unwrap(), 1);
    assert_eq!((report.offered, report.latency.max()), (399, Duration::from_millis(30)));
    std::fs::write(directory.path().join("recorded.txt"), "10\nfast\n").unwrap();
    let error = Scenario::load(&directory.path().join("s.yaml")).unwrap_err().to_string();
    assert!(error.contains("recorded.txt:2: expected one number of milliseconds in a line, found \"fast\""), "{error}");
}

/// Every name in the JSON is documented, and every documented name is there.
#[test]
fn the_page_documents_the_json() {
    fn names(value: &serde_json::Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                found.insert(path.clone());
                names(value, &path, found);
            }),
            serde_json::Value::Array(items) => items.iter().for_each(|item| names(item, &format!("{path}[]"), found)),
            _ => {}
        }
    }
    let clusters = r#"clusters: { web: { discover: { dns: "web:1" }, identities: ["spiffe://shop/web"], balance: { failure_penalty: 0s } } }"#;
    let scenario = ten(&format!("faults: [{{ servers: web-3, at: 2s, errors: {{ after: 1ms }} }}]\n{clusters}"));
    let mut found = BTreeSet::new();
    names(&to_json(&run(&scenario, 1)), "", &mut found);
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/simulation.md");
    let page = std::fs::read_to_string(page).unwrap();
    let table = page.split("## JSON").nth(1).unwrap().split("\n## ").next().unwrap();
    let first_cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    let documented: BTreeSet<String> = first_cells
        .flat_map(|cell| cell.split(", ").map(|name| name.trim().trim_matches('`').to_owned()).collect::<Vec<_>>())
        .collect();
    assert_eq!(found, documented);
}
