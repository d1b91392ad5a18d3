//! One CA and two X.509-SVIDs, each good for both sides of a handshake.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

pub(super) struct Pki {
    pub(super) ca: String,
    pub(super) leaves: Vec<Leaf>,
}

pub(super) struct Leaf {
    pub(super) name: &'static str,
    pub(super) chain: String,
    pub(super) key: String,
}

#[allow(clippy::disallowed_methods)] // real certificates for real programs
fn now() -> OffsetDateTime {
    std::time::SystemTime::now().into()
}

pub(super) fn issue(trust_domain: &str) -> Result<Pki, rcgen::Error> {
    let mut params = params("mesh bench CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let leaves = ["server", "client"].map(|name| leaf(name, trust_domain, &ca));
    Ok(Pki { ca: ca.pem(), leaves: leaves.into_iter().collect::<Result<_, _>>()? })
}

/// The leaf rules of X.509-SVID 4: exactly one URI SAN, no CA bit, keyUsage critical with digitalSignature. The SAN is
/// not alone: `localhost` lets clients that only know host names connect too.
fn leaf(name: &'static str, trust_domain: &str, ca: &CertifiedIssuer<'_, KeyPair>) -> Result<Leaf, rcgen::Error> {
    let mut params = params(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![
        SanType::URI(format!("spiffe://{trust_domain}/ns/bench/sa/{name}").try_into()?),
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
    ];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    Ok(Leaf { name, chain: certificate.pem(), key: key.serialize_pem() })
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = now() - Duration::minutes(5);
    params.not_after = now() + Duration::hours(24);
    params
}
