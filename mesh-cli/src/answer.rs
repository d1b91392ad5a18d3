//! What a command says, to people and to programs.

use std::fmt;

use serde_json::{Value, json};

/// The end of a command that could do its work, whatever the answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Exit code 0 or 1.
    pub(crate) yes: bool,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn to_json(&self) -> String {
        format!("{:#}", self.json)
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments do not make sense together.
    Usage(String),
    /// A file or directory.
    Io(String),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Io(_) => 3,
        }
    }

    pub(crate) fn to_json(&self) -> String {
        format!("{:#}", json!({ "error": self.to_string(), "exit_code": self.exit_code() }))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Io(message) => f.write_str(message),
        }
    }
}
