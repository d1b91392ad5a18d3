//! Permissive listeners: plaintext beside TLS, for a time.

use super::*;

/// Takes plaintext until this many seconds after the start.
fn permissive(seconds: u64) -> impl FnOnce(&mut ListenerConfig) {
    move |config| config.mtls = Mtls::Permissive { until: UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds) }
}

/// Says whom it sees.
async fn who(request: Request<Body>) -> Response<Body> {
    let connection = request.extensions().get::<Arc<Connection>>().unwrap();
    assert_eq!(connection.http(), request.version());
    assert_eq!(connection.chain().is_empty(), connection.peer().svid.is_none());
    let id = connection.peer().svid.as_ref().map(|svid| svid.id.to_string());
    Response::new(Body::from(id.unwrap_or_else(|| "anonymous".to_owned())))
}

impl Net {
    async fn plain(&self, http: HttpVersion) -> Client {
        Client::over(self.pipe().await, http).await
    }

    /// What a client in plaintext is answered: nothing.
    async fn plain_is_refused(&self, reason: &'static str) {
        let mut pipe = self.pipe().await;
        pipe.write_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = pipe.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "answered in plaintext");
        until(reason, || self.metrics.transport.handshakes(reason) == 1).await;
    }
}

const VERSIONS: [HttpVersion; 2] = [HttpVersion::Http1, HttpVersion::Http2];

#[tokio::test(start_paused = true)]
async fn plaintext_is_anonymous_and_tls_is_judged_as_ever() {
    let net = Net::start(permissive(3600), who);
    for http in VERSIONS {
        let mut client = net.plain(http).await;
        for _ in 0..2 {
            assert_eq!(client.get("/").await.unwrap(), (StatusCode::OK, "anonymous".to_owned()), "{http:?}");
        }
        assert_eq!(net.connect(http).await.get("/").await.unwrap().1, WEB, "{http:?}");
    }
    // Whoever begins with TLS and proves nothing is not let in as anonymous.
    let other = Ca::new("other", &net.clock);
    let bundles = || net.ca.issue(WEB, DAY).bundles;
    for (svids, reason) in [(other.issue(WEB, DAY).svids, "unknown_issuer"), (Vec::new(), "no_certificate")] {
        let identity = Snapshot::new(Identity { svids, bundles: bundles() });
        let mut stream = net.tls(&identity, &[ORDERS], HttpVersion::Http2).await.unwrap();
        stream.read_u8().await.unwrap_err();
        until(reason, || net.metrics.transport.handshakes(reason) == 1).await;
    }
    let transport = &net.metrics.transport;
    assert_eq!((transport.accepted_with("default", "plaintext"), transport.accepted_with("default", "tls13")), (2, 2));
    assert_eq!(transport.handshakes("ok"), 2);
    let text = net.metrics.encode();
    let left = text
        .lines()
        .find_map(|line| line.strip_prefix("mesh_server_permissive_remaining_seconds{listener=\"default\"} "));
    let left: f64 = left.unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    assert!((3_500.0..=3_600.0).contains(&left), "{left}");
}

#[tokio::test(start_paused = true)]
async fn plaintext_has_the_limits_of_every_connection() {
    let net = Net::start(permissive(3600), who);
    // Nothing, and half of a preface: the time of a ClientHello. Half of a head: the time of a head.
    for (sent, reason, secs) in
        [(&b""[..], "hello_timeout", 3), (b"PRI * HT", "hello_timeout", 3), (b"GET / HT", "header_timeout", 10)]
    {
        let counted = || match reason {
            "hello_timeout" => net.metrics.transport.handshakes(reason),
            _ => net.metrics.transport.closed_for(reason),
        };
        let (start, before) = (Instant::now(), counted());
        let mut pipe = net.pipe().await;
        pipe.write_all(sent).await.unwrap();
        assert_eq!(pipe.read(&mut [0; 64]).await.unwrap_or(0), 0);
        assert_eq!(start.elapsed().as_secs(), secs, "{reason}");
        until(reason, || counted() == before + 1).await;
    }
    for http in VERSIONS {
        let mut client = net.plain(http).await;
        client.get("/").await.unwrap();
        let start = Instant::now();
        client.ended.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 300, "{http:?}: idle");
    }
}

#[tokio::test(start_paused = true)]
async fn the_nameless_cannot_take_the_places_of_the_named() {
    let net = Net::start(
        |config| {
            permissive(3600)(config);
            config.max_connections = 4;
            config.max_connections_per_ip = Some(4);
        },
        who,
    );
    let mut nameless = Vec::new();
    for http in VERSIONS {
        let mut client = net.plain(http).await;
        client.get("/").await.unwrap();
        nameless.push(client);
    }
    let mut refused = net.pipe().await;
    refused.write_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n").await.unwrap();
    assert_eq!(refused.read(&mut [0; 64]).await.unwrap_or(0), 0, "answered");
    until("refused", || net.metrics.transport.refused_for("plaintext_limit") == 1).await;
    let start = Instant::now();
    let mut named = [net.connect(HttpVersion::Http1).await, net.connect(HttpVersion::Http2).await];
    for client in &mut named {
        assert_eq!(client.get("/").await.unwrap().1, WEB);
    }
    assert!(start.elapsed() < S, "kept out for {:?}", start.elapsed());
    drop((nameless, named));
    until("places are given back", || net.metrics.transport.connections() == 0).await;
    assert_eq!(net.plain(HttpVersion::Http2).await.get("/").await.unwrap().1, "anonymous");
}

#[tokio::test(start_paused = true)]
async fn when_its_time_is_over_a_listener_is_strict() {
    let net = Net::start(permissive(60), who);
    let start = Instant::now();
    let mut plain = Vec::new();
    for http in VERSIONS {
        let mut client = net.plain(http).await;
        client.get("/").await.unwrap();
        plain.push(client);
    }
    let mut tls = net.connect(HttpVersion::Http2).await;
    assert_eq!(tls.get("/").await.unwrap().1, WEB);
    for client in plain {
        client.ended.await.unwrap();
        assert!((60.0..61.5).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    }
    until("both are counted", || net.metrics.transport.closed_for("permissive_ended") == 2).await;
    net.plain_is_refused("permissive_ended").await;
    assert_eq!(tls.get("/").await.unwrap().1, WEB, "an open TLS connection goes on");
    assert_eq!(net.connect(HttpVersion::Http1).await.get("/").await.unwrap().1, WEB);
    assert!(net.metrics.encode().contains("permissive_remaining_seconds{listener=\"default\"} 0.0"));
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_says_strict_drains_plaintext() {
    let (gate, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let net = Net::start(permissive(3600), gated(&gate, &entered));
    let mut idle = net.plain(HttpVersion::Http2).await;
    idle.get("/").await.unwrap();
    let mut busy = net.plain(HttpVersion::Http1).await;
    let request = tokio::spawn(async move { busy.get("/slow").await.unwrap().1 });
    let mut tls = net.connect(HttpVersion::Http2).await;
    entered.notified().await;

    let start = Instant::now();
    let strict = revision("");
    let mut config = (*strict.config).clone();
    config.listeners.insert("default".to_owned(), ListenerConfig::new(([10, 0, 0, 1], 8443).into()));
    net.policy.publish(Revision { config: Arc::new(config), ..strict });
    idle.ended.await.unwrap();
    assert!(start.elapsed() < 5 * S, "{:?}", start.elapsed());
    net.plain_is_refused("not_tls").await;
    gate.notify_one();
    assert_eq!(request.await.unwrap(), "done", "a request in flight finishes");
    assert_eq!(tls.get("/").await.unwrap().1, "done", "TLS goes on");
}
