//! `mesh policy`: what policies decide and where they may surprise, without a configuration around them.

mod diff;
mod eval;
mod judge;
mod line;
pub(crate) mod lint;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use mesh_core::config::{Config, ConfigError, Errors, NoPolicy, Sources, Workload};
use mesh_core::identity::TrustDomain;
use mesh_core::policy::canonical::Canonicalization;
use mesh_core::policy::{AuthorizationPolicy, Decision, EngineOptions, Mode, Protocol, RequestAuthentication, Verdict};

use crate::answer::{Failure, Said};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Judges requests, one a line of JSON; a line of JSON for each.
    Eval(eval::EvalArgs),
    /// Compares two sets of policies over the same requests; a line of JSON for each that they decide in another way.
    Diff(diff::DiffArgs),
    /// Says where policies that are valid may surprise.
    Lint(lint::LintArgs),
}

pub(crate) fn run(command: &PolicyCommand) -> Result<Said, Failure> {
    match command {
        PolicyCommand::Eval(args) => eval::run(args),
        PolicyCommand::Diff(args) => Ok(diff::run(args)),
        PolicyCommand::Lint(args) => lint::run(args).map(Said::Answer),
    }
}

/// Which policies, and how they are read.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// Files and directories (`*.yaml`, `*.yml`) of AuthorizationPolicy and RequestAuthentication documents;
    /// PeerAuthentication is read and says nothing here.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    policies: Vec<PathBuf>,
    #[command(flatten)]
    reading: ReadingArgs,
}

/// How policies and requests are read: as `authorization` of a configuration says.
#[derive(Debug, Args)]
pub(crate) struct ReadingArgs {
    /// Policies of this namespace hold for every workload.
    #[arg(long, value_name = "NAMESPACE", default_value = Config::ROOT_NAMESPACE)]
    root_namespace: String,
    /// What `cluster.local` in a principal means.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// Another name of the trust domain; may be repeated.
    #[arg(long, value_name = "NAME")]
    trust_domain_alias: Vec<TrustDomain>,
    /// Whose reading of the policies holds: `compat` is Istio's.
    #[arg(long, default_value = "strict", value_parser = word(&MODES))]
    mode: Mode,
    /// What holds where no policy selects the workload; default: deny, in compat mode allow. As for a service.
    #[arg(long, value_parser = word(&[("deny", NoPolicy::Deny), ("allow", NoPolicy::Allow)]))]
    no_policy: Option<NoPolicy>,
    /// How the path of a request becomes what policies match; default: reject, in compat mode base, which is Istio's. As for
    /// a service.
    #[arg(long, value_parser = word(&Canonicalization::ALL))]
    canonical: Option<Canonicalization>,
}

const MODES: [(&str, Mode); 2] = [("strict", Mode::Strict), ("compat", Mode::Compat)];

/// One of a few words, each with its meaning.
pub(crate) fn word<T: Copy + Send + Sync + 'static, const N: usize>(
    words: &[(&'static str, T); N],
) -> impl TypedValueParser<Value = T> + use<T, N> {
    let words = *words;
    PossibleValuesParser::new(words.map(|(name, _)| name)).try_map(move |text| {
        let found = words.iter().find(|(name, _)| *name == text).map(|(_, meaning)| *meaning);
        found.ok_or("not one of the words")
    })
}

/// Policies that are valid.
struct Policies {
    documents: Vec<AuthorizationPolicy>,
    requests: Vec<RequestAuthentication>,
    options: EngineOptions,
    canonical: Canonicalization,
}

impl PolicyArgs {
    /// The paths, as they were given.
    fn names(&self) -> String {
        self.policies.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
    }

    fn load(&self) -> Result<Result<Policies, ConfigError>, Failure> {
        self.reading.load(&self.policies)
    }
}

impl ReadingArgs {
    /// Reads everything. A path that is not there is a failure of the command; a document that is wrong is an answer.
    fn load(&self, policies: &[PathBuf]) -> Result<Result<Policies, ConfigError>, Failure> {
        for path in policies {
            fs::metadata(path).map_err(|e| Failure::Io(format!("cannot read {}: {e}", path.display())))?;
        }
        let canonical = self.canonical.unwrap_or(self.mode.canonical());
        let mut options = EngineOptions::new(self.trust_domain.clone());
        options.root_namespace.clone_from(&self.root_namespace);
        options.trust_domain_aliases.clone_from(&self.trust_domain_alias);
        options.mode = self.mode;
        options.no_policy = self.no_policy.unwrap_or(NoPolicy::of(self.mode));
        let mut errors = Errors::default();
        // Connections are no part of a request: `PeerAuthentication` is read and says nothing here.
        let read = Sources::read(policies).parse(self.mode, canonical, &mut errors);
        Ok(errors.finish(Some(Policies { documents: read.policies, requests: read.requests, options, canonical })))
    }
}

/// `k=v` of `--labels`.
fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `NAMESPACE/NAME` of `--workload`.
fn workload(text: &str) -> Result<Workload, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Workload::new(name, namespace))
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}

fn labelled(workload: &Workload, labels: &[(String, String)]) -> Result<Workload, Failure> {
    let all: BTreeMap<String, String> = labels.iter().cloned().collect();
    if all.len() != labels.len() {
        return Err(Failure::Usage("--labels: a key is given twice".to_owned()));
    }
    Ok(Workload { labels: all, ..workload.clone() })
}

/// What the mesh answers a denial with: HTTP status, gRPC status, or on raw TCP nothing.
pub(crate) fn status(protocol: Protocol, decision: &Decision) -> Option<u16> {
    match (decision.verdict, decision.token_would_help) {
        (Verdict::Allow, _) => None,
        (Verdict::Deny, true) => unauthenticated(protocol),
        (Verdict::Deny, false) => code(protocol, 403, 7),
    }
}

/// What it answers a bad token with.
pub(crate) fn unauthenticated(protocol: Protocol) -> Option<u16> {
    code(protocol, 401, 16)
}

pub(crate) fn code(protocol: Protocol, http: u16, grpc: u16) -> Option<u16> {
    match protocol {
        Protocol::Http => Some(http),
        Protocol::Grpc => Some(grpc),
        Protocol::Tcp => None,
    }
}
