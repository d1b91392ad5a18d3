//! `mesh svid inspect`: what a certificate chain says, and whether a peer would take it.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_core::clock::{SystemClock, WallClock as _};
use mesh_core::identity::{
    PeerRole, SpiffeId, SvidError, TrustBundle, TrustBundleSet, TrustDomain, check_leaf, verify_svid,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::answer::{Answer, Failure};
use crate::cli::InspectArgs;

pub(crate) fn inspect(args: &InspectArgs) -> Result<Answer, Failure> {
    let chain = certificates(&args.chain)?;
    let facts = chain.iter().map(|der| Facts::read(der)).collect::<Result<Vec<_>, _>>();
    let facts = facts.map_err(|e| Failure::Io(format!("{}: {e}", args.chain.display())))?;
    let bundle = args.bundle.as_deref().map(certificates).transpose()?;
    let verdict = judge(&chain, bundle.as_deref(), SystemClock.now());
    let (text, yes) = match &verdict {
        Ok(id) if bundle.is_some() => (format!("X.509-SVID of {id}, vouched for by the bundle"), true),
        Ok(id) => (format!("X.509-SVID of {id}; no --bundle was given, nobody vouches for it"), true),
        Err(error) => (format!("refused ({}): {error}", error.reason()), false),
    };
    let json = json!({
        "valid": yes,
        "verified": yes && bundle.is_some(),
        "spiffe_id": verdict.as_ref().ok().map(|id| id.as_str()),
        "reason": verdict.as_ref().err().map(SvidError::reason),
        "message": verdict.as_ref().err().map(ToString::to_string),
        "chain": facts.iter().map(Facts::to_json).collect::<Vec<_>>(),
    });
    let lines = facts.iter().enumerate().map(|(at, facts)| format!("\n[{at}] {}", facts.to_text()));
    Ok(Answer { yes, text: text + &lines.collect::<String>(), json })
}

/// By the leaf's own rules; with a bundle, as a peer would in a handshake, from either side.
fn judge(
    chain: &[CertificateDer<'_>],
    bundle: Option<&[CertificateDer<'_>]>,
    now: SystemTime,
) -> Result<SpiffeId, SvidError> {
    let leaf = chain.first().ok_or(SvidError::NoCertificate)?;
    let id = check_leaf(leaf, now)?;
    let Some(authorities) = bundle else { return Ok(id) };
    let unknown = || SvidError::UnknownTrustDomain(id.trust_domain().to_owned());
    let domain = TrustDomain::parse(id.trust_domain())?;
    let authorities = authorities.iter().map(|der| Arc::from(der.as_ref())).collect();
    let trust = TrustBundleSet::of(TrustBundle::new(domain, authorities).map_err(|_| unknown())?);
    verify_svid(chain, &trust, PeerRole::Client, now)?;
    verify_svid(chain, &trust, PeerRole::Server, now).map(|svid| svid.id)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let failed = |what: String| Failure::Io(format!("cannot read {}: {what}", path.display()));
    let chain = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match chain {
        Ok(chain) if chain.is_empty() => Err(failed("no PEM certificate in it".to_owned())),
        Ok(chain) => Ok(chain),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// What one certificate says of itself.
struct Facts {
    subject: String,
    issuer: String,
    uris: Vec<String>,
    serial: String,
    authority: bool,
    not_before: String,
    not_after: String,
}

impl Facts {
    fn read(der: &[u8]) -> Result<Self, String> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|e| format!("no X.509 certificate: {e}"))?;
        let names = cert.subject_alternative_name().ok().flatten().map(|names| names.value.general_names.as_slice());
        let uri =
            |name: &GeneralName<'_>| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None };
        Ok(Self {
            subject: cert.subject().to_string(),
            issuer: cert.issuer().to_string(),
            uris: names.unwrap_or_default().iter().filter_map(uri).collect(),
            serial: cert.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            authority: cert.is_ca(),
            not_before: rfc3339(cert.validity.not_before.to_datetime()),
            not_after: rfc3339(cert.validity.not_after.to_datetime()),
        })
    }

    fn to_text(&self) -> String {
        format!(
            "{}\n    uri:     {}\n    issuer:  {}\n    serial:  {}\n    valid:   {} to {}",
            if self.authority { "authority" } else { "leaf" },
            self.uris.join(", "),
            self.issuer,
            self.serial,
            self.not_before,
            self.not_after,
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "subject": self.subject, "issuer": self.issuer, "uris": self.uris, "serial": self.serial,
            "authority": self.authority, "not_before": self.not_before, "not_after": self.not_after,
        })
    }
}

fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}
