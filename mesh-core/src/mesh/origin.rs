//! Where a configuration comes from: a file or code, what code changes in it, and the policies it names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::tasks;
use crate::config::{
    Config, ConfigError, ConfigIssue, Errors, IssuerConfig, Node, Place, Sources, base_dir, read_text,
};
use crate::policy::{AuthorizationPolicy, Documents, PeerPolicy, RequestPolicy, roles};

/// Changes a configuration after it was read.
pub(super) type Edit = Arc<dyn Fn(&mut Config) + Send + Sync>;

/// What the builder was told.
#[derive(Clone, Default)]
pub(super) struct Origin {
    pub(super) base: Base,
    pub(super) edits: Vec<Edit>,
    pub(super) policies: Vec<AuthorizationPolicy>,
    pub(super) issuers: Vec<IssuerConfig>,
}

/// What the edits start from.
#[derive(Clone, Default)]
pub(super) enum Base {
    /// Nothing was said.
    #[default]
    Nothing,
    File(PathBuf),
    Code(Box<Config>),
}

/// The checked configuration with its file's tree.
type Parsed = Result<(Config, Option<Node>), ConfigError>;

/// Everything that was on disk at one moment, and what it means.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    text: Option<Result<String, String>>,
    config: Parsed,
    /// Where the configuration, good or bad, says that the policies are.
    paths: Option<Vec<PathBuf>>,
    policies: Sources,
}

/// A whole configuration, not yet compiled.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) config: Config,
    /// The file's tree, for places.
    pub(super) root: Option<Node>,
    pub(super) policies: Vec<AuthorizationPolicy>,
    /// What is odd about the other documents.
    pub(super) doubts: Vec<ConfigIssue>,
}

impl Reading {
    /// Whether the disk held the same bytes.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.text == other.text && self.policies == other.policies
    }
}

impl Origin {
    /// The configuration and its policies, or everything that is wrong with either.
    pub(super) fn load(&self, reading: &Reading) -> Result<Loaded, ConfigError> {
        let mut errors = Errors::default();
        let config = reading.config.as_ref().map_err(|error| errors.extend(error)).ok();
        // Nothing comes of policies beside a configuration that cannot be read, but what is wrong with them is said.
        let read = config.map(|(config, _)| (config.policy_mode, config.canonical));
        let (mode, canonical) = read.unwrap_or_default();
        let Documents { mut policies, peers, requests, .. } = reading.policies.parse(mode, canonical, &mut errors);
        policies.extend_from_slice(&self.policies);
        let loaded = config.map(|(config, root)| {
            let mut config = config.clone();
            policies.extend(roles::policies(&config, root.as_ref()));
            let demanded = PeerPolicy::of(&peers, &config.workload, &config.root_namespace);
            demanded.apply(&mut config, &mut errors);
            RequestPolicy::of(&requests, &config.workload, &config.root_namespace).apply(&mut config, &mut errors);
            for issuer in &self.issuers {
                issuer.issues().iter().for_each(|issue| errors.push(&issue.place, &issue.message));
                match config.tokens.iter_mut().find(|configured| configured.issuer == issuer.issuer) {
                    Some(configured) => configured.jwks = issuer.jwks.clone(),
                    None => config.tokens.push(issuer.clone()),
                }
            }
            let odd = peers.iter().flat_map(|peer| &peer.doubts).chain(demanded.doubts());
            let doubts = odd.chain(requests.iter().flat_map(|request| &request.doubts)).cloned().collect();
            Loaded { config, root: root.clone(), policies, doubts }
        });
        errors.finish(loaded)
    }

    /// The directory that relative paths in settings start at.
    pub(super) fn base_dir(&self) -> &Path {
        if let Base::File(path) = &self.base { base_dir(path) } else { Path::new(".") }
    }

    /// Reads everything. Blocks on the disk. `last` saves parsing again what has not changed; `paths` are those of the
    /// policies while the configuration itself cannot be read.
    pub(super) fn read(&self, last: Option<&Reading>, paths: &[PathBuf]) -> Reading {
        let text = if let Base::File(path) = &self.base { Some(read_text(path)) } else { None };
        let reading = self.read_but_policies(text, last);
        let policies = Sources::read(reading.paths.as_deref().unwrap_or(paths));
        Reading { policies, ..reading }
    }

    /// What `text` and code say, without the policies.
    fn read_but_policies(&self, text: Option<Result<String, String>>, last: Option<&Reading>) -> Reading {
        let (config, paths) = match last {
            Some(last) if last.text == text => (last.config.clone(), last.paths.clone()),
            _ => self.config(text.as_ref()),
        };
        Reading { text, config, paths, policies: Sources::read(&[]) }
    }

    /// [`read`](Self::read), on a thread that may block if anything is on the disk.
    ///
    /// That thread comes back when the machine lets it, and not at a moment of virtual time.
    pub(super) async fn read_in_background(
        self: Arc<Self>,
        mut last: Option<Arc<Reading>>,
        paths: Vec<PathBuf>,
    ) -> Arc<Reading> {
        if !matches!(self.base, Base::File(_)) {
            let reading = Arc::new(self.read_but_policies(None, last.as_deref()));
            if reading.paths.as_ref().unwrap_or(&paths).is_empty() {
                return reading;
            }
            last = Some(reading);
        }
        let read = move |origin: &Self| origin.read(last.as_deref(), &paths);
        let origin = Arc::clone(&self);
        match tokio::task::spawn_blocking(move || read(&origin)).await {
            Ok(reading) => Arc::new(reading),
            // The runtime is going down.
            Err(error) => {
                let mut errors = Errors::default();
                errors.push(&Place::code(), format!("the configuration could not be read: {error}"));
                let text = Some(Err(error.to_string()));
                Arc::new(Reading { text, config: errors.finish(None), paths: None, policies: Sources::read(&[]) })
            }
        }
    }

    fn config(&self, text: Option<&Result<String, String>>) -> (Parsed, Option<Vec<PathBuf>>) {
        let mut errors = Errors::default();
        let mut panicked = None;
        // Unwind safe: what a panicking edit left half done is thrown away.
        let mut edit = |config: &mut Config| {
            let mut edited = config.clone();
            let edits = || self.edits.iter().for_each(|edit| edit(&mut edited));
            match catch_unwind(AssertUnwindSafe(edits)) {
                Ok(()) => *config = edited,
                Err(panic) => panicked = Some(tasks::message(&*panic)),
            }
        };
        let config = match (&self.base, text) {
            (Base::Nothing, _) => {
                let message = "no configuration: call `config_file` or `config` before `start`";
                errors.push(&Place::code(), message);
                None
            }
            (Base::Code(config), _) => {
                let mut config = (**config).clone();
                edit(&mut config);
                config.check().map(|()| (config, None)).map_err(|error| errors.extend(&error)).ok()
            }
            (Base::File(path), Some(Ok(text))) => {
                let found = Config::parse(&path.display().to_string(), text, base_dir(path), edit, &mut errors);
                found.map(|(config, root)| (config, Some(root)))
            }
            (Base::File(path), text) => {
                let reason = text.and_then(|text| text.as_ref().err()).map_or("cannot be read", String::as_str);
                errors.push(&Place::file(&path.display().to_string()), reason);
                None
            }
        };
        if let Some(message) = panicked {
            errors.push(&Place::code(), format!("an edit of the configuration panicked: {message}"));
        }
        let paths = config.as_ref().map(|(config, _)| config.policies.clone());
        (errors.finish(config), paths)
    }
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let base = match &self.base {
            Base::Nothing => "nothing".to_owned(),
            Base::File(path) => path.display().to_string(),
            Base::Code(_) => "code".to_owned(),
        };
        f.debug_struct("Origin").field("base", &base).field("edits", &self.edits.len()).finish_non_exhaustive()
    }
}
