use super::*;
use crate::config::{
    ClusterConfig, IdentityConfig, Node, PathMatch, Place, PlugConfig, RetryConfig, Workload, yaml::Value,
};

fn plug() -> PlugConfig {
    let place = Place { file: "<code>".into(), line: 0, column: 0, path: String::new() };
    PlugConfig { kind: "static".into(), settings: Node { place, value: Value::Null } }
}

fn config(routes: Vec<RouteConfig>) -> Config {
    let identity = IdentityConfig { trust_domain: "shop.example".parse().unwrap(), source: plug() };
    let mut config = Config::new(Workload::new("orders", "shop"), identity);
    for cluster in ["payments", "ledger"] {
        config.clusters.insert(cluster.into(), ClusterConfig::new(plug(), Vec::new()));
    }
    config.routes.insert("payments".into(), routes);
    config
}

fn route(method: Option<&str>, path: Option<PathMatch>, timeout: u64) -> RouteConfig {
    RouteConfig {
        matches: RouteMatch { method: method.map(Into::into), path },
        timeout: Duration::from_secs(timeout),
        ..RouteConfig::to("payments")
    }
}

#[test]
fn the_first_match_wins_and_clusters_are_services_of_their_own() {
    let exact = PathMatch::Exact("/charge".into());
    let prefix = PathMatch::Prefix("/refunds/".into());
    let table = RouteTable::compile(
        &config(vec![route(Some("POST"), Some(exact), 1), route(None, Some(prefix), 2), route(Some("GET"), None, 3)]),
        None,
    );
    let found = |service, method, path| table.find(service, method, path).map(|route| &*route.name);
    for (method, path, expected) in [
        ("POST", "/charge", Some("payments[0]")),
        ("GET", "/charge", Some("payments[2]")),
        ("POST", "/charge/", None),
        ("POST", "/refunds/7", Some("payments[1]")),
        ("GET", "/refunds/7", Some("payments[1]")),
        ("DELETE", "/refunds", None),
        ("post", "/charge", None),
    ] {
        assert_eq!(found("payments", method, path), expected, "{method} {path}");
    }
    assert_eq!(found("ledger", "DELETE", "/any"), Some("ledger"));
    assert_eq!(found("nobody", "GET", "/"), None);
    let ledger = table.find("ledger", "GET", "/").unwrap();
    assert_eq!((ledger.timeout, ledger.retry.is_none()), (RouteConfig::TIMEOUT, true));
    assert_eq!(ledger.retry_policy(), &RetryPolicy::UNSENT_ONLY);
    assert_eq!(table.services(), ["ledger", "payments"]);
    assert_eq!((table.nearest("payment"), table.nearest("inventory")), (Some("payments"), None));
}

#[test]
fn a_reload_keeps_the_budget_of_a_route_that_did_not_change() {
    let with = |ratio, timeout| {
        let budget = BudgetConfig { ratio, min_per_second: 1, window: Duration::from_secs(1) };
        let retry = RetryConfig { budget, ..RetryConfig::default() };
        config(vec![RouteConfig { retry: Some(retry), ..route(None, None, timeout) }])
    };
    let budget = |table: &RouteTable| Arc::clone(&table.find("payments", "GET", "/").unwrap().budget);
    let first = RouteTable::compile(&with(0.2, 1), None);
    assert!(budget(&first).withdraw(Instant::now()));
    let same = RouteTable::compile(&with(0.2, 2), Some(&first));
    assert!(Arc::ptr_eq(&budget(&first), &budget(&same)), "another timeout, the same budget");
    let other = RouteTable::compile(&with(0.3, 2), Some(&same));
    assert!(!Arc::ptr_eq(&budget(&same), &budget(&other)));
}
