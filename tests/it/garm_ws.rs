//! GARM's websockets over real sockets: reconnecting, renewing the login, junk, huge messages, silence, slow readers.
#![expect(clippy::unwrap_used, reason = "a test helper that cannot go on fails its test")]

use crate::fault_proxy::Authority;
use crate::fuzz::servers;
use crate::sockets::{listen, read_head};
use futures_util::{SinkExt, StreamExt};
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::{FailureKind, ScaleSetId, Span, Wall};
use medic_core::ports::read::ManagerSource;
use medic_garm::api::{GarmClient, MetricsAccess};
use medic_garm::events::{self, Event};
use medic_garm::ws::{self, Channel, Feed, Health, LINE_BOUND, QUEUE_BYTES};
use medic_http::{Duplex, ReqwestTransport, TransportOptions};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

type Socket = WebSocketStream<Box<dyn Duplex>>;

/// The manager's answer to one websocket request.
enum Step {
    /// Answers without switching: status line and body.
    Refuse(&'static str, &'static str),
    /// Switches, with a wrong accept key.
    Confuse,
    /// Switches, sends these, then closes properly.
    SendAndClose(Vec<Message>),
    /// Switches, sends these, then keeps the connection and answers pings.
    SendAndHold(Vec<Message>),
    /// Switches, then sends these raw bytes.
    SendRaw(Vec<u8>),
    /// Switches, then neither reads nor writes.
    Freeze,
}

/// A scripted manager behind a path prefix. Once its script is used up it refuses.
#[derive(Default)]
struct Manager {
    script: Mutex<VecDeque<Step>>,
    /// `METHOD path` with the bearer token of each request.
    requests: Mutex<Vec<(String, String)>>,
    /// What clients said on websockets.
    said: Mutex<Vec<String>>,
}

impl Manager {
    fn asked_for(&self, line: &str) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|(seen, _)| seen == line).map(|(_, token)| token.clone()).collect()
    }

    async fn serve(self: Arc<Self>, mut stream: Box<dyn Duplex>) {
        while let Some(head) = read_head(&mut stream).await {
            let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
            let header = |name: &str| {
                head.lines().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let length: usize = header("content-length").map_or(0, |value| value.parse().unwrap());
            stream.read_exact(&mut vec![0; length]).await.unwrap();
            self.requests.lock().unwrap().push((line.clone(), header("authorization").unwrap_or_default()));
            if line.contains("/ws/") {
                let next = self.script.lock().unwrap().pop_front();
                let key = derive_accept_key(header("sec-websocket-key").unwrap_or_default().as_bytes());
                match next.unwrap_or(Step::Refuse("503 Service Unavailable", "")) {
                    Step::Refuse(status, body) => reply(&mut stream, status, body).await,
                    step => return self.switched(stream, key, step).await,
                }
            } else if line.ends_with("/auth/login") {
                let serial = self.asked_for(&line).len();
                reply(&mut stream, "200 OK", &format!(r#"{{"token":"t{serial}"}}"#)).await;
            } else {
                reply(&mut stream, "200 OK", r#"[{"id":5,"name":"a"}]"#).await;
            }
        }
    }

    async fn switched(&self, mut stream: Box<dyn Duplex>, key: String, step: Step) {
        let key = if matches!(step, Step::Confuse) { "c29tZXRoaW5nIGVsc2U=" } else { key.as_str() };
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: {key}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        if let Step::SendRaw(bytes) = step {
            stream.write_all(&bytes).await.unwrap();
            stream.flush().await.unwrap();
            return;
        }
        let mut socket: Socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        let (messages, closes) = match step {
            Step::SendAndClose(messages) => (messages, true),
            Step::SendAndHold(messages) => (messages, false),
            Step::Freeze | Step::Confuse => return std::future::pending().await,
            Step::Refuse(..) | Step::SendRaw(_) => unreachable!("answered before"),
        };
        for message in messages {
            let _ = socket.send(message).await;
        }
        if closes {
            let _ = socket.close(None).await;
            return;
        }
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = message {
                self.said.lock().unwrap().push(text.to_string());
            }
        }
    }
}

async fn reply(stream: &mut Box<dyn Duplex>, status: &str, body: &str) {
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.flush().await;
}

struct Bench {
    manager: Arc<Manager>,
    garm: Arc<GarmClient>,
    transport: ReqwestTransport,
    clock: Arc<dyn Clock>,
}

impl Bench {
    fn stream(&self, channel: Channel) -> Feed {
        let (pump, feed) = ws::stream(&self.garm, Arc::new(self.transport.clone()), channel);
        tokio::spawn(pump.run());
        feed
    }
}

/// On real sockets, with a clock that runs fifty times as fast.
async fn bench(script: impl IntoIterator<Item = Step>) -> Bench {
    bench_with(script, None, None).await
}

async fn bench_with(
    script: impl IntoIterator<Item = Step>,
    tls: Option<TlsAcceptor>,
    ca_file: Option<PathBuf>,
) -> Bench {
    let manager = Arc::new(Manager { script: Mutex::new(script.into_iter().collect()), ..Manager::default() });
    let scheme = if tls.is_some() { "https://localhost" } else { "http://127.0.0.1" };
    let server = Arc::clone(&manager);
    let port = listen(tls, move |stream| Arc::clone(&server).serve(stream)).await.port();
    let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(Wall(1_700_000_000_000), 50.0));
    let transport = ReqwestTransport::new(&TransportOptions { ca_file, ..TransportOptions::default() }).unwrap();
    let url = format!("{scheme}:{port}/garm");
    let garm = servers::garm(Arc::new(transport.clone()), Arc::clone(&clock), &url, "hunter2", MetricsAccess::Token);
    Bench { manager, garm: Arc::new(garm), transport, clock }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.unwrap()
}

async fn next(feed: &mut Feed) -> String {
    soon(feed.next()).await.unwrap()
}

async fn health(feed: &Feed, wanted: impl FnMut(&Health) -> bool) -> Health {
    let mut watch = feed.watch();
    soon(watch.wait_for(wanted)).await.unwrap().clone()
}

fn lines(texts: &[&str]) -> Vec<Message> {
    texts.iter().map(|text| Message::text(*text)).collect()
}

const LOGS: &str = "GET /garm/api/v1/ws/logs";

#[tokio::test]
async fn stream_reconnects_after_a_close() {
    let bench = bench([
        Step::SendAndClose(lines(&["one\n", "two\nthree\n\n"])),
        Step::Refuse("503 Service Unavailable", ""),
        Step::SendAndHold(lines(&["four"])),
    ])
    .await;
    let mut feed = bench.stream(Channel::Logs);
    for line in ["one", "two", "three", "four"] {
        assert_eq!(next(&mut feed).await, line);
    }
    let now = health(&feed, |health| health.connections == 2).await;
    assert_eq!((now.failure, now.dropped), (None, 0));
    assert!(now.connected_since.is_some());
    assert_eq!(bench.manager.asked_for(LOGS), ["Bearer t1"; 3], "one login serves all");
}

#[tokio::test]
async fn reconnect_pauses_grow_and_keep_the_failure() {
    let bench = bench((0..4).map(|_| Step::Refuse("503 Service Unavailable", "busy"))).await;
    let feed = bench.stream(Channel::Logs);
    let began = bench.clock.now().mono;
    let manager = Arc::clone(&bench.manager);
    soon(async {
        while manager.asked_for(LOGS).len() < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let waited = bench.clock.now().mono.since(began);
    assert!(waited >= Span::millis(3500), "at least half of 1, 2 and 4 s: {waited}");
    let failure = health(&feed, |health| health.failure.is_some()).await.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::Server);
    assert!(failure.detail.contains("busy"), "{failure}");
}

#[tokio::test]
async fn refused_token_is_renewed_for_all() {
    let refused = r#"{"error":"Authentication failed","details":""}"#;
    let bench = bench([Step::Refuse("401 Unauthorized", refused), Step::SendAndHold(lines(&["on"]))]).await;
    let mut feed = bench.stream(Channel::Logs);
    assert_eq!(next(&mut feed).await, "on");
    assert_eq!(bench.manager.asked_for(LOGS), ["Bearer t1", "Bearer t2"]);
    bench.garm.scale_sets().await.unwrap();
    assert_eq!(bench.manager.asked_for("GET /garm/api/v1/scalesets"), ["Bearer t2"]);
}

#[tokio::test]
async fn switched_off_streamer_gives_advice_and_a_long_pause() {
    let off = r#"{"error":"Bad Request","details":"log streamer is disabled"}"#;
    let bench = bench([Step::Refuse("400 Bad Request", off)]).await;
    let feed = bench.stream(Channel::Logs);
    let failure = health(&feed, |health| health.failure.is_some()).await.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::NotEnabled);
    assert!(failure.detail.contains("enable_log_streamer = true"), "{failure}");
    bench.clock.sleep(Span::secs(60)).await;
    assert_eq!(bench.manager.asked_for(LOGS).len(), 1, "the next attempt is minutes away");
}

#[tokio::test]
async fn junk_ends_the_connection_and_not_the_stream() {
    for (junk, kind) in [
        (Step::SendRaw(vec![0xff; 64]), FailureKind::Malformed),
        // A text frame that is no UTF-8.
        (Step::SendRaw(vec![0x81, 2, 0xc3, 0x28]), FailureKind::Malformed),
        // A frame that announces 2^62 bytes.
        (Step::SendRaw(vec![0x81, 127, 0x40, 0, 0, 0, 0, 0, 0, 0, b'x']), FailureKind::TooLarge),
        (Step::SendRaw(Vec::new()), FailureKind::Malformed),
        (Step::Confuse, FailureKind::Malformed),
    ] {
        let bench = bench([junk, Step::SendAndHold(lines(&["well"]))]).await;
        let mut feed = bench.stream(Channel::Logs);
        let mut watch = feed.watch();
        let failed = soon(watch.wait_for(|health| health.failure.is_some())).await.unwrap().failure.clone().unwrap();
        assert_eq!(failed.kind, kind, "{failed}");
        assert_eq!(next(&mut feed).await, "well");
    }
}

#[tokio::test]
async fn too_long_line_is_dropped_and_counted() {
    let huge = "x".repeat(LINE_BOUND + 1);
    let bench = bench([Step::SendAndHold(vec![Message::text(huge), Message::text("after")])]).await;
    let mut feed = bench.stream(Channel::Logs);
    assert_eq!(next(&mut feed).await, "after");
    assert_eq!(feed.health().dropped, 1);
    assert_eq!(feed.health().connections, 1, "the connection has survived");
}

#[tokio::test]
async fn slow_reader_loses_lines_without_slowing_the_stream() {
    let line = "y".repeat(LINE_BOUND);
    let fits = QUEUE_BYTES / LINE_BOUND;
    let mut messages: Vec<_> = (0..fits + 5).map(|_| Message::text(line.clone())).collect();
    messages.push(Message::Close(None));
    let bench = bench([Step::SendAndClose(messages), Step::SendAndHold(Vec::new())]).await;
    let mut feed = bench.stream(Channel::Logs);
    let now = health(&feed, |health| health.connections == 2).await;
    assert_eq!(now.dropped, 5);
    for _ in 0..fits {
        assert_eq!(next(&mut feed).await.len(), LINE_BOUND);
    }
}

#[tokio::test]
async fn silent_connection_is_closed() {
    let bench = bench([Step::Freeze, Step::SendAndHold(lines(&["alive"]))]).await;
    let mut feed = bench.stream(Channel::Logs);
    let began = bench.clock.now().mono;
    let now = health(&feed, |health| health.connections == 1 && health.failure.is_some()).await;
    assert_eq!(now.failure.unwrap().kind, FailureKind::Timeout);
    assert!(bench.clock.now().mono.since(began) >= Span::secs(50));
    assert_eq!(next(&mut feed).await, "alive");
}

#[tokio::test]
async fn quiet_connection_that_answers_pings_is_kept() {
    let bench = bench([Step::SendAndHold(Vec::new())]).await;
    let feed = bench.stream(Channel::Logs);
    health(&feed, |health| health.connections == 1).await;
    bench.clock.sleep(Span::mins(3)).await;
    let now = feed.health();
    assert_eq!((now.connections, now.failure), (1, None));
    assert!(now.connected_since.is_some());
}

#[tokio::test]
async fn events_are_subscribed_and_parsed() {
    let changed =
        r#"{"entity-type":"scaleset","operation":"update","payload":{"id":4,"enabled":true,"updated_at":"r"}}"#;
    let bench = bench([Step::SendAndHold(lines(&["not json", changed]))]).await;
    let mut feed = bench.stream(Channel::Events);
    assert_eq!(events::parse(&next(&mut feed).await), None);
    let event = events::parse(&next(&mut feed).await);
    assert!(matches!(event, Some(Event::ScaleSetChanged { id: ScaleSetId(4), .. })), "{event:?}");
    assert_eq!(bench.manager.asked_for("GET /garm/api/v1/ws/events").len(), 1);
    let manager = Arc::clone(&bench.manager);
    soon(async {
        while manager.said.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(*manager.said.lock().unwrap(), [events::SUBSCRIPTION]);
}

#[tokio::test]
async fn private_ca_and_path_prefix_apply_to_the_stream() {
    let authority = Authority::new();
    let tls = authority.acceptor("localhost", false);
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let trusting = bench_with([Step::SendAndHold(lines(&["secret line"]))], Some(tls.clone()), Some(ca_file)).await;
    assert_eq!(trusting.garm.scale_sets().await.unwrap()[0].id, ScaleSetId(5));
    assert_eq!(next(&mut trusting.stream(Channel::Logs)).await, "secret line");
    assert_eq!(trusting.manager.asked_for("GET /garm/api/v1/scalesets"), ["Bearer t1"]);

    let distrusting = bench_with([Step::SendAndHold(lines(&["secret line"]))], Some(tls), None).await;
    let feed = distrusting.stream(Channel::Logs);
    let failure = health(&feed, |health| health.failure.is_some()).await.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::Tls);
    assert!(failure.detail.contains("ca_file"), "{failure}");
    assert!(distrusting.manager.requests.lock().unwrap().is_empty(), "no password was sent");
}

#[tokio::test]
async fn connection_ends_with_its_reader() {
    let bench = bench([Step::SendAndHold(Vec::new())]).await;
    let (pump, feed) = ws::stream(&bench.garm, Arc::new(bench.transport.clone()), Channel::Logs);
    let pump = tokio::spawn(pump.run());
    health(&feed, |health| health.connections == 1).await;
    drop(feed);
    soon(pump).await.unwrap();
}
