//! What may be fetched, from where, and how much. (security.md 2, row 16)

use std::sync::Mutex;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server that answers each connection with these bytes, over TLS if it has a certificate; what it was asked for.
struct Server {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(answer: impl Into<Vec<u8>>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, answer, heads) = (listener.local_addr().unwrap(), answer.into(), Arc::<Mutex<Vec<_>>>::default());
        let (mut tasks, seen) = (JoinSet::new(), Arc::clone(&heads));
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, seen, tls) = (answer.clone(), Arc::clone(&seen), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => speak(stream, &answer, &seen).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                speak(stream, &answer, &seen).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, heads, _tasks: tasks }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://idp.example:{}/keys?a=b", self.address.port())
    }
}

async fn speak(mut io: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8], seen: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if io.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    seen.lock().unwrap().push(String::from_utf8(head).unwrap());
    let _ = io.write_all(answer).await;
    // An answer without an end leaves the client waiting.
    if answer.is_empty() {
        std::future::pending::<()>().await;
    }
    let _ = io.shutdown().await;
}

/// Every name leads to these addresses; a second question has another answer.
#[derive(Debug)]
struct Rebinding(Mutex<Vec<Vec<SocketAddr>>>);

impl Names for Rebinding {
    fn resolve(&self, _: &str, port: u16) -> Resolving {
        let mut answers = self.0.lock().unwrap();
        let mut answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        answer.iter_mut().for_each(|address| address.set_port(port));
        Box::pin(async move { Ok(answer) })
    }
}

fn leading_to(answers: &[&[&str]]) -> HttpFetch {
    let address = |text: &&str| SocketAddr::new(text.parse().unwrap(), 0);
    let answers = answers.iter().map(|answer| answer.iter().map(address).collect()).collect();
    HttpFetch { names: Arc::new(Rebinding(Mutex::new(answers))), ..HttpFetch::new() }
}

fn over_http(url: &str) -> FetchRequest {
    let mut request = FetchRequest::new(url);
    request.allow_http_to_loopback = true;
    request
}

fn ok(extra: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{extra}\r\n{body}", body.len())
}

#[tokio::test]
async fn row_16_a_document_is_fetched_with_a_plain_request() {
    let server = Server::start(ok("cache-control: public\r\ncache-control: max-age=7\r\n", "{}"), None).await;
    let got = leading_to(&[&["127.0.0.1"]]).get(over_http(&server.url("http"))).await.unwrap();
    assert_eq!((got.status, &*got.body, got.max_age()), (200, &b"{}"[..], Some(Duration::from_secs(7))));
    let head = server.heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.starts_with("get /keys?a=b http/1.1\r\n"), "{head}");
    for absent in ["cookie", "accept-encoding", "authorization"] {
        assert!(!head.contains(absent), "{head}");
    }
}

#[tokio::test]
async fn row_16_what_is_not_a_plain_bounded_document_is_refused() {
    let long = "x".repeat(2000);
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{long}");
    for (answer, why) in [
        ("HTTP/1.1 302 Found\r\nlocation: https://other.example/\r\ncontent-length: 0\r\n\r\n".to_owned(), "redirects"),
        ("HTTP/1.1 307 Temporary\r\nlocation: /keys\r\ncontent-length: 0\r\n\r\n".to_owned(), "redirects"),
        (ok("content-encoding: gzip\r\n", "{}"), "encoded"),
        (ok("", &long), "longer than 1000 bytes"),
        (endless, "longer than 1000 bytes"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_owned(), "broke off"),
        (format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(100_000)), ""),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), "the exchange failed"),
        (String::new(), "nothing came within"),
    ] {
        let server = Server::start(answer.clone(), None).await;
        let mut request = over_http(&server.url("http"));
        request.max_bytes = 1000;
        request.timeout = if answer.is_empty() { Duration::from_millis(200) } else { Duration::from_secs(10) };
        let error = leading_to(&[&["127.0.0.1"]]).get(request).await.unwrap_err();
        assert!(error.0.contains(why), "{error}");
        assert!(!error.0.contains("xxx"), "content is not told: {error}");
    }
}

#[tokio::test]
async fn row_16_addresses_out_of_reach_are_not_asked() {
    let server = Server::start(ok("", "{}"), None).await;
    let (http, https) = (server.url("http"), server.url("https"));
    let open = |url: &str| {
        let mut request = over_http(url);
        request.allow_private = true;
        request
    };
    for (addresses, request, why) in [
        (&["127.0.0.1"][..], FetchRequest::new(&*http), "expected `https://`"),
        (&["127.0.0.1"], FetchRequest::new(&*https), "`allow_private` is not set"),
        (&["::ffff:127.0.0.1"], FetchRequest::new(&*https), "`allow_private` is not set"),
        (&["10.0.0.1"], FetchRequest::new(&*https), "`allow_private` is not set"),
        (&["10.0.0.1"], over_http(&https), "`allow_private` is not set"),
        (&["10.0.0.1"], open(&http), "only loopback is asked without TLS"),
        (&["93.184.216.34"], open(&http), "only loopback is asked without TLS"),
        (&["169.254.169.254"], open(&https), "metadata"),
        (&["169.254.169.254"], open(&http), "only loopback"),
        (&["fe80::1"], open(&https), "link-local"),
        (&["0.0.0.0"], open(&https), "no host"),
        (&["224.0.0.1"], open(&https), "no host"),
        // One bad address among good ones: which is tried would be chance.
        (&["127.0.0.1", "169.254.169.254"], open(&https), "metadata"),
        (&[], open(&https), "no address"),
    ] {
        let error = leading_to(&[addresses]).get(request).await.unwrap_err();
        assert!(error.0.contains(why), "{addresses:?}: {error}");
    }
    for url in ["https://user:pw@idp.example/", "ftp://idp.example/", "/keys", "https://", "file:///etc/passwd"] {
        assert!(leading_to(&[&["127.0.0.1"]]).get(open(url)).await.is_err(), "{url}");
    }
    assert!(server.heads.lock().unwrap().is_empty());
    // Written as an address, without a name.
    let error = HttpFetch::new().get(open("https://169.254.169.254/latest/meta-data")).await.unwrap_err();
    assert!(error.0.contains("metadata"), "{error}");
    let error = HttpFetch::new().get(open("https://[::ffff:169.254.169.254]/")).await.unwrap_err();
    assert!(error.0.contains("metadata"), "{error}");
}

#[tokio::test]
async fn row_16_a_name_is_resolved_once_and_the_connection_goes_to_what_was_judged() {
    let server = Server::start(ok("", "{}"), None).await;
    let fetch = leading_to(&[&["127.0.0.1"], &["169.254.169.254"]]);
    assert!(fetch.get(over_http(&server.url("http"))).await.is_ok(), "connected to the second answer");
    // Control: the second answer is what the next fetch gets.
    assert!(fetch.get(over_http(&server.url("http"))).await.is_err());
}

#[tokio::test]
async fn row_16_the_servers_certificate_must_be_of_its_name_and_of_an_authority() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["idp.example".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    let server = Server::start(ok("", "{}"), Some(TlsAcceptor::from(Arc::new(config)))).await;
    let dir = tempfile::tempdir().unwrap();
    let (good, empty) = (dir.path().join("ca.pem"), dir.path().join("empty.pem"));
    std::fs::write(&good, cert.pem()).unwrap();
    std::fs::write(&empty, "").unwrap();
    let other = format!("https://other.example:{}/", server.address.port());
    for (url, ca, expected) in [
        (server.url("https"), Some(&good), Ok(())),
        (server.url("https"), None, Err("the TLS handshake failed")),
        (other, Some(&good), Err("the TLS handshake failed")),
        (server.url("https"), Some(&empty), Err("no certificate in it")),
        (server.url("https"), Some(&dir.path().join("missing")), Err("missing")),
    ] {
        let mut request = FetchRequest::new(&*url);
        (request.ca, request.allow_private) = (ca.cloned(), true);
        match (leading_to(&[&["127.0.0.1"]]).get(request).await, expected) {
            (Ok(got), Ok(())) => assert_eq!(&*got.body, b"{}"),
            (Err(error), Err(why)) => assert!(error.0.contains(why), "{error}"),
            (got, _) => panic!("{url}, {ca:?}: {got:?}"),
        }
    }
}
