//! Istio's four path normalizations: what we make of a path is byte for byte what Envoy forwards, or both refuse it.

use std::net::SocketAddr;

use futures_util::StreamExt;
use mesh_core::policy::canonical::Canonicalization;
use mesh_core::rng::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::envoy_process::{Envoy, binary};
use crate::kit::{read_answer, soon};

/// Mode, `normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`. (Istio, `MeshConfig.pathNormalization`)
const MODES: [(Canonicalization, bool, bool, &str); 4] = [
    (Canonicalization::None, false, false, "KEEP_UNCHANGED"),
    (Canonicalization::Base, true, false, "KEEP_UNCHANGED"),
    (Canonicalization::MergeSlashes, true, true, "KEEP_UNCHANGED"),
    (Canonicalization::DecodeAndMergeSlashes, true, true, "UNESCAPE_AND_FORWARD"),
];

const TABLE: &str = r#"
/ /a /a/ /a/../admin /a/.. /a/. /./a /. /.. /../a /a/b/../../.. /a/%2e%2e/b /a/%2E./b /a/%2e/b /%2e%2e%2fadmin /..%2fadmin
/..%5cadmin /a%2fb /a%5Cb /a\b /a\..\b /\a //a /a//b /a///b// // /// /a//../b /a/..//b //../a /a%2f%2fb /a%2f..%2fb /%2f /%2f/
%2fa /a;x /..;/a /.;/a /a/..;x/b /;/a /a%00 /a%0a /a%7f /a% /a%2 /a%zz /a%+1b /%%300 /%%30%30 /%2%35 /%%2e /%252e /%25%32e
/%61dmin /%41 /%2d%5f%7e%2a%21 /caf%c3%a9 /%FF /%C0%AE%C0%AE/ /a"b /a<b> /a^b /a`b /a{b} /a|b /a[b] /a~b /a!$&'()*+,=:@b a * ../a
/a/.../b /... /.a /a.. /a./b /a/%2e%2e%2f /a/.%2f /a%2f%2e%2e/b /a%252fb /a%25%32%66b /%3fx /%23 /a%3b /a/%2e%2e;/b /a/..%3b/b
/a/..;x%2fy/b /a/..;x%5cy/b /a/..;x\b /a/..;%00/b /a/.;.;/b /a/;../b /%2%66 /%%32f /%%61b /%%61/ /%a%41 /%%%300%300 /%a/../41 /.%2e%
/a? /? /a/..?x /a?x=//../y /a//b?c//d /a%2fb?c%2fd /a\b?c\d /a/..;x?y /a?/..;/b
"#;

/// Answers every request with its target.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                    let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
                    let target = head.split(|byte| *byte == b' ').nth(1).unwrap();
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", target.len());
                    stream.write_all(&[answer.as_bytes(), target].concat()).await.unwrap();
                    head.drain(..end + 4);
                }
            });
        }
    });
    address
}

/// What Envoy forwards for `target`; `None` if it refuses.
async fn forwarded(envoy: SocketAddr, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(envoy).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = soon(target, read_answer(&mut stream)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    match head.split(' ').nth(1) {
        Some("200") => Some(body.to_owned()),
        Some("400") => None,
        _ => panic!("{target}: {answer}"),
    }
}

/// What we make of it: the query is nobody's business.
fn ours(mode: Canonicalization, target: &str) -> Option<String> {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    mode.path(path).ok().map(|read| format!("{}{query}", read.path))
}

fn generated(rng: &Rng) -> String {
    const PIECES: [&str; 36] = [
        "/", "/", "/", "/", "a", "b", ".", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5c", "\\", ";", ";x", "%", "%%",
        "%25", "%3", "0", "2", "e", "f", "%61", "%c3%a9", "//", "%30", "%32", "~", "%7e", "^", "|", "%zz", "/..;",
    ];
    (0..=rng.below(9)).fold("/".to_owned(), |path, _| path + PIECES[rng.below(PIECES.len())])
}

#[tokio::test]
async fn paths_become_what_envoy_makes_of_them() {
    let Some(binary) = binary() else { return };
    const SEED: u64 = 29;
    println!("seed {SEED}");
    let rng = Rng::seeded(SEED);
    let targets: Vec<String> =
        TABLE.split_ascii_whitespace().map(str::to_owned).chain((0..200).map(|_| generated(&rng))).collect();
    let port = echo().await.port();
    let mut changed = 0;
    for (mode, normalize, merge, slashes) in MODES {
        let words = [
            ("@NORMALIZE@", &normalize as &dyn std::fmt::Display),
            ("@MERGE@", &merge),
            ("@SLASHES@", &slashes),
            ("@ECHO@", &port),
        ];
        let envoy = Envoy::configured(&binary, tempfile::tempdir().unwrap(), "envoy-paths.yaml", &words).await;
        let answers = futures_util::stream::iter(&targets).map(|target| forwarded(envoy.address, target));
        let answers: Vec<_> = answers.buffered(16).collect().await;
        for (target, theirs) in targets.iter().zip(answers) {
            assert_eq!(ours(mode, target), theirs, "{target} in {mode}");
            changed += usize::from(theirs.as_ref() != Some(target));
        }
        // The fragment is the one difference in what a path is: Envoy refuses it, `http` cuts it off for everybody.
        for target in ["/a#b", "/a#", "/a?b#c"] {
            assert_eq!(forwarded(envoy.address, target).await, None, "{target}");
            let uri: http::Uri = target.parse().unwrap();
            assert_eq!(uri.to_string(), target.split('#').next().unwrap());
        }
    }
    // `none` changes nothing; had the options not held, the others would not either.
    assert!(changed > targets.len(), "{changed} of {}", targets.len());
}
