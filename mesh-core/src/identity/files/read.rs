//! One look at the files. Blocks; runs on a blocking thread.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::FilesConfig;
use crate::identity::{TrustBundle, TrustBundleSet, X509Svid, certificate};

/// Bytes of one file; a chain or bundle is a few KiB.
const MAX_FILE: u64 = 1024 * 1024;

/// SHA-256 over all files of a part.
pub(super) type Digest = [u8; 32];

/// What became of a part since the last good reading.
pub(super) enum Part<T> {
    Unchanged,
    New(Digest, Arc<T>),
    Failed(String),
}

pub(super) struct Reading {
    pub(super) svid: Part<X509Svid>,
    pub(super) bundles: Part<TrustBundleSet>,
}

pub(super) fn read(config: &FilesConfig, known_svid: Option<Digest>, known_bundles: Option<Digest>) -> Reading {
    let mut directories = Directories::default();
    Reading {
        svid: part(svid(config, &mut directories, known_svid)),
        bundles: part(bundles(config, &mut directories, known_bundles)),
    }
}

fn part<T>(read: Result<Option<(Digest, T)>, String>) -> Part<T> {
    match read {
        Ok(None) => Part::Unchanged,
        Ok(Some((digest, value))) => Part::New(digest, Arc::new(value)),
        Err(why) => Part::Failed(why),
    }
}

fn svid(
    config: &FilesConfig,
    dirs: &mut Directories,
    known: Option<Digest>,
) -> Result<Option<(Digest, X509Svid)>, String> {
    let chain = dirs.read(&config.certificate)?;
    let key = dirs.read(&config.key)?;
    let digest = digest([&chain, &key]);
    if known == Some(digest) {
        return Ok(None);
    }
    let svid = X509Svid::from_pem(&chain, &key)
        .map_err(|error| format!("{} with {}: {error}", config.certificate.display(), config.key.display()))?;
    if svid.id().trust_domain() != config.trust_domain.as_str() {
        return Err(format!(
            "{}: {} does not belong to the trust domain {}",
            config.certificate.display(),
            svid.id(),
            config.trust_domain
        ));
    }
    refuse_development(config, &config.certificate, svid.chain())?;
    Ok(Some((digest, svid)))
}

/// Fails closed where a development authority had a hand in it, which anybody on its machine can make sign anything.
fn refuse_development(config: &FilesConfig, path: &Path, certificates: &[Arc<[u8]>]) -> Result<(), String> {
    if config.allow_development || !certificates.iter().any(|der| certificate::is_development(der)) {
        return Ok(());
    }
    Err(format!(
        "{}: made by a development authority (`mesh dev-ca`), not for production; use the certificates of your own authority, or write `allow_development: true` where this is a development machine",
        path.display()
    ))
}

fn bundles(
    config: &FilesConfig,
    dirs: &mut Directories,
    known: Option<Digest>,
) -> Result<Option<(Digest, TrustBundleSet)>, String> {
    let texts = config.bundles.values().map(|path| dirs.read(path)).collect::<Result<Vec<_>, _>>()?;
    let digest = digest(&texts);
    if known == Some(digest) {
        return Ok(None);
    }
    let mut set = TrustBundleSet::default();
    for ((domain, path), text) in config.bundles.iter().zip(&texts) {
        let bundle = TrustBundle::from_pem(domain.clone(), text).map_err(|e| format!("{}: {e}", path.display()))?;
        refuse_development(config, path, bundle.authorities())?;
        set.insert(bundle);
    }
    Ok(Some((digest, set)))
}

fn digest<'a>(texts: impl IntoIterator<Item = &'a Zeroizing<Vec<u8>>>) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Directories as they were at the beginning of this look, so that files of one directory come from one version of it.
///
/// Kubernetes swaps the symlink `..data` to renew all files of a volume at once; each file is a link through it.
#[derive(Default)]
pub(super) struct Directories {
    resolved: HashMap<PathBuf, PathBuf>,
}

impl Directories {
    pub(super) fn read(&mut self, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
        let pinned = self.pin(path);
        let fail = |error: std::io::Error| format!("{}: {error}", path.display());
        let path = pinned.as_deref().unwrap_or(path);
        // Before it is opened: to open a pipe is to wait for its writer.
        if !std::fs::metadata(path).map_err(fail)?.is_file() {
            return Err(format!("{}: not a regular file", path.display()));
        }
        let file = File::open(path).map_err(fail)?;
        let length = file.metadata().map_err(fail)?.len();
        if length > MAX_FILE {
            return Err(format!("{}: {length} bytes are too many, at most {MAX_FILE} are read", path.display()));
        }
        // With room for all of it, so that no grown buffer leaves a copy of a key behind.
        let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
        file.take(MAX_FILE).read_to_end(&mut text).map_err(fail)?;
        Ok(text)
    }

    /// `path` in the version of its directory that this look is pinned to; `None` where there is nothing to pin.
    fn pin(&mut self, path: &Path) -> Option<PathBuf> {
        let (parent, name) = (path.parent()?, path.file_name()?);
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        if !self.resolved.contains_key(parent) {
            let data = parent.join("..data").canonicalize();
            self.resolved.insert(parent.to_owned(), data.or_else(|_| parent.canonicalize()).ok()?);
        }
        // A file beside `..data` that is no link through it stays where it is.
        Some(self.resolved.get(parent)?.join(name)).filter(|pinned| pinned.exists())
    }
}
