//! Every order in which SVIDs and bundles can come.

use super::*;
use crate::clock::ManualClock;
use crate::identity::IdentitySource;
use crate::identity::MemorySource;
use crate::identity::testkit::{Ca, HOUR, leaf_params, noon, valid};
use crate::rng::Rng;

const WEB: &str = "spiffe://td/ns/shop/sa/web";

/// Two authorities and everything that a source can say about them.
struct World {
    clock: Arc<ManualClock>,
    judge: Judge,
    /// By name: of the old root, of the new one, one that begins in a minute, one that has ended.
    svids: Vec<(&'static str, Arc<X509Svid>)>,
    bundles: Vec<(&'static str, Arc<TrustBundleSet>)>,
}

impl World {
    fn new() -> Self {
        let (old, new) = (Ca::root("old"), Ca::root("new"));
        let dated = |from, until| {
            let mut params = leaf_params(WEB);
            valid(&mut params, from, until);
            let issued = new.issue(&params);
            Arc::new(X509Svid::from_pem(issued.pem.as_bytes(), issued.key.serialize_pem().as_bytes()).unwrap())
        };
        let both = {
            let authorities = vec![old.der.clone(), new.der.clone()];
            crate::identity::TrustBundle::new(TrustDomain::parse("td").unwrap(), authorities).unwrap()
        };
        let clock = Arc::new(ManualClock::new(noon()));
        Self {
            judge: Judge { domain: TrustDomain::parse("td").unwrap(), clock: clock.clone(), metrics: Arc::default() },
            clock,
            svids: vec![
                ("old", Arc::new(old.svid(WEB))),
                ("new", Arc::new(new.svid(WEB))),
                ("early", dated(noon() + Duration::from_secs(60), noon() + HOUR)),
                ("ended", dated(noon() - HOUR, noon() - Duration::from_secs(1))),
                ("foreign", Arc::new(old.svid("spiffe://else/ns/shop/sa/web"))),
            ],
            bundles: vec![
                ("old", Arc::new(old.trust("td"))),
                ("both", Arc::new(TrustBundleSet::of(both))),
                ("new", Arc::new(new.trust("td"))),
                ("none", Arc::new(old.trust("else"))),
            ],
        }
    }

    fn svid(&self, name: &str) -> Vec<Arc<X509Svid>> {
        self.svids.iter().filter(|(known, _)| *known == name).map(|(_, svid)| svid.clone()).collect()
    }

    fn revision(&self, svid: &str, bundle: &str) -> Identity {
        let bundles = self.bundles.iter().find(|(known, _)| *known == bundle).unwrap();
        Identity { svids: self.svid(svid), bundles: bundles.1.clone() }
    }

    /// What is in force, by name.
    fn in_force(&self, identity: &Identity) -> (&'static str, &'static str) {
        let svid = self.svids.iter().find(|(_, svid)| Arc::ptr_eq(svid, identity.svid().unwrap())).unwrap();
        let bundle = self.bundles.iter().find(|(_, bundle)| *bundle == identity.bundles).unwrap();
        (svid.0, bundle.0)
    }
}

#[test]
fn a_rotation_goes_well_in_the_right_order_and_is_safe_in_every_other() {
    let world = World::new();
    // (what comes, what is in force then, ready, why the SVID is held)
    type Step = ((&'static str, &'static str), (&'static str, &'static str), bool, Option<&'static str>);
    let table: [(&str, &[Step]); 6] = [
        (
            "in order",
            &[
                (("old", "both"), ("old", "both"), true, None),
                (("new", "both"), ("new", "both"), true, None),
                (("new", "new"), ("new", "new"), true, None),
            ],
        ),
        (
            "leaf before bundle",
            &[
                (("new", "old"), ("old", "old"), true, Some("unknown_issuer")),
                (("new", "both"), ("new", "both"), true, None),
            ],
        ),
        (
            "leaf before bundle, and a hiccup that takes it back",
            &[
                (("new", "old"), ("old", "old"), true, Some("unknown_issuer")),
                (("old", "old"), ("old", "old"), true, None),
                (("old", "both"), ("old", "both"), true, None),
            ],
        ),
        (
            "root removed before the leaf is renewed: a revocation",
            &[
                (("old", "new"), ("old", "new"), false, Some("unknown_issuer")),
                (("new", "new"), ("new", "new"), true, None),
            ],
        ),
        ("all at once", &[(("new", "new"), ("new", "new"), true, None)]),
        (
            "what cannot be used",
            &[
                (("ended", "both"), ("old", "both"), true, Some("expired")),
                (("early", "new"), ("old", "new"), false, Some("not_yet_valid")),
                (("foreign", "old"), ("old", "old"), true, Some("unknown_trust_domain")),
                (("nothing", "both"), ("old", "both"), true, Some("no_svid")),
                (("new", "none"), ("old", "both"), true, Some("no_trust_bundle")),
            ],
        ),
    ];
    for (case, steps) in table {
        let cell = Snapshot::new(world.revision("old", "old"));
        for &((svid, bundle), expected, ready, held) in steps {
            let counted = |reason| world.judge.metrics.runtime.identity_held_for(reason);
            let before = held.map(|reason| (reason, counted(reason)));
            world.judge.take(world.revision(svid, bundle), &cell);
            let step = format!("{case}: {svid} with {bundle}");
            assert_eq!(world.in_force(&cell.load()), expected, "{step}");
            assert_eq!(validity(&cell.load(), noon()).is_ok(), ready, "{step}");
            if let Some((reason, before)) = before {
                assert_eq!(counted(reason), before + 1, "{step}: {reason}");
            }
        }
    }
}

/// Any order at all, against what must hold of each.
#[test]
fn no_order_publishes_an_svid_that_nobody_can_verify_or_keeps_a_root_that_was_taken_out() {
    let world = World::new();
    for seed in 0..200 {
        let rng = Rng::seeded(seed);
        let cell = Snapshot::new(world.revision("old", "old"));
        let (mut bundle, mut svid) = ("old", "old");
        for step in 0..20 {
            let new_svid = ["old", "new", "early", "ended", "foreign", "nothing"][rng.below(6)];
            let new_bundle = ["old", "both", "new", "none"][rng.below(4)];
            let waits = world.judge.take(world.revision(new_svid, new_bundle), &cell);
            let usable = matches!((new_svid, new_bundle), ("old", "old" | "both") | ("new", "new" | "both"));
            bundle = if new_bundle == "none" { bundle } else { new_bundle };
            svid = if usable { new_svid } else { svid };
            let told = format!("seed {seed}, step {step}: {new_svid} with {new_bundle}");
            assert_eq!(world.in_force(&cell.load()), (svid, bundle), "{told}");
            assert_eq!(waits.is_some(), !usable && new_bundle != "none", "{told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_svid_that_comes_too_early_is_taken_when_its_time_has_come() {
    let world = World::new();
    let source = MemorySource::new(world.revision("early", "both"));
    let clock = world.clock.clone();
    tokio::spawn(async move {
        for _ in 0..70 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            clock.advance(Duration::from_secs(1));
        }
    });
    let mut updates = source.watch();
    let told = world.judge.first(&mut updates).await.unwrap_err().to_string();
    assert!(told.contains("is not valid before") && told.starts_with("no identity after 10s"), "{told}");

    let source = MemorySource::new(world.revision("old", "both"));
    let mut updates = source.watch();
    let cell = Snapshot::new(world.judge.first(&mut updates).await.unwrap());
    source.rotate(world.revision("early", "both"));
    let following = tokio::spawn(world.judge.clone().follow(updates, cell.clone()));
    tokio::time::sleep(Duration::from_secs(45)).await;
    assert_eq!(world.in_force(&cell.load()), ("old", "both"));
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!((world.in_force(&cell.load()), cell.generation()), (("early", "both"), 2));
    following.abort();
}
