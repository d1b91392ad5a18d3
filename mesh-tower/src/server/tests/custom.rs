//! Streams and the answers that let them in.

use mesh_core::policy::{Authorizing, ExternalAuthorizer, ExternalVerdict};

use super::*;

#[derive(Debug)]
struct Yes;

impl ExternalAuthorizer for Yes {
    fn authorize<'a>(&'a self, _request: &'a mesh_core::policy::Request<'a>) -> Authorizing<'a> {
        Box::pin(async { Ok(ExternalVerdict::Allow) })
    }
}

fn asking(provider: &str) -> String {
    format!(
        "{ALLOW_WEB}---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{ name: asking, namespace: shop }}
spec: {{ action: CUSTOM, provider: {{ name: {provider} }}, rules: [ {{}} ] }}
"
    )
}

/// Never answers.
#[derive(Debug)]
struct Silent;

impl ExternalAuthorizer for Silent {
    fn authorize<'a>(&'a self, _request: &'a mesh_core::policy::Request<'a>) -> Authorizing<'a> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_while_somebody_is_asked_is_recorded_once() {
    let kit = Kit::built("", "", |builder| builder.authorizer("guard", Silent)).await;
    kit.publish(&asking("guard"));
    let called = Arc::new(AtomicUsize::new(0));
    let ask = || Box::pin(stack(&kit.mesh, ok(&called)).oneshot(request(WEB, "/a")));
    let mut left = ask();
    assert!(left.as_mut().now_or_never().is_none(), "somebody is asked");
    assert!(kit.records().await.is_empty());
    drop(left);
    // The control: who stays is denied.
    assert_eq!(ask().await.unwrap().status(), 403);
    let records = kit.records().await;
    let records: Vec<_> = records.iter().map(|record| (record.status, record.outcome, record.reason)).collect();
    let expected = [(499, AuditOutcome::Reject, "cancelled"), (403, AuditOutcome::Deny, "custom_timeout")];
    assert_eq!((&records[..], called.load(Ordering::Relaxed)), (&expected[..], 0));
    assert_eq!(kit.metric(r#"mesh_server_rejected_total{reason="cancelled"}"#).as_deref(), Some("1"));
    assert_eq!(kit.metric("mesh_server_requests_in_flight").as_deref(), Some("0"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_keeps_the_answers_that_let_it_in_and_nobody_elses() {
    let kit = Kit::built("", "", |builder| builder.authorizer("guard", Yes).authorizer("other", Yes)).await;
    kit.publish(&asking("guard"));
    let silent = || {
        let frames = futures_util::stream::pending::<Result<http_body::Frame<bytes::Bytes>, Infallible>>();
        Ok(Response::new(Body::new(StreamBody::new(frames))))
    };
    let open = stack(&kit.mesh, service_fn(move |_| async move { silent() }));
    let mut body = open.oneshot(grpc(request(WEB, "/S/M"))).await.unwrap().into_body();
    let waits = async |body: &mut Body| tokio::time::timeout(Duration::from_secs(60), body.frame()).await.is_err();
    assert!(waits(&mut body).await);
    // A newer policy that asks the same authorizer has its answer already.
    kit.publish(&asking("guard"));
    assert!(waits(&mut body).await, "judged again with the answer it has");
    // The control: one that asks another has not.
    kit.publish(&asking("other"));
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(grpc::status(&trailers), Some(Code(7)));
}
