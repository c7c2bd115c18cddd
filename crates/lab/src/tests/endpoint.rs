//! Both doors with the same backend behind them: in process under paused time, and over real sockets.

use crate::backend::{Backend, ServerId};
use crate::endpoint_http::{HttpEndpoints, Sockets, Traffic};
use crate::endpoint_inproc::InprocTransport;
use crate::github::testing::{Bench, ORIGIN, Opened, PAT, START, entity, get, post, request};
use crate::github::{Credential, GithubConfig, GithubState, NewSet};
use crate::hub::{Hub, Pump};
use crate::log_file::Rotation;
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

/// GitHub, and a manager that answers what it is told to.
struct Stage {
    github: GithubState,
    github_up: bool,
    garm_up: bool,
    /// The manager comes up by itself at this date.
    garm_returns: Option<Wall>,
    told: Answer,
    log: Vec<Bytes>,
    events: Vec<Bytes>,
}

impl Stage {
    fn new(github: GithubState) -> Self {
        let told = Answer::json(200, &json!({"manager": true}));
        Self { github, github_up: true, garm_up: true, garm_returns: None, told, log: vec![], events: vec![] }
    }
}

impl Backend for Stage {
    fn handle(&mut self, door: ServerId, request: &Request, now: Wall) -> Answer {
        match door {
            ServerId::Github => self.github.handle(now, request),
            ServerId::Manager(_) if request.uri().path().starts_with("/api/v1/ws") => {
                let good = request.headers().get("authorization").is_some_and(|value| value == "Bearer good");
                Answer::empty(if good { 101 } else { 401 })
            }
            ServerId::Manager(_) => self.told.clone(),
        }
    }
    fn is_up(&self, door: ServerId) -> bool {
        match door {
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

/// A door under test: a transport and the addresses behind it.
struct Door {
    hub: Arc<Hub<Stage>>,
    transport: Arc<dyn Transport>,
    github: String,
    garm: String,
    doors: Option<HttpEndpoints>,
    _pump: Pump,
}

fn hub(stage: Stage, clock: Arc<dyn Clock>) -> Arc<Hub<Stage>> {
    Hub::new(stage, clock)
}

fn in_process(stage: Stage, clock: Arc<dyn Clock>) -> Door {
    let hub = hub(stage, clock);
    let transport = InprocTransport::new(&hub).at("github.test:80", ServerId::Github).at("garm.test:9997", GARM);
    Door {
        transport: Arc::new(transport),
        github: ORIGIN.to_owned(),
        garm: "http://garm.test:9997".to_owned(),
        doors: None,
        _pump: Pump::start(&hub),
        hub,
    }
}

fn over_sockets(stage: Stage, clock: Arc<dyn Clock>) -> Door {
    let hub = hub(stage, clock);
    let doors = HttpEndpoints::bind(&hub, &[ServerId::Github, GARM]).unwrap();
    let url = |door| format!("http://{}", doors.address(door).unwrap());
    Door {
        transport: Arc::new(ReqwestTransport::new(&TransportOptions::default()).unwrap()),
        github: url(ServerId::Github),
        garm: url(GARM),
        doors: Some(doors),
        _pump: Pump::start(&hub),
        hub,
    }
}

fn virtual_time() -> Arc<dyn Clock> {
    Arc::new(ScaledClock::new(START, 1.0))
}

impl Door {
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
        self.hub.with(|stage, _| stage.github.holder(set).map(|holder| holder.polling))
    }
}

fn absolute(base: &str, mut request: Request) -> Request {
    let uri: Uri = format!("{base}{}", request.uri()).parse().unwrap();
    *request.uri_mut() = uri;
    request
}

/// Lets other tasks run until it is so. Real sockets need real time, so that the wait is by the machine's clock.
async fn until(mut so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never came to be");
        tokio::task::yield_now().await;
    }
}

/// A GitHub with one set whose session is open.
fn with_session() -> (Stage, GithubId, Opened) {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    let session = bench.opened(set);
    (Stage::new(bench.github), set, session)
}

#[tokio::test]
async fn the_same_requests_get_the_same_answers_through_both_doors() {
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
    let calls = |door: &Door| door.hub.with(|stage, _| stage.github.calls().cloned().collect::<Vec<_>>());
    assert_eq!(calls(&inside), calls(&outside), "the simulator saw the same askers and paths");
}

/// Every delivery of a body of 14 bytes, and what the asker makes of it: status and length, or the failure.
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

async fn check_deliveries(door: &Door, refused: FailureKind) {
    let mut all = deliveries();
    all.push((Delivery::Refused, 200, Err(refused)));
    for (delivery, status, expected) in all {
        door.hub.with(|stage, _| {
            stage.told = Answer::raw(status, "text/plain", b"fourteen bytes".to_vec()).delivered(delivery.clone());
            stage.told.response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
        });
        let bounds = Bounds { total: Span::millis(500), body: 4096 };
        let got = door.garm(bounds).await;
        let got = got.map(|response| {
            assert_eq!(response.status.as_u16(), status, "{delivery:?}");
            response.body.len()
        });
        assert_eq!(got.map_err(|error| error.kind), expected, "{delivery:?} with {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_delivery_in_process() {
    check_deliveries(&in_process(with_session().0, virtual_time()), FailureKind::Connect).await;
}

#[tokio::test]
async fn every_delivery_over_sockets() {
    // A connection that was accepted cannot be refused any more.
    check_deliveries(&over_sockets(with_session().0, virtual_time()), FailureKind::Broken).await;
}

#[tokio::test]
async fn a_door_counts_the_requests_and_the_bytes_of_all_its_connections() {
    let door = over_sockets(with_session().0, virtual_time());
    let doors = door.doors.as_ref().unwrap();
    assert_eq!(doors.traffic(GARM), Traffic::default());
    let (mut sent, mut received) = (0, 0);
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(doors.address(GARM).unwrap()).await.unwrap();
        let asked = b"GET /api/v1/scalesets HTTP/1.1\r\nhost: garm\r\nconnection: close\r\n\r\n";
        stream.write_all(asked).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        (received, sent) = (received + asked.len() as u64, sent + answer.len() as u64);
    }
    assert_eq!(doors.traffic(GARM), Traffic { requests: 2, received, sent });
    assert_eq!(doors.traffic(ServerId::Github), Traffic::default());
}

#[tokio::test(start_paused = true)]
async fn an_address_where_nothing_is_refuses_the_connection() {
    let door = in_process(with_session().0, virtual_time());
    let error = door.send("http://nowhere.test", get("/", ""), BOUNDS).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Connect);
    assert!(error.detail.contains("nowhere.test:80"), "{}", error.detail);
}

async fn check_down_and_up(door: &Door) {
    assert!(door.garm(BOUNDS).await.is_ok());
    door.hub.with(|stage, _| stage.garm_up = false);
    // A connection that was kept alive may break once before the port is seen closed.
    for attempt in 0.. {
        match door.garm(BOUNDS).await {
            Err(error) if error.kind == FailureKind::Connect => break,
            other => assert!(attempt < 1000, "{other:?}"),
        }
        tokio::task::yield_now().await;
    }
    assert!(door.github(get("/no/such/page", "")).await.is_ok(), "the other server is not concerned");
    door.hub.with(|stage, _| stage.garm_up = true);
    let begun = std::time::Instant::now();
    while let Err(error) = door.garm(BOUNDS).await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{error:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_refuses_in_process_and_comes_back() {
    check_down_and_up(&in_process(with_session().0, virtual_time())).await;
}

#[tokio::test]
async fn a_server_that_is_down_refuses_over_sockets_and_comes_back_at_the_same_port() {
    check_down_and_up(&over_sockets(with_session().0, virtual_time())).await;
}

async fn check_wake(door: &Door, set: GithubId, session: &Opened) {
    let poll = door.held_poll(session).await;
    assert_eq!(door.polling(set), Some(true));
    let begun = tokio::time::Instant::now();
    door.hub.with(|stage, now| stage.github.queue_jobs(set, 1, now));
    let response = poll.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(40), "at once, not at the end of the poll");
    assert_eq!(response.status.as_u16(), 200);
    assert!(String::from_utf8_lossy(&response.body).contains("JobAssigned"));
    assert_eq!(door.polling(set), Some(false));
    assert_eq!(door.hub.held_polls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_wakes_a_held_poll_in_process() {
    let (stage, set, session) = with_session();
    let door = in_process(stage, virtual_time());
    check_wake(&door, set, &session).await;
}

#[tokio::test]
async fn a_job_wakes_a_held_poll_over_sockets() {
    let (stage, set, session) = with_session();
    check_wake(&over_sockets(stage, virtual_time()), set, &session).await;
}

#[tokio::test(start_paused = true)]
async fn a_poll_without_news_ends_empty_when_its_time_is_over() {
    let (stage, _, session) = with_session();
    let door = in_process(stage, virtual_time());
    let begun = tokio::time::Instant::now();
    let response = door.github(session.poll(0)).await.unwrap();
    assert_eq!((response.status.as_u16(), response.body.len()), (202, 0));
    assert_eq!(begun.elapsed().as_secs(), 50);
}

#[tokio::test]
async fn a_poll_without_news_ends_empty_over_sockets_too() {
    let (stage, _, session) = with_session();
    let door = over_sockets(stage, Arc::new(ScaledClock::new(START, 500.0)));
    assert_eq!(door.github(session.poll(0)).await.unwrap().status.as_u16(), 202);
}

async fn check_hang_up(door: &Door, set: GithubId, session: &Opened) {
    let poll = door.held_poll(session).await;
    poll.abort();
    until(|| door.hub.held_polls() == 0).await;
    let holder = door.hub.with(|stage, now| (stage.github.holder(set).unwrap(), now));
    assert!(!holder.0.polling, "the session ages from now on");
    assert!(holder.0.last_used <= holder.1 && holder.0.stale_at <= holder.1.plus(Span::secs(90)));
}

#[tokio::test(start_paused = true)]
async fn hanging_up_ends_the_poll_in_process_and_frees_the_session_in_time() {
    let (stage, set, session) = with_session();
    let door = in_process(stage, virtual_time());
    check_hang_up(&door, set, &session).await;
    tokio::time::sleep(Duration::from_secs(91)).await;
    assert_eq!(door.polling(set), None);
}

#[tokio::test]
async fn hanging_up_ends_the_poll_over_sockets() {
    let (stage, set, session) = with_session();
    check_hang_up(&over_sockets(stage, virtual_time()), set, &session).await;
}

async fn check_cut(door: &Door, session: &Opened) {
    let poll = door.held_poll(session).await;
    door.hub.with(|stage, _| stage.github_up = false);
    assert_eq!(poll.await.unwrap().unwrap_err().kind, FailureKind::Broken, "it was sent: not a refused connection");
    until(|| door.hub.held_polls() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_down_breaks_the_polls_it_holds_in_process() {
    let (stage, _, session) = with_session();
    check_cut(&in_process(stage, virtual_time()), &session).await;
}

#[tokio::test]
async fn a_server_that_goes_down_breaks_the_polls_it_holds_over_sockets() {
    let (stage, _, session) = with_session();
    check_cut(&over_sockets(stage, virtual_time()), &session).await;
}

#[tokio::test(start_paused = true)]
async fn an_evicted_session_fails_its_held_poll_at_once() {
    let (stage, set, session) = with_session();
    let door = in_process(stage, virtual_time());
    let poll = door.held_poll(&session).await;
    door.hub.with(|stage, now| stage.github.evict_session(set, now));
    assert_eq!(poll.await.unwrap().unwrap().status.as_u16(), 400);
}

#[tokio::test(start_paused = true)]
async fn things_happen_at_their_dates_without_a_request() {
    let door = in_process(with_session().0, virtual_time());
    let mut up = door.hub.watch_server(GARM);
    door.hub.with(|stage, now| {
        stage.garm_up = false;
        stage.garm_returns = Some(now.plus(Span::secs(30)));
    });
    let begun = tokio::time::Instant::now();
    up.wait_for(|up| *up).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn dropped_doors_are_closed() {
    let mut door = over_sockets(with_session().0, virtual_time());
    assert!(door.garm(BOUNDS).await.is_ok());
    drop(door.doors.take());
    let begun = std::time::Instant::now();
    while !matches!(door.garm(BOUNDS).await, Err(error) if error.kind == FailureKind::Connect) {
        assert!(begun.elapsed() < Duration::from_secs(20), "still open");
        tokio::task::yield_now().await;
    }
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn websocket(door: &Door, path: &str, token: &str) -> Result<Socket, WsError> {
    let mut request = format!("{}{path}", door.garm.replace("http:", "ws:")).into_client_request().unwrap();
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
async fn a_websocket_needs_the_managers_consent() {
    let door = over_sockets(with_session().0, virtual_time());
    match websocket(&door, "/api/v1/ws/logs", "bad").await {
        Err(WsError::Http(response)) => assert_eq!(response.status().as_u16(), 401),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn log_lines_flow_over_a_websocket_until_the_server_dies() {
    let door = over_sockets(with_session().0, virtual_time());
    let mut socket = websocket(&door, "/api/v1/ws/logs", "good").await.unwrap();
    door.hub.with(|stage, _| stage.log.extend([Bytes::from("one"), Bytes::from("two")]));
    assert_eq!(next_text(&mut socket).await.as_deref(), Some("one"));
    assert_eq!(next_text(&mut socket).await.as_deref(), Some("two"));
    door.hub.with(|stage, _| stage.garm_up = false);
    assert_eq!(next_text(&mut socket).await, None);
}

#[tokio::test]
async fn events_flow_once_the_options_are_sent() {
    let door = over_sockets(with_session().0, virtual_time());
    let mut socket = websocket(&door, "/api/v1/ws/events", "good").await.unwrap();
    let happens = |event| door.hub.with(|stage, _| stage.events.push(Bytes::from_static(event)));
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
async fn a_reader_that_falls_too_far_behind_is_dropped() {
    let door = over_sockets(with_session().0, virtual_time());
    let mut socket = websocket(&door, "/api/v1/ws/logs", "good").await.unwrap();
    door.hub.with(|stage, _| stage.log.extend((0..10_000).map(|_| Bytes::from("line"))));
    while next_text(&mut socket).await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn log_lines_are_in_the_file_before_the_answer_is_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("garm.log");
    let door = in_process(with_session().0, virtual_time());
    door.hub.log_to_file(GARM, &path).unwrap();
    door.hub.with(|stage, _| stage.log.push(Bytes::from("before")));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\n");
    door.hub.rotate_log(GARM, Rotation::Rename).unwrap();
    door.hub.with(|stage, _| stage.log.push(Bytes::from("after")));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
}

#[tokio::test(start_paused = true)]
async fn what_is_streamed_in_process_reaches_the_sink_only_when_it_is_good() {
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
    let door = in_process(with_session().0, virtual_time());
    let mut count = Count::default();
    for (status, delivery) in [(200, Delivery::Huge(40_000)), (500, Delivery::After(Span::ZERO))] {
        door.hub.with(|stage, _| stage.told = Answer::raw(status, "", b"fourteen bytes".to_vec()).delivered(delivery));
        let request = absolute(&door.garm, get("/debug/pprof/goroutine?debug=2", ""));
        let bounds = Bounds { total: Span::secs(5), body: 50_000 };
        assert!(door.transport.stream(request, bounds, &mut count).await.is_ok());
    }
    assert_eq!((count.0, count.1), (1, 40_000));
}

#[tokio::test]
async fn the_addresses_that_github_tells_lead_back_to_its_door() {
    let sockets = Sockets::on_loopback(&[ServerId::Github]).unwrap();
    let origin = sockets.url(ServerId::Github).unwrap();
    let mut github = GithubState::new(GithubConfig::new(&origin).with(Credential::pat("garm", PAT)));
    let set = github.add_set(&NewSet { entity: entity("acme"), name: "gpu".to_owned() }, START);
    let hub = Hub::new(github, virtual_time());
    let _doors = HttpEndpoints::serve(&hub, sockets);
    let transport = ReqwestTransport::new(&TransportOptions::default()).unwrap();
    let ask = async |method: &Method, url: String, authorization: String, body: Value| -> Value {
        let request = http::Request::builder().method(method).uri(url).header("authorization", authorization);
        let request = request.body(Bytes::from(body.to_string())).unwrap();
        let response = transport.send(request, BOUNDS).await.unwrap();
        assert!(response.status.is_success(), "{response:?}");
        serde_json::from_slice(&response.body).unwrap_or_default()
    };
    let text = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    let url = format!("{origin}/api/v3/orgs/acme/actions/runners/registration-token");
    let token = ask(&Method::POST, url, format!("Bearer {PAT}"), Value::Null).await;
    let wish = json!({"url": format!("{origin}/acme"), "runner_event": "register"});
    let url = format!("{origin}/actions/runner-registration");
    let service = ask(&Method::POST, url, format!("RemoteAuth {}", text(&token, "token")), wish).await;
    let url = format!("{}_apis/runtime/runnerscalesets/{}/sessions", text(&service, "url"), set.0);
    let admin = format!("Bearer {}", text(&service, "token"));
    let session = ask(&Method::POST, url, admin, json!({"ownerName": "garm-1"})).await;
    hub.with(|github, now| github.queue_jobs(set, 1, now));
    let queue = format!("Bearer {}", text(&session, "messageQueueAccessToken"));
    let message = ask(&Method::GET, text(&session, "messageQueueUrl"), queue, Value::Null).await;
    assert_eq!(message["statistics"]["totalAssignedJobs"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_poll_goes_on_when_the_old_one_hangs_up() {
    let (stage, set, session) = with_session();
    let door = in_process(stage, virtual_time());
    let old = door.held_poll(&session).await;
    let (transport, request) = (Arc::clone(&door.transport), absolute(&door.github, session.poll(0)));
    let new = tokio::spawn(async move { transport.send(request, BOUNDS).await });
    until(|| door.hub.held_polls() == 2).await;
    old.abort();
    until(|| door.hub.held_polls() == 1).await;
    assert_eq!(door.polling(set), Some(true));
    door.hub.with(|stage, now| stage.github.queue_jobs(set, 1, now));
    assert_eq!(new.await.unwrap().unwrap().status.as_u16(), 200);
}

#[tokio::test]
async fn a_websocket_shows_nothing_of_what_was_logged_before_it() {
    let door = over_sockets(with_session().0, virtual_time());
    door.hub.with(|stage, _| stage.log.push(Bytes::from("before")));
    let mut socket = websocket(&door, "/api/v1/ws/logs", "good").await.unwrap();
    door.hub.with(|stage, _| stage.log.push(Bytes::from("after")));
    assert_eq!(next_text(&mut socket).await.as_deref(), Some("after"));
}
