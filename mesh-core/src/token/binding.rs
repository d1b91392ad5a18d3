//! Tokens that are good only in the hands of who holds a key. (RFC 7800, RFC 8705)

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::TokenError;

/// The key that the sender of a token must have proved to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Binding {
    /// A bearer token.
    #[default]
    None,
    /// That of the certificate with this SHA-256. (RFC 8705 3.1)
    Certificate([u8; 32]),
}

impl Binding {
    /// What `cnf` says. Anything that is not understood in it is refused: leaving it out would undo a binding.
    pub(super) fn of(claims: &Map<String, Value>) -> Result<Self, TokenError> {
        let Some(confirmation) = claims.get("cnf") else { return Ok(Self::None) };
        let invalid = TokenError::InvalidClaim("cnf");
        let members = confirmation.as_object().ok_or(invalid)?;
        let mut members = members.iter();
        match (members.next(), members.next()) {
            (Some((name, value)), None) if name == "x5t#S256" => {
                let hash = URL_SAFE_NO_PAD.decode(value.as_str().ok_or(invalid)?).map_err(|_| invalid)?;
                Ok(Self::Certificate(hash.try_into().map_err(|_| invalid)?))
            }
            _ => Err(TokenError::SenderConstrained),
        }
    }

    /// Whether a connection with the certificate of this SHA-256 may use the token.
    pub(super) fn check(self, certificate: Option<&[u8; 32]>) -> Result<(), TokenError> {
        let Self::Certificate(bound) = self else { return Ok(()) };
        let certificate = certificate.ok_or(TokenError::WrongCertificate)?;
        verify_slices_are_equal(certificate, &bound).map_err(|_| TokenError::WrongCertificate)
    }
}
