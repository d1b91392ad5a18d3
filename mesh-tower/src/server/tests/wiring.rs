//! Layers that are missing, moved, or under a server that is not ours.

use super::*;
use boxed::{Boxed, boxed};

/// Stacks in every order, which no static type can name.
#[allow(clippy::disallowed_types)]
mod boxed {
    use tower::util::BoxCloneService;

    use super::*;

    pub(super) type Boxed = BoxCloneService<Request<Body>, Response<Body>, Infallible>;

    pub(super) fn boxed<S>(service: S) -> Boxed
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    {
        BoxCloneService::new(service)
    }
}

/// Wraps `inner` in the layer with this number, in the order of [`stack`].
fn wrap(mesh: &Mesh, layer: usize, inner: Boxed) -> Boxed {
    match layer {
        0 => boxed(TelemetryLayer::new(mesh).layer(inner)),
        1 => boxed(AuditLayer::new(mesh).layer(inner)),
        2 => boxed(CanonicalLayer::new(mesh).layer(inner)),
        3 => boxed(AdmissionLayer::new(mesh).layer(inner)),
        4 => boxed(DeadlineLayer::new(mesh).layer(inner)),
        5 => boxed(AuthenticateLayer::new(mesh).layer(inner)),
        6 => boxed(AuthorizeLayer::new(mesh).layer(inner)),
        7 => boxed(RateLimitLayer::new(mesh).layer(inner)),
        _ => boxed(HandlerLayer::new(mesh).layer(inner)),
    }
}

/// Every ordered choice of `items`, the empty one included.
fn arrangements(items: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for (at, first) in items.iter().enumerate() {
        let rest: Vec<_> = items.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, item)| *item).collect();
        all.extend(arrangements(&rest).into_iter().map(|mut tail| {
            tail.insert(0, *first);
            tail
        }));
    }
    all
}

#[tokio::test]
async fn a_stack_that_lacks_a_layer_or_has_them_reordered_denies() {
    let kit = Kit::new("").await;
    let called = Arc::new(AtomicUsize::new(0));
    let send = async |layers: &[usize], request: Request<Body>| {
        let inner: Boxed = boxed(ok(&called));
        let stack = layers.iter().rev().fold(inner, |inner, layer| wrap(&kit.mesh, *layer, inner));
        stack.oneshot(request).await.unwrap().status()
    };
    // All that must be there, in every order; the optional ones, each in every place of the right order.
    let required = [0, 2, 5, 6, 8];
    let mut stacks = arrangements(&required);
    stacks.retain(|layers| !layers.is_empty());
    for optional in [1, 3, 4, 7] {
        for place in 0..=required.len() {
            let mut layers = required.to_vec();
            layers.insert(place, optional);
            stacks.push(layers);
        }
    }
    stacks.push((0..9).collect());
    let mut passed = Vec::new();
    for layers in &stacks {
        // Without a connection nothing is let on, whatever the order.
        let mut plain = request(WEB, "/a");
        plain.extensions_mut().clear();
        let before = called.load(Ordering::Relaxed);
        assert_eq!(send(layers, plain).await, 500, "{layers:?}");
        assert_eq!(called.load(Ordering::Relaxed), before, "{layers:?}");
        match send(layers, request(WEB, "/a")).await {
            StatusCode::OK => passed.push(layers.clone()),
            status => assert_eq!(status, 500, "{layers:?}"),
        }
    }
    passed.sort();
    let right_order =
        |layers: &Vec<usize>| layers.is_sorted() && [0, 2, 5, 6].iter().all(|layer| layers.contains(layer));
    assert!(passed.iter().all(right_order), "{passed:?}");
    // Everything right passes, so that the test above cannot pass by denying all.
    assert_eq!(passed.len(), stacks.iter().filter(|layers| right_order(layers)).count(), "{passed:?}");
    assert!(kit.metric(r#"mesh_server_rejected_total{reason="wiring"}"#).is_some());
}

#[tokio::test]
async fn under_plain_axum_nothing_is_let_through() {
    let kit = Kit::new("").await;
    let show = async |_: Principal| "secret";
    let layered = axum::Router::new().route("/a", get(show)).layer(AuthorizeLayer::new(&kit.mesh));
    let bare = axum::Router::new().route("/a", get(show));
    for router in [layered, bare] {
        let response = router.oneshot(Request::get("https://orders/a").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 500);
    }
}

#[tokio::test]
async fn layers_are_ready_when_the_inner_service_is() {
    let kit = Kit::new("").await;
    fn check<L>(layer: L)
    where
        L: Layer<mock::Mock<Request<Body>, Response<Body>>>,
        L::Service: Service<Request<Body>>,
    {
        let (inner, mut handle) = mock::pair();
        let mut service = layer.layer(inner);
        handle.allow(0);
        assert!(service.ready().now_or_never().is_none());
        handle.allow(1);
        assert!(matches!(service.ready().now_or_never(), Some(Ok(_))));
    }
    check(TelemetryLayer::new(&kit.mesh));
    check(AuditLayer::new(&kit.mesh));
    check(CanonicalLayer::new(&kit.mesh));
    check(AdmissionLayer::new(&kit.mesh));
    check(DeadlineLayer::new(&kit.mesh));
    check(AuthenticateLayer::new(&kit.mesh));
    check(AuthorizeLayer::new(&kit.mesh));
    check(RateLimitLayer::new(&kit.mesh));
    check(HandlerLayer::new(&kit.mesh));
    check(RouteLayer);
}
