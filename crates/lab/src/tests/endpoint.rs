//! Both kinds of endpoint with the same backend: in process under paused time, and over real sockets.

use crate::backend::{Backend, ServerId};
use crate::endpoint_http::{HttpEndpoints, Sockets, Traffic};
use crate::endpoint_inproc::InprocTransport;
use crate::github::GithubState;
use crate::github::testing::{Bench, ORIGIN, Opened, PAT, START, get, post, request};
use crate::hub::{Hub, Pump};
use crate::wire::{Answer, Delivery, Request};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Uri};
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::{FailureKind, GithubId, Mono, Now, SessionId, Span, Wall};
use medic_http::{Bounds, ReqwestTransport, Response, Transport, TransportError, TransportOptions};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

const GARM: ServerId = ServerId::Manager(0);
const BOUNDS: Bounds = Bounds { total: Span::secs(120), body: 4096 };

/// GitHub, and a manager with a fixed answer.
struct Servers {
    github: GithubState,
    github_up: bool,
    garm_up: bool,
    /// The manager starts at this date.
    garm_returns: Option<Wall>,
    answer: Answer,
    log: Vec<Bytes>,
    events: Vec<Bytes>,
}

impl Servers {
    fn new(github: GithubState) -> Self {
        let answer = Answer::json(200, &json!({"manager": true}));
        Self { github, github_up: true, garm_up: true, garm_returns: None, answer, log: vec![], events: vec![] }
    }
}

impl Backend for Servers {
    fn handle(&mut self, server: ServerId, request: &Request, now: Wall) -> Answer {
        match server {
            ServerId::Github => self.github.handle(now, request),
            ServerId::Manager(_) if request.uri().path().starts_with("/api/v1/ws") => {
                let good = request.headers().get("authorization").is_some_and(|value| value == "Bearer good");
                Answer::empty(if good { 101 } else { 401 })
            }
            ServerId::Manager(_) => self.answer.clone(),
        }
    }
    fn is_up(&self, server: ServerId) -> bool {
        match server {
            ServerId::Github => self.github_up,
            ServerId::Manager(_) => self.garm_up,
        }
    }
    fn advance(&mut self, now: Wall) {
        self.github.advance(now);
        if self.garm_returns.take_if(|at| *at <= now).is_some() {
            self.garm_up = true;
        }
    }
    fn next_deadline(&self) -> Option<Wall> {
        self.github.next_deadline().into_iter().chain(self.garm_returns).min()
    }
    fn polled_session(&self, _: ServerId, request: &Request) -> Option<SessionId> {
        GithubState::polled_session(request)
    }
    fn take_wakes(&mut self) -> Vec<SessionId> {
        self.github.take_wakes()
    }
    fn take_log(&mut self, _: ServerId) -> Vec<Bytes> {
        std::mem::take(&mut self.log)
    }
    fn take_events(&mut self, _: ServerId) -> Vec<Bytes> {
        std::mem::take(&mut self.events)
    }
}

/// A clock that stands still.
struct Still;

#[async_trait]
impl Clock for Still {
    fn now(&self) -> Now {
        Now { wall: START, mono: Mono(0) }
    }
    async fn sleep(&self, _: Span) {
        std::future::pending::<()>().await;
    }
}

/// A transport and the addresses that it reaches.
struct Endpoint {
    hub: Arc<Hub<Servers>>,
    transport: Arc<dyn Transport>,
    github: String,
    garm: String,
    served: Option<HttpEndpoints>,
    _pump: Pump,
}

fn in_process(servers: Servers, clock: Arc<dyn Clock>) -> Endpoint {
    let hub = Hub::new(servers, clock);
    let transport = InprocTransport::new(&hub).at("github.test:80", ServerId::Github).at("garm.test:9997", GARM);
    Endpoint {
        transport: Arc::new(transport),
        github: ORIGIN.to_owned(),
        garm: "http://garm.test:9997".to_owned(),
        served: None,
        _pump: Pump::start(&hub),
        hub,
    }
}

fn over_sockets(servers: Servers, clock: Arc<dyn Clock>) -> Endpoint {
    let hub = Hub::new(servers, clock);
    let sockets = Sockets::on_loopback(&[ServerId::Github, GARM]).unwrap();
    let url = |server| sockets.url(server).unwrap();
    Endpoint {
        transport: Arc::new(ReqwestTransport::new(&TransportOptions::default()).unwrap()),
        github: url(ServerId::Github),
        garm: url(GARM),
        served: Some(HttpEndpoints::serve(&hub, sockets)),
        _pump: Pump::start(&hub),
        hub,
    }
}

fn virtual_time() -> Arc<dyn Clock> {
    Arc::new(ScaledClock::new(START, 1.0))
}

impl Endpoint {
    async fn github(&self, request: Request) -> Result<Response, TransportError> {
        self.send(&self.github, request, BOUNDS).await
    }
    async fn garm(&self, bounds: Bounds) -> Result<Response, TransportError> {
        self.send(&self.garm, get("/api/v1/scalesets", ""), bounds).await
    }
    async fn send(&self, base: &str, request: Request, bounds: Bounds) -> Result<Response, TransportError> {
        self.transport.send(absolute(base, request), bounds).await
    }
    /// A poll on its way, once it is held.
    async fn held_poll(&self, session: &Opened) -> tokio::task::JoinHandle<Result<Response, TransportError>> {
        let (transport, request) = (Arc::clone(&self.transport), absolute(&self.github, session.poll(0)));
        let poll = tokio::spawn(async move { transport.send(request, BOUNDS).await });
        until(|| self.hub.held_polls() == 1).await;
        poll
    }
    fn polling(&self, set: GithubId) -> Option<bool> {
        self.hub.with(|servers, _| servers.github.holder(set).map(|holder| holder.polling))
    }
}

fn absolute(base: &str, mut request: Request) -> Request {
    let uri: Uri = format!("{base}{}", request.uri()).parse().unwrap();
    *request.uri_mut() = uri;
    request
}

/// Runs other tasks until the condition holds. Real sockets need real time: the limit is by the machine's clock.
async fn until(mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the condition never held");
        tokio::task::yield_now().await;
    }
}

/// A GitHub with one set whose session is open.
fn with_session() -> (Servers, GithubId, Opened) {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    let session = bench.opened(set);
    (Servers::new(bench.github), set, session)
}

/// The same check in process under paused time, and over real sockets.
macro_rules! both {
    ($($name:ident: $check:ident;)+) => {
        mod in_process_under_paused_time {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                let (servers, set, session) = super::with_session();
                super::$check(&super::in_process(servers, super::virtual_time()), set, &session).await;
            })+
        }
        mod over_real_sockets {
            $(#[tokio::test]
            async fn $name() {
                let (servers, set, session) = super::with_session();
                super::$check(&super::over_sockets(servers, super::virtual_time()), set, &session).await;
            })+
        }
    };
}

both! {
    every_delivery_reaches_the_client: check_deliveries;
    stopped_server_refuses_and_returns_on_the_same_port: check_down_and_up;
    job_wakes_a_held_poll: check_wake;
    evicted_session_fails_its_held_poll: check_evict;
    disconnecting_ends_the_poll: check_hang_up;
    stopped_server_breaks_its_held_polls: check_cut;
}

#[tokio::test]
async fn both_endpoints_give_the_same_answers() {
    let pat = format!("Bearer {PAT}");
    let admin = Bench::new().admin;
    let requests = || {
        [
            get("/api/v3/rate_limit", &pat),
            get("/api/v3/rate_limit", "Bearer wrong"),
            post("/orgs/acme/actions/runners/registration-token", &pat, &Value::Null),
            get("/svc/acme/_apis/runtime/runnerscalesets?api-version=6.0-preview", &admin),
            get("/svc/acme/_apis/runtime/runnerscalesets/77", &admin),
            post("/svc/acme/_apis/runtime/runnerscalesets/1/sessions", &admin, &json!({"ownerName": "garm-2"})),
            request(&Method::DELETE, "/svc/acme/_apis/runtime/runnerscalesets/1", &admin, ""),
            get("/no/such/page", ""),
        ]
    };
    let inside = in_process(with_session().0, Arc::new(Still));
    let outside = over_sockets(with_session().0, Arc::new(Still));
    let mut statuses = Vec::new();
    for (one, other) in requests().into_iter().zip(requests()) {
        let (one, mut other) = (inside.github(one).await.unwrap(), outside.github(other).await.unwrap());
        for of_the_wire in ["date", "content-length"] {
            other.headers.remove(of_the_wire);
        }
        assert_eq!((one.status, &one.headers, &one.body), (other.status, &other.headers, &other.body));
        statuses.push(one.status.as_u16());
    }
    assert_eq!(statuses, [200, 401, 201, 200, 404, 409, 204, 404]);
    let calls =
        |endpoint: &Endpoint| endpoint.hub.with(|servers, _| servers.github.calls().cloned().collect::<Vec<_>>());
    assert_eq!(calls(&inside), calls(&outside), "the simulator saw the same clients and paths");
}

/// Every delivery of a body of 14 bytes, and what the client gets: status and length, or the failure.
fn deliveries() -> Vec<(Delivery, u16, Result<usize, FailureKind>)> {
    vec![
        (Delivery::After(Span::millis(20)), 200, Ok(14)),
        (Delivery::Reset, 200, Err(FailureKind::Broken)),
        (Delivery::Never, 200, Err(FailureKind::Timeout)),
        (Delivery::Truncated(0), 200, Err(FailureKind::Broken)),
        (Delivery::Truncated(5), 200, Err(FailureKind::Broken)),
        (Delivery::Truncated(14), 200, Ok(14)),
        (Delivery::Dripping(Span::millis(2)), 200, Ok(14)),
        (Delivery::Dripping(Span::hours(1)), 200, Err(FailureKind::Timeout)),
        (Delivery::Huge(u64::MAX), 200, Err(FailureKind::TooLarge)),
        (Delivery::Huge(4096), 200, Ok(4096)),
        (Delivery::After(Span::ZERO), 302, Err(FailureKind::Redirect)),
        (Delivery::After(Span::ZERO), 500, Ok(14)),
    ]
}

async fn check_deliveries(endpoint: &Endpoint, _: GithubId, _: &Opened) {
    let mut all = deliveries();
    // An accepted connection cannot be refused any more.
    let refused = if endpoint.served.is_some() { FailureKind::Broken } else { FailureKind::Connect };
    all.push((Delivery::Refused, 200, Err(refused)));
    for (delivery, status, expected) in all {
        endpoint.hub.with(|servers, _| {
            servers.answer = Answer::raw(status, "text/plain", b"fourteen bytes".to_vec()).delivered(delivery.clone());
            servers.answer.response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
        });
        let bounds = Bounds { total: Span::millis(500), body: 4096 };
        let got = endpoint.garm(bounds).await;
        let got = got.map(|response| {
            assert_eq!(response.status.as_u16(), status, "{delivery:?}");
            response.body.len()
        });
        assert_eq!(got.map_err(|error| error.kind), expected, "{delivery:?} with {status}");
    }
}

#[tokio::test]
async fn traffic_counts_requests_and_bytes_of_all_connections() {
    let endpoint = over_sockets(with_session().0, virtual_time());
    let served = endpoint.served.as_ref().unwrap();
    assert_eq!(served.traffic(GARM), Traffic::default());
    let (mut sent, mut received) = (0, 0);
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(endpoint.garm.trim_start_matches("http://")).await.unwrap();
        let asked = b"GET /api/v1/scalesets HTTP/1.1\r\nhost: garm\r\nconnection: close\r\n\r\n";
        stream.write_all(asked).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        (received, sent) = (received + asked.len() as u64, sent + answer.len() as u64);
    }
    assert_eq!(served.traffic(GARM), Traffic { requests: 2, received, sent });
    assert_eq!(served.traffic(ServerId::Github), Traffic::default());
}

async fn check_down_and_up(endpoint: &Endpoint, _: GithubId, _: &Opened) {
    assert!(endpoint.garm(BOUNDS).await.is_ok());
    endpoint.hub.with(|servers, _| servers.garm_up = false);
    // A connection that was kept alive may break once before the port is seen closed.
    for attempt in 0.. {
        match endpoint.garm(BOUNDS).await {
            Err(error) if error.kind == FailureKind::Connect => break,
            other => assert!(attempt < 1000, "{other:?}"),
        }
        tokio::task::yield_now().await;
    }
    assert!(endpoint.github(get("/no/such/page", "")).await.is_ok(), "the other server still answers");
    endpoint.hub.with(|servers, _| servers.garm_up = true);
    let begun = std::time::Instant::now();
    while let Err(error) = endpoint.garm(BOUNDS).await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{error:?}");
        tokio::task::yield_now().await;
    }
}

async fn check_wake(endpoint: &Endpoint, set: GithubId, session: &Opened) {
    let poll = endpoint.held_poll(session).await;
    assert_eq!(endpoint.polling(set), Some(true));
    let begun = tokio::time::Instant::now();
    endpoint.hub.with(|servers, now| servers.github.queue_jobs(set, 1, now));
    let response = poll.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(40), "at once, not at the end of the poll");
    assert_eq!(response.status.as_u16(), 200);
    assert!(String::from_utf8_lossy(&response.body).contains("JobAssigned"));
    assert_eq!(endpoint.polling(set), Some(false));
    assert_eq!(endpoint.hub.held_polls(), 0);
}

async fn check_hang_up(endpoint: &Endpoint, set: GithubId, session: &Opened) {
    let poll = endpoint.held_poll(session).await;
    poll.abort();
    until(|| endpoint.hub.held_polls() == 0).await;
    let holder = endpoint.hub.with(|servers, now| (servers.github.holder(set).unwrap(), now));
    assert!(!holder.0.polling, "the session ages from now on");
    assert!(holder.0.last_used <= holder.1 && holder.0.stale_at <= holder.1.plus(Span::secs(90)));
}

async fn check_evict(endpoint: &Endpoint, set: GithubId, session: &Opened) {
    let poll = endpoint.held_poll(session).await;
    endpoint.hub.with(|servers, now| servers.github.evict_session(set, now));
    assert_eq!(poll.await.unwrap().unwrap().status.as_u16(), 400);
}

async fn check_cut(endpoint: &Endpoint, _: GithubId, session: &Opened) {
    let poll = endpoint.held_poll(session).await;
    endpoint.hub.with(|servers, _| servers.github_up = false);
    assert_eq!(poll.await.unwrap().unwrap_err().kind, FailureKind::Broken, "it was sent: not a refused connection");
    until(|| endpoint.hub.held_polls() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn pump_advances_the_backend_at_its_deadlines() {
    let endpoint = in_process(with_session().0, virtual_time());
    let mut up = endpoint.hub.watch_server(GARM);
    endpoint.hub.with(|servers, now| {
        servers.garm_up = false;
        servers.garm_returns = Some(now.plus(Span::secs(30)));
    });
    let begun = tokio::time::Instant::now();
    up.wait_for(|up| *up).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 30);
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn websocket(endpoint: &Endpoint, path: &str, token: &str) -> Result<Socket, WsError> {
    let mut request = format!("{}{path}", endpoint.garm.replace("http:", "ws:")).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    tokio_tungstenite::connect_async(request).await.map(|(socket, _)| socket)
}

async fn next_text(socket: &mut Socket) -> Option<String> {
    match tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap() {
        Some(Ok(Message::Text(text))) => Some(text.to_string()),
        Some(Ok(_) | Err(_)) | None => None,
    }
}

#[tokio::test]
async fn websocket_needs_a_valid_token() {
    let endpoint = over_sockets(with_session().0, virtual_time());
    match websocket(&endpoint, "/api/v1/ws/logs", "bad").await {
        Err(WsError::Http(response)) => assert_eq!(response.status().as_u16(), 401),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn websocket_sends_later_log_lines_until_the_server_stops() {
    let endpoint = over_sockets(with_session().0, virtual_time());
    endpoint.hub.with(|servers, _| servers.log.push(Bytes::from("before")));
    let mut socket = websocket(&endpoint, "/api/v1/ws/logs", "good").await.unwrap();
    endpoint.hub.with(|servers, _| servers.log.extend([Bytes::from("one"), Bytes::from("two")]));
    assert_eq!(next_text(&mut socket).await.as_deref(), Some("one"));
    assert_eq!(next_text(&mut socket).await.as_deref(), Some("two"));
    endpoint.hub.with(|servers, _| servers.garm_up = false);
    assert_eq!(next_text(&mut socket).await, None);
}

#[tokio::test]
async fn websocket_sends_events_after_the_options() {
    let endpoint = over_sockets(with_session().0, virtual_time());
    let mut socket = websocket(&endpoint, "/api/v1/ws/events", "good").await.unwrap();
    let happens = |event| endpoint.hub.with(|servers, _| servers.events.push(Bytes::from_static(event)));
    // The pong of a ping shows that whatever was sent before it has been read.
    socket.send(Message::Ping(Bytes::new())).await.unwrap();
    happens(b"early");
    assert_eq!(next_text(&mut socket).await, None, "the pong comes, not the event");
    socket.send(Message::text(r#"{"send-everything":true}"#)).await.unwrap();
    socket.send(Message::Ping(Bytes::new())).await.unwrap();
    assert_eq!(next_text(&mut socket).await, None, "the early event is lost");
    happens(b"late");
    assert_eq!(next_text(&mut socket).await.as_deref(), Some("late"));
}

#[tokio::test]
async fn websocket_drops_a_slow_reader() {
    let endpoint = over_sockets(with_session().0, virtual_time());
    let mut socket = websocket(&endpoint, "/api/v1/ws/logs", "good").await.unwrap();
    endpoint.hub.with(|servers, _| servers.log.extend((0..10_000).map(|_| Bytes::from("line"))));
    while next_text(&mut socket).await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn log_lines_are_written_at_once_and_after_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("garm.log");
    let endpoint = in_process(with_session().0, virtual_time());
    endpoint.hub.log_to_file(GARM, &path).unwrap();
    endpoint.hub.with(|servers, _| servers.log.push(Bytes::from("before")));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\n");
    endpoint.hub.rotate_log(GARM).unwrap();
    endpoint.hub.with(|servers, _| servers.log.push(Bytes::from("after")));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
    assert_eq!(std::fs::read_to_string(dir.path().join("garm.log.1")).unwrap(), "before\n");
}

#[tokio::test(start_paused = true)]
async fn stream_passes_only_successes_to_the_sink() {
    #[derive(Default)]
    struct Count(usize, usize);
    impl medic_http::BodySink for Count {
        fn begin(&mut self) {
            self.0 += 1;
        }
        fn piece(&mut self, piece: &[u8]) {
            self.1 += piece.len();
        }
    }
    let endpoint = in_process(with_session().0, virtual_time());
    let mut count = Count::default();
    for (status, delivery) in [(200, Delivery::Huge(40_000)), (500, Delivery::After(Span::ZERO))] {
        endpoint.hub.with(|servers, _| {
            servers.answer = Answer::raw(status, "", b"fourteen bytes".to_vec()).delivered(delivery);
        });
        let request = absolute(&endpoint.garm, get("/debug/pprof/goroutine?debug=2", ""));
        let bounds = Bounds { total: Span::secs(5), body: 50_000 };
        assert!(endpoint.transport.stream(request, bounds, &mut count).await.is_ok());
    }
    assert_eq!((count.0, count.1), (1, 40_000));
}

#[tokio::test(start_paused = true)]
async fn new_poll_continues_when_the_old_one_disconnects() {
    let (servers, set, session) = with_session();
    let endpoint = in_process(servers, virtual_time());
    let old = endpoint.held_poll(&session).await;
    let (transport, request) = (Arc::clone(&endpoint.transport), absolute(&endpoint.github, session.poll(0)));
    let new = tokio::spawn(async move { transport.send(request, BOUNDS).await });
    until(|| endpoint.hub.held_polls() == 2).await;
    old.abort();
    until(|| endpoint.hub.held_polls() == 1).await;
    assert_eq!(endpoint.polling(set), Some(true));
    endpoint.hub.with(|servers, now| servers.github.queue_jobs(set, 1, now));
    assert_eq!(new.await.unwrap().unwrap().status.as_u16(), 200);
}
