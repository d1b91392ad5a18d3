//! Endpoints and callers that mean harm: what they must not get out of a client.

use std::io;

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::*;

type Script = Arc<dyn Fn(DuplexStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Dials servers that do with their end of a pipe what a test wants.
#[derive(Clone)]
struct Raw {
    script: Script,
    http2: bool,
    ends: Option<AlertDescription>,
    dialed: Arc<AtomicUsize>,
}

impl Raw {
    fn rig<F>(
        http2: bool,
        ends: Option<AlertDescription>,
        script: impl Fn(DuplexStream) -> F + Send + Sync + 'static,
    ) -> (Rig, Self)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let script: Script = Arc::new(move |io| Box::pin(script(io)));
        let this = Self { script, http2, ends, dialed: Arc::default() };
        let mut rig = Rig::new(&Net::default(), &[], None);
        let config = ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new());
        rig.cluster = Arc::new(RuntimeCluster::for_test("shop", &config, Box::new(this.clone())));
        let hosts = (1..=2).map(|n| Address::new(SocketAddr::from(([10, 0, 0, n], 80)))).collect();
        rig.cluster.cluster.update(hosts, Instant::now());
        (rig, this)
    }
}

impl Dial for Raw {
    fn dial<'a>(&'a self, _: SocketAddr, _: &'a Dialing) -> DialFuture<'a> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            self.dialed.fetch_add(1, SeqCst);
            tokio::spawn((self.script)(far));
            let near = Alerted(near, self.ends);
            Ok(Dialed { io: Box::new(near), http2: self.http2, peer: None, retire_at: None })
        })
    }
}

/// A stream whose end is a TLS alert.
#[derive(Debug)]
struct Alerted(DuplexStream, Option<AlertDescription>);

impl AsyncRead for Alerted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match (Pin::new(&mut self.0).poll_read(cx, buf), self.1) {
            (Poll::Ready(Ok(())), Some(alert)) if buf.filled().len() == before => {
                Poll::Ready(Err(io::Error::other(rustls::Error::AlertReceived(alert))))
            }
            (read, _) => read,
        }
    }
}

impl AsyncWrite for Alerted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_without_end_or_pause_ends_with_the_deadline() {
    for http2 in [true, false] {
        let net = Net::default();
        let host = net.host(1, |_| {
            let chunks =
                futures_util::stream::repeat_with(|| Ok::<_, Error>(Frame::data(Bytes::from_static(&[7; 4096]))));
            Response::new(RequestBody::new(StreamBody::new(chunks)))
        });
        net.edit(host, |host| host.http2 = http2);
        let rig = Rig::new(&net, &[host], None);
        let mut request = get();
        request.extensions_mut().insert(CallTimeout(Duration::from_millis(200)));
        let started = Instant::now();
        let mut body = rig.send(request).await.unwrap().into_body();
        let error = loop {
            // A reader that is slower than its endpoint never finds the stream empty.
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(started.elapsed().as_millis() < 1_000, "http2 {http2}: read on after the deadline");
            if let Err(error) = body.frame().await.unwrap() {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!((200..210).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        rig.until(|rig| rig.in_flight() == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_length_that_the_body_does_not_have_is_never_promised() {
    let chunked = || {
        let frames = futures_util::stream::iter([Ok::<_, Error>(Frame::data(Bytes::from_static(b"hello")))]);
        RequestBody::new(StreamBody::new(frames))
    };
    let full = || RequestBody::new(Full::new(Bytes::from_static(b"hello")));
    let none = || RequestBody::new(Empty::<Bytes>::new());
    type Make<'a> = &'a dyn Fn() -> RequestBody;
    let table: [(Method, &[&str], Make<'_>, &str); 8] = [
        (Method::POST, &["5"], &full, "5"),
        (Method::POST, &["50"], &full, "5"),
        (Method::POST, &["1"], &full, "5"),
        (Method::POST, &["5", "50"], &full, "5"),
        (Method::POST, &["50"], &none, ""),
        (Method::GET, &["50"], &none, ""),
        (Method::POST, &["0"], &none, "0"),
        (Method::POST, &["5"], &chunked, "5"),
    ];
    for http2 in [true, false] {
        for (method, lengths, body, expected) in &table {
            let net = Net::default();
            let host = net.slow_host(1, |request| async move {
                let length = request.headers().get("content-length").cloned();
                let read = request.into_body().collect().await.map(|body| body.to_bytes().len());
                let said = format!("{} {read:?}", length.map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default());
                Response::new(RequestBody::new(Full::new(Bytes::from(said))))
            });
            net.edit(host, |host| host.http2 = http2);
            let rig = Rig::new(&net, &[host], None);
            let case = format!("http2 {http2}: {method} {lengths:?}");
            let mut request = request(method.clone()).body(body()).unwrap();
            for length in *lengths {
                request.headers_mut().append("content-length", length.parse().unwrap());
            }
            let response = rig.send(request).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            let said = String::from_utf8(text(response).await.to_vec()).unwrap();
            let (length, read) = said.split_once(' ').unwrap();
            let sent = if http_body::Body::is_end_stream(&body()) { 0 } else { 5 };
            assert_eq!(read, format!("Ok({sent})"), "{case}");
            // Of an empty body HTTP/2 may say so.
            assert!(length == *expected || (http2 && sent == 0 && length == "0"), "{case}: {length}");
        }
    }
}

/// The first bytes of the next request would be read as the body of this one.
#[tokio::test(start_paused = true)]
async fn requests_on_one_connection_do_not_run_into_each_other() {
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let (rig, raw) = Raw::rig(false, None, move |mut io| {
        let said = said.clone();
        async move {
            loop {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match io.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                said.send(String::from_utf8(head).unwrap()).unwrap();
                // A server that answers by the head, and reads the body afterwards.
                io.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
        }
    });
    rig.cluster.cluster.update(vec![Address::new(SocketAddr::from(([10, 0, 0, 1], 80)))], Instant::now());
    let mut forged = post("");
    forged.headers_mut().insert("content-length", "40".parse().unwrap());
    for request in [forged, get()] {
        let response = rig.send(request).await.unwrap();
        assert_eq!(response.status(), 404);
        drop(response);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(raw.dialed.load(SeqCst), 1, "one connection");
    let first = heard.recv().await.unwrap();
    assert!(!first.contains("content-length: 40"), "promised and not sent: {first}");
}

/// Only a refused certificate proves that nothing was read: whoever can damage a connection makes its server send others.
#[tokio::test(start_paused = true)]
async fn an_alert_proves_that_nothing_was_processed_only_if_it_refuses_our_certificate() {
    use AlertDescription as Alert;
    for (alert, refuses) in [
        (Alert::BadCertificate, true),
        (Alert::UnsupportedCertificate, true),
        (Alert::CertificateRevoked, true),
        (Alert::CertificateExpired, true),
        (Alert::CertificateUnknown, true),
        (Alert::UnknownCA, true),
        (Alert::AccessDenied, true),
        (Alert::CertificateRequired, true),
        (Alert::DecryptError, true),
        (Alert::HandshakeFailure, true),
        (Alert::BadRecordMac, false),
        (Alert::RecordOverflow, false),
        (Alert::UnexpectedMessage, false),
        (Alert::DecodeError, false),
        (Alert::InternalError, false),
        (Alert::UserCanceled, false),
    ] {
        let executed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&executed);
        let (rig, _) = Raw::rig(true, Some(alert), move |io| {
            let count = Arc::clone(&count);
            async move {
                let mut connection = h2::server::handshake(io).await.unwrap();
                let _request = connection.accept().await.unwrap().unwrap();
                count.fetch_add(1, SeqCst);
            }
        });
        let error = rig.send(post("charge")).await.unwrap_err();
        assert_eq!(error.is_never_sent(), refuses, "{alert:?}: {error}");
        if !refuses {
            assert_eq!(executed.load(SeqCst), 1, "{alert:?}: executed again");
            assert!(error.to_string().contains(&format!("{alert:?}")), "the reason is told: {error}");
        }
    }
}

/// A GOAWAY names this stream as one that may be processed.
#[tokio::test(start_paused = true)]
async fn what_a_goaway_does_not_give_back_is_not_sent_again() {
    for reason in [h2::Reason::NO_ERROR, h2::Reason::ENHANCE_YOUR_CALM, h2::Reason::REFUSED_STREAM] {
        let executed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&executed);
        let (rig, _) = Raw::rig(true, None, move |io| {
            let count = Arc::clone(&count);
            async move {
                let mut connection = h2::server::handshake(io).await.unwrap();
                let _request = connection.accept().await.unwrap().unwrap();
                count.fetch_add(1, SeqCst);
                connection.abrupt_shutdown(reason);
                let _ = connection.accept().await;
            }
        });
        let error = rig.send(post("charge")).await.unwrap_err();
        assert_eq!((error.is_never_sent(), executed.load(SeqCst)), (false, 1), "{reason:?}: {error}");
    }
}

fn hurried(ms: u64) -> RequestContext {
    let trace = TraceContext::parse(b"00-11111111111111111111111111111111-2222222222222222-01").unwrap();
    RequestContext::new(trace, Some(Until::after(Instant::now(), Duration::from_millis(ms))))
}

/// Whoever calls with deadlines that nobody can keep takes no endpoint from the others.
#[tokio::test(start_paused = true)]
async fn deadlines_of_callers_eject_nobody_who_is_well() {
    let mut seen = Vec::new();
    // Whether one of the endpoints, which take 12 ms, freezes; what callers give; how many go out.
    for (freezes, deadline, out) in [(false, 2, 0), (false, 11, 0), (true, 100, 1), (true, 2, 0)] {
        let (net, frozen_now) = (Net::default(), Arc::new(AtomicUsize::new(0)));
        let handler = |n: usize| {
            let frozen_now = Arc::clone(&frozen_now);
            move |request| {
                let is_frozen = frozen_now.load(SeqCst) == n;
                async move {
                    tokio::time::sleep(Duration::from_millis(12)).await;
                    if is_frozen { frozen(request).await } else { ok(request) }
                }
            }
        };
        let hosts: Vec<_> = (1..=6).map(|n| net.slow_host(n, handler(n.into()))).collect();
        let rig = Rig::new(&net, &hosts, None);
        for _ in 0..100 {
            text(rig.get().await.unwrap()).await;
        }
        frozen_now.store(usize::from(freezes), SeqCst);
        for _ in 0..100 {
            let called = hurried(deadline).scope(rig.get()).await;
            assert!(freezes || called.is_err_and(|error| error.kind() == ErrorKind::Timeout));
        }
        let report = rig.cluster.cluster.report(Instant::now());
        seen.push((report.iter().filter(|report| report.ejected_until.is_some()).count(), out));
    }
    assert!(seen.iter().all(|(ejected, out)| ejected == out), "{seen:?}");
}

/// A stream that its caller's deadline ends is no slow answer.
#[tokio::test(start_paused = true)]
async fn a_stream_to_its_deadline_takes_no_traffic_from_its_endpoint() {
    let (net, served) = (Net::default(), Arc::new(Mutex::new([0; 2])));
    let hosts: Vec<_> = (0..2)
        .map(|n| {
            let served = Arc::clone(&served);
            net.host(n, move |request| {
                served.lock().unwrap()[usize::from(n)] += 1;
                if request.method() == Method::GET {
                    return ok(request);
                }
                let first = futures_util::stream::iter([Ok::<_, Error>(Frame::data(Bytes::from_static(b"x")))]);
                let rest = futures_util::StreamExt::chain(first, futures_util::stream::pending());
                Response::new(RequestBody::new(StreamBody::new(rest)))
            })
        })
        .collect();
    let rig = Rig::new(&net, &hosts, None);
    for _ in 0..20 {
        text(rig.get().await.unwrap()).await;
    }
    let stream = async { rig.send(post("watch")).await.unwrap().into_body().collect().await.map(drop) };
    assert_eq!(hurried(2_000).scope(stream).await.unwrap_err().kind(), ErrorKind::Timeout);
    *served.lock().unwrap() = [0; 2];
    for _ in 0..40 {
        text(rig.get().await.unwrap()).await;
    }
    let served = *served.lock().unwrap();
    assert!(served.iter().all(|requests| *requests >= 8), "{served:?}");
}
