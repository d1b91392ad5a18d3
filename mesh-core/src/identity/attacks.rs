//! Chains that must be refused, each for its own reason.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use rcgen::{
    CertificateParams, KeyPair, KeyUsagePurpose as Ku, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
};

use super::testkit::{
    ACCEPTED, Ca, Forgery, HOUR, Issued, TRUST_DOMAIN, WEB, Workshop, ca_params, extension, leaf_params, noon, valid,
};
use super::{
    Identity, MemorySource, PeerRole, PrivateKey, SvidError, TrustBundle, TrustBundleSet, TrustDomain, X509Svid,
    claimed_id, verify_svid,
};
use crate::Mesh;
use crate::clock::ManualClock;
use crate::config::{Config, IdentityConfig, PlugConfig, Workload};

fn reason(chain: &[Arc<[u8]>], trust: &TrustBundleSet) -> &'static str {
    let roles = [PeerRole::Client, PeerRole::Server];
    let [client, server] = roles.map(|role| match verify_svid(chain, trust, role, noon()) {
        Ok(svid) => {
            assert_eq!(claimed_id(&chain[0]).as_ref(), Ok(&svid.id));
            ACCEPTED
        }
        Err(error) => error.reason(),
    });
    assert_eq!(client, server, "a peer is judged alike in both roles");
    client
}

#[test]
fn each_attack_is_refused_for_its_own_reason() {
    let workshop = Workshop::default();
    let (attacks, trust) = (workshop.attacks(), workshop.trust());
    for attack in attacks.iter().chain(&workshop.variants()) {
        assert_eq!(reason(&attack.chain, &trust), attack.verdict, "{}", attack.name);
    }
    let reasons: BTreeSet<_> = attacks.iter().map(|attack| attack.verdict).collect();
    assert_eq!(reasons.len(), attacks.len(), "two attacks share a reason");
}

/// webpki cannot judge URI names: even a matching constraint of the root fails closed.
#[test]
fn a_root_with_a_uri_constraint_vouches_for_nobody() {
    let mut constrained = ca_params("constrained");
    let permitted = [0x30, 0x08, 0xa0, 0x06, 0x30, 0x04, 0x86, 0x02, b't', b'd'];
    constrained.custom_extensions.push(extension(&[2, 5, 29, 30], true, &permitted));
    let root = Ca::self_signed(constrained);
    assert_eq!(reason(&[root.issue(&leaf_params(WEB)).der], &root.trust("td")), "name_constraint");
}

#[test]
fn only_the_roots_of_the_named_trust_domain_vouch() {
    let (ours, theirs) = (Ca::root("root"), Ca::root("root"));
    let leaf = |ca: &Ca, id: &str| vec![ca.issue(&leaf_params(id)).der];
    let mut both = ours.trust("td");
    both.insert(theirs.bundle("partner"));

    assert_eq!(reason(&leaf(&ours, WEB), &both), "accepted");
    // The partner's authority names one of our workloads; same issuer name, other key.
    assert_eq!(reason(&leaf(&theirs, WEB), &both), "issuer_of_another_trust_domain");
    assert_eq!(reason(&leaf(&Ca::root("else"), WEB), &both), "unknown_issuer");
    assert_eq!(reason(&leaf(&ours, "spiffe://partner/ns/shop/sa/web"), &both), "issuer_of_another_trust_domain");
    // Of as many partners as there may be, the one that did it is named.
    let mut many = ours.trust("td");
    (0..6).for_each(|n| many.insert(Ca::root("root").bundle(&format!("p{n}"))));
    many.insert(theirs.bundle("partner"));
    assert_eq!(
        verify_svid(&leaf(&theirs, WEB), &many, PeerRole::Client, noon()),
        Err(SvidError::OtherTrustDomain("partner".to_owned()))
    );
    assert_eq!(reason(&leaf(&ours, "spiffe://t/ns/shop/sa/web"), &both), "unknown_trust_domain");
    assert_eq!(reason(&leaf(&ours, WEB), &TrustBundleSet::default()), "unknown_trust_domain");
    let empty = TrustBundle::new(TrustDomain::parse("td").unwrap(), Vec::new()).unwrap();
    assert_eq!(reason(&leaf(&ours, WEB), &TrustBundleSet::of(empty)), "no_valid_authority");

    // The attacker sends the foreign root along.
    let chain = [leaf(&theirs, WEB), vec![theirs.der.clone()]].concat();
    assert_eq!(reason(&chain, &ours.trust("td")), "bad_signature");
}

#[test]
fn an_expired_root_does_not_vouch() {
    let mut old = ca_params("root");
    valid(&mut old, noon() - 2 * HOUR, noon() - Duration::from_secs(1));
    let old = Ca::self_signed(old);
    let leaf = old.issue(&leaf_params(WEB)).der;
    assert_eq!(reason(std::slice::from_ref(&leaf), &old.trust("td")), "no_valid_authority");

    let fresh = Ca::root("fresh");
    let domain = TrustDomain::parse("td").unwrap();
    let overlap = TrustBundle::new(domain, vec![old.der, fresh.der.clone()]).unwrap();
    let overlap = TrustBundleSet::of(overlap);
    assert_eq!(reason(&[leaf], &overlap), "unknown_issuer");
    assert_eq!(reason(&[fresh.issue(&leaf_params(WEB)).der], &overlap), "accepted");
}

#[test]
fn size_and_damage() {
    let root = Ca::root("root");
    let trust = root.trust("td");
    let leaf = root.issue(&leaf_params(WEB)).der;
    assert_eq!(reason(&[], &trust), "no_certificate");
    assert_eq!(reason(&vec![leaf.clone(); 9], &trust), "chain_too_long");
    assert_eq!(reason(&[leaf.clone(), vec![0; 64 * 1024].into()], &trust), "chain_too_large");
    assert_eq!(reason(std::slice::from_ref(&root.der), &trust), "san_missing");
    assert_eq!(reason(&[Arc::from(*b"junk")], &trust), "malformed");
    assert_eq!(reason(&[[&leaf[..], b"tail"].concat().into()], &trust), "malformed");

    // No single flipped bit goes unnoticed, and none panics.
    for at in 0..leaf.len() {
        let mut damaged = leaf.to_vec();
        damaged[at] ^= 1;
        for role in [PeerRole::Client, PeerRole::Server] {
            assert!(verify_svid(&[&damaged], &trust, role, noon()).is_err(), "byte {at}");
        }
    }
}

proptest! {
    /// Whatever is changed or cut off, the answer is a refusal and not a panic.
    #[test]
    fn damage_is_refused(changes in vec((any::<Index>(), any::<u8>()), 1..6), cut in option::of(any::<Index>())) {
        static GOOD: LazyLock<(Vec<u8>, TrustBundleSet)> = LazyLock::new(|| {
            let root = Ca::root("root");
            (root.issue(&leaf_params(WEB)).der.to_vec(), root.trust("td"))
        });
        let (good, trust) = &*GOOD;
        let mut damaged = good.clone();
        for (at, byte) in changes {
            damaged[at.index(good.len())] = byte;
        }
        if let Some(cut) = cut {
            damaged.truncate(cut.index(good.len()));
        }
        prop_assume!(damaged != *good);
        let judged = verify_svid(&[&damaged], trust, PeerRole::Client, noon());
        prop_assert!(judged.is_err());
        prop_assert!(verify_svid(&[good, &damaged], trust, PeerRole::Client, noon()).is_ok(), "what is not on the path does not count");
    }
}

#[test]
fn every_supported_algorithm_signs_chains_and_keys() {
    let algorithms = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_RSA_SHA256];
    let clock = noon();
    for algorithm in algorithms {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let root = Ca::with_key(ca_params("root"), key);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let pem = root.sign(&leaf_params(WEB), &key).pem();
        let svid = X509Svid::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let judged = verify_svid(svid.chain(), &root.trust("td"), PeerRole::Server, clock);
        assert_eq!(judged.map(|svid| svid.id.to_string()), Ok(WEB.to_owned()), "{algorithm:?}");
    }
    let root = Ca::with_key(ca_params("root"), KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap());
    assert_eq!(reason(&[root.issue(&leaf_params(WEB)).der], &root.trust("td")), "unsupported_signature");
}

#[test]
fn the_first_and_the_last_second_count() {
    let root = Ca::root("root");
    let leaf = [root.issue(&leaf_params(WEB)).der];
    let at = |now| verify_svid(&leaf, &root.trust("td"), PeerRole::Client, now).map(|svid| svid.not_after);
    let millis = Duration::from_millis;
    assert_eq!(at(noon() - HOUR), Ok(noon() + HOUR));
    assert_eq!(at(noon() - HOUR - millis(1)), Err(SvidError::NotYetValid));
    assert_eq!(at(noon() + HOUR + millis(999)), Ok(noon() + HOUR));
    assert_eq!(at(noon() + HOUR + millis(1000)), Err(SvidError::Expired));
    assert_eq!(at(std::time::UNIX_EPOCH - HOUR), Err(SvidError::NotYetValid));
}

#[test]
fn a_path_ends_with_the_first_of_its_certificates() {
    let ending = |mut params: CertificateParams, hours: u32| {
        valid(&mut params, noon() - HOUR, noon() + HOUR * hours);
        params
    };
    // (hours of the leaf, its issuer, the root, a second certificate of the root's name and key; of the path)
    for (leaf, issuer, root, again, path) in
        [(1, 2, 3, None, 1), (3, 1, 2, None, 1), (3, 2, 1, None, 1), (3, 2, 1, Some(4), 2), (5, 6, 4, Some(1), 4)]
    {
        let key = KeyPair::generate().unwrap();
        let roots = [Some(root), again].into_iter().flatten().map(|hours| {
            Ca::with_key(ending(ca_params("root"), hours), KeyPair::from_pem(&key.serialize_pem()).unwrap())
        });
        let roots: Vec<Ca> = roots.collect();
        let middle = roots[0].intermediate(ending(ca_params("middle"), issuer));
        let chain = [middle.issue(&ending(leaf_params(WEB), leaf)).der, middle.der.clone()];
        let authorities = roots.iter().map(|root| root.der.clone()).collect();
        let trust = TrustBundleSet::of(TrustBundle::new(TrustDomain::parse("td").unwrap(), authorities).unwrap());
        let judged = verify_svid(&chain, &trust, PeerRole::Client, noon()).map(|svid| svid.not_after);
        assert_eq!(judged, Ok(noon() + HOUR * path), "{leaf} {issuer} {root} {again:?}");
    }
}

#[test]
fn a_bundle_says_which_certificate_is_wrong() {
    let (root, domain) = (Ca::root("root"), TrustDomain::parse("td").unwrap());
    let Issued { pem: leaf, key, .. } = root.issue(&leaf_params(WEB));
    let mut unable = ca_params("unable");
    unable.key_usages = vec![Ku::CrlSign];
    let table = [
        (format!("{}{leaf}", root.pem), "certificate 2: is no certificate authority"),
        (Ca::self_signed(unable).pem, "certificate 1: is a certificate authority that may not sign"),
        (format!("{}{}", root.pem, key.serialize_pem()), "certificate 2: is a PrivateKey"),
        (
            format!("{}\n-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", root.pem),
            "certificate 2: cannot",
        ),
        (
            format!("{}\n-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n", root.pem),
            "certificate 2: is no readable",
        ),
        (root.pem.repeat(65), "65 certificates are too many"),
        ("# nothing\n".to_owned(), "no certificate in the PEM text"),
    ];
    for (pem, expected) in table {
        let error = TrustBundle::from_pem(domain.clone(), pem.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("trust bundle of td") && error.contains(expected), "{error}");
    }
    let good = TrustBundle::from_pem(domain, format!("comment\n{}", root.pem).as_bytes()).unwrap();
    assert_eq!(good, root.bundle("td"));
}

#[test]
fn an_svid_needs_its_own_key_and_keeps_the_leaf_rules() {
    let root = Ca::root("root");
    let (a, b) = (root.issue(&leaf_params(WEB)), root.issue(&leaf_params(WEB)));
    let load = |cert: &str, key: &str| X509Svid::from_pem(cert.as_bytes(), key.as_bytes());

    let svid = load(&format!("{}{}", a.pem, root.pem), &a.key.serialize_pem()).unwrap();
    assert_eq!((svid.id().as_str(), svid.chain().len()), (WEB, 2));
    assert_eq!((svid.not_before(), svid.not_after()), (noon() - HOUR, noon() + HOUR));
    let seen = verify_svid(svid.chain(), &root.trust("td"), PeerRole::Server, noon()).unwrap();
    assert_eq!(seen.serial, svid.serial());

    let refused = |cert: &str, key: &str| load(cert, key).unwrap_err().reason();
    assert_eq!(refused(&a.pem, &b.key.serialize_pem()), "key_mismatch");
    assert_eq!(refused(&a.pem, ""), "key_unusable");
    assert_eq!(refused("", &a.key.serialize_pem()), "no_certificate");
    assert_eq!(refused(&root.pem, &a.key.serialize_pem()), "san_missing");
    // The chain in the wrong order.
    assert_eq!(refused(&format!("{}{}", root.pem, a.pem), &a.key.serialize_pem()), "san_missing");
}

#[tokio::test(start_paused = true)]
async fn no_mesh_starts_with_an_svid_that_every_peer_would_refuse() {
    let workshop = Workshop::default();
    let mut started = 0;
    for Forgery { name, verdict, chain, key } in workshop.attacks().into_iter().chain(workshop.variants()) {
        let key = PrivateKey::from_pem(key.serialize_pem().as_bytes()).unwrap();
        let svid = match X509Svid::new(chain, Arc::new(key)) {
            Ok(svid) => svid,
            Err(error) => {
                assert_eq!(error.reason(), verdict, "{name}");
                continue;
            }
        };
        let domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
        let ours = svid.id().trust_domain() == TRUST_DOMAIN;
        // Peers let the last second count; of our own it is left out, for what begins in it would be cut at once.
        let lasts = svid.not_after() > noon();
        let source = PlugConfig::new("memory", &serde_json::Value::Null);
        let config = Config::new(Workload::new("web", "shop"), IdentityConfig { trust_domain: domain, source });
        let identity = Identity { svids: vec![Arc::new(svid)], bundles: Arc::new(workshop.trust()) };
        let builder = Mesh::builder().config(config).clock(Arc::new(ManualClock::new(noon())));
        let outcome = builder.identity_source(Arc::new(MemorySource::new(identity))).start().await;
        let good = ours && lasts && verdict == ACCEPTED;
        assert_eq!(outcome.is_ok(), good, "{name}: {:?}", outcome.err());
        started += usize::from(good);
    }
    assert!(started > 0);
}
