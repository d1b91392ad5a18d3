//! `mesh dev-ca`: identities for a laptop, shared with the `dev_ca` source of a running mesh.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_core::clock::SystemClock;
use mesh_core::identity::SpiffeId;
use mesh_core::identity::dev_ca::{DevCa, DevCaError, SPREAD};
use serde_json::json;

use crate::answer::{Answer, Failure};
use crate::cli::{AuthorityArgs, IssueArgs};

pub(crate) fn init(args: &AuthorityArgs) -> Result<Answer, Failure> {
    let ca = open(args)?;
    let dir = args.dir.display();
    let text = format!("authority of {} in {dir}; for development only", ca.trust_domain());
    let json =
        json!({ "trust_domain": ca.trust_domain().as_str(), "dir": args.dir, "bundle": args.dir.join("bundle.pem") });
    Ok(Answer { yes: true, text, json })
}

pub(crate) fn issue(args: &IssueArgs) -> Result<Answer, Failure> {
    let ca = open(&args.authority)?;
    let id = SpiffeId::for_workload(ca.trust_domain(), &args.namespace, &args.service_account);
    let id = id.map_err(|e| Failure::Usage(format!("--namespace or --service-account: {e}")))?;
    ca.issue_pem(&id, Duration::from_secs(args.minutes * 60)).and_then(|svid| svid.write(&args.out)).map_err(failed)?;
    let text = format!("{id} for {} min: svid.pem, svid.key and bundle.pem in {}", args.minutes, args.out.display());
    let json = json!({
        "spiffe_id": id.as_str(), "minutes": args.minutes,
        "certificate": args.out.join("svid.pem"), "key": args.out.join("svid.key"), "bundle": args.out.join("bundle.pem"),
    });
    Ok(Answer { yes: true, text, json })
}

pub(crate) fn rotate(args: &AuthorityArgs) -> Result<Answer, Failure> {
    let rotation = DevCa::rotate(&args.dir, &args.trust_domain, Arc::new(SystemClock), SPREAD).map_err(failed)?;
    let unix = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let text = format!(
        "a new root in {} signs in {} s; the old one stays trusted for {} h after that",
        args.dir.display(),
        SPREAD.as_secs(),
        rotation.old_until.duration_since(rotation.signs_from).unwrap_or_default().as_secs() / 3600
    );
    let json = json!({
        "trust_domain": args.trust_domain.as_str(), "dir": args.dir,
        "signs_from": unix(rotation.signs_from), "old_until": unix(rotation.old_until),
    });
    Ok(Answer { yes: true, text, json })
}

fn open(args: &AuthorityArgs) -> Result<DevCa, Failure> {
    DevCa::open_or_create(&args.dir, &args.trust_domain, Arc::new(SystemClock)).map_err(failed)
}

fn failed(error: DevCaError) -> Failure {
    Failure::Io(error.to_string())
}
