//! The second reading of a certificate, for what webpki does not judge.
//!
//! webpki proves that a chain leads to an anchor. It accepts leaves without key usage or with two URI names, issuers
//! without keyCertSign, and anchors that are expired or no authorities at all. X509-SVID 4 and 5.2 forbid these, so
//! every certificate is parsed again here. An extension that is there but cannot be parsed is never taken as absent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::{SpiffeId, SvidError};

/// A leaf that keeps the rules of an X.509-SVID; nobody has vouched for it yet.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) id: SpiffeId,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// Lower-case hex.
    pub(super) serial: String,
    /// SubjectPublicKeyInfo, DER.
    pub(super) public_key: Vec<u8>,
}

/// Reads `der` and applies the leaf rules of X509-SVID 2, 4 and 5.2.
pub(super) fn leaf(der: &[u8]) -> Result<Leaf, SvidError> {
    let cert = parse(der)?;
    let id = spiffe_id(&cert)?;
    if id.path().is_empty() {
        return Err(SvidError::PathMissing);
    }
    if is_authority(&cert)? {
        return Err(SvidError::LeafIsAuthority);
    }
    let (usage, critical) = key_usage(&cert)?.ok_or(SvidError::KeyUsageMissing)?;
    if !critical {
        return Err(SvidError::KeyUsageNotCritical);
    }
    if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
        return Err(SvidError::KeyUsageWrong);
    }
    match extended_key_usage(&cert)? {
        Some(usage) if !(usage.client_auth && usage.server_auth) => return Err(SvidError::ExtendedKeyUsageWrong),
        _ => {}
    }
    let (not_before, not_after) = validity(&cert)?;
    let public_key = cert.public_key().raw.to_vec();
    Ok(Leaf { id, not_before, not_after, serial: serial(&cert), public_key })
}

/// The name that `der` gives itself, whatever else is wrong with it.
pub(super) fn claimed_id(der: &[u8]) -> Result<SpiffeId, SvidError> {
    spiffe_id(&parse(der)?)
}

/// When an issuer between leaf and anchor ends, if it is what it must be. (X509-SVID 4.3, RFC 5280 4.2.1.9)
pub(super) fn intermediate_end(der: &[u8]) -> Result<SystemTime, SvidError> {
    let cert = parse(der)?;
    if !is_authority(&cert)? {
        return Err(SvidError::IntermediateIsNoAuthority);
    }
    match key_usage(&cert)? {
        Some((usage, _)) if usage.key_cert_sign() => validity(&cert).map(|(_, not_after)| not_after),
        _ => Err(SvidError::IntermediateKeyUsageWrong),
    }
}

/// From when until when `der` may vouch for others, if it may at all.
///
/// Key usage may be absent from a trust anchor, as in what `openssl req -x509` writes; where it is present it counts.
pub(super) fn authority(der: &[u8]) -> Result<(SystemTime, SystemTime), &'static str> {
    const UNREADABLE: &str = "cannot be parsed as an X.509 certificate";
    let cert = parse(der).map_err(|_| UNREADABLE)?;
    if !is_authority(&cert).map_err(|_| UNREADABLE)? {
        return Err("is no certificate authority (basicConstraints does not say CA=true)");
    }
    match key_usage(&cert).map_err(|_| UNREADABLE)? {
        Some((usage, _)) if !usage.key_cert_sign() => {
            Err("is a certificate authority that may not sign certificates (keyUsage lacks keyCertSign)")
        }
        _ => validity(&cert).map_err(|_| "has a validity that is no valid time"),
    }
}

/// The organization in every name that a development authority writes. Nobody takes it for a production one.
pub(super) const DEVELOPMENT: &str = "mesh development authority - not for production";

/// Whether a development authority made `der`: it says so as issuer, or in its own name.
pub(super) fn is_development(der: &[u8]) -> bool {
    parse(der).is_ok_and(|cert| {
        let names = [cert.issuer(), cert.subject()];
        names.iter().flat_map(|name| name.iter_organization()).any(|o| o.as_str() == Ok(DEVELOPMENT))
    })
}

/// SubjectPublicKeyInfo, DER.
#[cfg(feature = "dev-ca")]
pub(super) fn public_key(der: &[u8]) -> Result<Vec<u8>, SvidError> {
    Ok(parse(der)?.public_key().raw.to_vec())
}

/// Every URI name, of a leaf or an authority.
#[cfg(feature = "dev-ca")]
pub(super) fn uri_names(der: &[u8]) -> Result<Vec<String>, SvidError> {
    uris(&parse(der)?).map(|uris| uris.into_iter().map(str::to_owned).collect())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, SvidError> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        Ok(_) => Err(SvidError::Malformed("bytes follow the certificate")),
        Err(_) => Err(SvidError::Malformed("not a DER certificate")),
    }
}

/// The one URI name. Names of other types may stand beside it and mean nothing. (X509-SVID 2)
fn spiffe_id(cert: &X509Certificate<'_>) -> Result<SpiffeId, SvidError> {
    match uris(cert)?.as_slice() {
        [] if extension(cert, &OID_X509_EXT_SUBJECT_ALT_NAME)?.is_none() => Err(SvidError::SanMissing),
        [] => Err(SvidError::UriMissing),
        [uri] => Ok(SpiffeId::parse(uri)?),
        [..] => Err(SvidError::UriAmbiguous),
    }
}

fn uris<'a>(cert: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, SvidError> {
    let Some(extension) = extension(cert, &OID_X509_EXT_SUBJECT_ALT_NAME)? else { return Ok(Vec::new()) };
    let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
        return Err(SvidError::Malformed("the subject alternative name cannot be parsed"));
    };
    let mut uris = Vec::new();
    for name in &names.general_names {
        match name {
            GeneralName::URI(text) => uris.push(*text),
            // It may be a second URI in disguise.
            GeneralName::Invalid(..) => {
                return Err(SvidError::Malformed("an entry of the subject alternative name cannot be parsed"));
            }
            _ => {}
        }
    }
    Ok(uris)
}

fn is_authority(cert: &X509Certificate<'_>) -> Result<bool, SvidError> {
    match extension(cert, &OID_X509_EXT_BASIC_CONSTRAINTS)?.map(X509Extension::parsed_extension) {
        None => Ok(false),
        Some(ParsedExtension::BasicConstraints(constraints)) => Ok(constraints.ca),
        Some(_) => Err(SvidError::Malformed("the basic constraints cannot be parsed")),
    }
}

fn key_usage<'a>(cert: &'a X509Certificate<'_>) -> Result<Option<(&'a KeyUsage, bool)>, SvidError> {
    let Some(extension) = extension(cert, &OID_X509_EXT_KEY_USAGE)? else { return Ok(None) };
    match extension.parsed_extension() {
        ParsedExtension::KeyUsage(usage) => Ok(Some((usage, extension.critical))),
        _ => Err(SvidError::Malformed("the key usage cannot be parsed")),
    }
}

fn extended_key_usage<'a>(cert: &'a X509Certificate<'_>) -> Result<Option<&'a ExtendedKeyUsage<'a>>, SvidError> {
    match extension(cert, &OID_X509_EXT_EXTENDED_KEY_USAGE)?.map(X509Extension::parsed_extension) {
        None => Ok(None),
        Some(ParsedExtension::ExtendedKeyUsage(usage)) => Ok(Some(usage)),
        Some(_) => Err(SvidError::Malformed("the extended key usage cannot be parsed")),
    }
}

fn extension<'a, 'c>(cert: &'a X509Certificate<'c>, oid: &Oid<'_>) -> Result<Option<&'a X509Extension<'c>>, SvidError> {
    cert.get_extension_unique(oid).map_err(|_| SvidError::Malformed("an extension occurs twice"))
}

fn validity(cert: &X509Certificate<'_>) -> Result<(SystemTime, SystemTime), SvidError> {
    let validity = cert.validity();
    match (time(validity.not_before), time(validity.not_after)) {
        (Some(not_before), Some(not_after)) if not_before <= not_after => Ok((not_before, not_after)),
        _ => Err(SvidError::Malformed("the validity ends before it begins")),
    }
}

fn time(time: ASN1Time) -> Option<SystemTime> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
}

fn serial(cert: &X509Certificate<'_>) -> String {
    // DER pads a positive number whose first bit is set with a zero byte.
    let bytes = match cert.raw_serial() {
        [0, rest @ ..] if !rest.is_empty() => rest,
        bytes => bytes,
    };
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).flatten().collect()
}
