//! Routes whose handlers wait for their audit record, and what records say.

use std::io;
use std::sync::mpsc as blocking;

use mesh_core::audit::{AuditLine, AuditSink, AuditTrust, AuditVerifier, FileSink};
use serde_json::Value;

use super::*;

const REQUIRED: &str =
    "audit: { required_timeout: 200ms, routes: [{ match: { path: \"/charges/*\", method: POST }, mode: required }] }";

/// A mesh that lets `web` in and writes its records to `sink`.
async fn audited(more: &str, sink: Box<dyn AuditSink>) -> (Mesh, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "workload: {{ name: orders, namespace: shop }}\n\
         identity: {{ trust_domain: test.example, source: {{ dev_ca: {{ dir: ca }} }} }}\n\
         policies: [policy.yaml]\n{more}\n"
    );
    std::fs::write(dir.path().join("mesh.yaml"), config).unwrap();
    std::fs::write(dir.path().join("policy.yaml"), ALLOW_WEB).unwrap();
    let builder = Mesh::builder().config_file(dir.path().join("mesh.yaml")).audit_sink(sink);
    (builder.start().await.unwrap(), dir)
}

async fn ask(mesh: &Mesh, called: &Arc<AtomicUsize>, path: &str) -> (StatusCode, Duration) {
    let begun = Instant::now();
    let response = stack(mesh, ok(called)).oneshot(request(WEB, path)).await.unwrap();
    (response.status(), begun.elapsed())
}

fn parsed(lines: &[String]) -> Vec<Value> {
    let mut verifier = AuditVerifier::new(AuditTrust::default());
    lines.iter().for_each(|line| verifier.line(line.as_bytes()));
    assert_eq!(verifier.finish().problems, []);
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A full disk: `/dev/full` takes no byte.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_denies_where_a_record_is_required_and_is_counted_where_it_is_not() {
    let full = || Box::new(FileSink::new("/dev/full"));
    let called = Arc::new(AtomicUsize::new(0));
    let (mesh, _dir) = audited(REQUIRED, full()).await;
    mesh.audit().flush().await;
    let before = mesh.audit().lost();
    for _ in 0..5 {
        let (status, took) = ask(&mesh, &called, "/charges/7").await;
        assert_eq!((status, called.load(Ordering::Relaxed)), (StatusCode::SERVICE_UNAVAILABLE, 0));
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    assert!(mesh.metrics().encode().contains("mesh_server_rejected_total{reason=\"audit_unavailable\"} 5"));
    for _ in 0..7 {
        assert_eq!(ask(&mesh, &called, "/orders/7").await.0, 200);
    }
    mesh.audit().flush().await;
    // Each of the twelve has one record, and none of them could be written.
    assert_eq!((called.load(Ordering::Relaxed), mesh.audit().lost() - before), (7, 12));

    // Control: where nothing is required, the same request goes on unrecorded.
    let (mesh, _dir) = audited("", full()).await;
    assert_eq!((ask(&mesh, &called, "/charges/7").await.0, called.load(Ordering::Relaxed)), (StatusCode::OK, 8));
}

/// A disk that is full, and then another: what is required goes on by itself, and the trail tells of what it lost.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn room_on_the_disk_heals_what_a_full_one_denied() {
    let (disk, called) = (tempfile::tempdir().unwrap(), Arc::new(AtomicUsize::new(0)));
    let (path, room) = (disk.path().join("audit.jsonl"), disk.path().join("room"));
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let (mesh, _dir) = audited(REQUIRED, Box::new(FileSink::new(&path))).await;
    for (path, expected) in [("/charges/1", 503), ("/orders/2", 200), ("/orders/3", 200), ("/charges/4", 503)] {
        let (status, took) = ask(&mesh, &called, path).await;
        assert_eq!(status, expected, "{path}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    mesh.audit().flush().await;
    // Those that were denied wrote another record, which was lost too.
    let lost = mesh.audit().lost();
    assert!(lost >= 4, "{lost}");
    std::os::unix::fs::symlink(&room, disk.path().join("new")).unwrap();
    std::fs::rename(disk.path().join("new"), &path).unwrap();
    assert_eq!(ask(&mesh, &called, "/charges/5").await.0, 200);
    assert_eq!(ask(&mesh, &called, "/orders/6").await.0, 200);
    mesh.audit().stop().await;
    assert_eq!((mesh.audit().lost(), called.load(Ordering::Relaxed)), (lost, 4));
    let lines: Vec<_> = std::fs::read_to_string(room).unwrap().lines().map(str::to_owned).collect();
    let lines = parsed(&lines);
    let paths: Vec<_> = lines.iter().filter_map(|line| line["path"].as_str()).collect();
    assert_eq!(paths, ["/charges/5", "/orders/6"]);
    let told: u64 =
        lines.iter().filter(|line| line["event"] == "audit.gap").filter_map(|gap| gap["count"].as_u64()).sum();
    assert_eq!(told, lost, "{lines:#?}");
}

/// Writes what it is told to let through, and blocks meanwhile.
#[derive(Debug)]
struct Stuck(blocking::Receiver<()>, MemorySink);

impl AuditSink for Stuck {
    fn write(&mut self, lines: &[AuditLine]) -> io::Result<()> {
        // An end of the channel lets everything through.
        let _ = self.0.recv();
        self.1.write(lines)
    }
}

#[tokio::test]
async fn a_stuck_sink_denies_in_time_and_the_trail_has_each_request_once() {
    let (go, told) = blocking::channel();
    let (memory, called) = (MemorySink::default(), Arc::new(AtomicUsize::new(0)));
    let (mesh, _dir) = audited(REQUIRED, Box::new(Stuck(told, memory.clone()))).await;
    // In the sink, in the queue, and beside one that needs nothing.
    for (path, expected) in [("/charges/1", 503), ("/charges/2", 503), ("/orders/3", 200)] {
        let (status, took) = ask(&mesh, &called, path).await;
        assert_eq!(status, expected, "{path}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    assert_eq!(called.load(Ordering::Relaxed), 1);
    drop(go);
    mesh.audit().stop().await;
    let lines = parsed(&memory.lines());
    let of = |path: &str| lines.iter().filter(|line| line["path"] == path).collect::<Vec<_>>();
    for (path, status) in [("/charges/1", 503), ("/charges/2", 503), ("/orders/3", 200)] {
        let records = of(path);
        assert_eq!(records.len(), 1, "{path}: {lines:#?}");
        let ended = lines.iter().find(|line| line["request"] == records[0]["id"]).unwrap_or(records[0]);
        assert_eq!(ended["status"], status, "{path}: {lines:#?}");
    }
    assert_eq!(mesh.audit().lost(), 0);
}

#[tokio::test]
async fn a_required_record_is_written_before_its_handler_runs() {
    let memory = MemorySink::default();
    let (mesh, _dir) = audited(REQUIRED, Box::new(memory.clone())).await;
    let seen = memory.clone();
    let handler = service_fn(move |request: Request<Body>| {
        let written = seen.records().iter().any(|record| record.path == request.uri().path());
        async move { Ok::<_, Infallible>(Response::new(Body::from(written.to_string()))) }
    });
    for (path, expected) in [("/charges/7", "true"), ("/orders/7", "false")] {
        let response = stack(&mesh, handler.clone()).oneshot(request(WEB, path)).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), expected, "{path}");
    }
    // What is refused is refused without a wait, and recorded with its status.
    let response = stack(&mesh, handler).oneshot(request(BATCH, "/charges/8")).await.unwrap();
    assert_eq!(response.status(), 403);
    mesh.audit().stop().await;
    let lines = parsed(&memory.lines());
    let record = |path: &str| lines.iter().find(|line| line["path"] == path).unwrap();
    let ends: Vec<_> = lines.iter().filter(|line| line["event"] == "request.end").collect();
    assert_eq!((ends.len(), &ends[0]["request"], &ends[0]["status"]), (1, &record("/charges/7")["id"], &200.into()));
    assert_eq!(record("/charges/7").get("status"), None);
    assert_eq!((&record("/orders/7")["status"], &record("/charges/8")["status"]), (&200.into(), &403.into()));
}

/// A stack made by hand without the layer that waits denies what needs it.
#[tokio::test]
async fn a_required_route_without_its_layer_is_denied() {
    let called = Arc::new(AtomicUsize::new(0));
    let (mesh, _dir) = audited(REQUIRED, Box::new(MemorySink::default())).await;
    for (path, expected) in [("/charges/7", 500), ("/orders/7", 200)] {
        assert_eq!(ask_without_layer(&mesh, &called, "POST", path).await, expected, "{path}");
    }
    assert_eq!(called.load(Ordering::Relaxed), 1);
}

/// 500 where a record is required.
async fn ask_without_layer(mesh: &Mesh, called: &Arc<AtomicUsize>, method: &str, path: &str) -> StatusCode {
    let service = tower::ServiceBuilder::new()
        .layer(TelemetryLayer::new(mesh))
        .layer(AuditLayer::new(mesh))
        .layer(CanonicalLayer::new(mesh))
        .layer(AuthenticateLayer::new(mesh))
        .layer(AuthorizeLayer::new(mesh))
        .layer(HandlerLayer::new(mesh))
        .service(ok(called));
    let mut request = request(WEB, path);
    *request.method_mut() = method.parse().unwrap();
    service.oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn no_second_reading_of_a_request_leaves_its_record_out() {
    let dual = REQUIRED.replace("POST", "GET") + "\nauthorization: { canonical: dual }";
    let called = Arc::new(AtomicUsize::new(0));
    let (mesh, _dir) = audited(&dual, Box::new(MemorySink::default())).await;
    for (method, path, expected) in [
        ("GET", "/charges/7", 500),
        // The handler of GET answers it.
        ("HEAD", "/charges/7", 500),
        ("GET", "/orders/../charges/7", 500),
        ("GET", "/orders/%2e%2e/charges/7", 500),
        ("HEAD", "/orders;x/..%2fcharges/7", 500),
        ("GET", "/charges;x/7", 500),
        ("GET", "/charges/../orders/7", 500),
        // Controls.
        ("POST", "/charges/7", 200),
        ("GET", "/orders/7", 200),
        ("HEAD", "/orders/charges/7", 200),
    ] {
        assert_eq!(ask_without_layer(&mesh, &called, method, path).await, expected, "{method} {path}");
    }
    assert_eq!(called.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn records_say_who_and_what_and_never_a_secret() {
    const SECRET: &str = "s3cr3t";
    let memory = MemorySink::default();
    let (mesh, _dir) = audited(REQUIRED, Box::new(memory.clone())).await;
    let called = Arc::new(AtomicUsize::new(0));
    for (path, id) in [("/orders/7", "r-1.A"), ("/charges/7", "two words"), ("/a%2fb", "r-2")] {
        let mut request = with(request(WEB, &format!("{path}?token={SECRET}")), "x-request-id", id);
        for name in ["cookie", "x-api-key", "authorization", "x-mesh-principal", "referer"] {
            request.headers_mut().append(name, format!("Basic {SECRET}").parse().unwrap());
        }
        let request = request.map(|_| Body::from(SECRET));
        stack(&mesh, ok(&called)).oneshot(request).await.unwrap();
    }
    // A bad token is refused; what it said is nobody's business.
    let request = with(request(WEB, "/orders/8"), "authorization", "Bearer s3cr3t.s3cr3t.s3cr3t");
    stack(&mesh, ok(&called)).oneshot(request).await.unwrap();
    mesh.audit().stop().await;
    let lines = memory.lines();
    assert!(!lines.concat().contains(SECRET), "{lines:#?}");
    let lines = parsed(&lines);
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events[..2], ["audit.start", "policy.load"], "{events:?}");
    let requests: Vec<_> = lines.iter().filter(|line| line["event"] == "request").collect();
    assert_eq!(requests.len(), 4);
    assert_eq!((&requests[0]["request_id"], requests[1].get("request_id")), (&"r-1.A".into(), None));
    assert_eq!((&requests[0]["peer"], &requests[0]["peer_serial"]), (&WEB.into(), &"7f".into()));
    assert_eq!(requests[0]["service"], "spiffe://test.example/ns/shop/sa/orders");
    assert_eq!(requests[0]["span_id"].as_str().map(str::len), Some(16));
    assert!(lines.iter().all(|line| line["boot"] == lines[0]["boot"]));
    // A path without one reading is told by its hash.
    let raw = requests[2]["raw_path_sha256"].as_str().unwrap();
    assert_eq!((raw.len(), &requests[2]["path"], requests[0].get("raw_path_sha256")), (64, &"".into(), None));
}
