//! `mesh id check`: which lines are SPIFFE IDs.

use std::io;

use mesh_core::identity::SpiffeId;
use serde::Serialize;

use crate::answer::{Failure, Lines, Said};
use crate::cli::IdCheckArgs;
use crate::lines::{next_line, open};

/// What is kept of a line. A SPIFFE ID has at most 2,048 bytes; of more, it only matters that there are more.
const KEPT: usize = 2049;

#[derive(Serialize)]
struct Line<'a> {
    valid: bool,
    reason: Option<&'static str>,
    trust_domain: Option<&'a str>,
    path: Option<&'a str>,
}

pub(crate) fn run(args: &IdCheckArgs) -> Result<Said, Failure> {
    let failed = |error: io::Error| Failure::Io(format!("cannot read {}: {error}", args.file.display()));
    let mut input = open(&args.file)?;
    let mut lines = Lines::new();
    while let Some(line) = next_line(&mut input, KEPT).map_err(failed)? {
        let judged = judge(&line);
        let id = judged.as_ref().ok();
        let said = Line {
            valid: id.is_some(),
            reason: judged.as_ref().err().copied(),
            trust_domain: id.map(SpiffeId::trust_domain),
            path: id.map(SpiffeId::path),
        };
        if !lines.say(said.valid, &said) {
            break;
        }
    }
    Ok(lines.end())
}

fn judge(line: &[u8]) -> Result<SpiffeId, &'static str> {
    if line.len() >= KEPT {
        return Err("id_too_long");
    }
    let text = std::str::from_utf8(line).map_err(|_| "id_not_utf8")?;
    SpiffeId::parse(text).map_err(|error| error.reason())
}
