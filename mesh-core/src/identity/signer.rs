//! Private keys as things that sign, not as bytes.

use std::fmt;

/// A TLS signature scheme by its IANA code point. (RFC 8446 4.2.3)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignatureScheme(pub u16);

impl SignatureScheme {
    /// `ecdsa_secp256r1_sha256`
    pub const ECDSA_P256_SHA256: Self = Self(0x0403);
    /// `ecdsa_secp384r1_sha384`
    pub const ECDSA_P384_SHA384: Self = Self(0x0503);
    /// `ed25519`
    pub const ED25519: Self = Self(0x0807);
    /// `rsa_pss_rsae_sha256`
    pub const RSA_PSS_SHA256: Self = Self(0x0804);
    /// `rsa_pss_rsae_sha384`
    pub const RSA_PSS_SHA384: Self = Self(0x0805);
    /// `rsa_pss_rsae_sha512`
    pub const RSA_PSS_SHA512: Self = Self(0x0806);
    /// `rsa_pkcs1_sha256`; TLS 1.2 only.
    pub const RSA_PKCS1_SHA256: Self = Self(0x0401);
    /// `rsa_pkcs1_sha384`; TLS 1.2 only.
    pub const RSA_PKCS1_SHA384: Self = Self(0x0501);
    /// `rsa_pkcs1_sha512`; TLS 1.2 only.
    pub const RSA_PKCS1_SHA512: Self = Self(0x0601);
}

/// A private key that may live elsewhere: in memory, in an agent, in hardware.
pub trait Signer: fmt::Debug + Send + Sync + 'static {
    /// What it can sign, best first. Never empty.
    fn schemes(&self) -> &[SignatureScheme];

    /// The public key as DER SubjectPublicKeyInfo, to check that it fits a certificate.
    fn public_key(&self) -> &[u8];

    /// Signs `message` with one of [`schemes`](Self::schemes); ECDSA signatures are DER. (RFC 8446 4.2.3)
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, KeyError>;
}

/// Why a key cannot be read or used. Never carries key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(pub String);
