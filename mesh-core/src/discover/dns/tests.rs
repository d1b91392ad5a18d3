use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use serde_json::json;
use tokio::time::Instant;

use super::answer::Service;
use super::lookup::{Answer, Asked};
use super::server::{Reply, Server, a, aaaa, srv};
use super::*;
use crate::cluster::{Cluster, PickError, Tried};
use crate::config::{ClusterConfig, HoldConfig, Locality, PlugConfig};
use crate::discover::{Endpoint, Update};

fn read(settings: serde_json::Value) -> Result<DnsConfig, String> {
    let mut errors = Errors::default();
    let config = DnsConfig::decode(&Node::from(&settings), &mut errors);
    let said: Vec<_> = errors.issues().iter().map(ToString::to_string).collect();
    if said.is_empty() { Ok(config.unwrap()) } else { Err(said.join(" AND ")) }
}

#[test]
fn settings_are_used_or_refused() {
    let short = read(json!("Payments.shop.svc.:8443")).unwrap();
    assert_eq!(short, DnsConfig::addresses("payments.shop.svc", 8443));
    let long = read(json!({ "name": "_p._tcp.shop", "record": "srv", "family": "all", "servers": ["127.0.0.1:53"],
        "timeout": "1s", "attempts": 3, "min_ttl": "2s", "max_ttl": "5m", "max_endpoints": 5,
        "locality": { "region": "eu-west", "zone": "a" } }));
    let expected = DnsConfig {
        family: Family::All,
        servers: vec!["127.0.0.1:53".parse().unwrap()],
        timeout: Duration::from_secs(1),
        attempts: 3,
        min_ttl: Duration::from_secs(2),
        max_ttl: Duration::from_secs(300),
        max_endpoints: 5,
        locality: Locality { region: "eu-west".into(), zone: "a".into() },
        ..DnsConfig::services("_p._tcp.shop")
    };
    assert_eq!(long, Ok(expected));
    let table = [
        (json!("payments"), "a name with its port"),
        (json!(8443), "a name with its port"),
        (json!("payments:0"), "a port of 1 to 65535"),
        (json!("10.0.0.1:8443"), "use `static`"),
        (json!("[::1]:8443"), "use `static`"),
        (json!("a b:1"), "no DNS name"),
        (json!("a..b:1"), "no DNS name"),
        (json!({ "port": 1 }), "name: this field is required"),
        (json!({ "name": "a" }), "`port` is required"),
        (json!({ "name": "a", "port": 0 }), "port: 0 is out of range"),
        (json!({ "name": "a", "record": "srv", "port": 1 }), "port: SRV records name the ports"),
        (json!({ "name": "a", "record": "mx" }), "record: unknown value `mx`"),
        (json!({ "name": "a", "port": 1, "famly": "v4" }), "did you mean `family`?"),
        (json!({ "name": "a", "port": 1, "servers": ["127.0.0.1:53"], "search": true }), "no meaning beside `servers`"),
        (json!({ "name": "a", "port": 1, "servers": ["127.0.0.1:0"] }), "none with port 0"),
        (json!({ "name": "a", "port": 1, "min_ttl": "1m", "max_ttl": "1s" }), "less than `min_ttl`"),
        (json!({ "name": "a", "port": 1, "max_endpoints": 0 }), "expected 1 to 10000"),
    ];
    for (settings, expected) in table {
        let said = read(settings.clone()).unwrap_err();
        assert!(said.contains(expected) && !said.contains(" AND "), "{settings}: {said}");
    }
}

fn config(server: &Server, config: DnsConfig) -> DnsConfig {
    DnsConfig { servers: vec![server.address], timeout: Duration::from_millis(300), attempts: 1, ..config }
}

fn seen(update: &Update) -> Vec<String> {
    match update {
        Update::Endpoints(set) => {
            set.endpoints.iter().map(|e| format!("{} {}/{}", e.address, e.priority, e.weight)).collect()
        }
        Update::Stale(error) => vec![format!("stale: {error}")],
        Update::Gone => vec!["gone".to_owned()],
    }
}

async fn first(config: DnsConfig) -> Vec<String> {
    let resolver = DnsResolver::new(config, Rng::seeded(1));
    seen(&tokio::time::timeout(Duration::from_secs(20), resolver.watch().next()).await.unwrap().unwrap())
}

#[tokio::test]
async fn only_a_definite_answer_says_that_nobody_is_there() {
    let nothing = |code, soa| Reply::Nothing { code, soa };
    let (nx, none) = (ResponseCode::NXDomain, ResponseCode::NoError);
    // (answer to A, endpoints or the beginning of what is said to be stale)
    let table: [(Reply, Result<&[&str], &str>); 13] = [
        (Reply::Records(vec![a("10.0.0.2"), a("10.0.0.1")], 60), Ok(&["10.0.0.1:443 0/1", "10.0.0.2:443 0/1"])),
        (Reply::Records(vec![a("10.0.0.1"), a("10.0.0.1")], 0), Ok(&["10.0.0.1:443 0/1"])),
        (Reply::Truncated(vec![a("10.0.0.1")], 60), Ok(&["10.0.0.1:443 0/1"])),
        (Reply::Alias("b.test.", vec![a("10.0.0.1")]), Ok(&["10.0.0.1:443 0/1"])),
        (nothing(nx, true), Ok(&[])),
        (nothing(none, true), Ok(&[])),
        (nothing(nx, false), Err("proves nothing")),
        (nothing(none, false), Err("proves nothing")),
        (Reply::Code(ResponseCode::ServFail), Err("A records of")),
        (Reply::Code(ResponseCode::Refused), Err("A records of")),
        (Reply::Code(ResponseCode::NotImp), Err("A records of")),
        (Reply::Garbage, Err("A records of")),
        (Reply::Silence, Err("A records of")),
    ];
    let server = Server::start().await;
    let asked = table.iter().enumerate().map(|(index, (reply, _))| {
        let name = format!("n{index}.test");
        server.say(&name, RecordType::A, reply.clone());
        first(DnsConfig { family: Family::V4, ..config(&server, DnsConfig::addresses(name, 443)) })
    });
    let found = futures_util::future::join_all(asked).await;
    for ((reply, expected), found) in table.iter().zip(found) {
        match expected {
            Ok(endpoints) => assert_eq!(found, *endpoints, "{reply:?}"),
            Err(why) => assert!(found[0].starts_with("stale: ") && found[0].contains(why), "{reply:?}: {found:?}"),
        }
    }
    assert!(server.asked().contains(&"tcp A n2.test".to_owned()), "an answer cut short is asked for over TCP");
}

#[tokio::test]
async fn families_are_chosen() {
    let server = Server::start().await;
    server.say("both.test", RecordType::A, Reply::Records(vec![a("10.0.0.1")], 60));
    server.say("both.test", RecordType::AAAA, Reply::Records(vec![aaaa("fd00::1")], 60));
    server.say("six.test", RecordType::A, Reply::Nothing { code: ResponseCode::NoError, soa: true });
    server.say("six.test", RecordType::AAAA, Reply::Records(vec![aaaa("fd00::2")], 60));
    let (four, six, sixth) = ("10.0.0.1:443 0/1", "[fd00::1]:443 0/1", "[fd00::2]:443 0/1");
    let table: [(&str, Family, &[&str]); 6] = [
        ("both.test", Family::Auto, &[four]),
        ("both.test", Family::V4, &[four]),
        ("both.test", Family::V6, &[six]),
        ("both.test", Family::All, &[four, six]),
        ("six.test", Family::Auto, &[sixth]),
        ("six.test", Family::V4, &[]),
    ];
    for (name, family, expected) in table {
        let found = first(DnsConfig { family, ..config(&server, DnsConfig::addresses(name, 443)) }).await;
        assert_eq!(found, expected, "{name} {family:?}");
    }
}

#[tokio::test]
async fn services_give_ports_priorities_and_weights() {
    let server = Server::start().await;
    server.say("a.test", RecordType::A, Reply::Records(vec![a("10.0.0.1")], 60));
    server.say("b.test", RecordType::A, Reply::Records(vec![a("10.0.0.2"), a("10.0.0.3")], 60));
    server.say("gone.test", RecordType::A, Reply::Nothing { code: ResponseCode::NXDomain, soa: true });
    server.say("gone.test", RecordType::AAAA, Reply::Nothing { code: ResponseCode::NXDomain, soa: true });
    let records = [
        srv(10, 60, 1, "a.test."),
        srv(10, 0, 2, "B.test."),
        srv(20, 5, 3, "a.test."),
        srv(20, 7, 3, "a.test."),
        srv(30, 5, 1, "a.test."),
        srv(30, 5, 4, "gone.test."),
    ];
    server.say("_s._tcp.test", RecordType::SRV, Reply::Records(records.into(), 60));
    let found = first(config(&server, DnsConfig::services("_s._tcp.test"))).await;
    assert_eq!(found, ["10.0.0.1:1 0/60", "10.0.0.1:3 1/12", "10.0.0.2:2 0/1", "10.0.0.3:2 0/1"]);
    server.say("_off._tcp.test", RecordType::SRV, Reply::Records(vec![srv(0, 0, 0, ".")], 60));
    assert_eq!(first(config(&server, DnsConfig::services("_off._tcp.test"))).await, ["gone"]);
    let few = DnsConfig { max_endpoints: 2, ..config(&server, DnsConfig::services("_s._tcp.test")) };
    match DnsResolver::new(few, Rng::seeded(1)).watch().next().await {
        Some(Update::Endpoints(set)) => {
            assert!(set.endpoints.iter().all(|endpoint| endpoint.priority == 0), "{set:?}");
            assert_eq!(set.endpoints.len() + set.dropped, 7, "a record or an address is used or counted: {set:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn resolv_conf_names_the_servers_and_is_read_again_after_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resolv.conf");
    let settings = DnsConfig { resolv_conf: path.clone(), attempts: 1, ..DnsConfig::addresses("a.test", 443) };
    let settings = DnsConfig { min_ttl: Duration::from_millis(100), timeout: Duration::from_millis(200), ..settings };
    let resolver = DnsResolver::new(settings, Rng::seeded(1));
    let mut updates = resolver.watch();
    assert!(seen(&updates.next().await.unwrap())[0].contains("resolv.conf: No such file"));
    // Nobody listens at port 53 of this address, so it can only fail in another way.
    std::fs::write(&path, "nameserver 127.0.53.53\nsearch test\n").unwrap();
    let said = seen(&updates.next().await.unwrap());
    assert!(said[0].starts_with("stale: A records of a.test: ") && !said[0].contains("No such file"), "{said:?}");
}

/// Addresses with their TTL, or why there are none.
type Said = Result<(Vec<&'static str>, u64), &'static str>;

/// Answers that a test changes, without a network: for virtual time.
#[derive(Debug, Default)]
struct Scripted {
    addresses: Mutex<HashMap<String, Said>>,
    services: Mutex<Option<Result<Vec<Service>, String>>>,
    asked: AtomicUsize,
}

impl Scripted {
    fn say(&self, name: &str, addresses: &[&'static str], ttl: u64) {
        self.addresses.lock().unwrap().insert(name.to_owned(), Ok((addresses.to_vec(), ttl)));
    }

    fn fail(&self, name: &str, why: &'static str) {
        self.addresses.lock().unwrap().insert(name.to_owned(), Err(why));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Lookup for Scripted {
    fn addresses(&self, name: &str, _v6: bool) -> Asked<'_, IpAddr> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let found = self.addresses.lock().unwrap()[name].clone();
        let found = found.map(|(records, ttl)| Answer {
            records: records.iter().map(|ip| ip.parse().unwrap()).collect(),
            ttl: Duration::from_secs(ttl),
            definite: true,
        });
        Box::pin(async move { found.map_err(str::to_owned) })
    }

    fn services(&self, _name: &str) -> Asked<'_, Service> {
        let found = self.services.lock().unwrap().clone().unwrap();
        let found = found.map(|records| Answer { records, ttl: Duration::from_secs(30), definite: true });
        Box::pin(async move { found })
    }
}

fn scripted(config: DnsConfig) -> (Arc<Scripted>, DnsResolver) {
    let lookup = Arc::new(Scripted::default());
    let config = Arc::new(DnsConfig { family: Family::V4, ..config });
    (Arc::clone(&lookup), DnsResolver { config, lookup, rng: Rng::seeded(7), wanted: Arc::default() })
}

/// When the next lookup comes.
async fn until_asked(lookup: &Scripted, updates: &mut Updates) -> Duration {
    let (begin, before) = (Instant::now(), lookup.asked());
    while lookup.asked() == before {
        assert!(tokio::time::timeout(Duration::from_millis(50), updates.next()).await.is_err(), "nothing has changed");
    }
    begin.elapsed()
}

#[tokio::test(start_paused = true)]
async fn ttls_are_honoured_within_bounds_and_failures_wait_longer_each_time() {
    let (lookup, resolver) = scripted(DnsConfig::addresses("p", 443));
    let mut updates = resolver.watch();
    let secs = Duration::from_secs;
    lookup.say("p", &["10.0.0.1"], 20);
    assert_eq!(seen(&updates.next().await.unwrap()), ["10.0.0.1:443 0/1"]);
    // (TTL, the least and the longest wait)
    for (ttl, least, longest) in [(20, 18, 20), (0, 1, 1), (5, 4, 5), (86_400, 54, 60), (30, 27, 30)] {
        lookup.say("p", &["10.0.0.1"], ttl);
        until_asked(&lookup, &mut updates).await;
        let waited = until_asked(&lookup, &mut updates).await;
        assert!(waited >= secs(least) - secs(1) && waited <= secs(longest) + secs(1), "TTL {ttl}: {waited:?}");
    }
    lookup.fail("p", "SERVFAIL");
    assert_eq!(seen(&updates.next().await.unwrap()), ["stale: SERVFAIL"], "said once");
    for longest in [1, 2, 4, 8, 16, 30] {
        let waited = until_asked(&lookup, &mut updates).await;
        assert!(waited <= secs(longest) + secs(1) && waited >= secs(longest) / 2, "{waited:?} of {longest}");
    }
    lookup.say("p", &["10.0.0.1"], 20);
    assert_eq!(seen(&updates.next().await.unwrap()), ["10.0.0.1:443 0/1"], "it can see again");

    // When wanted it asks at once, but not more often than allowed.
    let before = lookup.asked();
    for _ in 0..100 {
        resolver.resolve_now();
        assert!(tokio::time::timeout(Duration::from_millis(95), updates.next()).await.is_err());
    }
    assert!((8..=11).contains(&(lookup.asked() - before)), "{} in 9.5 s", lookup.asked() - before);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_cannot_be_resolved_keeps_its_last_addresses() {
    let (lookup, resolver) = scripted(DnsConfig::services("_s._tcp"));
    let service = |target: &str| Service { priority: 1, weight: 1, port: 443, target: target.to_owned() };
    let say =
        |all: &[&str]| *lookup.services.lock().unwrap() = Some(Ok(all.iter().map(|target| service(target)).collect()));
    let mut updates = resolver.watch();
    lookup.say("a", &["10.0.0.1"], 60);
    lookup.say("b", &["10.0.0.2"], 60);
    say(&["a", "b"]);
    assert_eq!(seen(&updates.next().await.unwrap()), ["10.0.0.1:443 0/1", "10.0.0.2:443 0/1"]);
    lookup.say("a", &["10.0.0.9"], 60);
    lookup.fail("b", "b: SERVFAIL");
    let (found, stale) = (seen(&updates.next().await.unwrap()), seen(&updates.next().await.unwrap()));
    assert_eq!(found, ["10.0.0.2:443 0/1", "10.0.0.9:443 0/1"]);
    assert_eq!(stale, ["stale: b: SERVFAIL"]);
    lookup.fail("a", "a: SERVFAIL");
    assert_eq!(seen(&updates.next().await.unwrap()), ["stale: a: SERVFAIL; b: SERVFAIL"], "none can be resolved");
    say(&[]);
    assert_eq!(seen(&updates.next().await.unwrap()), [""; 0], "there are none: for the cluster to hold");
}

#[tokio::test(start_paused = true)]
async fn a_zone_of_a_thousand_broken_targets_does_not_fill_the_log() {
    let (lookup, resolver) = scripted(DnsConfig::services("_s._tcp"));
    let names: Vec<String> = (0..1_000).map(|n| format!("t{n:03}")).collect();
    for name in &names {
        lookup.fail(name, String::leak(format!("{name}: SERVFAIL")));
    }
    let service = |target: &String| Service { priority: 1, weight: 1, port: 443, target: target.clone() };
    *lookup.services.lock().unwrap() = Some(Ok(names.iter().map(service).collect()));
    let said = seen(&resolver.watch().next().await.unwrap()).concat();
    assert!(said.starts_with("stale: t000: SERVFAIL; ") && said.ends_with("; and 992 more"), "{said}");
}

/// A day in which the name server is down, and one in which the zone has lost its records: no pick fails. The control arm
/// believes an empty set.
#[tokio::test(start_paused = true)]
async fn a_day_without_names_fails_nobody() {
    let outages: [(&str, HoldConfig, bool); 3] = [
        ("down", HoldConfig::default(), true),
        ("empty", HoldConfig::default(), true),
        ("empty", HoldConfig::default().empty_after(Duration::from_secs(1)), false),
    ];
    for (outage, hold, survives) in outages {
        let (lookup, resolver) = scripted(DnsConfig::addresses("p", 443));
        lookup.say("p", &["10.0.0.1", "10.0.0.2", "10.0.0.3"], 5);
        let settings = ClusterConfig::new(PlugConfig::new("dns", &json!("p:443")), Vec::new()).discover_hold(hold);
        let cluster = Cluster::new("p", &settings, Rng::seeded(1), Arc::default(), |_: &Endpoint, _| ());
        let task = tokio::spawn(cluster.follow(Arc::new(resolver)));
        cluster.until_resolved().await;
        match outage {
            "down" => lookup.fail("p", "SERVFAIL"),
            _ => lookup.say("p", &[], 5),
        }
        let (mut failed, before) = (0, lookup.asked());
        for _ in 0..24 * 60 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let pick = cluster.pick(&Tried::default(), Instant::now());
            failed += usize::from(matches!(pick, Err(PickError::Empty)));
        }
        assert_eq!(failed == 0, survives, "{outage}: {failed} of 1440 failed");
        assert!(lookup.asked() - before > 2_000, "it asks all the time: {}", lookup.asked() - before);
        assert_eq!(cluster.metrics().stale.get(), i64::from(survives));
        lookup.say("p", &["10.0.0.4"], 5);
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert!(cluster.endpoints().iter().any(|state| state.endpoint().address.ip().to_string() == "10.0.0.4"));
        drop(cluster);
        task.await.unwrap();
    }
}

/// DNS does not say where endpoints run: the configuration does, and residency goes by that.
#[tokio::test(start_paused = true)]
async fn endpoints_run_where_the_configuration_says() {
    let eu = Locality { region: "eu".into(), zone: "a".into() };
    let service = Service { priority: 0, weight: 1, port: 443, target: "p".to_owned() };
    for (config, allowed, expected) in [
        (DnsConfig::addresses("p", 443), "eu", Ok(&eu)),
        (DnsConfig::services("_p._tcp"), "eu", Ok(&eu)),
        (DnsConfig::addresses("p", 443), "us", Err(PickError::Residency)),
    ] {
        let (lookup, resolver) = scripted(DnsConfig { locality: eu.clone(), ..config });
        lookup.say("p", &["10.0.0.1"], 20);
        *lookup.services.lock().unwrap() = Some(Ok(vec![service.clone()]));
        let config = ClusterConfig::new(PlugConfig::new("dns", &json!("p:443")), Vec::new()).residency([allowed]);
        let cluster: Cluster<()> = Cluster::new("p", &config, Rng::seeded(1), Arc::default(), |_, _| ());
        tokio::spawn(cluster.follow(Arc::new(resolver)));
        cluster.until_resolved().await;
        let picked = cluster.pick(&Tried::default(), Instant::now());
        let picked = picked.as_ref().map(|pick| &pick.endpoint().endpoint().locality).map_err(|error| *error);
        assert_eq!(picked, expected, "{allowed}");
    }
}
