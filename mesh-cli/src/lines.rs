//! Input that is judged line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use crate::answer::Failure;

/// The file, or for `-` the standard input.
pub(crate) fn open(file: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(file).map_err(|error| Failure::Io(format!("cannot read {}: {error}", file.display())))?;
    Ok(Box::new(BufReader::with_capacity(1 << 16, opened)))
}

/// The first `kept` bytes of a line, without its `\n`; `None` at the end of the input.
pub(crate) fn next_line(input: &mut impl BufRead, kept: usize) -> io::Result<Option<Vec<u8>>> {
    let (mut line, mut any) = (Vec::new(), false);
    loop {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            return Ok(any.then_some(line));
        }
        any = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let used = end.unwrap_or(chunk.len());
        line.extend_from_slice(chunk.get(..used.min(kept - line.len())).unwrap_or_default());
        input.consume(end.map_or(used, |end| end + 1));
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}
