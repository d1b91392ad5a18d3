//! Bodies that stall or drip, responses that nobody takes, and those that only rest.

use bytes::Bytes;
use futures_util::stream;

use super::*;

/// Reads the body and answers what came of it.
async fn read_all(request: Request<Body>) -> Response<Body> {
    Response::new(Body::from(match request.into_body().collect().await {
        Ok(body) => body.to_bytes().len().to_string(),
        Err(error) => error.to_string(),
    }))
}

/// A body of `chunks`, each so long after the one before, that never ends by itself.
fn dripping(chunks: Vec<(Duration, &'static [u8])>) -> Body {
    let chunks = chunks.into_iter();
    Body::from_stream(stream::unfold(chunks, |mut chunks| async move {
        match chunks.next() {
            Some((after, chunk)) => {
                tokio::time::sleep(after).await;
                Some((Ok::<_, Infallible>(Bytes::from_static(chunk)), chunks))
            }
            None => pending().await,
        }
    }))
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_stalls_or_drips_is_given_up_and_a_resting_grpc_stream_is_not() {
    let net = Net::start(|_| {}, read_all);
    let (plain, grpc) = ("text/plain", "application/grpc");
    let kib = &[b'x'; 1024][..];
    let drip = || (0..1000).map(|_| (S, &b"x"[..])).collect::<Vec<_>>();
    let table = [
        ("a stall", plain, vec![(Duration::ZERO, &b"x"[..])], 20..21),
        ("a drip", plain, drip(), 20..22),
        ("slow but steady, then a stall", plain, (0..100).map(|_| (4 * S, kib)).collect(), 419..422),
        ("a message that stalls", grpc, vec![(300 * S, &b"\0\0\0\0\x09x"[..])], 319..322),
    ];
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        for (name, kind, chunks, given_up) in table.clone() {
            let start = Instant::now();
            let mut client = net.connect(http).await;
            let body = dripping(chunks);
            let request = Request::post("https://orders/").header("content-type", kind).header("host", "orders");
            let request = request.body(body).unwrap();
            let response = match &mut client.send {
                Sender::H1(send) => send.send_request(request).await,
                Sender::H2(send) => send.send_request(request).await,
            };
            let answer = response.unwrap().into_body().collect().await.unwrap().to_bytes();
            assert_eq!(answer, "the request body came too slowly", "{name} {http:?}");
            assert!(given_up.contains(&start.elapsed().as_secs()), "{name} {http:?}: {:?}", start.elapsed());
        }
    }
}

/// A client whose window for responses is one byte, and which reads only when told to.
pub(super) async fn narrow(net: &Net) -> hyper::client::conn::http2::SendRequest<Body> {
    let stream = net.tls(&net.web, &[ORDERS], HttpVersion::Http2).await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).initial_stream_window_size(1);
    let (send, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async { drop(connection.await) });
    send
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_window_stays_shut_is_reset_and_no_other() {
    let net = Net::start(
        |_| {},
        |request: Request<Body>| async move {
            let size = if request.uri().path() == "/large" { 100_000 } else { 1 };
            Response::new(Body::from(vec![b'x'; size]))
        },
    );
    let mut send = narrow(&net).await;
    let mut get = async |path: &str| {
        let request = Request::get(format!("https://orders{path}")).body(Body::empty()).unwrap();
        send.send_request(request).await.unwrap()
    };
    let start = Instant::now();
    let stalled = get("/large").await;
    tokio::time::sleep(59 * S).await;
    assert!(!net.metrics.encode().contains("send_timeout"), "too early");
    tokio::time::sleep(2 * S).await;
    let error = stalled.into_body().collect().await.unwrap_err();
    assert!(start.elapsed() < 62 * S, "{error}");
    assert!(net.metrics.encode().contains("rejected_total{reason=\"send_timeout\"} 1"), "{}", net.metrics.encode());
    assert_eq!(get("/").await.into_body().collect().await.unwrap().to_bytes(), "x", "the connection goes on");
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_takes_nothing_is_closed() {
    let net = Net::start(|_| {}, |_| async { Response::new(Body::from(vec![b'x'; 1_000_000])) });
    let mut stream = net.tls(&net.web, &[ORDERS], HttpVersion::Http1).await.unwrap();
    let start = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    until_within(70 * S, || net.metrics.transport.closed_for("send_timeout") == 1).await;
    assert!((59..62).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

async fn until_within(patience: Duration, condition: impl Fn() -> bool) {
    let give_up = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < give_up, "never");
        tokio::time::sleep(100 * Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_with_nothing_to_send_may_take_its_time() {
    let chunks = vec![(Duration::ZERO, &b"one"[..]), (600 * S, &b"two"[..])];
    let net = Net::start(
        |_| {},
        move |_| {
            let body = dripping(chunks.clone());
            async { Response::new(body) }
        },
    );
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let mut client = net.connect(http).await;
        let mut body = client.start("/", Body::empty()).await.unwrap().into_body();
        for expected in ["one", "two"] {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), expected, "{http:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_serves_on_for_its_delay() {
    let mut net = Net::start(|config| config.shutdown_delay = 5 * S, hello);
    let start = Instant::now();
    net.stop();
    tokio::time::sleep(4 * S).await;
    assert_eq!(net.connect(HttpVersion::Http2).await.get("/").await.unwrap().1, "hello", "new connections, too");
    net.stopped.await.unwrap().unwrap();
    assert_eq!(start.elapsed().as_secs(), 5);
}
