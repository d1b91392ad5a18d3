//! `mesh id check`: which lines are SPIFFE IDs.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use mesh_core::identity::SpiffeId;
use serde::Serialize;

use crate::answer::{Failure, Lines, Said};
use crate::cli::IdCheckArgs;

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
    let mut input: Box<dyn BufRead> = if args.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(&args.file).map_err(failed)?))
    };
    let mut lines = Lines::new();
    while let Some(line) = next_line(&mut input).map_err(failed)? {
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

/// The first [`KEPT`] bytes of a line, without its `\n`; `None` at the end of the input.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let (mut line, mut any) = (Vec::new(), false);
    loop {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            return Ok(any.then_some(line));
        }
        any = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let used = end.unwrap_or(chunk.len());
        line.extend(chunk.iter().take(used.min(KEPT - line.len())));
        input.consume(end.map_or(used, |end| end + 1));
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}
