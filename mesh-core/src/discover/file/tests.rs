use super::*;
use crate::config::HoldConfig;
use crate::discover::Endpoint;
use crate::discover::hold::tests::Kept;
use crate::discover::testing::context;
use crate::rng::Rng;
use futures_util::StreamExt;
use serde_json::json;

fn write(path: &Path, text: &str) {
    let other = path.with_extension("tmp");
    std::fs::write(&other, text).unwrap();
    std::fs::rename(&other, path).unwrap();
}

fn stale(update: Option<Update>) -> String {
    match update {
        Some(Update::Stale(error)) => error.to_string(),
        other => panic!("expected a stale source, found {other:?}"),
    }
}

fn ports(update: Option<Update>) -> Vec<u16> {
    match update {
        Some(Update::Endpoints(set)) => set.endpoints.iter().map(|e| e.address.port()).collect(),
        other => panic!("expected endpoints, found {other:?}"),
    }
}

#[tokio::test]
async fn follows_the_file_and_says_each_problem_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("endpoints.yaml");
    let settings = Node::from(&json!({ "path": "endpoints.yaml", "interval": "50ms" }));
    let resolver = FileResolver::from_node(&settings, &context(dir.path()), &mut Errors::default()).unwrap();
    let mut updates = resolver.watch();
    assert!(stale(updates.next().await).contains("cannot read the endpoints"), "missing at the start");
    write(&path, "- \"127.0.0.1:1\"\n");
    assert_eq!(ports(updates.next().await), [1]);
    write(&path, "endpoints:\n  - \"127.0.0.1:1\"\n  - { address: \"127.0.0.1:2\", wieght: 3 }\n");
    let said = stale(updates.next().await);
    assert!(said.contains("endpoints.yaml:3:") && said.contains("endpoints[1].wieght"), "{said}");
    write(&path, "");
    assert!(stale(updates.next().await).contains("found 0 documents"), "a torn write is not an empty set");
    std::fs::remove_file(&path).unwrap();
    assert!(stale(updates.next().await).contains("cannot read the endpoints"));
    write(&path, "- \"127.0.0.1:1\"\n");
    assert_eq!(ports(updates.next().await), [1], "back as it was: reported, since it was stale");
    write(&path, "endpoints: []\n");
    assert_eq!(ports(updates.next().await), [0_u16; 0]);
}

#[test]
fn reads_every_field() {
    let text = "endpoints:\n  - address: \"10.0.0.2:8443\"\n    key: payments-1\n    locality: { region: eu, zone: a }\n    \
                priority: 1\n    weight: 2\n    metadata: { version: v2 }\n";
    let endpoint = parse(Path::new("e.yaml"), text).unwrap().endpoints.remove(0);
    assert_eq!(&*endpoint.key.0, "payments-1");
    assert_eq!((endpoint.priority, endpoint.weight), (1, 2));
    assert_eq!((endpoint.locality.region.as_str(), endpoint.locality.zone.as_str()), ("eu", "a"));
    assert_eq!(endpoint.metadata["version"], "v2");
}

#[test]
fn a_path_alone_will_do() {
    let mut errors = Errors::default();
    let context = context("/etc/mesh".as_ref());
    let resolver = FileResolver::from_node(&Node::from(&json!("e.yaml")), &context, &mut errors);
    assert!(format!("{resolver:?}").contains("/etc/mesh/e.yaml") && errors.is_empty());
    assert!(FileResolver::from_node(&Node::from(&json!(7)), &context, &mut errors).is_none() && !errors.is_empty());
}

#[test]
fn a_file_that_was_cut_short_is_told_from_one_that_shrank() {
    let bare = "- \"127.0.0.1:1\"\n- \"127.0.0.1:2\"\n- \"127.0.0.1:3\"\n";
    let (two, other) = ("- \"127.0.0.1:1\"\n- \"127.0.0.1:2\"\n", "- \"127.0.0.1:2\"\n- \"127.0.0.1:3\"\n");
    let (ended, two_ended) = (format!("{bare}...\n"), format!("{two}...\n"));
    let removed = format!("removed: [ \"127.0.0.1:3\" ]\nendpoints:\n{two}");
    // (last good text, text, how many endpoints, whether it is a part; `None`: refused)
    let table = [
        (bare, bare, Some((3, false))),
        (bare, two, Some((2, true))),
        (bare, other, Some((2, false))),
        (bare, removed.as_str(), Some((2, false))),
        (two, bare, Some((3, false))),
        (bare, ended.as_str(), Some((3, false))),
        (ended.as_str(), two, None),
        (ended.as_str(), bare, None),
        (ended.as_str(), two_ended.as_str(), Some((2, false))),
    ];
    for (good, text, expected) in table {
        let mut known = Text::default();
        known.take(Path::new("e.yaml"), good.to_owned()).unwrap();
        let found = known.take(Path::new("e.yaml"), text.to_owned());
        assert_eq!(found.ok().map(|set| (set.endpoints.len(), set.partial)), expected, "{good}\n{text}");
    }
    let both = format!("removed: [ \"127.0.0.1:1\" ]\nendpoints:\n{two}");
    assert!(parse(Path::new("e.yaml"), &both).unwrap_err().contains("both an endpoint and removed"));
}

/// One of the ways in which endpoints are written, and whether it can be told to be whole.
fn written(endpoints: &[Endpoint], rng: &Rng) -> String {
    let lines = |indent| -> String {
        endpoints
            .iter()
            .map(|e| format!("{indent}- {{ address: \"{}\", weight: {} }}\n", e.address, e.weight))
            .collect()
    };
    match rng.below(4) {
        0 => endpoints.iter().map(|e| format!("- \"{}\"\n", e.address)).collect(),
        1 => format!("endpoints:\n{}", lines("  ")),
        2 => format!("{}...\n", lines("")),
        _ => serde_json::to_string(&endpoints.iter().map(|e| e.address.to_string()).collect::<Vec<_>>()).unwrap(),
    }
}

/// `MESH_TORN_FILES` of them, 5,000 if it is not said: cut anywhere, or followed by the rest of an older version that was
/// longer.
#[test]
fn torn_files_change_nothing_that_is_in_force() {
    let number = std::env::var("MESH_TORN_FILES").map_or(5_000, |number| number.parse().unwrap());
    let seed = Rng::from_entropy().next_u64();
    println!("seed {seed}");
    let (rng, config, now) = (Rng::seeded(seed), HoldConfig::default(), tokio::time::Instant::now());
    let path = Path::new("e.yaml");
    let (mut refused, mut held) = (0, 0);
    for _ in 0..number {
        let endpoints: Vec<_> = (0..1 + rng.below(12))
            .map(|index| Endpoint {
                weight: 1 + rng.below(9) as u32,
                ..Endpoint::new(([10, 0, rng.below(200) as u8, index as u8], 1 + rng.below(60_000) as u16).into())
            })
            .collect();
        let good = written(&endpoints, &rng);
        let (mut text, mut hold) = (Text::default(), Kept::default());
        let set = text.take(path, good.clone()).unwrap();
        hold.judge(&set, &config, now);
        let before = hold.in_force().to_vec();
        for _ in 0..2 {
            let torn = &good[..rng.below(good.len())];
            match text.take(path, torn.to_owned()) {
                Ok(set) => _ = (hold.judge(&set, &config, now), held += 1),
                Err(_) => _ = (hold.interrupt(), refused += 1),
            }
            let addresses = |all: &[Endpoint]| all.iter().map(|e| e.address).collect::<Vec<_>>();
            assert_eq!(addresses(hold.in_force()), addresses(&before), "of\n{good}\nwas left\n{torn}");
        }
    }
    assert!(refused > number / 2 && held > number / 50, "{refused} refused, {held} held: these are no torn files");
}
