//! CUSTOM policies of a served mesh: whoever does not say yes has said no.

use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_core::audit::{AuditOutcome, MemorySink};
use mesh_core::policy::{AuthorizationPolicy, Authorizing, ExternalAuthorizer, ExternalError, ExternalVerdict};

use super::*;
use crate::fixture::mesh_of;

/// What an authorizer does when it is asked.
#[derive(Debug, Clone, Copy)]
enum Does {
    Allow,
    Deny,
    Fail,
    Hang,
    PanicAtOnce,
    PanicLater,
}

#[derive(Debug)]
struct Authorizer {
    does: Does,
    asked: Arc<AtomicUsize>,
}

impl ExternalAuthorizer for Authorizer {
    fn authorize<'a>(&'a self, request: &'a mesh_core::policy::Request<'a>) -> Authorizing<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        assert!(!matches!(self.does, Does::PanicAtOnce), "as the test wants");
        Box::pin(async move {
            tokio::task::yield_now().await;
            // What policy knows of a request is what it is asked about.
            let (mut header, path) = (0, request.path.starts_with("/asked"));
            request.headers.values("x-probe", &mut |value| header += value.len());
            let whole = path && header == 3 && request.peer.is_some_and(|peer| peer.as_str().ends_with("/sa/web"));
            match self.does {
                Does::Allow if whole => Ok(ExternalVerdict::Allow),
                Does::Allow | Does::Deny => Ok(ExternalVerdict::Deny),
                Does::Fail => Err(ExternalError("no connection".to_owned())),
                Does::Hang => std::future::pending().await,
                Does::PanicAtOnce | Does::PanicLater => panic!("as the test wants"),
            }
        })
    }
}

/// A served mesh whose policies ask `guard` about `/asked`.
struct Guarded {
    mesh: Mesh,
    client: Sender,
    audit: MemorySink,
    asked: Arc<AtomicUsize>,
    handled: Arc<AtomicUsize>,
    _web: Mesh,
}

fn policies(yaml: &str) -> Vec<AuthorizationPolicy> {
    AuthorizationPolicy::from_yaml(yaml).unwrap()
}

const ASK: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: guarded, namespace: shop }
spec:
  action: CUSTOM
  provider: { name: guard }
  rules:
    - to: [ { operation: { paths: [ /never ] } } ]
    - to: [ { operation: { paths: [ /asked ] } } ]
";

async fn guarded(does: Option<Does>, more: &str) -> Guarded {
    let (ca, (listener, address)) = (ca(), listener().await);
    let (audit, asked, handled) = (MemorySink::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let edit = |config: &mut mesh_core::Config| config.custom_timeout = Duration::from_millis(50);
    let mesh = mesh_of(&ca, "orders", edit, |builder| {
        let builder = builder.audit_sink(Box::new(audit.clone())).policies(policies(&format!("{ASK}{more}")));
        match does {
            Some(does) => builder.authorizer("guard", Authorizer { does, asked: Arc::clone(&asked) }),
            None => builder,
        }
    })
    .await;
    let count = Arc::clone(&handled);
    let router = Router::new().fallback(post(move || async move {
        count.fetch_add(1, Ordering::Relaxed);
        "handled"
    }));
    tokio::spawn(serve(&mesh, listener, router).into_future());
    let web = crate::fixture::mesh(&ca, "web", |_| {}).await;
    let client = connect(&web, address).await;
    Guarded { mesh, client, audit, asked, handled, _web: web }
}

impl Guarded {
    async fn post(&mut self, path: &str) -> StatusCode {
        let request = Request::post(format!("https://orders{path}")).header("x-probe", "yes");
        self.client.send_request(request.body(Body::from("body")).unwrap()).await.unwrap().status()
    }

    fn handled(&self) -> usize {
        self.handled.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn custom_any_matching_custom_that_does_not_allow_denies() {
    let table = [
        (Some(Does::Allow), StatusCode::OK, "no_policy_allow", "allow"),
        (Some(Does::Deny), StatusCode::FORBIDDEN, "custom_denied", "deny"),
        (Some(Does::Fail), StatusCode::FORBIDDEN, "custom_error", "error"),
        (Some(Does::Hang), StatusCode::FORBIDDEN, "custom_timeout", "timeout"),
        (Some(Does::PanicAtOnce), StatusCode::FORBIDDEN, "custom_error", "error"),
        (Some(Does::PanicLater), StatusCode::FORBIDDEN, "custom_error", "error"),
        (None, StatusCode::FORBIDDEN, "custom_unknown_provider", "unknown"),
    ];
    for (does, status, reason, outcome) in table {
        let mut guarded = guarded(does, "").await;
        assert_eq!(guarded.post("/asked").await, status, "{does:?}");
        let allowed = status == StatusCode::OK;
        assert_eq!(guarded.handled(), usize::from(allowed), "{does:?}");
        assert_eq!(guarded.asked.load(Ordering::Relaxed), usize::from(does.is_some()), "{does:?}");
        let metrics = guarded.mesh.metrics().encode();
        let count =
            format!("mesh_server_custom_duration_seconds_count{{provider=\"guard\",outcome=\"{outcome}\"}} 1\n");
        assert!(metrics.contains(&count), "{does:?}: {metrics}");
        let panics = u8::from(matches!(does, Some(Does::PanicAtOnce | Does::PanicLater)));
        assert!(metrics.contains(&format!("mesh_server_panics_total {panics}\n")), "{does:?}: {metrics}");
        guarded.mesh.audit().flush().await;
        let [record] = &guarded.audit.records()[..] else { panic!("one record: {does:?}") };
        let expected = if allowed { AuditOutcome::Allow } else { AuditOutcome::Deny };
        assert_eq!((record.outcome, record.reason), (expected, reason), "{does:?}");
        if !allowed {
            assert_eq!((record.policy.as_deref(), record.rule), (Some("shop/guarded"), Some(1)), "{does:?}");
            let denied = format!("denied_total{{policy=\"shop/guarded\",rule=\"1\",reason=\"{reason}\"}} 1\n");
            assert!(metrics.contains(&denied), "{does:?}: {metrics}");
        }
        // The control: what no CUSTOM rule matches asks nobody, on the same connection.
        assert_eq!(guarded.post("/open").await, StatusCode::OK, "{does:?}");
        assert_eq!(guarded.asked.load(Ordering::Relaxed), usize::from(does.is_some()), "{does:?}");
    }
}

#[tokio::test]
async fn custom_allows_do_not_outvote_deny_and_allow() {
    let policy = |action: &str| {
        format!(
            "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{ name: other, namespace: shop }}
spec: {{ action: {action}, rules: [ {{ to: [ {{ operation: {{ paths: [ /other ] }} }} ] }} ] }}
"
        )
    };
    for (more, asked, other) in [
        (policy("DENY"), StatusCode::OK, StatusCode::FORBIDDEN),
        (policy("ALLOW"), StatusCode::FORBIDDEN, StatusCode::OK),
    ] {
        let mut guarded = guarded(Some(Does::Allow), &more).await;
        assert_eq!((guarded.post("/asked").await, guarded.post("/other").await), (asked, other), "{more}");
        assert_eq!((guarded.asked.load(Ordering::Relaxed), guarded.handled()), (1, 1), "{more}");
    }
}

#[tokio::test]
async fn custom_providers_are_asked_at_once_within_one_time() {
    let more = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: more, namespace: shop }
spec: { action: CUSTOM, provider: { name: second }, rules: [ {} ] }
";
    let mut guarded = guarded(Some(Does::Hang), more).await;
    // The unknown one answers at once; the one that hangs is named, because it stands first.
    assert_eq!(guarded.post("/asked").await, StatusCode::FORBIDDEN);
    let metrics = guarded.mesh.metrics().encode();
    for (provider, outcome) in [("guard", "timeout"), ("second", "unknown")] {
        let count = format!("seconds_count{{provider=\"{provider}\",outcome=\"{outcome}\"}} 1\n");
        assert!(metrics.contains(&count), "{metrics}");
    }
    guarded.mesh.audit().flush().await;
    let records = guarded.audit.records();
    assert_eq!(records.iter().map(|record| record.reason).collect::<Vec<_>>(), ["custom_timeout"]);
}
