//! Trust and policy that change under open connections.

use super::*;

/// Lets in whom `source` names.
fn allow(source: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: callers, namespace: shop }}\n\
         spec: {{ rules: [{{ from: [{{ source: {source} }}] }}] }}\n"
    )
}

const BATCH: &str = "spiffe://td/ns/shop/sa/batch";

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_trusted_no_more_is_cut_with_its_streams_and_others_stay() {
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let (gate, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let net = Net::start(|_| {}, gated(&gate, &entered));
        let (old, new) = (Ca::new("old", &net.clock), Ca::new("new", &net.clock));
        let bundles = |authorities: &[&Ca]| Arc::new(Ca::trust(authorities));
        let ours = |authorities: &[&Ca]| Identity { bundles: bundles(authorities), ..net.ca.issue(ORDERS, DAY) };
        let of = |ca: &Ca| Identity { bundles: bundles(&[&net.ca]), ..ca.issue(WEB, DAY) };
        net.server.publish(ours(&[&net.ca, &old, &new]));
        net.web.publish(of(&new));
        let mut kept = net.connect(http).await;
        kept.get("/").await.unwrap();
        net.web.publish(of(&old));
        let (idle, busy) = idle_and_busy(&net, &entered, http).await;

        let start = Instant::now();
        net.server.publish(ours(&[&net.ca, &new]));
        idle.ended.await.unwrap();
        busy.await.unwrap().unwrap_err();
        assert!(start.elapsed() < S, "{http:?}: {:?}", start.elapsed());
        until("both are counted", || net.metrics.transport.closed_for("distrusted") == 2).await;
        tokio::time::sleep(10 * S).await;
        assert_eq!(kept.get("/").await.unwrap().1, "done", "{http:?}: the other is still open");
        assert_eq!(net.metrics.transport.connections(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_policy_shuts_out_is_drained_and_one_it_never_let_in_stays() {
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let (gate, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let net = Net::start(|_| {}, gated(&gate, &entered));
        let web = allow("{ principals: [td/ns/shop/sa/web] }");
        net.policy.publish(revision(&web));
        net.web.publish(net.ca.issue(BATCH, DAY));
        let mut never = net.connect(http).await;
        never.get("/").await.unwrap(); // there is no stack here that would refuse it
        net.web.publish(net.ca.issue(WEB, DAY));
        let (idle, busy) = idle_and_busy(&net, &entered, http).await;
        // Something that still lets it in changes nothing, and neither do tokens and paths that it may have.
        net.policy.publish(revision(&allow("{ principals: [td/ns/shop/sa/web], requestPrincipals: ['*'] }")));
        tokio::time::sleep(10 * S).await;
        assert_eq!(net.metrics.transport.connections(), 3);

        let start = Instant::now();
        net.policy.publish(revision(&allow("{ principals: [td/ns/shop/sa/other] }")));
        idle.ended.await.unwrap();
        assert!(start.elapsed() < S, "{http:?}: the idle one is asked to go at once");
        busy.await.unwrap().unwrap_err();
        assert_eq!(start.elapsed().as_secs(), 2, "{http:?}: whatever it does");
        until("both are counted", || net.metrics.transport.closed_for("policy_removed") == 2).await;
        assert_eq!(never.get("/").await.unwrap().1, "done", "{http:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_certificate_of_our_own_no_connection_goes_on() {
    let (gate, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let net = Net::start(|_| {}, gated(&gate, &entered));
    net.server.publish(net.ca.issue(ORDERS, 100 * S));
    let start = Instant::now();
    let mut ends = Vec::new();
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        ends.push(idle_and_busy(&net, &entered, http).await);
    }
    // A successor keeps them, and its own end counts then.
    tokio::time::sleep(50 * S).await;
    net.server.publish(net.ca.issue(ORDERS, 150 * S));
    tokio::time::sleep(100 * S).await;
    assert_eq!((start.elapsed().as_secs(), net.metrics.transport.connections()), (150, 4));
    for (idle, busy) in ends {
        idle.ended.await.unwrap();
        busy.await.unwrap().unwrap_err();
    }
    assert_eq!(start.elapsed().as_secs(), 200);
    until("all are counted", || net.metrics.transport.closed_for("own_certificate_expired") == 4).await;
}

#[tokio::test(start_paused = true)]
async fn what_changes_during_a_handshake_is_seen_after_it() {
    let (tell, mut connections) = mpsc::unbounded_channel();
    let net = Net::start(
        |_| {},
        move |request| {
            tell.send(Arc::clone(request.extensions().get::<Arc<Connection>>().unwrap())).unwrap();
            hello(request)
        },
    );
    net.connect(HttpVersion::Http2).await.get("/").await.unwrap();
    let connection = connections.recv().await.unwrap();
    let (before, other) = (net.server.generation(), Ca::new("other", &net.clock));
    let after = net.server.publish(Identity { bundles: Arc::new(Ca::trust(&[&other])), ..net.ca.issue(ORDERS, DAY) });
    let shared =
        Shared::new(net.ground(), Arc::from("default"), &ListenerConfig::new(client_address()), client_address());
    for (judged_under, order) in [(before, Some(Order::Cut(CloseReason::Distrusted))), (after, None)] {
        let standing = Standing::new(Arc::clone(&connection), judged_under);
        shared.recheck(&standing);
        assert_eq!(order_of(&standing).await, order);
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_to_cut_is_not_softened_by_what_is_found_later() {
    let (tell, mut connections) = mpsc::unbounded_channel();
    let net = Net::start(
        |_| {},
        move |request| {
            tell.send(Arc::clone(request.extensions().get::<Arc<Connection>>().unwrap())).unwrap();
            hello(request)
        },
    );
    net.connect(HttpVersion::Http2).await.get("/").await.unwrap();
    let connection = connections.recv().await.unwrap();
    let shared =
        Shared::new(net.ground(), Arc::from("default"), &ListenerConfig::new(client_address()), client_address());
    let standing = Standing::new(connection, net.server.generation());
    let (cut, drain) = (Order::Cut(CloseReason::Distrusted), Order::Drain(CloseReason::PolicyRemoved));
    for (orders, expected) in [([drain, drain], drain), ([drain, cut], cut), ([cut, drain], cut)] {
        orders.into_iter().for_each(|order| standing.give(order));
        assert_eq!(order_of(&standing).await, Some(expected), "{orders:?}");
        assert_eq!(order_of(&standing).await, None, "{orders:?}: one at a time");
    }

    // Distrusted, and then policy has no room for it either: that it is distrusted still counts.
    shared.recheck(&standing);
    assert_eq!(order_of(&standing).await, None);
    let other = Ca::new("other", &net.clock);
    net.server.publish(Identity { bundles: Arc::new(Ca::trust(&[&other])), ..net.ca.issue(ORDERS, DAY) });
    shared.recheck(&standing);
    assert_eq!(order_of(&standing).await, Some(cut));
    net.policy.publish(revision(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: p, namespace: shop }\n\
         spec: { action: DENY, rules: [{}] }\n",
    ));
    shared.recheck(&standing);
    assert_eq!(order_of(&standing).await, Some(cut), "found again, as long as its chain does not pass");
    net.server.publish(net.ca.issue(ORDERS, DAY));
    shared.recheck(&standing);
    assert_eq!(order_of(&standing).await, Some(drain), "its chain passes again, policy has no room");
}

#[tokio::test(start_paused = true)]
async fn many_connections_are_looked_at_in_a_second_not_at_once() {
    let net = Net::start(|config| config.idle_timeout = 3600 * S, hello);
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = net.connect(HttpVersion::Http2).await;
        client.get("/").await.unwrap();
        clients.push(client);
    }
    let other = Ca::new("other", &net.clock);
    let start = Instant::now();
    net.server.publish(Identity { bundles: Arc::new(Ca::trust(&[&other])), ..net.ca.issue(ORDERS, DAY) });
    let mut ends = Vec::new();
    for client in clients {
        client.ended.await.unwrap();
        ends.push(start.elapsed());
    }
    assert!(ends[0] < S / 10 && ends[99] > S / 2 && ends[99] < 2 * S, "{:?} to {:?}", ends[0], ends[99]);
}
