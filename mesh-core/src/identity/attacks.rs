//! Chains that must be refused, each for its own reason.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa, KeyPair,
    KeyUsagePurpose as Ku, NameConstraints, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512,
    PKCS_ED25519, PKCS_RSA_SHA256, SanType,
};

use super::testkit::{Ca, HOUR, Issued, ca_params, extension, leaf_params, noon, uri, valid};
use super::{PeerRole, SvidError, TrustBundle, TrustBundleSet, TrustDomain, X509Svid, verify_svid};

const WEB: &str = "spiffe://td/ns/shop/sa/web";
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];

fn reason(chain: &[Arc<[u8]>], trust: &TrustBundleSet) -> &'static str {
    let roles = [PeerRole::Client, PeerRole::Server];
    let [client, server] = roles.map(|role| match verify_svid(chain, trust, role, noon()) {
        Ok(svid) => {
            assert_eq!(svid.id.as_str(), WEB);
            "accepted"
        }
        Err(error) => error.reason(),
    });
    assert_eq!(client, server, "a peer is judged alike in both roles");
    client
}

#[test]
fn each_bad_leaf_has_its_own_reason() {
    let root = Ca::root("root");
    type Change = fn(&mut CertificateParams);
    let table: &[(&str, Change)] = &[
        ("accepted", |_| {}),
        ("accepted", |p| p.extended_key_usages.clear()),
        ("accepted", |p| p.extended_key_usages.push(Eku::CodeSigning)),
        ("accepted", |p| p.subject_alt_names.push(SanType::DnsName("web.example".try_into().unwrap()))),
        ("accepted", |p| p.is_ca = IsCa::ExplicitNoCa),
        ("san_missing", |p| p.subject_alt_names.clear()),
        ("uri_missing", |p| p.subject_alt_names = vec![SanType::DnsName("web.example".try_into().unwrap())]),
        ("uri_ambiguous", |p| p.subject_alt_names.push(uri("spiffe://td/ns/shop/sa/admin"))),
        ("uri_ambiguous", |p| p.subject_alt_names.insert(0, uri("https://td/"))),
        ("uri_ambiguous", |p| p.subject_alt_names.push(uri(WEB))),
        ("id_scheme", |p| p.subject_alt_names = vec![uri("https://td/ns/shop/sa/web")]),
        ("id_trust_domain_character", |p| p.subject_alt_names = vec![uri("spiffe://TD/ns/shop/sa/web")]),
        ("id_dot_segment", |p| p.subject_alt_names = vec![uri("spiffe://td/ns/shop/../sa/web")]),
        ("id_path_character", |p| p.subject_alt_names = vec![uri("spiffe://td/ns/shop/sa/web\0.evil")]),
        ("spiffe_id_without_path", |p| p.subject_alt_names = vec![uri("spiffe://td")]),
        ("leaf_is_authority", |p| {
            p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            p.key_usages.push(Ku::KeyCertSign);
        }),
        ("key_usage_missing", |p| p.key_usages.clear()),
        ("key_usage_wrong", |p| p.key_usages = vec![Ku::KeyEncipherment]),
        ("key_usage_wrong", |p| p.key_usages.push(Ku::KeyCertSign)),
        ("key_usage_wrong", |p| p.key_usages.push(Ku::CrlSign)),
        ("key_usage_not_critical", |p| {
            p.key_usages.clear();
            p.custom_extensions.push(extension(KEY_USAGE, false, &[3, 2, 7, 0x80]));
        }),
        ("malformed", |p| {
            p.key_usages.clear();
            p.custom_extensions.push(extension(KEY_USAGE, true, &[4, 1, 0x80]));
        }),
        ("malformed", |p| p.custom_extensions.push(extension(KEY_USAGE, true, &[3, 2, 7, 0x80]))),
        // A good URI beside one that is no UTF-8: some parsers list the good one only.
        ("malformed", |p| {
            p.subject_alt_names.clear();
            let good = [&[0x86, WEB.len() as u8], WEB.as_bytes()].concat();
            let names = [good.as_slice(), &[0x86, 2, 0xff, 0xfe]].concat();
            let der = [&[0x30, names.len() as u8], names.as_slice()].concat();
            p.custom_extensions.push(extension(SUBJECT_ALT_NAME, true, &der));
        }),
        ("malformed", |p| {
            p.subject_alt_names.clear();
            p.custom_extensions.push(extension(SUBJECT_ALT_NAME, true, &[0x30, 5, 0x86]));
        }),
        ("extended_key_usage_wrong", |p| p.extended_key_usages = vec![Eku::ServerAuth]),
        ("extended_key_usage_wrong", |p| p.extended_key_usages = vec![Eku::ClientAuth]),
        ("extended_key_usage_wrong", |p| p.extended_key_usages = vec![Eku::Any]),
        ("expired", |p| valid(p, noon() - HOUR, noon() - Duration::from_secs(1))),
        ("not_yet_valid", |p| valid(p, noon() + Duration::from_secs(1), noon() + HOUR)),
        ("malformed", |p| valid(p, noon() + HOUR, noon() - HOUR)),
        ("unknown_critical_extension", |p| p.custom_extensions.push(extension(&[1, 2, 3, 4], true, &[5, 0]))),
    ];
    for (index, (expected, change)) in table.iter().enumerate() {
        let mut params = leaf_params(WEB);
        change(&mut params);
        let leaf = root.issue(&params);
        assert_eq!(reason(&[leaf.der], &root.trust("td")), *expected, "row {index}");
    }
}

#[test]
fn each_bad_chain_has_its_own_reason() {
    let root = Ca::root("root");
    let trust = root.trust("td");
    let through = |params: CertificateParams| {
        let issuer = root.intermediate(params);
        let leaf = issuer.issue(&leaf_params(WEB));
        reason(&[leaf.der, issuer.der], &trust)
    };
    let changed = |change: fn(&mut CertificateParams)| {
        let mut params = ca_params("intermediate");
        change(&mut params);
        through(params)
    };
    assert_eq!(changed(|_| {}), "accepted");
    assert_eq!(changed(|p| p.is_ca = IsCa::NoCa), "intermediate_is_no_authority");
    assert_eq!(changed(|p| p.is_ca = IsCa::ExplicitNoCa), "intermediate_is_no_authority");
    assert_eq!(changed(|p| p.key_usages.clear()), "intermediate_key_usage_wrong");
    assert_eq!(changed(|p| p.key_usages = vec![Ku::DigitalSignature]), "intermediate_key_usage_wrong");
    assert_eq!(changed(|p| valid(p, noon() - 2 * HOUR, noon() - HOUR)), "issuer_expired");
    assert_eq!(changed(|p| valid(p, noon() + HOUR, noon() + 2 * HOUR)), "issuer_not_yet_valid");
    assert_eq!(changed(|p| p.extended_key_usages = vec![Eku::CodeSigning]), "path_refused");
    // Another workload's leaf as an issuer.
    assert_eq!(through(leaf_params("spiffe://td/ns/shop/sa/evil")), "intermediate_is_no_authority");

    let mut single = ca_params("single");
    single.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let first = root.intermediate(single);
    let second = first.intermediate(ca_params("second"));
    let leaf = second.issue(&leaf_params(WEB));
    assert_eq!(reason(&[leaf.der, second.der, first.der], &trust), "path_length");

    let excluded = |subtree: &str| {
        let mut params = ca_params("constrained");
        let subtrees = vec![GeneralSubtree::DnsName(subtree.to_owned())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees: subtrees });
        let issuer = root.intermediate(params);
        let mut leaf = leaf_params(WEB);
        leaf.subject_alt_names.push(SanType::DnsName("web.example".try_into().unwrap()));
        reason(&[issuer.issue(&leaf).der, issuer.der], &trust)
    };
    assert_eq!(excluded("other.example"), "accepted");
    assert_eq!(excluded("example"), "name_constraint");
    // permittedSubtrees: URI `td`. webpki cannot judge URI names, so even a matching constraint fails closed, be it an
    // intermediate's or the root's.
    let uri_constraint = [0x30, 0x08, 0xa0, 0x06, 0x30, 0x04, 0x86, 0x02, b't', b'd'];
    let mut constrained = ca_params("constrained");
    constrained.custom_extensions.push(extension(&[2, 5, 29, 30], true, &uri_constraint));
    assert_eq!(through(constrained.clone()), "name_constraint");
    let constrained = Ca::self_signed(constrained);
    assert_eq!(reason(&[constrained.issue(&leaf_params(WEB)).der], &constrained.trust("td")), "name_constraint");

    // Roots are often sent along; they add nothing and harm nothing.
    assert_eq!(reason(&[root.issue(&leaf_params(WEB)).der, root.der.clone()], &trust), "accepted");
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
