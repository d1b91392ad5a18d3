//! `mesh check`: every problem of a configuration and its policies.

use std::path::Path;
use std::sync::Arc;

use mesh_core::config::{
    ConfigError, ConfigIssue, Decode as _, GrpcCheckConfig, ListenerConfig, Mtls, NoPolicy, TlsVersion,
};
use mesh_core::health::{CheckAnswer, CheckQuestion, CheckVerdict, HealthCheck};
use mesh_core::policy::RequestPolicy;
use mesh_core::policy::lint::{Finding, LintOptions, lint};
use mesh_core::{CheckReport, Mesh, Plugin};
use mesh_tower::otel::Otlp;
use serde_json::{Value, json};

use crate::answer::{Answer, Failure};
use crate::cli::CheckArgs;
use crate::findings::count;
use crate::load::{self, Loaded};

pub(crate) fn run(args: &CheckArgs) -> Result<Answer, Failure> {
    let file = args.config.display().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::Io(format!("cannot start: {e}")))?;
    // The first sees syntax and policies, the second also key sets, endpoint files and unknown kinds.
    let loaded = load::load(&args.config)?;
    let checked = loaded.and_then(|loaded| Ok((loaded, runtime.block_on(check(&args.config))?)));
    Ok(checked.map_or_else(|error| refused(&file, &error), |(loaded, report)| valid(&file, &loaded, &report)))
}

/// Judged with the kinds of every crate of this project, as a service that uses them all would.
async fn check(config: &Path) -> Result<CheckReport, ConfigError> {
    let builder = Mesh::builder().config_file(config).with(Otlp::new().plugin()).with(mesh_tower::fetch::plugin());
    builder.with(grpc_check()).check().await
}

/// mesh-tonic's kind, as far as a check needs it: its settings are read, and nobody is asked.
fn grpc_check() -> Plugin {
    #[derive(Debug)]
    struct Unasked;
    impl HealthCheck for Unasked {
        fn question(&self) -> CheckQuestion {
            CheckQuestion::new("POST", "/")
        }
        fn judge(&self, _: &CheckAnswer) -> CheckVerdict {
            CheckVerdict::Inconclusive("nobody was asked".into())
        }
    }
    Plugin::new("mesh-tonic").health_check("grpc", |settings, _, errors| {
        GrpcCheckConfig::decode(settings, errors).map(|_| Arc::new(Unasked) as Arc<dyn HealthCheck>)
    })
}

fn valid(file: &str, loaded: &Loaded, report: &CheckReport) -> Answer {
    let workload = &loaded.config.workload;
    let policies = loaded.engine.policies();
    let mut text = format!(
        "{file}: valid\nworkload {}/{}, {} of {} policies select it",
        workload.namespace,
        workload.name,
        policies.len(),
        loaded.policies.len(),
    );
    for policy in policies {
        text.push_str(&format!("\n  {} {}: {} rule(s), {}", policy.action, policy.name, policy.rules, policy.place));
    }
    if policies.is_empty() {
        let verdict = match loaded.config.no_policy {
            NoPolicy::Deny => "every request is denied",
            NoPolicy::Allow => "every request is ALLOWED",
        };
        text.push_str(&format!("\n  no policy selects this workload: {verdict}"));
    }
    let requests: Vec<_> =
        RequestPolicy::of(&loaded.requests, workload, &loaded.config.root_namespace).documents().collect();
    for request in &requests {
        let issuers: Vec<&str> = request.rules.iter().map(|rule| rule.issuer.issuer.as_str()).collect();
        text.push_str(&format!(
            "\n  RequestAuthentication {}: {}, {}",
            request.name,
            issuers.join(", "),
            request.place
        ));
    }
    for issuer in &report.issuers {
        text.push_str(&format!("\n  tokens of {issuer}: keys found"));
    }
    for cluster in &report.clusters {
        text.push_str(&format!("\n  cluster {}: {} endpoint(s)", cluster.name, cluster.endpoints));
    }
    for (name, listener) in &loaded.config.listeners {
        text.push_str(&format!("\n  listener {name}: {}", describe(listener)));
    }
    for warning in &report.warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    let (warnings, notes) = count(&surprises(loaded));
    if warnings + notes > 0 {
        text.push_str(&format!("\npolicies: {warnings} warning(s), {notes} note(s); `mesh policy lint` says which"));
    }
    let json = json!({
        "valid": true,
        "file": file,
        "workload": { "name": workload.name, "namespace": workload.namespace, "service_account": workload.service_account },
        "issuers": report.issuers,
        "clusters": report.clusters.iter().map(|cluster| json!({
            "name": cluster.name, "endpoints": cluster.endpoints,
        })).collect::<Vec<_>>(),
        "policies": policies.iter().map(|policy| json!({
            "name": &*policy.name, "action": policy.action.to_string(), "rules": policy.rules,
            "file": &*policy.place.file, "line": policy.place.line,
        })).collect::<Vec<_>>(),
        "request_authentications": requests.iter().map(|request| json!({
            "name": &*request.name, "file": &*request.place.file, "line": request.place.line,
            "issuers": request.rules.iter().map(|rule| rule.issuer.issuer.as_str()).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "listeners": loaded.config.listeners.iter().map(|(name, listener)| json!({
            "name": name, "mtls": listener.mtls.as_str(), "tls": listener.tls.min_version.as_str(),
            "resumption": listener.tls.resumption, "gateways": gateways(listener),
        })).collect::<Vec<_>>(),
        "warnings": report.warnings.iter().map(issue).collect::<Vec<_>>(),
        "lint": { "warnings": warnings, "notes": notes },
        "issues": [],
    });
    Answer { yes: true, text, json }
}

/// What may surprise in the policies that select the workload: the others are for others to know.
fn surprises(loaded: &Loaded) -> Vec<Finding> {
    let Loaded { config, policies, requests, .. } = loaded;
    let own: Vec<_> =
        policies.iter().filter(|policy| policy.selects(&config.workload, &config.root_namespace)).cloned().collect();
    let requests: Vec<_> =
        RequestPolicy::of(requests, &config.workload, &config.root_namespace).documents().cloned().collect();
    let plaintext = config.listeners.values().any(|listener| listener.mtls != Mtls::Strict);
    let workloads = std::slice::from_ref(&config.workload);
    let mut options = LintOptions::new(&config.root_namespace);
    (options.workloads, options.plaintext, options.requests) = (workloads, plaintext, &requests);
    lint(&own, &options)
}

/// One line about who may connect, and how.
fn describe(listener: &ListenerConfig) -> String {
    let mut text = format!("mtls {}, TLS {}", listener.mtls.as_str(), listener.tls.min_version.as_str());
    text.push_str(match listener.tls.min_version {
        TlsVersion::V1_2 => " or newer",
        _ => "",
    });
    if listener.tls.resumption {
        text.push_str(", sessions resumed");
    }
    let gateways = gateways(listener);
    if !gateways.is_empty() {
        text.push_str(&format!(", clients named by {}", gateways.join(" and ")));
    }
    text
}

fn gateways(listener: &ListenerConfig) -> Vec<&str> {
    let forwarded = listener.forwarded_identity.as_ref();
    forwarded.into_iter().flat_map(|forwarded| &forwarded.gateways).map(|id| id.as_str()).collect()
}

pub(crate) fn refused(file: &str, error: &ConfigError) -> Answer {
    let issues: Vec<Value> = error.issues().iter().map(issue).collect();
    let json = json!({ "valid": false, "file": file, "issues": issues });
    Answer { yes: false, text: error.to_string(), json }
}

fn issue(issue: &ConfigIssue) -> Value {
    let place = &issue.place;
    json!({
        "file": &*place.file, "line": place.line, "column": place.column, "field": place.path, "message": issue.message,
    })
}
