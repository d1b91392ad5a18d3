//! Files that only their owner can read, and that nobody sees half written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// Unix modes; other systems rely on the directory's own access control.
pub(crate) const SECRET: u32 = 0o600;
#[cfg(unix)]
const DIRECTORY: u32 = 0o700;

/// Makes `dir` if it is missing, and refuses one in which other users could replace the files.
pub(crate) fn secure_directory(dir: &Path) -> Result<(), String> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, DIRECTORY);
    builder.create(dir).map_err(|error| at(dir, &error))?;
    let found = mode(&fs::metadata(dir).map_err(|error| at(dir, &error))?);
    if found & 0o022 != 0 {
        return Err(format!(
            "{}: other users can write to this directory (mode {found:03o}) and could replace the files in it; run `chmod go-w {0}`",
            dir.display()
        ));
    }
    Ok(())
}

/// Replaces `name` as a whole: readers see the old text or the new one.
pub(crate) fn write(dir: &Path, name: &str, text: &[u8], mode: u32) -> Result<(), String> {
    let path = dir.join(name);
    let temporary = dir.join(format!(".{name}.{}", uuid::Uuid::now_v7().simple()));
    let written = (|| {
        let mut file = options(mode).create_new(true).open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    })();
    written.map_err(|error| {
        // What cannot be written can often not be removed either; the first error is the one to tell.
        _ = fs::remove_file(&temporary);
        at(&path, &error)
    })
}

/// For writing, with this mode where the file is made.
pub(crate) fn options(mode: u32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options
}

/// The permissions of a file, 0 where there are none.
#[cfg(unix)]
pub(crate) fn mode(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(metadata) & 0o777
}

/// The permissions of a file, 0 where there are none.
#[cfg(not(unix))]
pub(crate) fn mode(_: &fs::Metadata) -> u32 {
    0
}

fn at(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}
