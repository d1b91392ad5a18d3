//! What a route takes at all, over real sockets, with the same route without the layer beside it.

use axum::Router;
use axum::body::Body;
use axum::extract::Json;
use axum::routing::{any, post};
use http::Request;
use http_body_util::BodyExt;
use mesh_core::audit::AuditOutcome;
use mesh_tower::server::ValidateLayer;
use mesh_tower::test_util::{TestMesh, TestService};
use serde_json::Value;

use crate::kit::{Reached, h2_as, soon};

const WEB: &str = "spiffe://test/ns/test/sa/web";

#[tokio::test]
async fn a_route_refuses_what_it_does_not_take() {
    let reached = Reached::default();
    let (strict, bare) = (reached.clone(), reached.clone());
    let orders = TestService::new("orders").app(move |mesh| {
        let layer = ValidateLayer::new(mesh)
            .max_body(64)
            .content_types(["application/json", "text/*"])
            .max_json_depth(3)
            .max_headers(8, 400)
            .max_query(2, 40);
        let routes = |reached: Reached| {
            let note = reached.clone();
            Router::new()
                .route(
                    "/any",
                    any(|body: Body| async move {
                        body.collect().await.map(|_| note.note()).map_err(|_| http::StatusCode::CONFLICT)
                    }),
                )
                .route("/json", post(|Json(_): Json<Value>| async move { reached.note() }))
        };
        Ok(Router::new().merge(routes(strict).route_layer(layer)).nest("/bare", routes(bare)))
    });
    let mesh = TestMesh::new().with(orders).start().await.unwrap();
    let mut sender = h2_as(&mesh, WEB, "orders").await;
    let long = "x".repeat(65);
    let header = "y".repeat(400);
    let json = [("content-type", "application/json")];
    let text = [("content-type", "text/plain; charset=utf-8")];
    let many: Vec<(String, &str)> = (0..9).map(|n| (format!("x-{n}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    // Name, target, headers, body, whether its length is announced; status and reason.
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, bool, u16, &'a str);
    let rows: &[Row<'_>] = &[
        ("nothing", "/any", &[], "", true, 200, ""),
        ("text", "/any", &text, "[[[[[[", true, 200, ""),
        ("JSON of its depth", "/json", &json, "{\"a\":[{\"b\":\"[[[[\"}]}", true, 200, ""),
        ("JSON too deep", "/json", &json, "{\"a\":[{\"b\":[]}]}", true, 400, "json_depth"),
        ("JSON too deep, in pieces", "/json", &json, "[[[[", false, 400, "json_depth"),
        ("JSON too deep by another name", "/any", &[("content-type", "text/json")], "[[[[", true, 400, "json_depth"),
        ("a long body", "/any", &text, &long, true, 413, "body_too_large"),
        ("a long body, unannounced", "/any", &text, &long, false, 413, "body_too_large"),
        ("another type", "/any", &[("content-type", "application/xml")], "<a/>", true, 415, "content_type"),
        ("a type like it", "/any", &[("content-type", "application/jsonx")], "{}", true, 415, "content_type"),
        ("no type", "/any", &[], "a=b", true, 415, "content_type"),
        ("many headers", "/any", &many, "", true, 431, "too_many_headers"),
        ("a long header", "/any", &[("x-a", &header)], "", true, 431, "headers_too_large"),
        ("two parameters", "/any?a=1&b=2&", &[], "", true, 200, ""),
        ("three parameters", "/any?a=1&b=2&c", &[], "", true, 414, "too_many_parameters"),
        ("a long query", "/any?a=0123456789012345678901234567890123456789", &[], "", true, 414, "query_too_long"),
    ];
    let metrics = mesh.mesh("orders").unwrap().metrics();
    let mut expected = 0;
    for (name, target, headers, body, announced, status, reason) in rows {
        for prefix in ["", "/bare"] {
            let target = format!("https://orders{prefix}{target}");
            let mut request = Request::post(target);
            for (name, value) in *headers {
                request = request.header(*name, *value);
            }
            let pieces: Vec<_> = body.bytes().map(|byte| Ok::<_, std::io::Error>(vec![byte])).collect();
            let body = if *announced {
                Body::from((*body).to_owned())
            } else {
                Body::from_stream(futures_util::stream::iter(pieces))
            };
            let sent = soon(name, sender.send_request(request.body(body).unwrap()));
            let response = sent.await.unwrap();
            let told = response.status().as_u16();
            let record = mesh.audit("orders").await.unwrap().pop().unwrap();
            if prefix.is_empty() {
                assert_eq!(told, *status, "{name}");
                let outcome = if *status == 200 { AuditOutcome::Allow } else { AuditOutcome::Reject };
                assert_eq!((record.outcome, record.status), (outcome, *status), "{name}");
                assert!(reason.is_empty() || record.reason == *reason, "{name}: {record:?}");
                assert!(reason.is_empty() || metrics.encode().contains(&format!("reason=\"{reason}\"")), "{name}");
                expected += usize::from(*status == 200);
            } else if told == 200 {
                expected += 1;
            } else {
                // The control: what is no JSON its own extractor refuses, and nobody else anything.
                assert!(
                    (told, record.outcome) == (400, AuditOutcome::Allow) && *name == "JSON too deep, in pieces",
                    "{name}: {told}"
                );
            }
        }
    }
    assert_eq!(reached.count(), expected);
}
