//! `file`: endpoints in a watched YAML file.

use std::path::PathBuf;
use std::time::Duration;

use super::{Resolve, Updates};

/// Endpoints in a file that is compared again and again.
#[derive(Debug, Clone)]
pub struct FileResolver {
    path: PathBuf,
    interval: Duration,
}

impl FileResolver {
    /// Compares `path` every `interval`.
    pub fn new(path: PathBuf, interval: Duration) -> Self {
        Self { path, interval }
    }
}

impl Resolve for FileResolver {
    fn watch(&self) -> Updates {
        let _ = (&self.path, self.interval);
        unimplemented!()
    }
}
