//! The `file` sink: JSON lines appended to a file that may be rotated away.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::sink::joined;
use super::{AuditLine, AuditSink};
use crate::config::{Errors, Fields, Node};
use crate::plugin::Context;

/// The longest line that a process looks for at the end of what an earlier one wrote.
const MAX_LINE: u64 = 1 << 20;

/// Appends JSON lines to a file, created with mode 0600. One process writes a file.
///
/// A file that was renamed or removed (log rotation) is opened anew before the next batch: no signal, no restart. A
/// batch that could not be written in full is cut off again, so that a full disk leaves whole lines.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    sync: bool,
    file: Option<File>,
    /// The last write failed: what it left is to be cut off at this length.
    torn: Option<u64>,
}

impl FileSink {
    /// Opens nothing before there is something to write.
    ///
    /// Judging a configuration must not leave files behind.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), sync: false, file: None, torn: None }
    }

    /// Whether each batch is on the disk (`fdatasync`) before it counts as written.
    ///
    /// Default: no; the operating system has it then, which survives the process, not a loss of power.
    #[must_use]
    pub fn sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    /// Settings: `path`, whose directory must be there, and `sync`.
    pub(crate) fn from_node(node: &Node, context: &Context, errors: &mut Errors) -> Option<Box<dyn AuditSink>> {
        let mut fields = Fields::of(node, errors)?;
        let path: Option<PathBuf> = fields.required("path");
        let sync = fields.or("sync", false);
        let place = fields.place("path");
        fields.finish();
        let path = context.base_dir.join(path?);
        if path.is_dir() || !path.parent().is_some_and(Path::is_dir) {
            errors.push(&place, format!("{}: expected a file in a directory that exists", path.display()));
            return None;
        }
        Some(Box::new(Self::new(path).sync(sync)))
    }

    /// The open file, or a new one where the path no longer leads to it.
    fn current(&mut self) -> io::Result<File> {
        if let Some(file) = self.file.take().filter(|file| same_file(file, &self.path)) {
            return Ok(file);
        }
        self.torn = None;
        open(&self.path)
    }

    fn append(&mut self, file: &mut File, lines: &[AuditLine]) -> io::Result<()> {
        let mut text = joined(lines);
        if let Some(length) = self.torn
            && file.set_len(length).is_err()
        {
            // A pipe: what is in it stays in it, and ends here.
            text.insert(0, '\n');
        }
        self.torn = Some(file.metadata()?.len());
        file.write_all(text.as_bytes())?;
        if self.sync {
            file.sync_data()?;
        }
        self.torn = None;
        Ok(())
    }
}

impl AuditSink for FileSink {
    fn write(&mut self, lines: &[AuditLine]) -> io::Result<()> {
        let mut file = self.current()?;
        let written = self.append(&mut file, lines);
        // Cut off at once: whoever reads the file meanwhile sees whole lines.
        self.torn = self.torn.filter(|length| file.set_len(*length).is_err());
        self.file = Some(file);
        written
    }

    /// Cuts off half a line, which a process that was killed may have left, and gives the one before.
    fn last(&mut self) -> io::Result<Option<String>> {
        let mut file = match OpenOptions::new().read(true).write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let length = file.metadata()?.len();
        let start = length.saturating_sub(2 * MAX_LINE);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        file.take(2 * MAX_LINE).read_to_end(&mut tail)?;
        let end = tail.iter().rposition(|byte| *byte == b'\n');
        let left = tail.len() - end.map_or(0, |end| end + 1);
        // A line beyond all bounds is none of ours: it stays.
        if left > 0 && (left as u64) < 2 * MAX_LINE {
            let left = left as u64;
            OpenOptions::new().write(true).open(&self.path)?.set_len(length - left)?;
            tracing::warn!(target: "mesh", file = %self.path.display(), bytes = left, "half an audit record was cut off: its writer died");
        }
        let whole = end.and_then(|end| tail.get(..end)).unwrap_or_default();
        if whole.is_empty() {
            return Ok(None);
        }
        let begin = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Ok(whole.get(begin..).and_then(|line| String::from_utf8(line.to_vec()).ok()))
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
    use super::*;

    fn line(text: &str) -> AuditLine {
        AuditLine { text: text.to_owned(), record: None, sealed: false }
    }

    fn lines(file: &Path) -> Vec<String> {
        std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_appended_and_rotation_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("audit.jsonl"), dir.path().join("audit.jsonl.1"));
        let mut sink = FileSink::new(&path).sync(true);
        assert_eq!(sink.last().unwrap(), None);
        sink.write(&[line("1"), line("2")]).unwrap();
        std::fs::rename(&path, &old).unwrap();
        sink.write(&[line("3")]).unwrap();
        std::fs::remove_file(&path).unwrap();
        sink.write(&[line("4")]).unwrap();
        drop(sink);
        let mut sink = FileSink::new(&path);
        assert_eq!(sink.last().unwrap().as_deref(), Some("4"));
        sink.write(&[line("5")]).unwrap();
        assert_eq!(lines(&old), ["1", "2"]);
        assert_eq!(lines(&path), ["4", "5"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn half_a_line_of_a_process_that_died_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        for (found, last, left) in
            [("1\n2\n3", Some("2"), "1\n2\n"), ("1\n", Some("1"), "1\n"), ("1", None, ""), ("", None, "")]
        {
            std::fs::write(&path, found).unwrap();
            assert_eq!(FileSink::new(&path).last().unwrap().as_deref(), last, "{found:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), left, "{found:?}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_written_is_an_error_and_heals() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("logs");
        let path = inner.join("audit.jsonl");
        let mut sink = FileSink::new(&path);
        assert!(sink.write(&[line("lost")]).is_err());
        std::fs::create_dir(&inner).unwrap();
        sink.write(&[line("kept")]).unwrap();
        assert_eq!(lines(&path), ["kept"]);
    }
}
