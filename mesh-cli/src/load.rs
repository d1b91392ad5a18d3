//! A configuration with its policies, as a mesh would start with it.

use std::fs::File;
use std::path::Path;

use mesh_core::Config;
use mesh_core::config::{ConfigError, Errors, Sources};
use mesh_core::policy::{AuthorizationPolicy, EngineOptions, PolicyEngine, RequestAuthentication};

use crate::answer::Failure;

/// What a valid configuration holds.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// Every policy of its files, also of other workloads.
    pub(crate) policies: Vec<AuthorizationPolicy>,
    /// Those that select the workload.
    pub(crate) engine: PolicyEngine,
    /// Every `RequestAuthentication` of its files; their rules are among `config.tokens` already.
    pub(crate) requests: Vec<RequestAuthentication>,
}

/// Reads everything. A file that is not there is a failure of the command; one that is wrong is an answer.
pub(crate) fn load(path: &Path) -> Result<Result<Loaded, ConfigError>, Failure> {
    File::open(path).map_err(|e| Failure::Io(format!("cannot read {}: {e}", path.display())))?;
    Ok(mesh_core::load(path).map(|(config, policies)| {
        let options = EngineOptions::of(&config);
        let engine = PolicyEngine::compile(&policies, &config.workload, &options);
        let requests =
            Sources::read(&config.policies).parse(config.policy_mode, config.canonical, &mut Errors::default());
        Loaded { config, policies, engine, requests: requests.requests }
    }))
}
