//! What a command says, to people and to programs.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write as _};

use serde::Serialize;
use serde_json::{Value, json};

/// What a command that did its work leaves to be done.
#[derive(Debug)]
pub(crate) enum Said {
    /// Everything is still to be printed.
    Answer(Answer),
    /// Every line is printed; `yes` if each of them was.
    Lines { yes: bool },
    /// Everything is printed; this is the exit code.
    Code(u8),
}

/// One line of JSON for each thing that was judged, as it is judged.
pub(crate) struct Lines {
    out: BufWriter<StdoutLock<'static>>,
    yes: bool,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), yes: true }
    }

    /// Whether anybody still reads.
    pub(crate) fn say(&mut self, valid: bool, line: &impl Serialize) -> bool {
        self.yes &= valid;
        serde_json::to_writer(&mut self.out, line).is_ok() && self.out.write_all(b"\n").is_ok()
    }

    pub(crate) fn end(mut self) -> Said {
        let _ = self.out.flush();
        Said::Lines { yes: self.yes }
    }
}

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
