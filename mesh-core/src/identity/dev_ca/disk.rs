//! The authority's files: one that only its owner can read, one for everybody, and a lock.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::DevCaError;
pub(super) use crate::disk::SECRET;
use crate::disk::{mode, options};

pub(super) const AUTHORITY: &str = "ca.pem";
pub(super) const BUNDLE: &str = "bundle.pem";
const LOCK: &str = "lock";

pub(super) const PUBLIC: u32 = 0o644;

/// A file larger than this is not ours.
const MAX_FILE: u64 = 64 * 1024;

/// Makes `dir` if it is missing, and refuses one in which other users could replace the files.
pub(super) fn secure_directory(dir: &Path) -> Result<(), DevCaError> {
    crate::disk::secure_directory(dir).map_err(DevCaError)
}

/// Waits until no other process makes an authority here. Released when dropped, and by the system if the process dies.
pub(super) fn lock(dir: &Path) -> Result<File, DevCaError> {
    let path = dir.join(LOCK);
    let file = options(SECRET).create(true).truncate(false).open(&path).map_err(|error| at(&path, &error))?;
    file.lock().map_err(|error| at(&path, &error))?;
    Ok(file)
}

/// `None` if there is no such file. Refuses one that other users can read.
pub(super) fn read_secret(dir: &Path, name: &str) -> Result<Option<Zeroizing<String>>, DevCaError> {
    let path = dir.join(name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&path, &error)),
    };
    // Of the open file, not of the path: it cannot be swapped in between.
    let metadata = file.metadata().map_err(|error| at(&path, &error))?;
    let found = mode(&metadata);
    if found & 0o077 != 0 {
        return Err(DevCaError(format!(
            "{}: other users can read this private key (mode {found:03o}); if nobody has, run `chmod 600 {0}`, else delete it",
            path.display()
        )));
    }
    if metadata.len() > MAX_FILE {
        return Err(DevCaError(format!("{}: {} bytes are too many for an authority", path.display(), metadata.len())));
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1));
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| at(&path, &error))?;
    Ok(Some(text))
}

/// Replaces `name` as a whole: readers see the old text or the new one.
pub(super) fn write(dir: &Path, name: &str, text: &[u8], mode: u32) -> Result<(), DevCaError> {
    crate::disk::write(dir, name, text, mode).map_err(DevCaError)
}

fn at(path: &Path, error: &io::Error) -> DevCaError {
    DevCaError(format!("{}: {error}", path.display()))
}
