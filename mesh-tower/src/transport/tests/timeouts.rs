//! Clients that are silent, slow or idle.

use super::*;

#[tokio::test(start_paused = true)]
async fn silent_clients_time_out_and_hold_no_handshake_slot() {
    let net = Net::start(|config| config.max_handshakes = 1, hello);
    let start = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(net.pipe().await);
    }
    assert_eq!(net.connect(HttpVersion::Http2).await.get("/").await.unwrap().1, "hello");
    assert!(start.elapsed() < S, "waited for the silent ones: {:?}", start.elapsed());
    for mut pipe in silent {
        assert_eq!(pipe.read(&mut [0]).await.unwrap(), 0);
    }
    assert_eq!(start.elapsed().as_secs(), 3);
    until("all are counted", || net.metrics.transport.handshakes("hello_timeout") == 8).await;
}

#[tokio::test(start_paused = true)]
async fn clients_that_fall_silent_in_the_handshake_do_not_keep_others_out() {
    let net = Net::start(|config| config.max_handshakes = 1, hello);
    let start = Instant::now();
    // A ClientHello as any client sends it, and then nothing.
    let (mut theirs, ours) = tokio::io::duplex(64 * 1024);
    let tls = for_test::client(&net.web, &net.clock, &[ORDERS], HttpVersion::Http2);
    let dialing = tokio::spawn(async move { tls.handshake(ours, client_address()).await.is_ok() });
    let mut client_hello = vec![0; 64 * 1024];
    let length = theirs.read(&mut client_hello).await.unwrap();
    dialing.abort();
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut pipe = net.pipe().await;
        pipe.write_all(&client_hello[..length]).await.unwrap();
        let answer = tokio::time::timeout(5 * S, pipe.read(&mut [0; 64])).await;
        assert!(answer.is_ok_and(|read| read.unwrap() > 0), "kept out by {} silent clients", silent.len());
        silent.push(pipe);
    }
    assert_eq!(net.connect(HttpVersion::Http2).await.get("/").await.unwrap().1, "hello");
    assert!(start.elapsed() < 9 * S, "waited for the silent ones: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_for_nothing_or_too_slowly_is_closed() {
    let net = Net::start(|_| {}, hello);
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let start = Instant::now();
        let mut stream = net.tls(&net.web, &[ORDERS], http).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap_err(); // cut: no close_notify
        assert_eq!(start.elapsed().as_secs(), 10, "{http:?}");
    }
    // A head that drips: the second request of a kept-alive connection.
    let mut stream = net.tls(&net.web, &[ORDERS], HttpVersion::Http1).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
    tokio::time::sleep(60 * S).await; // idle, and allowed to
    let start = Instant::now();
    let cut = loop {
        if stream.write_all(b"G").await.is_err() || stream.flush().await.is_err() {
            break start.elapsed();
        }
        tokio::time::sleep(S).await;
    };
    assert!((10 * S..13 * S).contains(&cut), "{cut:?}");
    until("all are counted", || net.metrics.transport.closed_for("header_timeout") == 3).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_asked_to_go() {
    let net = Net::start(|_| {}, hello);
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let mut client = net.connect(http).await;
        client.get("/").await.unwrap();
        let start = Instant::now();
        client.ended.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 300, "{http:?}");
    }
    assert_eq!(net.metrics.transport.closed_for("idle"), 2);
}
