//! Small files that something else rewrites: read whole, compared by content.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::config::{Decode as _, Errors, Node};
use crate::plugin::Context;

/// What one reading found; equal readings are no news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read(Result<Vec<u8>, String>);

impl Read {
    /// Equal to no reading of a file: what is held before the first one.
    pub(super) fn nothing() -> Self {
        Self(Err(String::new()))
    }

    /// Reads a file of at most `max` bytes. Blocks.
    pub(super) fn from_file(path: &Path, max: usize) -> Self {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
            File::open(path)?.take(limit).read_to_end(&mut bytes)?;
            if bytes.len() > max {
                return Err(std::io::Error::other(format!("it is larger than {max} bytes")));
            }
            Ok(bytes)
        };
        Self(read().map_err(|error| error.to_string()))
    }

    pub(super) fn contents(&self) -> Result<&[u8], &str> {
        self.0.as_deref().map_err(String::as_str)
    }
}

/// Reads the file on a blocking thread; `None` if nothing changed since `last`.
pub(super) async fn poll(path: &Path, max: usize, last: &Read) -> Option<Read> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || Read::from_file(&path, max)).await.ok()?;
    (read != *last).then_some(read)
}

/// Settings that are a path, relative to the configuration's directory.
pub(super) fn path(node: &Node, context: &Context, errors: &mut Errors) -> Option<PathBuf> {
    Some(context.base_dir.join(PathBuf::decode(node, errors)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_to_the_last_byte_that_it_may_have() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut last = Read::nothing();
        for (contents, expected) in [
            (None, Err("No such file")),
            (Some(""), Ok("")),
            (Some("1234567"), Ok("1234567")),
            (Some("12345678"), Ok("12345678")),
            (Some("123456789"), Err("larger than 8 bytes")),
        ] {
            contents.iter().for_each(|contents| std::fs::write(&path, contents).unwrap());
            let read = poll(&path, 8, &last).await.unwrap();
            match (read.contents(), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected.as_bytes()),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, _) => panic!("{contents:?}: {found:?}"),
            }
            assert_eq!(poll(&path, 8, &read).await, None, "no news");
            last = read;
        }
    }
}
