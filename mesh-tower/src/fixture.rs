//! Real certificates and meshes for this crate's tests.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::audit::{AuditSink, LogSink};
use mesh_core::clock::{SystemClock, WallClock};
use mesh_core::config::{Config, IdentityConfig, NoPolicy, PlugConfig, Workload};
use mesh_core::identity::{Identity, MemorySource, TrustBundle, TrustBundleSet, TrustDomain, X509Svid};
use mesh_core::{Mesh, MeshBuilder};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// An authority of the trust domain `td`.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: Arc<[u8]>,
    clock: Arc<dyn WallClock>,
}

impl Ca {
    /// An authority whose certificate is called `name`.
    pub(crate) fn new(name: &str, clock: &Arc<dyn WallClock>) -> Self {
        Self::lasting(name, clock, 9 * DAY)
    }

    /// The same; its certificate ends after `ttl`.
    pub(crate) fn lasting(name: &str, clock: &Arc<dyn WallClock>, ttl: Duration) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.not_before, params.not_after) = ((clock.now() - DAY).into(), (clock.now() + ttl).into());
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().as_ref().into();
        Self { issuer: Issuer::new(params, key), der, clock: Arc::clone(clock) }
    }

    /// The bundle of `td` that these authorities are.
    pub(crate) fn trust(authorities: &[&Self]) -> TrustBundleSet {
        let authorities = authorities.iter().map(|ca| ca.der.clone()).collect();
        TrustBundleSet::of(TrustBundle::new(TrustDomain::parse("td").unwrap(), authorities).unwrap())
    }

    /// An SVID for `id` that ends after `ttl`, with the bundle of this authority.
    pub(crate) fn issue(&self, id: &str, ttl: Duration) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = ((self.clock.now() - DAY).into(), (self.clock.now() + ttl).into());
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let svid = X509Svid::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        Identity { svids: vec![Arc::new(svid)], bundles: Arc::new(Self::trust(&[self])) }
    }
}

/// A mesh of `shop/NAME` that allows every caller unless `edit` says otherwise.
pub(crate) async fn mesh(ca: &Ca, name: &str, edit: impl FnOnce(&mut Config)) -> Mesh {
    audited_mesh(ca, name, edit, Box::new(LogSink)).await
}

/// The same, with its audit records in `sink`.
pub(crate) async fn audited_mesh(
    ca: &Ca,
    name: &str,
    edit: impl FnOnce(&mut Config),
    sink: Box<dyn AuditSink>,
) -> Mesh {
    mesh_of(ca, name, edit, |builder| builder.audit_sink(sink)).await
}

/// The same, with what `more` tells its builder.
pub(crate) async fn mesh_of(
    ca: &Ca,
    name: &str,
    edit: impl FnOnce(&mut Config),
    more: impl FnOnce(MeshBuilder) -> MeshBuilder,
) -> Mesh {
    let trust_domain = TrustDomain::parse("td").unwrap();
    let source = PlugConfig::new("memory", &serde_json::json!({}));
    let mut config = Config::new(Workload::new(name, "shop"), IdentityConfig { trust_domain, source });
    config.no_policy = NoPolicy::Allow;
    edit(&mut config);
    let source = MemorySource::new(ca.issue(&format!("spiffe://td/ns/shop/sa/{name}"), DAY));
    more(Mesh::builder().config(config).identity_source(Arc::new(source))).start().await.unwrap()
}

/// An authority on the system's clock.
pub(crate) fn ca() -> Ca {
    let clock: Arc<dyn WallClock> = Arc::new(SystemClock);
    Ca::new("root", &clock)
}
