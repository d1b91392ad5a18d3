//! From files to a [`Config`] and its policies, read whole and compared by content.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::issue::Errors;
use super::issue::Place;
use super::roles::ClaimPath;
use super::walk::Fields;
use super::yaml::Decode;
use super::yaml::{self, Node};
use super::{Config, ConfigError, IdentityConfig, NoPolicy, PlugConfig, Workload};
use crate::identity::TrustDomain;
use crate::policy::canonical::Canonicalization;
use crate::policy::{Documents, Mode, parse_file, refuse_duplicates};

/// Policy files at most, so that a wrong directory cannot exhaust memory; each has at most [`yaml::MAX_TEXT`] bytes.
const MAX_POLICY_FILES: usize = 1_000;

/// The text of everything that a mesh is configured with.
///
/// As it was at one moment.
///
/// Equal sources give equal configurations; a reload compares nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    policies: Vec<PolicyFile>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PolicyFile {
    name: String,
    /// The reason where it could not be read.
    text: Result<String, String>,
}

impl Sources {
    /// Reads every policy file, and those of every directory in the order of their names.
    ///
    /// Blocks on the disk. Never fails: what cannot be read is a problem when it is [parsed](Self::parse).
    pub fn read(paths: &[PathBuf]) -> Self {
        let policies = paths.iter().flat_map(|path| policy_files(path)).take(MAX_POLICY_FILES + 1).collect();
        Self { policies }
    }

    /// The policies as `mode` reads them, or a note of all their errors.
    ///
    /// For requests whose paths are `canonical`. A file without any policy is a problem: it is more likely torn than
    /// meant.
    pub fn parse(&self, mode: Mode, canonical: Canonicalization, errors: &mut Errors) -> Documents {
        if let Some(file) = self.policies.get(MAX_POLICY_FILES) {
            errors.push(&Place::file(&file.name), format!("more than {MAX_POLICY_FILES} policy files"));
            return Documents::default();
        }
        let mut documents = Documents::default();
        for file in &self.policies {
            let text = match &file.text {
                Ok(text) => text,
                Err(error) => {
                    errors.push(&Place::file(&file.name), error);
                    continue;
                }
            };
            let (problems, found) = (errors.issues().len(), parse_file(mode, canonical, &file.name, text, errors));
            if found.is_empty() && errors.issues().len() == problems {
                errors.push(&Place::file(&file.name), "holds no policy; delete the file if that is meant");
            }
            documents.append(found);
        }
        refuse_duplicates(&documents, errors);
        documents
    }
}

#[cfg(test)]
impl Sources {
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.policies.iter().map(|file| file.name.as_str())
    }
}

fn policy_files(path: &Path) -> Vec<PolicyFile> {
    let failed = |error: std::io::Error| {
        vec![PolicyFile { name: path.display().to_string(), text: Err(format!("cannot be read: {error}")) }]
    };
    if !path.is_dir() {
        return vec![read_policy(path)];
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return failed(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => paths.push(entry.path()),
            Err(error) => return failed(error),
        }
    }
    let yaml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    // Editors and Kubernetes keep their own files (`.x.yaml.swp`, `..data`) beside those that are meant.
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    paths.retain(|path| yaml(path) && !hidden(path));
    paths.sort();
    paths.iter().map(|path| read_policy(path)).collect()
}

fn read_policy(path: &Path) -> PolicyFile {
    PolicyFile { name: path.display().to_string(), text: read_text(path) }
}

/// Reads a file of at most [`yaml::MAX_TEXT`] bytes.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    use std::io::Read;
    // Opening a pipe would wait for its writer.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err("is not a regular file".to_owned());
    }
    let limit = yaml::MAX_TEXT as u64 + 1;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|error| format!("is not UTF-8 after byte {}", error.utf8_error().valid_up_to()))
}

impl Config {
    /// Reads and checks a `mesh.yaml`.
    ///
    /// Relative paths in it start at its own directory. Blocks on the disk.
    ///
    /// Policies are only named here; [`Sources::read`] has their text, and [`crate::load`] does both.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let mut errors = Errors::default();
        let text = read_text(path).map_err(|error| errors.push(&Place::file(&name), error)).ok();
        let config = text.and_then(|text| Self::parse(&name, &text, base_dir(path), |_| {}, &mut errors));
        errors.finish(config.map(|(config, _)| config))
    }

    /// Reads and checks the text of a `mesh.yaml`; `edit` has its say before the checks. `errors` must be empty.
    ///
    /// What comes back when problems were noted is only good for finding more of them.
    pub(crate) fn parse(
        file: &str,
        text: &str,
        base_dir: &Path,
        edit: impl FnOnce(&mut Self),
        errors: &mut Errors,
    ) -> Option<(Self, Node)> {
        let documents = yaml::parse(file, text, errors);
        let broken = !errors.is_empty();
        let root = match documents.as_slice() {
            [root] => root,
            [] if broken => return None,
            [] => {
                errors.push(&Place::file(file), "the file is empty: at least `workload` and `identity` are required");
                return None;
            }
            [_, second, ..] => {
                errors.push(&second.place, "a second document: a configuration is one");
                return None;
            }
        };
        let mut config = Self::decode(root, errors)?;
        for path in &mut config.policies {
            *path = base_dir.join(&*path);
        }
        let partial = !errors.is_empty();
        if !partial {
            edit(&mut config);
        }
        config.check_into(Some(root), partial, errors);
        Some((config, root.clone()))
    }
}

/// The directory that relative paths of a file start at.
pub(crate) fn base_dir(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Sections that cannot be read are noted and left at their defaults, so that the others can be judged too.
impl Decode for Config {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let workload = fields.required("workload").unwrap_or_else(|| Workload::new("unknown", "unknown"));
        let identity = fields.required("identity").or_else(unknown_identity)?;
        let mut config = Self::new(workload, identity);
        config.listeners = fields.optional("listeners").unwrap_or_default();
        config.health = fields.optional("health");
        config.tokens = fields.optional("tokens").unwrap_or_default();
        config.policies = fields.optional("policies").unwrap_or_default();
        if let Some(authorization) = fields.optional::<Authorization>("authorization") {
            config.policy_mode = authorization.mode;
            config.no_policy = authorization.no_policy;
            config.root_namespace = authorization.root_namespace;
            config.trust_domain_aliases = authorization.trust_domain_aliases;
            config.canonical = authorization.canonical;
            config.custom_timeout = authorization.custom_timeout;
            config.groups_claim = authorization.groups_claim;
        }
        config.roles = fields.optional("roles").unwrap_or_default();
        config.bindings = fields.optional("bindings").unwrap_or_default();
        config.clusters = fields.optional("clusters").unwrap_or_default();
        config.routes = fields.optional("routes").unwrap_or_default();
        config.discovery = fields.optional("discovery").unwrap_or_default();
        config.limits = fields.optional("limits").unwrap_or_default();
        config.audit = fields.optional("audit").unwrap_or_default();
        config.telemetry = fields.optional("telemetry").unwrap_or_default();
        fields.optional::<Egress>("egress");
        if let Some(Reload(interval)) = fields.optional("reload") {
            config.poll_interval = interval;
        }
        fields.finish();
        Some(config)
    }
}

/// Stands where the real one could not be read, which has been noted.
fn unknown_identity() -> Option<IdentityConfig> {
    let trust_domain = TrustDomain::parse("unknown.invalid").ok()?;
    Some(IdentityConfig { trust_domain, source: PlugConfig::new("unknown", &serde_json::Value::Null) })
}

struct Authorization {
    mode: Mode,
    no_policy: NoPolicy,
    root_namespace: String,
    trust_domain_aliases: Vec<TrustDomain>,
    canonical: Canonicalization,
    custom_timeout: Duration,
    groups_claim: Vec<String>,
}

impl Decode for Authorization {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let mode = fields.or("mode", Mode::Strict);
        let no_policy = fields.or("no_policy", NoPolicy::of(mode));
        let root_namespace = fields.or("root_namespace", Config::ROOT_NAMESPACE.to_owned());
        let trust_domain_aliases = fields.optional("trust_domain_aliases").unwrap_or_default();
        let canonical = fields.or("canonical", mode.canonical());
        let custom_timeout = fields.or("custom_timeout", Config::CUSTOM_TIMEOUT);
        let ClaimPath(groups_claim) = fields.or("groups_claim", ClaimPath(vec![Config::GROUPS_CLAIM.to_owned()]));
        fields.finish();
        Some(Self { mode, no_policy, root_namespace, trust_domain_aliases, canonical, custom_timeout, groups_claim })
    }
}

impl Decode for Mode {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        node.choice(&[("strict", Self::Strict), ("compat", Self::Compat)], errors)
    }
}

impl Decode for Canonicalization {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        node.choice(&Self::ALL, errors)
    }
}

impl Decode for NoPolicy {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        node.choice(&[("deny", Self::Deny), ("allow", Self::Allow)], errors)
    }
}

/// `egress: registry_only`: only configured clusters can be called. There is no other mode; the field exists so that a
/// file can say so.
struct Egress;

impl Decode for Egress {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        node.choice(&[("registry_only", ())], errors).map(|()| Self)
    }
}

struct Reload(Duration);

impl Decode for Reload {
    fn decode(node: &Node, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(node, errors)?;
        let interval = fields.or("interval", Config::POLL_INTERVAL);
        fields.finish();
        Some(Self(interval))
    }
}
