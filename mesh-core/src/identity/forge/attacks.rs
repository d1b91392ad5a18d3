//! What an attacker may present, with the reason for which each is refused.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa, KeyPair,
    KeyUsagePurpose as Ku, NameConstraints, SanType,
};

use super::{Ca, HOUR, ca_params, extension, leaf_params, noon, uri, valid};
use crate::identity::TrustBundleSet;

/// The trust domain of those who are attacked.
pub const TRUST_DOMAIN: &str = "td";
/// Another one, that they trust as well.
pub const PARTNER: &str = "partner";
/// Whom the attacker wants to be.
pub const WEB: &str = "spiffe://td/ns/shop/sa/web";
/// The verdict on a control: a chain that keeps every rule.
pub const ACCEPTED: &str = "accepted";

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];

/// A chain, the key of its leaf, and the verdict that it must get.
///
/// At [`noon`].
pub struct Forgery {
    /// What is wrong with it, or what is odd and right.
    pub name: &'static str,
    /// [`ACCEPTED`], or the reason.
    pub verdict: &'static str,
    /// DER, leaf first.
    pub chain: Vec<Arc<[u8]>>,
    /// The leaf's key.
    pub key: KeyPair,
}

/// The authorities of one attack: ours, a trusted partner's, and one that nobody knows.
pub struct Workshop {
    /// The root of [`TRUST_DOMAIN`].
    pub root: Ca,
    partner: Ca,
    stranger: Ca,
}

type Change = fn(&mut CertificateParams);

impl Default for Workshop {
    fn default() -> Self {
        Self { root: Ca::root("root"), partner: Ca::root("partner"), stranger: Ca::root("stranger") }
    }
}

impl Workshop {
    /// Whom the attacked trust.
    pub fn trust(&self) -> TrustBundleSet {
        let mut trust = self.root.trust(TRUST_DOMAIN);
        trust.insert(self.partner.bundle(PARTNER));
        trust
    }

    /// Every attack, each with a reason of its own, and the control.
    ///
    /// Without the control they would prove nothing.
    pub fn attacks(&self) -> Vec<Forgery> {
        let leaves: [(_, _, Change); 16] = [
            ("control", ACCEPTED, |_| {}),
            ("no alternative name", "san_missing", |p| p.subject_alt_names.clear()),
            ("two URIs", "uri_ambiguous", |p| p.subject_alt_names.push(uri("spiffe://td/ns/shop/sa/admin"))),
            ("a DNS name only", "uri_missing", |p| p.subject_alt_names = vec![dns("web.example")]),
            ("an authority as leaf", "leaf_is_authority", |p| {
                p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
                p.key_usages.push(Ku::KeyCertSign);
            }),
            ("no key usage", "key_usage_missing", |p| p.key_usages.clear()),
            ("wrong key usage", "key_usage_wrong", |p| p.key_usages = vec![Ku::KeyEncipherment]),
            ("wrong extended key usage", "extended_key_usage_wrong", |p| {
                p.extended_key_usages = vec![Eku::CodeSigning]
            }),
            ("expired", "expired", |p| valid(p, noon() - HOUR, noon() - Duration::from_secs(1))),
            ("not yet valid", "not_yet_valid", |p| valid(p, noon() + Duration::from_secs(1), noon() + HOUR)),
            ("an ID without path", "spiffe_id_without_path", |p| p.subject_alt_names = vec![uri("spiffe://td")]),
            ("an upper-case trust domain", "id_trust_domain_character", |p| {
                p.subject_alt_names = vec![uri("spiffe://TD/ns/shop/sa/web")];
            }),
            ("percent-encoding", "id_path_character", |p| {
                p.subject_alt_names = vec![uri("spiffe://td/ns/shop/sa/%77eb")];
            }),
            ("an ID of 3,000 bytes", "id_too_long", |p| {
                p.subject_alt_names = vec![uri(&format!("spiffe://td/{}", "a".repeat(2988)))];
            }),
            ("an unknown critical extension", "unknown_critical_extension", |p| {
                p.custom_extensions.push(extension(&[1, 2, 3, 4], true, &[5, 0]));
            }),
            ("a name of another trust domain that nobody knows", "unknown_trust_domain", |p| {
                p.subject_alt_names = vec![uri("spiffe://nobody/ns/shop/sa/web")];
            }),
        ];
        let mut attacks: Vec<_> = leaves.map(|(name, verdict, change)| self.leaf(name, verdict, change)).into();
        attacks.extend([
            self.signed("a root that nobody knows", "unknown_issuer", &self.stranger, WEB),
            self.signed("the root of another trust domain", "issuer_of_another_trust_domain", &self.partner, WEB),
            self.below("an intermediate that is no authority", "intermediate_is_no_authority", |p| {
                p.is_ca = IsCa::NoCa
            }),
            self.below("name constraints", "name_constraint", |p| p.name_constraints = Some(excluding("example"))),
            self.too_deep(),
        ]);
        let Forgery { mut chain, key, .. } = self.leaf("", "", |_| {});
        chain.extend((0..8).map(|_| self.root.der.clone()));
        attacks.push(Forgery { name: "a huge chain", verdict: "chain_too_long", chain, key });
        attacks
    }

    /// More of the same, which may share a reason.
    ///
    /// And what is odd and must be let in.
    pub fn variants(&self) -> Vec<Forgery> {
        let leaves: [(_, _, Change); 27] = [
            ("no extended key usage", ACCEPTED, |p| p.extended_key_usages.clear()),
            ("one more extended key usage", ACCEPTED, |p| p.extended_key_usages.push(Eku::CodeSigning)),
            ("a DNS name beside the URI", ACCEPTED, |p| p.subject_alt_names.push(dns("web.other"))),
            ("no authority, in so many words", ACCEPTED, |p| p.is_ca = IsCa::ExplicitNoCa),
            ("another URI first", "uri_ambiguous", |p| p.subject_alt_names.insert(0, uri("https://td/"))),
            ("the same URI twice", "uri_ambiguous", |p| p.subject_alt_names.push(uri(WEB))),
            ("no SPIFFE URI", "id_scheme", |p| p.subject_alt_names = vec![uri("https://td/ns/shop/sa/web")]),
            ("an upper-case scheme", "id_scheme", |p| p.subject_alt_names = vec![uri("SPIFFE://td/ns/shop/sa/web")]),
            ("a port", "id_trust_domain_character", |p| p.subject_alt_names = vec![uri("spiffe://td:1/a")]),
            ("dots", "id_dot_segment", |p| p.subject_alt_names = vec![uri("spiffe://td/ns/shop/../sa/web")]),
            ("a trailing slash", "id_empty_segment", |p| p.subject_alt_names = vec![uri("spiffe://td/ns/")]),
            ("NUL", "id_path_character", |p| p.subject_alt_names = vec![uri("spiffe://td/ns/shop/sa/web\0.evil")]),
            ("the longest ID", "id_too_long", |p| {
                p.subject_alt_names = vec![uri(&format!("spiffe://td/{}", "a".repeat(2049 - 12)))];
            }),
            ("may sign certificates", "key_usage_wrong", |p| p.key_usages.push(Ku::KeyCertSign)),
            ("may sign revocation lists", "key_usage_wrong", |p| p.key_usages.push(Ku::CrlSign)),
            ("key usage is not critical", "key_usage_not_critical", |p| {
                p.key_usages.clear();
                p.custom_extensions.push(extension(KEY_USAGE, false, &[3, 2, 7, 0x80]));
            }),
            ("key usage is no bit string", "malformed", |p| {
                p.key_usages.clear();
                p.custom_extensions.push(extension(KEY_USAGE, true, &[4, 1, 0x80]));
            }),
            ("key usage twice", "malformed", |p| {
                p.custom_extensions.push(extension(KEY_USAGE, true, &[3, 2, 7, 0x80]));
            }),
            // Some parsers list the good one only.
            ("a URI that is no UTF-8 beside a good one", "malformed", |p| {
                p.subject_alt_names.clear();
                let good = [&[0x86, WEB.len() as u8], WEB.as_bytes()].concat();
                let names = [good.as_slice(), &[0x86, 2, 0xff, 0xfe]].concat();
                let der = [&[0x30, names.len() as u8], names.as_slice()].concat();
                p.custom_extensions.push(extension(SUBJECT_ALT_NAME, true, &der));
            }),
            ("alternative names that end too early", "malformed", |p| {
                p.subject_alt_names.clear();
                p.custom_extensions.push(extension(SUBJECT_ALT_NAME, true, &[0x30, 5, 0x86]));
            }),
            ("no alternative names in the list of them", "uri_missing", |p| {
                p.subject_alt_names.clear();
                p.custom_extensions.push(extension(SUBJECT_ALT_NAME, true, &[0x30, 0]));
            }),
            ("server only", "extended_key_usage_wrong", |p| p.extended_key_usages = vec![Eku::ServerAuth]),
            ("client only", "extended_key_usage_wrong", |p| p.extended_key_usages = vec![Eku::ClientAuth]),
            ("any extended key usage", "extended_key_usage_wrong", |p| p.extended_key_usages = vec![Eku::Any]),
            ("ends before it begins", "malformed", |p| valid(p, noon() + HOUR, noon() - HOUR)),
            ("valid for its last second", ACCEPTED, |p| valid(p, noon() - HOUR, noon())),
            ("valid from this second", ACCEPTED, |p| valid(p, noon(), noon() + HOUR)),
        ];
        let issuers: [(_, _, Change); 11] = [
            ("an intermediate", ACCEPTED, |_| {}),
            ("an intermediate that says it is no authority", "intermediate_is_no_authority", |p| {
                p.is_ca = IsCa::ExplicitNoCa;
            }),
            ("the leaf of another workload as issuer", "intermediate_is_no_authority", |p| {
                *p = leaf_params("spiffe://td/ns/shop/sa/evil");
            }),
            ("an intermediate without key usage", "intermediate_key_usage_wrong", |p| p.key_usages.clear()),
            ("an intermediate that may not sign", "intermediate_key_usage_wrong", |p| {
                p.key_usages = vec![Ku::DigitalSignature];
            }),
            ("an expired intermediate", "issuer_expired", |p| valid(p, noon() - 2 * HOUR, noon() - HOUR)),
            ("an intermediate of tomorrow", "issuer_not_yet_valid", |p| valid(p, noon() + HOUR, noon() + 2 * HOUR)),
            ("an intermediate for code", "intermediate_extended_key_usage_wrong", |p| {
                p.extended_key_usages = vec![Eku::CodeSigning]
            }),
            ("an intermediate with an unknown critical extension", "unknown_critical_extension", |p| {
                p.custom_extensions.push(extension(&[1, 2, 3, 4], true, &[5, 0]));
            }),
            ("name constraints that do not matter", ACCEPTED, |p| p.name_constraints = Some(excluding("elsewhere"))),
            // permittedSubtrees: URI `td`. webpki cannot judge URI names: even a constraint that fits fails closed.
            ("a URI constraint that fits", "name_constraint", |p| {
                let permitted = [0x30, 0x08, 0xa0, 0x06, 0x30, 0x04, 0x86, 0x02, b't', b'd'];
                p.custom_extensions.push(extension(NAME_CONSTRAINTS, true, &permitted));
            }),
        ];
        let mut variants: Vec<_> = leaves.map(|(name, verdict, change)| self.leaf(name, verdict, change)).into();
        variants.extend(issuers.map(|(name, verdict, change)| self.below(name, verdict, change)));
        let namesake = Ca::root("root");
        let ours = "spiffe://partner/ns/shop/sa/web";
        variants.extend([
            self.signed("a root that nobody knows, of our root's name", "bad_signature", &namesake, WEB),
            self.signed("our root for the partner", "issuer_of_another_trust_domain", &self.root, ours),
            self.signed("the partner's own workload", ACCEPTED, &self.partner, ours),
        ]);
        let mut sent_along = self.signed("the unknown root sent along", "unknown_issuer", &self.stranger, WEB);
        sent_along.chain.push(self.stranger.der.clone());
        let mut with_root = self.leaf("our own root sent along", ACCEPTED, |_| {});
        with_root.chain.push(self.root.der.clone());
        variants.extend([sent_along, with_root]);
        variants
    }

    fn leaf(&self, name: &'static str, verdict: &'static str, change: Change) -> Forgery {
        let mut params = leaf_params(WEB);
        change(&mut params);
        let leaf = self.root.issue(&params);
        Forgery { name, verdict, chain: vec![leaf.der], key: leaf.key }
    }

    fn signed(&self, name: &'static str, verdict: &'static str, issuer: &Ca, id: &str) -> Forgery {
        let leaf = issuer.issue(&leaf_params(id));
        Forgery { name, verdict, chain: vec![leaf.der], key: leaf.key }
    }

    /// A good leaf below a changed intermediate. It has a DNS name too, for constraints to bite on.
    fn below(&self, name: &'static str, verdict: &'static str, change: Change) -> Forgery {
        let mut params = ca_params("intermediate");
        change(&mut params);
        let issuer = self.root.intermediate(params);
        let mut params = leaf_params(WEB);
        params.subject_alt_names.push(dns("web.example"));
        let leaf = issuer.issue(&params);
        Forgery { name, verdict, chain: vec![leaf.der, issuer.der], key: leaf.key }
    }

    /// Two intermediates where the first may have none below it.
    fn too_deep(&self) -> Forgery {
        let mut params = ca_params("single");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let first = self.root.intermediate(params);
        let second = first.intermediate(ca_params("second"));
        let leaf = second.issue(&leaf_params(WEB));
        let chain = vec![leaf.der, second.der, first.der];
        Forgery { name: "more issuers than the path length allows", verdict: "path_length", chain, key: leaf.key }
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn excluding(subtree: &str) -> NameConstraints {
    let excluded = vec![GeneralSubtree::DnsName(subtree.to_owned())];
    NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees: excluded }
}
