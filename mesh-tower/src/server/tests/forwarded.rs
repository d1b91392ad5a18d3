//! Whom a gateway may name, and how others try to.

use mesh_core::identity::{Identity, TrustBundle, TrustBundleSet};

use super::*;

const GATEWAY: &str = "spiffe://test.example/ns/edge/sa/gateway";
const LISTENER: &str = "listeners: { default: { address: '127.0.0.1:0', forwarded_identity: { gateways: \
                        ['spiffe://test.example/ns/edge/sa/gateway'] } } }";
const XFCC: &str = "x-forwarded-client-cert";

/// `POST https://orders/a` of `peer`, or over plaintext, with these headers.
fn of(peer: Option<&str>, headers: &[(&str, String)]) -> Request<Body> {
    let connection = match peer {
        Some(id) => connection(id),
        None => Connection::for_test(Peer { address: SocketAddr::from(([192, 0, 2, 1], 5)), svid: None }),
    };
    let mut request = Request::post("https://orders/a").extension(connection).body(Body::empty()).unwrap();
    for (name, value) in headers {
        let name = http::HeaderName::try_from(*name).unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

/// Says whom it sees, and fails if anything is left of the header.
async fn whoami(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let left: Vec<_> = request.headers().keys().filter(|name| name.as_str().contains("client")).collect();
    assert!(left.is_empty(), "{left:?}");
    let principal = request.extensions().get::<Principal>().unwrap();
    let caller = RequestContext::current().unwrap().caller().unwrap().to_string();
    assert_eq!(caller, principal.to_string());
    let via = principal.via().map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    Ok(Response::new(Body::from(format!("{principal}{via}"))))
}

#[tokio::test]
async fn only_a_pinned_gateway_names_its_client_and_nobody_can_forge_it() {
    let kit = Kit::new(LISTENER).await;
    kit.permissive(kit.mesh.clock().now() + Duration::from_secs(3600));
    let uri = |id: &str| format!("By={GATEWAY};Hash={};Subject=\"\";URI={id}", "0".repeat(64));
    let web = || vec![(XFCC, uri(WEB))];
    let one = |value: String| vec![(XFCC, value)];
    let via = format!("{WEB} via {GATEWAY}");
    // (what, peer, headers, status, reason in the audit record, what the handler saw, whom the record names)
    type Row =
        (&'static str, Option<&'static str>, Vec<(&'static str, String)>, u16, &'static str, Option<&'static str>);
    let table: Vec<Row> = vec![
        ("named", Some(GATEWAY), web(), 200, "allow_rule", Some(WEB)),
        ("named, not allowed", Some(GATEWAY), one(uri(BATCH)), 403, "no_allow_rule", Some(BATCH)),
        ("no header", Some(GATEWAY), vec![], 403, "no_allow_rule", None),
        ("its own last word", Some(GATEWAY), one(format!("URI={BATCH},{}", uri(WEB))), 200, "allow_rule", Some(WEB)),
        // Others.
        ("a workload", Some(BATCH), web(), 403, "no_allow_rule", None),
        ("a workload about another", Some(WEB), one(uri(BATCH)), 200, "allow_rule", None),
        ("a namesake", Some("spiffe://test.example/ns/edge/sa/gateway2"), web(), 403, "no_allow_rule", None),
        ("a gateway elsewhere", Some("spiffe://other.example/ns/edge/sa/gateway"), web(), 403, "no_allow_rule", None),
        ("plaintext", None, web(), 403, "no_allow_rule", None),
        // Headers that look like it.
        ("with underscores", Some(GATEWAY), vec![("x_forwarded_client_cert", uri(WEB))], 403, "no_allow_rule", None),
        ("another name", Some(GATEWAY), vec![("client-cert", uri(WEB))], 403, "no_allow_rule", None),
        (
            "beside a look-alike",
            Some(GATEWAY),
            vec![("x-forwarded_client-cert", uri(WEB)), (XFCC, uri(BATCH))],
            403,
            "no_allow_rule",
            Some(BATCH),
        ),
        (
            "nominated",
            Some(GATEWAY),
            vec![("connection", XFCC.to_owned()), (XFCC, uri(BATCH))],
            403,
            "no_allow_rule",
            Some(BATCH),
        ),
        // Odd ones.
        ("twice", Some(GATEWAY), [web(), web()].concat(), 400, "forwarded_duplicate", None),
        ("two that differ", Some(GATEWAY), [one(uri(BATCH)), web()].concat(), 400, "forwarded_duplicate", None),
        ("empty", Some(GATEWAY), one(String::new()), 400, "forwarded_syntax", None),
        ("open quote", Some(GATEWAY), one(format!("URI=\"{WEB},{}", uri(WEB))), 400, "forwarded_syntax", None),
        ("two URIs", Some(GATEWAY), one(format!("{};URI={BATCH}", uri(WEB))), 400, "forwarded_uri", None),
        ("no URI", Some(GATEWAY), one(format!("By={GATEWAY}")), 400, "forwarded_uri", None),
        ("encoded", Some(GATEWAY), one(uri(&WEB.replace("web", "%77eb"))), 400, "forwarded_uri", None),
        ("somebody else's", Some(GATEWAY), one(uri(WEB).replace("edge", "back")), 400, "forwarded_by", None),
        (
            "too long",
            Some(GATEWAY),
            one(format!("{};Chain=\"{}\"", uri(WEB), "a".repeat(17_000))),
            400,
            "forwarded_too_long",
            None,
        ),
        (
            "a trust domain that we do not trust",
            Some(GATEWAY),
            one(uri("spiffe://other.example/ns/shop/sa/web")),
            403,
            "forwarded_trust_domain",
            None,
        ),
    ];
    let rows = table.len();
    for (what, peer, headers, status, _, forwarded) in &table {
        let response = stack(&kit.mesh, service_fn(whoami)).oneshot(of(*peer, headers)).await.unwrap();
        assert_eq!(response.status(), *status, "{what}");
        if *status == 200 {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let seen = if forwarded.is_some() { via.as_str() } else { WEB };
            assert_eq!(body, seen, "{what}");
        }
    }
    let records = kit.records().await;
    assert_eq!(records.len(), rows);
    for ((what, peer, _, _, reason, forwarded), record) in table.into_iter().zip(records) {
        let recorded = (record.peer.as_deref(), record.forwarded.as_deref(), record.reason);
        assert_eq!(recorded, (peer, forwarded, reason), "{what}");
    }

    let mut call = grpc(of(Some(GATEWAY), &one("URI=x".to_owned())));
    *call.uri_mut() = "https://orders/a.B/C".parse().unwrap();
    let response = stack(&kit.mesh, service_fn(whoami)).oneshot(call).await.unwrap();
    assert_eq!(crate::grpc::status(response.headers()), Some(Code::UNIMPLEMENTED));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_pinned_no_more_speaks_for_nobody_and_its_streams_end() {
    let kit = Kit::new(LISTENER).await;
    let named = || of(Some(GATEWAY), &[(XFCC, format!("URI={WEB}"))]);
    let status = async || stack(&kit.mesh, service_fn(whoami)).oneshot(named()).await.unwrap().status();
    assert_eq!(status().await, 200);
    let silent = service_fn(|_| async {
        let frames = futures_util::stream::pending::<Result<http_body::Frame<bytes::Bytes>, Infallible>>();
        Ok(Response::new(Body::new(StreamBody::new(frames))))
    });
    let mut carried = stack(&kit.mesh, silent).oneshot(named()).await.unwrap().into_body();
    let mut end = async |within| tokio::time::timeout(Duration::from_secs(within), carried.frame()).await;
    assert!(end(60).await.is_err(), "ended by itself");
    let now = kit.mesh.revision().load();
    let mut config = (*now.config).clone();
    config.listeners.get_mut("default").unwrap().forwarded_identity = None;
    kit.mesh.revision().publish(Revision { config: Arc::new(config), ..now.value().clone() });
    assert!(end(5).await.unwrap().is_none_or(|frame| frame.is_err()));
    assert_eq!(kit.metric("mesh_server_streams_revoked_total").as_deref(), Some("1"));
    assert_eq!(status().await, 403);
}

#[tokio::test(start_paused = true)]
async fn streams_of_a_forwarded_client_end_when_its_trust_domain_is_trusted_no_more() {
    const PARTNER: &str = "spiffe://partner.example/ns/shop/sa/web";
    // (who is named, bundles after the change, whether its stream ends)
    for (client, keeps_partner, ends) in [(PARTNER, false, true), (PARTNER, true, false), (WEB, false, false)] {
        let kit = Kit::new(LISTENER).await;
        kit.publish(&ALLOW_WEB.replace("sa/web]", "sa/web, partner.example/ns/shop/sa/web]"));
        let now = kit.mesh.identity().load();
        let own = now.bundles.get("test.example").unwrap().clone();
        let domain = TrustDomain::parse("partner.example").unwrap();
        let partner = TrustBundle::new(domain, own.authorities().to_vec()).unwrap();
        let with = |bundles: Vec<TrustBundle>| {
            let mut set = TrustBundleSet::default();
            bundles.into_iter().for_each(|bundle| set.insert(bundle));
            let bundles = Arc::new(set);
            kit.mesh.identity().publish(Identity { bundles, ..now.value().clone() });
        };
        with(vec![own.clone(), partner.clone()]);
        let silent = service_fn(|_| async {
            let frames = futures_util::stream::pending::<Result<http_body::Frame<bytes::Bytes>, Infallible>>();
            Ok(Response::new(Body::new(StreamBody::new(frames))))
        });
        let named = || of(Some(GATEWAY), &[(XFCC, format!("URI={client}"))]);
        let response = stack(&kit.mesh, silent).oneshot(named()).await.unwrap();
        assert_eq!(response.status(), 200, "{client}");
        let mut carried = response.into_body();
        let mut end = async |within| tokio::time::timeout(Duration::from_secs(within), carried.frame()).await;
        assert!(end(60).await.is_err(), "{client}: ended by itself");
        with(if keeps_partner { vec![own, partner] } else { vec![own] });
        let ended = end(5).await;
        assert_eq!(ended.is_ok(), ends, "{client} {keeps_partner}");
        if ends {
            assert!(ended.unwrap().is_none_or(|frame| frame.is_err()));
            assert_eq!(kit.metric("mesh_server_streams_revoked_total").as_deref(), Some("1"));
        }
    }
}
