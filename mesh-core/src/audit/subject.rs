//! How a record names the subject of a token, who may be a person.

use std::fmt;

use aws_lc_rs::hmac;

use super::chain::hex;

/// What is written of `sub` and of the subjects in `act`.
///
/// No more than is needed. (GDPR 5(1)(c))
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SubjectMode {
    /// A keyed hash: one subject can be followed through the records, and named only by who has the key.
    #[default]
    Hmac,
    /// The subject itself.
    Plain,
    /// Nothing.
    Off,
}

/// Makes subjects into what is written of them.
#[derive(Clone)]
pub(super) struct Subjects {
    mode: SubjectMode,
    key: hmac::Key,
}

impl Subjects {
    /// HMAC-SHA-256 under `key`; without one, under a key that this process makes and forgets.
    pub(super) fn new(mode: SubjectMode, key: Option<&[u8]>) -> Self {
        let mut fresh = [0; 32];
        let drawn = key.is_some() || aws_lc_rs::rand::fill(&mut fresh).is_ok();
        // Without randomness a pseudonym would be a name that anybody can compute: none is better.
        let mode = if drawn { mode } else { SubjectMode::Off };
        let key = key.unwrap_or(&fresh);
        Self { mode, key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    pub(super) fn mode(&self) -> SubjectMode {
        self.mode
    }

    /// 64 hex digits under the key.
    pub(super) fn pseudonym(&self, subject: &str) -> String {
        hex(hmac::sign(&self.key, subject.as_bytes()).as_ref())
    }

    /// Tells keys apart without telling them: subjects compare only between records of one key.
    pub(super) fn key_id(&self) -> String {
        let mut id = hex(hmac::sign(&self.key, b"mesh.audit.subject-key").as_ref());
        id.truncate(16);
        id
    }
}

impl SubjectMode {
    /// As it is written in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hmac => "hmac",
            Self::Plain => "plain",
            Self::Off => "off",
        }
    }
}

impl fmt::Debug for Subjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subjects").field("mode", &self.mode).finish_non_exhaustive()
    }
}
