//! Callers that leave many streams of a connection which others use too.

use std::sync::atomic::AtomicBool;

use mesh_core::telemetry::CloseReason;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::Notify;

use super::*;

const CANCELLED: usize = 5_000;
/// What comes of a stream after it was cancelled, as of a server that learns late of it.
const LATE: usize = 3;

// Types and flags of frames. (RFC 9113 6)
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Dials servers that answer with a head and no end, hear of a reset, and then send more. The first stream of all is
/// answered when that is let go.
#[derive(Clone, Default)]
struct Late {
    dialed: Arc<AtomicUsize>,
    /// New connections are closed after their handshake.
    shut: Arc<AtomicBool>,
    go: Arc<Notify>,
}

impl Late {
    fn rig(&self) -> Rig {
        let mut rig = Rig::new(&Net::default(), &[], None);
        let config = ClusterConfig::new(PlugConfig::new("static", &serde_json::json!([])), Vec::new());
        rig.cluster = Arc::new(RuntimeCluster::for_test("shop", &config, Box::new(self.clone())));
        rig.cluster.cluster.update(vec![Address::new(SocketAddr::from(([10, 0, 0, 1], 80)))], Instant::now());
        rig
    }

    async fn serve(self, nth: usize, io: DuplexStream) -> std::io::Result<()> {
        let (read, mut write) = tokio::io::split(io);
        let mut read = BufReader::new(read);
        read.read_exact(&mut [0; 24]).await?;
        if self.shut.load(SeqCst) {
            return Ok(());
        }
        write.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        let mut held = None;
        loop {
            tokio::select! {
                more = read.fill_buf() => { more?; },
                () = self.go.notified(), if held.is_some() => {
                    write.write_all(&frame(HEADERS, END_HEADERS, held.take().unwrap(), &[0x88])).await?;
                    write.write_all(&frame(DATA, END_STREAM, 1, b"ok")).await?;
                    continue;
                }
            }
            let mut head = [0; 9];
            read.read_exact(&mut head).await?;
            let [_, high, low, kind, flags, id @ ..] = head;
            let (id, mut payload) = (u32::from_be_bytes(id), vec![0; usize::from(u16::from_be_bytes([high, low]))]);
            read.read_exact(&mut payload).await?;
            let answer = match kind {
                HEADERS if nth == 0 && id == 1 => {
                    held = Some(id);
                    continue;
                }
                // `:status: 200`
                HEADERS => frame(HEADERS, END_HEADERS, id, &[0x88]),
                RST_STREAM => frame(DATA, 0, id, &[0; 256]).repeat(LATE),
                SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(PING, ACK, 0, &payload),
                _ => continue,
            };
            write.write_all(&answer).await?;
        }
    }
}

/// A frame of HTTP/2. (RFC 9113 4.1)
fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}

impl Dial for Late {
    fn dial<'a>(&'a self, _: SocketAddr, _: &'a Dialing) -> DialFuture<'a> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let nth = self.dialed.fetch_add(1, SeqCst);
            tokio::spawn(self.clone().serve(nth, far));
            Ok(Dialed { io: Box::new(near), http2: true, peer: None, retire_at: None })
        })
    }
}

/// A request that waits for its answer, on the first connection.
async fn stay(rig: &Rig) -> tokio::task::JoinHandle<Bytes> {
    let stays = rig.clone();
    let stays = tokio::spawn(async move { text(stays.send(post("charge")).await.unwrap()).await });
    rig.until(|rig| rig.in_flight() == 1).await;
    stays
}

async fn cancel(rig: &Rig, requests: usize) {
    for n in 0..requests {
        let response = rig.send(post("charge")).await;
        assert_eq!(response.unwrap_or_else(|error| panic!("{n}: {error:?}")).status(), 200);
    }
}

fn replaced(rig: &Rig) -> u64 {
    rig.cluster.cluster.metrics().connections_closed.count(CloseReason::Cancellations)
}

#[tokio::test]
async fn whoever_stays_loses_nothing_by_those_who_leave() {
    let late = Late::default();
    let rig = late.rig();
    let stays = stay(&rig).await;
    cancel(&rig, CANCELLED).await;
    assert!(late.dialed.load(SeqCst) >= 5, "{}", late.dialed.load(SeqCst));
    late.go.notify_one();
    assert_eq!(stays.await.unwrap(), "ok");
    rig.until(|rig| replaced(rig) + 1 == late.dialed.load(SeqCst) as u64).await;
    assert_eq!(rig.cluster.cluster.endpoints()[0].transport().connections(), 1);
}

#[tokio::test]
async fn a_connection_is_kept_while_its_successors_are_refused() {
    let late = Late::default();
    let rig = late.rig();
    let stays = stay(&rig).await;
    late.shut.store(true, SeqCst);
    cancel(&rig, 600).await;
    rig.until(|_| late.dialed.load(SeqCst) > 1).await;
    cancel(&rig, 100).await;
    assert_eq!(replaced(&rig), 0);
    late.shut.store(false, SeqCst);
    late.go.notify_one();
    assert_eq!(stays.await.unwrap(), "ok");
    rig.until(|rig| replaced(rig) == 1).await;
    cancel(&rig, 1).await;
}
