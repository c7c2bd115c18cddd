//! The server over real sockets.

use super::{AT, everything};
use crate::sockets::exchange;
use async_trait::async_trait;
use medic_core::clock::Clock;
use medic_core::model::{ManagerName, Mono, Now, Span, Wall};
use medic_core::policy::Mode;
use scaleset_medic::metrics::Metrics;
use scaleset_medic::status::{Status, schema};
use scaleset_medic::web::server::{Board, MAX_CONNECTIONS, Shown, serve};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A clock that is set by hand.
struct ManualClock(AtomicU64);

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Now {
        Now { wall: Wall(self.0.load(Ordering::SeqCst)), mono: Mono(0) }
    }
    async fn sleep(&self, _: Span) {}
}

struct Bench {
    at: SocketAddr,
    board: Arc<Board>,
    clock: Arc<ManualClock>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

async fn bench() -> Bench {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let board = Arc::new(Board::default());
    let clock = Arc::new(ManualClock(AtomicU64::new(AT.0)));
    let metrics = Arc::new(Metrics::new(&[ManagerName::new("garm")], Mode::Heal).unwrap());
    let shown = Arc::new(Shown { metrics, board: Arc::clone(&board), clock: Arc::clone(&clock) as Arc<dyn Clock> });
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(listener, shown, async {
        let _ = stopped.await;
    }));
    Bench { at, board, clock, stop: Some(stop), server }
}

impl Bench {
    fn publish(&self) {
        self.board.publish(Arc::new(everything()), AT, Span::mins(3));
    }

    /// Sends `request` as it stands.
    async fn send(&self, request: &str) -> Answer {
        let answer = exchange(&self.at.to_string(), request).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        self.send(&format!("{method} {path} HTTP/1.1\r\nhost: medic\r\nconnection: close\r\n\r\n")).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).await
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.unwrap()
}

#[tokio::test]
async fn healthz_is_the_process_and_readyz_the_sweeps() {
    let bench = bench().await;
    assert_eq!(bench.get("/healthz").await.status, 200);
    let answer = bench.get("/readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "the first sweep has not ended\n"));
    assert_eq!(bench.get("/api/v1/status").await.status, 503);
    assert_eq!(bench.get("/").await.status, 200, "the page shows it instead");

    bench.publish();
    assert_eq!(bench.get("/readyz").await.status, 200, "a manager that is down does not make the medic unready");

    bench.clock.0.store(AT.plus(Span::mins(4)).0, Ordering::SeqCst);
    let answer = bench.get("/readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "sweeps have stalled\n"));
    assert_eq!(bench.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn routes_have_a_content_type_and_are_never_cached() {
    let bench = bench().await;
    bench.publish();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/?a=b", "text/html; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
        ("/api/v1/status", "application/json"),
        ("/api/v1/status.schema.json", "application/schema+json"),
    ] {
        let answer = bench.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        let head = bench.ask("HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        let same = path == "/metrics" || head.header("content-length") == answer.header("content-length");
        assert!(same, "{path}");
    }
    let policy = bench.get("/").await;
    assert!(policy.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert!(bench.get("/metrics").await.body.contains("scaleset_medic_build_info"));
    assert_eq!(bench.get("/api/v1/status.schema.json").await.body, schema());
    let shown: Status = serde_json::from_str(&bench.get("/api/v1/status").await.body).unwrap();
    assert_eq!(shown, everything());
}

#[tokio::test]
async fn requests_other_than_reads_of_known_paths_are_refused() {
    let bench = bench().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let answer = bench.ask(method, "/").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    for path in ["/nothing", "/metrics/", "/../etc/passwd", "/api/v1/", "//"] {
        assert_eq!(bench.get(path).await.status, 404, "{path}");
    }
    assert_eq!(bench.get(&format!("/{}", "x".repeat(3000))).await.status, 414);
    assert_eq!(bench.get(&format!("/?{}", "x".repeat(3000))).await.status, 414);
    let head = format!("GET / HTTP/1.1\r\nhost: medic\r\nx: {}\r\n\r\n", "y".repeat(40_000));
    let answer = bench.send(&head).await;
    assert!(matches!(answer.status, 0 | 431), "refused, or the connection is cut: {}", answer.status);
    assert_eq!(bench.send("nonsense\r\n\r\n").await.status, 400);
    assert_eq!(bench.get("/healthz").await.status, 200, "the server still answers");
}

#[tokio::test]
async fn unfinished_request_head_times_out() {
    let bench = bench().await;
    let answer = bench.send("GET /healthz HTTP/1.1\r\nhost: me").await;
    assert!(answer.status == 0 || answer.status == 408, "{}", answer.head);
}

#[tokio::test]
async fn new_connection_replaces_the_oldest() {
    let bench = bench().await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(bench.at).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: medic\r\n\r\n").await.unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        idle.push(stream);
    }
    assert_eq!(bench.get("/healthz").await.status, 200);
    let mut rest = Vec::new();
    let mut idle = idle.into_iter();
    // It is ended, which may show as a reset.
    let _ = soon(idle.next().unwrap().read_to_end(&mut rest)).await;
    let mut youngest = idle.next_back().unwrap();
    youngest.write_all(b"GET /healthz HTTP/1.1\r\nhost: medic\r\nconnection: close\r\n\r\n").await.unwrap();
    soon(youngest.read_to_end(&mut rest)).await.unwrap();
    assert!(String::from_utf8(rest).unwrap().matches("ok\n").count() >= 2, "the others are served");
}

#[tokio::test]
async fn server_stops_with_all_connections_in_use() {
    let mut bench = bench().await;
    let mut idle = Vec::new();
    for _ in 0..=MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(bench.at).await.unwrap();
        stream.write_all(b"GET /heal").await.unwrap();
        idle.push(stream);
    }
    let _ = bench.stop.take().unwrap().send(());
    soon(&mut bench.server).await.unwrap();
}
