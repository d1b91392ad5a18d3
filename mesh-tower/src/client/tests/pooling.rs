//! Streams, queues and the lives of connections.

use super::*;

#[tokio::test(start_paused = true)]
async fn more_connections_are_opened_when_streams_run_out_and_then_callers_queue() {
    let net = Net::default();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let open = Arc::clone(&gate);
    let host = net.slow_host(1, move |_| {
        let gate = Arc::clone(&open);
        async move {
            gate.acquire().await.unwrap().forget();
            answer(200, "ok")
        }
    });
    net.edit(host, |host| host.streams = 2);
    let rig = Rig::with(&net, &[host], None, |config| {
        config.pool.max_connections = 3;
        config.pool.max_pending = 4;
    });
    // The peer's limit is known from the first answer on.
    gate.add_permits(1);
    text(rig.get().await.unwrap()).await;

    let calls: Vec<_> = (0..10)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move { Ok::<_, Error>(text(rig.get().await?).await) })
        })
        .collect();
    rig.until(|rig| rig.in_flight() == 10 && rig.net.dialed(host) == 3).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..20 {
        let error = rig.send(get()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded, "3 x 2 streams, 4 pending: {error}");
    }
    assert_eq!(rig.net.dialed(host), 3);
    // The queue is this side's: the endpoint is neither slow nor broken for it.
    let report = rig.cluster.cluster.report(Instant::now()).remove(0);
    assert!(report.latency < Duration::from_secs(1) && report.ejections == 0, "{report:?}");

    gate.add_permits(10);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), "ok");
    }
    assert_eq!(rig.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_longest_is_served_next() {
    let net = Net::default();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let host = net.host(1, move |_| {
        count.fetch_add(1, SeqCst);
        answer(200, "ok")
    });
    net.edit(host, |host| host.streams = 1);
    let rig = Rig::with(&net, &[host], None, |config| config.pool.max_connections = 1);
    text(rig.get().await.unwrap()).await;
    // Each asks for the only stream in the moment it gives it back: without a queue, one of them has it all the time.
    let greedy = || {
        let rig = rig.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                text(rig.get().await.unwrap()).await;
            }
        })
    };
    let others = [greedy(), greedy()];
    for _ in 0..10 {
        tokio::task::yield_now().await;
        let before = served.load(SeqCst);
        text(rig.get().await.unwrap()).await;
        let between = served.load(SeqCst) - before;
        assert!(between <= 4, "{between} were served before one that waited");
    }
    for other in others {
        other.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn streams_wait_until_the_peer_has_said_how_many_it_allows() {
    let net = Net::default();
    let host = net.slow_host(1, |_| async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        answer(200, "ok")
    });
    net.edit(host, |host| host.streams = 16);
    let rig = Rig::with(&net, &[host], None, |config| config.pool.max_connections = 2);
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move { attempts(&rig.get().await.unwrap()) })
        })
        .collect();
    for call in calls {
        let attempts = call.await.unwrap();
        assert!(!attempts.contains(','), "refused first: {attempts}");
    }
    assert_eq!(
        net.dialed(host),
        2,
        "40 are too many for one connection, not for 16 streams of two, one after the other"
    );
}

#[tokio::test(start_paused = true)]
async fn http1_connections_are_reused_and_idle_ones_are_closed() {
    let net = Net::default();
    let host = net.host(1, ok);
    net.edit(host, |host| host.http2 = false);
    let rig = Rig::new(&net, &[host], None);
    for _ in 0..20 {
        text(rig.get().await.unwrap()).await;
    }
    assert_eq!(net.dialed(host), 1);
    let endpoints = rig.cluster.cluster.endpoints();
    assert_eq!(endpoints[0].transport().connections(), 1);
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(endpoints[0].transport().connections(), 0, "unused for twice the idle timeout");
    assert_eq!(rig.cluster.cluster.metrics().connections.get(), 0);
    assert!(endpoints[0].available(Instant::now()), "idle is not unreachable");
    assert_eq!(net.dialed(host), 1, "nobody asked for another");
}

/// Dials a TLS server that demands a certificate which this side does not have.
struct RefusesUs(tokio_rustls::TlsAcceptor, tokio_rustls::TlsConnector);

impl RefusesUs {
    fn new() -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own = rcgen::generate_simple_self_signed(["shop".to_owned()]).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own.cert.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let callers =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(callers.build().unwrap())
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(Arc::new(server).into(), Arc::new(client).into())
    }
}

impl Dial for RefusesUs {
    fn dial<'a>(&'a self, _: SocketAddr, _: &'a Dialing) -> DialFuture<'a> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(self.0.accept(far));
            let io = self.1.connect("shop".try_into().unwrap(), near).await.expect("TLS 1.3 tells it only later");
            Ok(Dialed { io: Box::new(io), http2: true, peer: None, retire_at: None })
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_our_certificate_is_named_as_the_reason() {
    let host = SocketAddr::from(([10, 0, 0, 1], 80));
    let mut rig = Rig::new(&Net::default(), &[], None);
    let config = ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new());
    rig.cluster = Arc::new(RuntimeCluster::for_test("shop", &config, Box::new(RefusesUs::new())));
    rig.cluster.cluster.update(vec![Address::new(host)], Instant::now());
    for _ in 0..5 {
        let error = rig.send(post("charge")).await.unwrap_err();
        assert_eq!((error.kind(), error.is_never_sent()), (ErrorKind::PeerIdentity, true), "{error}");
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
    }
    assert!(!rig.cluster.cluster.endpoints()[0].available(Instant::now()));
    assert_eq!(rig.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_grows_old_is_replaced_without_failing_a_request() {
    /// Connections that retire after a minute.
    struct Aging(Net);
    impl Dial for Aging {
        fn dial<'a>(&'a self, address: SocketAddr, dialing: &'a Dialing) -> DialFuture<'a> {
            Box::pin(async move {
                let dialed = self.0.dial(address, dialing).await?;
                Ok(Dialed { retire_at: Some(Instant::now() + Duration::from_secs(60)), ..dialed })
            })
        }
    }
    let net = Net::default();
    let slow = |_| async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        answer(200, "ok")
    };
    let host = net.slow_host(1, slow);
    let mut rig = Rig::new(&net, &[], None);
    let config = ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new());
    rig.cluster = Arc::new(RuntimeCluster::for_test("shop", &config, Box::new(Aging(net.clone()))));
    rig.cluster.cluster.update(vec![Address::new(host)], Instant::now());
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(300) {
        let (one, two) = tokio::join!(rig.get(), async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            rig.get().await
        });
        assert_eq!((one.unwrap().status(), two.unwrap().status()), (StatusCode::OK, StatusCode::OK));
    }
    assert_eq!(net.dialed(host), 6, "the first, and one a minute");
    assert_eq!(rig.cluster.cluster.endpoints()[0].transport().connections(), 1);
}
