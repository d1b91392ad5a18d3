//! The `file` sink: JSON lines appended to a file that may be rotated away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::sink::lines;
use super::{AuditRecord, AuditSink};
use crate::config::{Errors, Fields, Node};
use crate::plugin::Context;

/// Appends JSON lines to a file, created with mode 0600.
///
/// A file that was renamed or removed (log rotation) is opened anew before the next batch: no signal, no restart.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    file: Option<File>,
    /// The last write failed and may have left half a line.
    torn: bool,
}

impl FileSink {
    /// Opens nothing before there is something to write: judging a configuration must not leave files behind.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, torn: false }
    }

    /// Settings: `path`. Its directory must be there.
    pub(crate) fn from_node(node: &Node, context: &Context, errors: &mut Errors) -> Option<Box<dyn AuditSink>> {
        let mut fields = Fields::of(node, errors)?;
        let path: Option<PathBuf> = fields.required("path");
        let place = fields.place("path");
        fields.finish();
        let path = context.base_dir.join(path?);
        if path.is_dir() || !path.parent().is_some_and(Path::is_dir) {
            errors.push(&place, format!("{}: expected a file in a directory that exists", path.display()));
            return None;
        }
        Some(Box::new(Self::new(path)))
    }

    /// The open file, or a new one where the path no longer leads to it.
    fn current(&mut self) -> io::Result<File> {
        if let Some(file) = self.file.take().filter(|file| same_file(file, &self.path)) {
            return Ok(file);
        }
        self.torn = false;
        open(&self.path)
    }
}

impl AuditSink for FileSink {
    fn write(&mut self, records: &[AuditRecord]) -> io::Result<()> {
        let mut file = self.current()?;
        let mut text = lines(records);
        if self.torn {
            text.insert(0, '\n');
        }
        let written = file.write_all(text.as_bytes());
        self.torn = written.is_err();
        self.file = Some(file);
        written
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Elsewhere an open file cannot be renamed away.
#[cfg(not(unix))]
fn same_file(_file: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::audit::AuditOutcome;

    fn record(path: &str) -> AuditRecord {
        let mut record = AuditRecord::new(UNIX_EPOCH, AuditOutcome::Allow, "allow_rule", 200);
        record.path = path.to_owned();
        record
    }

    fn paths(file: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(file).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["path"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn lines_are_appended_and_rotation_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("audit.jsonl"), dir.path().join("audit.jsonl.1"));
        let mut sink = FileSink::new(&path);
        sink.write(&[record("/1"), record("/2")]).unwrap();
        std::fs::rename(&path, &old).unwrap();
        sink.write(&[record("/3")]).unwrap();
        std::fs::remove_file(&path).unwrap();
        sink.write(&[record("/4")]).unwrap();
        drop(sink);
        FileSink::new(&path).write(&[record("/5")]).unwrap();
        assert_eq!(paths(&old), ["/1", "/2"]);
        assert_eq!(paths(&path), ["/4", "/5"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_path_that_cannot_be_written_is_an_error_and_heals() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("logs");
        let path = inner.join("audit.jsonl");
        let mut sink = FileSink::new(&path);
        assert!(sink.write(&[record("/lost")]).is_err());
        std::fs::create_dir(&inner).unwrap();
        sink.write(&[record("/kept")]).unwrap();
        assert_eq!(paths(&path), ["/kept"]);
    }
}
