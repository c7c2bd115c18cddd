//! The GARM client against recorded answers of two real builds, and against a scripted manager.
#![expect(clippy::unwrap_used, reason = "a test helper that cannot go on fails its test")]

use crate::fuzz::servers;
use crate::recordings::{BUILDS, POST_FIX, PRE_FIX, read};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::failure::WriteError;
use medic_core::model::{
    Enablement, Entity, EntityKind, FailureKind, GithubId, Goroutines, Incarnation, Lingering, Operation,
    RequestFailure, Revision, ScaleSetId, Span, Wall,
};
use medic_core::ports::read::ManagerSource;
use medic_core::ports::write::ManagerWriter;
use medic_garm::api::{GarmClient, MetricsAccess};
use medic_http::{Answer, Bounds, Response, Transport, TransportError};
use std::sync::{Arc, Mutex};

const START: Wall = Wall(1_700_000_000_000);

type Handler = Box<dyn Fn(&Request<Bytes>, usize) -> Answer + Send + Sync>;

/// Answers by a function of the request and of how many came before it, and keeps what was sent.
pub(crate) struct Manager {
    handler: Handler,
    clock: Arc<dyn Clock>,
    latency: Span,
    requests: Mutex<Vec<Request<Bytes>>>,
}

impl Manager {
    pub(crate) fn new(
        clock: &Arc<dyn Clock>,
        handler: impl Fn(&Request<Bytes>, usize) -> Answer + Send + Sync + 'static,
    ) -> Arc<Self> {
        let clock = Arc::clone(clock);
        Arc::new(Self { handler: Box::new(handler), clock, latency: Span::millis(20), requests: Mutex::default() })
    }

    /// `METHOD path` of every request.
    pub(crate) fn lines(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|request| format!("{} {}", request.method(), request.uri().path())).collect()
    }

    fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|seen| *seen == line).count()
    }
}

#[async_trait]
impl Transport for Manager {
    async fn send(&self, request: Request<Bytes>, _: Bounds) -> Answer {
        let before = {
            let mut requests = self.requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        self.clock.sleep(self.latency).await;
        (self.handler)(&request, before)
    }
}

struct Bench {
    manager: Arc<Manager>,
    garm: Arc<GarmClient>,
    clock: Arc<dyn Clock>,
}

fn bench(handler: impl Fn(&Request<Bytes>, usize) -> Answer + Send + Sync + 'static) -> Bench {
    bench_with(MetricsAccess::Token, "http://garm:9997", handler)
}

fn bench_with(
    metrics: MetricsAccess,
    base_url: &str,
    handler: impl Fn(&Request<Bytes>, usize) -> Answer + Send + Sync + 'static,
) -> Bench {
    let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(START, 1.0));
    let manager = Manager::new(&clock, handler);
    let garm = servers::garm(manager.clone(), Arc::clone(&clock), base_url, "hunter2", metrics);
    Bench { manager, garm: Arc::new(garm), clock }
}

#[expect(clippy::unnecessary_wraps, reason = "an answer of the transport")]
fn answer(status: u16, content_type: &str, body: impl Into<Bytes>) -> Answer {
    let mut headers = http::HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
    Ok(Response { status: StatusCode::from_u16(status).unwrap(), headers, body: body.into() })
}

pub(crate) fn json(status: u16, body: &str) -> Answer {
    answer(status, "application/json", body.to_owned())
}

fn broken(kind: FailureKind) -> Answer {
    Err(TransportError { kind, detail: "it broke".to_owned() })
}

fn jwt(serial: usize, expires: Wall) -> String {
    let claims = format!(r#"{{"exp":{},"token_id":"{serial}"}}"#, expires.0 / 1000);
    format!("eyJhbGciOiJIUzI1NiJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

/// Logs in; its tokens live for a day.
fn logged_in(request: &Request<Bytes>, serial: usize) -> Option<Answer> {
    let token = jwt(serial, START.plus(Span::hours(24)));
    matches!(request.uri().path(), "/api/v1/auth/login" | "/api/v1/metrics-token")
        .then(|| json(200, &format!(r#"{{"token":"{token}"}}"#)))
}

fn bearer(request: &Request<Bytes>) -> Option<&str> {
    request.headers().get(header::AUTHORIZATION)?.to_str().ok()
}

/// Status and body of a recorded exchange.
pub(crate) fn recorded(build: &str, name: &str) -> Answer {
    let exchange: serde_json::Value = serde_json::from_str(&read(build, &format!("{name}.json"))).unwrap();
    let response = &exchange["response"];
    let status = u16::try_from(response["status"].as_u64().unwrap()).unwrap();
    json(status, &response["body"].to_string())
}

/// A manager with a working login that gives this answer to everything else.
fn always(answer: Answer) -> Bench {
    bench(move |request, serial| logged_in(request, serial).unwrap_or_else(|| answer.clone()))
}

/// Answers with recordings: `(path, recording)`.
pub(crate) fn replayed(build: &str, answers: &[(&str, &str)], request: &Request<Bytes>, serial: usize) -> Answer {
    let path = request.uri().path();
    match answers.iter().find(|(of, _)| *of == path) {
        Some((_, name)) if name.strip_suffix(".txt").is_some() => answer(200, "text/plain", read(build, name)),
        Some((_, name)) => recorded(build, name),
        None => logged_in(request, serial).unwrap_or_else(|| answer(404, "text/plain", "404 page not found\n")),
    }
}

/// A manager that answers with recordings.
fn replay(build: &'static str, answers: &'static [(&'static str, &'static str)]) -> Bench {
    bench(move |request, serial| replayed(build, answers, request, serial))
}

#[tokio::test(start_paused = true)]
async fn recorded_answers_are_parsed() {
    for build in BUILDS {
        let bench = replay(
            build,
            &[
                ("/api/v1/auth/login", "login-ok"),
                ("/api/v1/metrics-token", "metrics-token"),
                ("/api/v1/controller-info", "controller-info"),
                ("/api/v1/scalesets", "scalesets-list-with-jobs"),
                ("/api/v1/instances", "instances-list"),
                ("/api/v1/scalesets/1", "scaleset-get"),
                ("/api/v1/scalesets/999", "scaleset-get-unknown"),
                ("/metrics", "metrics-stuck.txt"),
                ("/debug/pprof/goroutine", "goroutines-healthy.txt"),
            ],
        );
        let controller = bench.garm.controller().await.unwrap();
        assert_eq!((controller.id.len(), controller.version.starts_with("v0.")), (36, true));

        let sets = bench.garm.scale_sets().await.unwrap();
        let shown: Vec<_> = sets.iter().map(|set| (set.id.0, set.name.as_str(), set.enabled)).collect();
        let enabled = Enablement::Enabled;
        assert_eq!(
            shown,
            [(1, "set-0-0", enabled), (2, "set-0-1", enabled), (3, "set-1-0", enabled), (4, "set-1-1", enabled)]
        );
        let first = &sets[0];
        assert_eq!(first.github_id, Some(GithubId(1)));
        assert_eq!(first.entity, Some(Entity { kind: EntityKind::Organization, name: "acme0".to_owned() }));
        assert_eq!(first.endpoint.as_ref().unwrap().name.as_str(), "fake");
        assert_eq!((first.desired_runners, first.max_runners), (3, 5));
        assert_eq!(first.updated_at.unwrap().to_string(), first.revision.as_str()[11..19]);
        assert!(Arc::ptr_eq(first.endpoint.as_ref().unwrap(), sets[3].endpoint.as_ref().unwrap()));

        let lingering = bench.garm.lingering().await.unwrap();
        let three = Lingering { deleted: 0, pending_delete: 0, total: 3 };
        assert_eq!(lingering.into_iter().collect::<Vec<_>>(), [(ScaleSetId(1), three)]);

        assert_eq!(bench.garm.read_set(ScaleSetId(1)).await.unwrap().unwrap().id, ScaleSetId(1));
        assert_eq!(bench.garm.read_set(ScaleSetId(999)).await.unwrap(), None);

        let metrics = bench.garm.metrics().await.unwrap();
        assert_eq!(bench.garm.incarnation().await.unwrap(), metrics.incarnation.unwrap());
        assert_eq!(bench.garm.goroutines().await.unwrap(), Goroutines { listeners: 4, workers: 4 });
        assert_eq!(bench.manager.count("POST /api/v1/auth/login"), 1, "one login serves all calls");
        assert_eq!(bench.manager.count("GET /api/v1/metrics-token"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn recorded_updates_return_the_changed_set() {
    for build in BUILDS {
        let bench = replay(build, &[("/api/v1/scalesets/2", "scaleset-update-disable")]);
        let set = bench.garm.set_enabled(ScaleSetId(2), Enablement::Disabled).await.unwrap();
        assert_eq!(set.enabled, Enablement::Disabled, "`enabled` is left out when false");
        assert_ne!(set.revision, Revision::new(""));
        let bench = replay(build, &[("/api/v1/scalesets/2", "scaleset-update-enable")]);
        let set = bench.garm.set_enabled(ScaleSetId(2), Enablement::Enabled).await.unwrap();
        assert_eq!(set.enabled, Enablement::Enabled);
        let requests = bench.manager.requests.lock().unwrap();
        let update = requests.last().unwrap();
        assert_eq!((update.method().as_str(), update.body().as_ref()), ("PUT", br#"{"enabled":true}"#.as_slice()));
        assert_eq!(update.headers()[header::CONTENT_TYPE], "application/json");
    }
}

#[tokio::test(start_paused = true)]
async fn recorded_refusal_of_an_update_has_no_effect() {
    for build in BUILDS {
        let bench = replay(build, &[("/api/v1/scalesets/999", "scaleset-update-unknown")]);
        let error = bench.garm.set_enabled(ScaleSetId(999), Enablement::Enabled).await.unwrap_err();
        let WriteError::NotApplied(failure) = error else { panic!("{error:?}") };
        assert_eq!(failure.kind, FailureKind::NotFound);
        assert!(failure.detail.starts_with("HTTP 404 Not Found: error fetching scale set"), "{}", failure.detail);
    }
}

#[tokio::test(start_paused = true)]
async fn uninitialised_manager_has_its_own_failure() {
    for build in BUILDS {
        let bench = replay(build, &[("/api/v1/auth/login", "login-before-first-run")]);
        let failure = bench.garm.scale_sets().await.unwrap_err();
        assert_eq!((failure.kind, failure.operation), (FailureKind::NotInitialised, Operation::Login));
        assert!(failure.detail.contains("garm-cli init"), "{}", failure.detail);
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_password_is_sent_once_per_cooldown() {
    let bench = replay(POST_FIX, &[("/api/v1/auth/login", "login-bad-password")]);
    let garm = &bench.garm;
    let (sets, instances, who) = tokio::join!(garm.scale_sets(), garm.lingering(), garm.controller());
    for failure in [sets.unwrap_err(), instances.unwrap_err(), who.unwrap_err()] {
        assert_eq!((failure.kind, failure.operation), (FailureKind::Unauthorized, Operation::Login));
        assert!(failure.detail.contains("check username and password"), "{}", failure.detail);
        assert!(!format!("{failure:?}").contains("hunter2"));
    }
    garm.scale_sets().await.unwrap_err();
    assert_eq!(bench.manager.lines(), ["POST /api/v1/auth/login"]);
    bench.clock.sleep(Span::secs(10)).await;
    garm.scale_sets().await.unwrap_err();
    assert_eq!(bench.manager.count("POST /api/v1/auth/login"), 2);
}

/// Takes only tokens that it issued after `revoked` requests.
fn revoking(revoked: usize) -> Bench {
    bench(move |request, serial| {
        if let Some(answer) = logged_in(request, serial) {
            return answer;
        }
        let taken = (revoked..1000)
            .any(|serial| bearer(request) == Some(&format!("Bearer {}", jwt(serial, START.plus(Span::hours(24))))));
        match (taken, request.uri().path()) {
            (false, _) => json(401, r#"{"error":"Authentication failed","details":""}"#),
            (true, "/api/v1/scalesets/5") => json(200, r#"{"id":5,"enabled":true,"updated_at":"x"}"#),
            (true, _) => json(200, "[]"),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn revoked_token_is_renewed_once_for_all_callers() {
    let bench = revoking(1);
    let garm = &bench.garm;
    let (sets, instances, again) = tokio::join!(garm.scale_sets(), garm.lingering(), garm.scale_sets());
    assert!(sets.unwrap().is_empty() && instances.unwrap().is_empty() && again.unwrap().is_empty());
    assert_eq!(bench.manager.count("POST /api/v1/auth/login"), 2, "{:?}", bench.manager.lines());
}

#[tokio::test(start_paused = true)]
async fn update_refused_for_its_token_is_sent_again() {
    let bench = revoking(1);
    let set = bench.garm.set_enabled(ScaleSetId(5), Enablement::Enabled).await.unwrap();
    assert_eq!((set.id, set.enabled), (ScaleSetId(5), Enablement::Enabled));
    assert_eq!(bench.manager.count("PUT /api/v1/scalesets/5"), 2);
}

#[tokio::test(start_paused = true)]
async fn token_refused_twice_is_an_error() {
    let bench = revoking(1000);
    let failure = bench.garm.scale_sets().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unauthorized);
    assert_eq!(bench.manager.lines().len(), 4, "login, list, login, list");
    let error = bench.garm.set_enabled(ScaleSetId(5), Enablement::Enabled).await.unwrap_err();
    assert!(matches!(error, WriteError::NotApplied(_)), "{error:?}");
}

/// The failure of the read of this kind.
async fn failed(garm: &GarmClient, operation: Operation) -> RequestFailure {
    let failure = match operation {
        Operation::ReadScaleSet => garm.read_set(ScaleSetId(1)).await.err(),
        Operation::Metrics => garm.metrics().await.err(),
        Operation::Goroutines => garm.goroutines().await.err(),
        Operation::Controller => garm.controller().await.err(),
        _ => garm.scale_sets().await.err(),
    };
    failure.unwrap()
}

#[tokio::test(start_paused = true)]
async fn refusal_has_its_kind_and_advice() {
    use FailureKind::{Forbidden, NotEnabled, NotFound, NotInitialised, Unauthorized};
    let (text, page, json) = ("text/plain", "404 page not found\n", "application/json");
    let not_authorized = r#"{"error":"Not Authorized","details":""}"#;
    let not_found = r#"{"error":"Not found","details":"Resource not found"}"#;
    let no_urls = r#"{"error":"urls_required","details":"Missing required URLs."}"#;
    for (operation, status, content_type, body, kind, words) in [
        (Operation::ListScaleSets, 401, text, "Unauthorized\n", Forbidden, "no administrator"),
        (Operation::ListScaleSets, 401, json, not_authorized, Unauthorized, "GitHub refused"),
        (Operation::Controller, 409, json, no_urls, NotInitialised, "--metadata-url"),
        // Not GARM's answer about an unknown set.
        (Operation::ReadScaleSet, 404, text, page, NotFound, "url right"),
        (Operation::ReadScaleSet, 404, json, not_found, NotFound, "url right"),
        (Operation::ReadScaleSet, 404, "text/html", "<html>nginx</html>", NotFound, "url right"),
        (Operation::Metrics, 404, text, page, NotEnabled, "[metrics]"),
        (Operation::Goroutines, 404, text, page, NotEnabled, "debug_server = true"),
    ] {
        let bench = always(answer(status, content_type, body));
        let failure = failed(&bench.garm, operation).await;
        assert_eq!((failure.kind, failure.operation), (kind, operation), "{body}");
        assert!(failure.detail.contains(words), "{}", failure.detail);
        assert!(bench.manager.count("POST /api/v1/auth/login") <= 1, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn token_is_renewed_before_it_expires() {
    let bench = bench(|request, serial| match request.uri().path() {
        "/api/v1/auth/login" => {
            let token = jwt(serial, START.plus(Span::mins(10)));
            json(200, &format!(r#"{{"token":"{token}"}}"#))
        }
        _ => json(200, "[]"),
    });
    bench.garm.scale_sets().await.unwrap();
    bench.clock.sleep(Span::mins(8)).await;
    bench.garm.scale_sets().await.unwrap();
    assert_eq!(bench.manager.count("POST /api/v1/auth/login"), 1);
    bench.clock.sleep(Span::mins(1)).await;
    bench.garm.scale_sets().await.unwrap();
    assert_eq!(bench.manager.count("POST /api/v1/auth/login"), 2);
}

#[tokio::test(start_paused = true)]
async fn lost_answer_to_an_update_is_unknown_and_not_retried() {
    for (lost, unknown) in [
        (broken(FailureKind::Timeout), true),
        (json(500, r#"{"error":"Server error","details":""}"#), true),
        (json(200, r#"{"id":1,"ena"#), true),
        (json(200, r#"{"id":77,"enabled":true}"#), true),
        (broken(FailureKind::Connect), false),
        (json(400, r#"{"error":"Bad Request","details":"no"}"#), false),
    ] {
        let bench = always(lost.clone());
        let error = bench.garm.set_enabled(ScaleSetId(1), Enablement::Enabled).await.unwrap_err();
        assert_eq!(matches!(error, WriteError::Unknown(_)), unknown, "{lost:?}");
        assert_eq!(bench.manager.count("PUT /api/v1/scalesets/1"), 1, "{lost:?}");
    }
    let without_login = bench(|_, _| broken(FailureKind::Timeout));
    let error = without_login.garm.set_enabled(ScaleSetId(1), Enablement::Enabled).await.unwrap_err();
    assert!(matches!(error, WriteError::NotApplied(_)), "{error:?}");
    assert_eq!(without_login.manager.count("PUT /api/v1/scalesets/1"), 0);
}

#[tokio::test(start_paused = true)]
async fn garbage_is_malformed() {
    for body in [
        "",
        "null garbage",
        "<html>hello</html>",
        r#"{"id":1}"#,
        r#"[{"name":"no id"}]"#,
        r#"[{"id":0}]"#,
        r#"[{"id":1},{"id":1,"enabled":true}]"#,
        r#"[{"id":"one"}]"#,
        &"[".repeat(100_000),
        &format!("[{{\"id\":1,\"x\":{}", "{\"a\":".repeat(100_000)),
    ] {
        let bench = always(json(200, body));
        assert_eq!(bench.garm.scale_sets().await.unwrap_err().kind, FailureKind::Malformed);
        assert_eq!(bench.garm.controller().await.unwrap_err().kind, FailureKind::Malformed);
        assert_eq!(bench.garm.goroutines().await.unwrap_err().kind, FailureKind::Malformed);
        assert_eq!(bench.garm.metrics().await.unwrap_err().kind, FailureKind::Malformed);
    }
    let bench = always(json(200, "null"));
    assert!(bench.garm.scale_sets().await.unwrap().is_empty(), "Go may send a nil list as null");
}

#[tokio::test(start_paused = true)]
async fn secrets_repeated_by_the_server_are_redacted() {
    const SPELT: [&str; 5] = ["hunter2", "hunt&#101;r2", "aHVudGVyMg==", "opaque-login-token", "secret.secret"];
    for echo in [
        r#"{"error":"hunter2","details":"{\"username\":\"admin\",\"password\":\"hunter2\"}"}"#,
        r#"{"error":"Bad Request","details":"password hunter2 aHVudGVyMg== is wrong"}"#,
        "you sent hunter2, that is hunt&#101;r2",
        "<html><body>password=hunter2</body></html>",
        r#""eyJzZWNyZXQi.secret.secret""#,
    ] {
        for status in [200, 400, 401, 409, 500] {
            let bench = bench(move |_, _| answer(status, "text/html", echo));
            let error = bench.garm.scale_sets().await.unwrap_err();
            assert_eq!(error.operation, Operation::Login);
            assert!(!SPELT.iter().any(|secret| error.detail.contains(secret)), "{}", error.detail);
        }
    }
    // Later answers: the token that was sent, and the password that was sent before.
    for status in [200, 400, 401, 500] {
        let bench = bench(move |request, _| {
            if request.uri().path() == "/api/v1/auth/login" {
                return json(200, r#"{"token":"opaque-login-token"}"#);
            }
            let sent = request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
            json(status, &format!(r#"{{"error":"{sent}","details":"hunter2","id":"opaque-login-token"}}"#))
        });
        let error = bench.garm.read_set(ScaleSetId(1)).await.unwrap_err();
        assert!(!SPELT.iter().any(|secret| error.detail.contains(secret)), "{}", error.detail);
    }
}

#[tokio::test(start_paused = true)]
async fn open_metrics_need_no_login() {
    let open = bench_with(MetricsAccess::Open, "http://garm:9997", |_, _| {
        answer(200, "text/plain", "process_start_time_seconds 1.5\n")
    });
    assert_eq!(open.garm.incarnation().await.unwrap(), Incarnation(Wall(1500)));
    assert_eq!(open.manager.lines(), ["GET /metrics"]);
}

#[tokio::test(start_paused = true)]
async fn metrics_fall_back_to_a_token_and_renew_it() {
    let closed = bench_with(MetricsAccess::Open, "http://garm:9997", |request, serial| {
        if let Some(answer) = logged_in(request, serial) {
            return answer;
        }
        // Requests: 0 open, 1 login, 2 metrics-token, 3 refused, 4 metrics-token, 5 taken.
        match bearer(request) {
            Some(_) if serial >= 5 => answer(200, "text/plain", "process_start_time_seconds 1.5\n"),
            Some(_) | None => answer(401, "application/json", read(PRE_FIX, "metrics-unauthenticated.txt")),
        }
    });
    assert!(closed.garm.metrics().await.is_ok());
    let metrics = closed.manager.lines().iter().filter(|line| line.contains("metrics")).cloned().collect::<Vec<_>>();
    let token = "GET /api/v1/metrics-token";
    assert_eq!(metrics, ["GET /metrics", token, "GET /metrics", token, "GET /metrics"]);
    closed.garm.metrics().await.unwrap();
    assert_eq!(closed.manager.lines().len(), 7, "the token is kept, and no request without a token is tried again");
}

#[tokio::test(start_paused = true)]
async fn path_prefix_is_kept() {
    let bench = bench_with(MetricsAccess::Token, "https://ci.example/garm/", |request, _| match request.uri().path() {
        "/garm/api/v1/auth/login" => json(200, r#"{"token":"opaque"}"#),
        "/garm/api/v1/scalesets" => json(200, "[]"),
        other => panic!("{other}"),
    });
    bench.garm.scale_sets().await.unwrap();
    assert_eq!(bench.garm.api_address("/ws/logs"), "https://ci.example/garm/api/v1/ws/logs");
    let requests = bench.manager.requests.lock().unwrap();
    assert!(!format!("{:?}", requests.last().unwrap().headers()).contains("opaque"));
    assert!(!format!("{:?}", bench.garm).contains("hunter2"));
}
