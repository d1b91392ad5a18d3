//! What one peer, and all strangers together, can take of a listener.

use super::*;

const API: &str = "spiffe://td/ns/shop/sa/api";

async fn closed_without_a_byte(mut pipe: DuplexStream) {
    assert_eq!(pipe.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_address_cannot_take_all_places() {
    let net = Net::start(|config| config.max_connections_per_ip = Some(1), hello);
    let mut first = net.connect(HttpVersion::Http2).await;
    first.get("/").await.unwrap();
    closed_without_a_byte(net.pipe().await).await;
    assert_eq!(net.metrics.transport.refused_for("per_ip"), 1);
    assert_eq!(net.metrics.transport.connections(), 1);
    drop(first);
    until("the place is given back", || net.metrics.transport.connections() == 0).await;
    assert_eq!(net.connect(HttpVersion::Http2).await.get("/").await.unwrap().1, "hello");
}

#[tokio::test(start_paused = true)]
async fn one_identity_cannot_take_all_places() {
    let net = Net::start(|config| config.max_connections_per_peer = Some(1), hello);
    let mut first = net.connect(HttpVersion::Http2).await;
    first.get("/").await.unwrap();
    net.connect(HttpVersion::Http2).await.get("/").await.unwrap_err();
    assert_eq!(net.metrics.transport.refused_for("per_peer"), 1);
    let api = Snapshot::new(net.ca.issue(API, DAY));
    let stream = net.tls(&api, &[ORDERS], HttpVersion::Http2).await.unwrap();
    assert_eq!(Client::over(stream, HttpVersion::Http2).await.get("/").await.unwrap().1, "hello");
    drop(first);
    until("the place is given back", || net.metrics.transport.connections() <= 1).await;
    assert_eq!(net.connect(HttpVersion::Http1).await.get("/").await.unwrap().1, "hello");
}

#[tokio::test(start_paused = true)]
async fn shares_are_of_the_places_that_open_files_allow() {
    // Beyond the places, a limit of addresses leaves it to that of identities.
    for (per_ip, reason) in [(None, "per_ip"), (Some(1_000), "per_peer")] {
        let edit = |config: &mut ListenerConfig| config.max_connections_per_ip = per_ip;
        let net = Net::start_on(Vec::new(), Some(8), edit, hello);
        let mut held = Vec::new();
        for _ in 0..4 {
            let mut one = net.connect(HttpVersion::Http2).await;
            one.get("/").await.unwrap();
            held.push(one);
        }
        if reason == "per_ip" {
            closed_without_a_byte(net.pipe().await).await;
        } else {
            net.connect(HttpVersion::Http2).await.get("/").await.unwrap_err();
            let (api, start) = (Snapshot::new(net.ca.issue(API, DAY)), Instant::now());
            let stream = net.tls(&api, &[ORDERS], HttpVersion::Http2).await.unwrap();
            assert_eq!(Client::over(stream, HttpVersion::Http2).await.get("/").await.unwrap().1, "hello");
            assert!(start.elapsed() < S, "the other one waited for a place: {:?}", start.elapsed());
        }
        assert_eq!(net.metrics.transport.refused_for(reason), 1, "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_who_say_nothing_give_way() {
    // (places, of them half open)
    for (max_connections, max_half_open) in [(1_000, 4), (4, 1_000)] {
        let net = Net::start(
            |config| {
                config.max_connections = max_connections;
                config.max_connections_per_ip = Some(1_000);
                config.max_half_open = Some(max_half_open);
            },
            hello,
        );
        let mut established = net.connect(HttpVersion::Http2).await;
        established.get("/").await.unwrap();
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(net.pipe().await);
        }
        let start = Instant::now();
        assert_eq!(net.connect(HttpVersion::Http2).await.get("/").await.unwrap().1, "hello");
        // Without giving way they would wait for `hello_timeout`, ten times over.
        assert!(start.elapsed() < 3 * S, "waited for the silent ones: {:?}", start.elapsed());
        assert_eq!(established.get("/").await.unwrap().1, "hello", "who has proved itself keeps its place");
        let evicted = net.metrics.transport.handshakes("evicted");
        assert!(evicted > 30, "{evicted} of {max_connections} {max_half_open}");
    }
}

/// Cancels one request that its handler has begun.
async fn cancel(client: &mut Client, entered: &Notify) -> bool {
    let request = client.start("/slow", Body::empty());
    tokio::select! {
        _ = request => return false,
        () = entered.notified() => {}
    }
    true
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_cancels_without_end_is_cut_on_all_connections_and_comes_back_later() {
    let (gate, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let net = Net::start(|config| config.max_resets_per_second = 1, gated(&gate, &entered));
    let api = Snapshot::new(net.ca.issue(API, DAY));
    let stream = net.tls(&api, &[ORDERS], HttpVersion::Http2).await.unwrap();
    let mut other = Client::over(stream, HttpVersion::Http2).await;
    let (mut one, mut two) = (net.connect(HttpVersion::Http2).await, net.connect(HttpVersion::Http2).await);
    for _ in 0..5 {
        assert!(cancel(&mut one, &entered).await && cancel(&mut two, &entered).await, "within its budget");
    }
    assert!(cancel(&mut one, &entered).await, "the one that is too many");
    until("it is cut", || net.metrics.transport.closed_for("reset_budget") == 1).await;
    net.connect(HttpVersion::Http2).await.get("/").await.unwrap_err();
    assert_eq!(net.metrics.transport.refused_for("reset_budget"), 1);
    assert_eq!(two.get("/").await.unwrap().1, "done", "what it has open goes on until it cancels again");
    assert_eq!(other.get("/").await.unwrap().1, "done", "others are not held to account");
    tokio::time::sleep(2 * S).await;
    assert_eq!(net.connect(HttpVersion::Http2).await.get("/").await.unwrap().1, "done");
}

#[tokio::test(start_paused = true)]
async fn who_finishes_as_many_requests_as_it_cancels_is_never_cut() {
    let (gate, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let net = Net::start(|config| config.max_resets_per_second = 1, gated(&gate, &entered));
    let mut client = net.connect(HttpVersion::Http2).await;
    for _ in 0..200 {
        assert_eq!(client.get("/").await.unwrap().1, "done");
        assert!(cancel(&mut client, &entered).await);
    }
}

impl Net {
    /// Puts a configuration in force whose listener is this one.
    fn reload(&self, edit: impl FnOnce(&mut ListenerConfig)) {
        let now = revision("");
        let mut config = (*now.config).clone();
        let mut listener = ListenerConfig::new(([10, 0, 0, 1], 8443).into());
        edit(&mut listener);
        config.listeners.insert("default".to_owned(), listener);
        self.policy.publish(Revision { config: Arc::new(config), ..now });
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_makes_places_more_and_fewer() {
    let places = |max: usize| {
        move |config: &mut ListenerConfig| {
            config.max_connections = max;
            config.max_connections_per_ip = Some(max);
            config.max_connections_per_peer = Some(max);
        }
    };
    let net = Net::start(places(1), hello);
    let mut first = net.connect(HttpVersion::Http2).await;
    first.get("/").await.unwrap();
    let mut second = std::pin::pin!(net.connect(HttpVersion::Http2));
    assert!(tokio::time::timeout(5 * S, second.as_mut()).await.is_err(), "a second one was accepted");
    net.reload(places(2));
    let start = Instant::now();
    let mut second = second.await;
    assert_eq!(second.get("/").await.unwrap().1, "hello");
    assert!(start.elapsed() < S, "{:?}", start.elapsed());
    // Fewer: both stay, and one that ends leaves no place.
    net.reload(places(1));
    tokio::time::sleep(S).await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.get("/").await.unwrap().1, "hello", "put out");
    }
    drop(first);
    until("the first has ended", || net.metrics.transport.connections() == 1).await;
    let mut third = std::pin::pin!(net.connect(HttpVersion::Http2));
    assert!(tokio::time::timeout(5 * S, third.as_mut()).await.is_err(), "beyond the fewer places");
    drop(second);
    assert_eq!(third.await.get("/").await.unwrap().1, "hello");
}

#[tokio::test(start_paused = true)]
async fn a_reload_holds_for_all_kinds_of_places() {
    let net = Net::start(|_| {}, hello);
    let mut config = ListenerConfig::new(client_address());
    let shared = Shared::new(net.ground(), Arc::from("default"), &config, client_address());
    for (connections, handshakes) in [(7, 3), (2, 1), (9, 5)] {
        (config.max_connections, config.max_handshakes) = (connections, handshakes);
        shared.resize(&config);
        for (seats, places) in [
            (&shared.connections, connections),
            (&shared.plaintext, connections.div_ceil(2)),
            (&shared.handshakes, handshakes),
        ] {
            let taken: Vec<_> = std::iter::from_fn(|| seats.try_take()).collect();
            assert_eq!(taken.len(), places);
        }
    }
}
