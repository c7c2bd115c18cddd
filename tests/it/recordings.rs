//! Recorded answers of two real GARM builds, through the real client, parsers and engine: every set's diagnosis, and
//! that a healthy fleet leads to no write.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode};
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::{Confidence, Decision, Diagnosis, Span, Wall};
use medic_http::{Bounds, Response, Transport, TransportError};
use medic_store::Store;
use scaleset_medic::config::{Depth, Sources, check};
use scaleset_medic::engine::assemble::{Carrier, Runtime, Shared, engines};
use scaleset_medic::engine::lease::Lease;
use scaleset_medic::engine::reconcile::{Engine, Reconciled};
use scaleset_medic::metrics::Metrics;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub(crate) const PRE_FIX: &str = "garm-2026-04-pre-fix";
pub(crate) const POST_FIX: &str = "garm-2026-07-post-fix";
pub(crate) const BUILDS: [&str; 2] = [PRE_FIX, POST_FIX];

pub(crate) fn folder(build: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings").join(build)
}

/// A recorded answer, by its file's name.
pub(crate) fn read(build: &str, file: &str) -> String {
    let path = folder(build).join("http").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Serves one recorded situation; writes are noted and refused.
struct Recorded {
    build: &'static str,
    situation: Mutex<Situation>,
    writes: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Situation {
    /// As in `metrics-NAME.txt` and `goroutines-NAME.txt`.
    name: &'static str,
    sets: Value,
}

fn body_of(build: &str, file: &str) -> Value {
    serde_json::from_str::<Value>(&read(build, file)).unwrap()["response"]["body"].clone()
}

fn situation(build: &'static str, name: &'static str) -> Situation {
    let list = if name == "healthy" { "scalesets-list-healthy.json" } else { "scalesets-list-stuck.json" };
    Situation { name, sets: body_of(build, list) }
}

impl Recorded {
    fn answer(&self, request: &http::Request<Bytes>) -> (u16, String) {
        let situation = self.situation.lock().unwrap().clone();
        if request.method() != Method::GET && request.uri().path() != "/api/v1/auth/login" {
            self.writes.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
            return (500, String::new());
        }
        match request.uri().path() {
            "/api/v1/auth/login" | "/api/v1/metrics-token" => (200, r#"{"token":"e30.e30.e30"}"#.to_owned()),
            "/api/v1/controller-info" => (200, body_of(self.build, "controller-info.json").to_string()),
            "/api/v1/scalesets" => (200, situation.sets.to_string()),
            "/api/v1/scalesets/1" => (200, situation.sets[0].to_string()),
            "/api/v1/instances" => (200, body_of(self.build, "instances-list.json").to_string()),
            "/metrics" => (200, read(self.build, &format!("metrics-{}.txt", situation.name))),
            "/debug/pprof/goroutine" => (200, read(self.build, &format!("goroutines-{}.txt", situation.name))),
            other => panic!("nothing was recorded for {other}"),
        }
    }
}

#[async_trait]
impl Transport for Recorded {
    async fn send(&self, request: http::Request<Bytes>, _: Bounds) -> Result<Response, TransportError> {
        let (status, body) = self.answer(&request);
        let status = StatusCode::from_u16(status).unwrap();
        Ok(Response { status, headers: http::HeaderMap::new(), body: Bytes::from(body) })
    }
}

struct Replay {
    recorded: Arc<Recorded>,
    engine: Engine,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readable {
    Metrics,
    MetricsAndGoroutines,
}

impl Replay {
    /// A medic that starts `age` after the recorded process.
    fn of(build: &'static str, first: Situation, readable: Readable, age: Span) -> Self {
        let started = started(build, first.name);
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(started.plus(age), 1.0));
        let recorded = Arc::new(Recorded { build, situation: Mutex::new(first), writes: Mutex::default() });
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        std::fs::write(&password, "secret").unwrap();
        let text = format!(
            "[run]\nmode = \"heal\"\nstate_dir = \"{}\"\n[[manager]]\nname = \"garm\"\nurl = \"http://garm.test\"\n\
             username = \"admin\"\npassword_file = \"{}\"\ndebug_server = {}\n",
            dir.path().display(),
            password.display(),
            readable == Readable::MetricsAndGoroutines
        );
        let config = check(&Sources::of_text("replay.toml", text), Depth::Files).unwrap().config;
        let store = Store::in_memory().unwrap();
        let lease = Arc::new(Lease::new(store.clone(), "replay".to_owned(), Arc::clone(&clock)));
        let metrics = Arc::new(Metrics::new(&[config.managers[0].name.clone()], config.run.mode).unwrap());
        let shared = Shared { store, lease, clock: Arc::clone(&clock), metrics, runtime: Runtime::default() };
        let transport: Arc<dyn Transport> = Arc::clone(&recorded) as _;
        let engine = engines(&config, &shared, &|_| Ok(Carrier { transport: Arc::clone(&transport), upgrader: None }))
            .unwrap()
            .remove(0);
        // The password is read at the first login only.
        std::mem::forget(dir);
        Self { recorded, engine, clock }
    }

    async fn passes(&mut self, count: u32) -> Reconciled {
        let mut last = self.engine.reconcile().await;
        for _ in 1..count {
            self.clock.sleep(Span::secs(2)).await;
            last = self.engine.reconcile().await;
        }
        last
    }

    fn serve(&self, situation: Situation) {
        *self.recorded.situation.lock().unwrap() = situation;
    }

    fn writes(&self) -> Vec<String> {
        self.recorded.writes.lock().unwrap().clone()
    }
}

fn started(build: &str, name: &str) -> Wall {
    let metrics = read(build, &format!("metrics-{name}.txt"));
    let line = metrics.lines().find(|line| line.starts_with("process_start_time_seconds")).unwrap();
    let seconds: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a date")]
    Wall((seconds * 1000.0) as u64)
}

fn diagnoses(pass: &Reconciled) -> Vec<(Diagnosis, Confidence)> {
    pass.status.sets.iter().map(|set| (set.finding.diagnosis, set.finding.confidence)).collect()
}

#[tokio::test(start_paused = true)]
async fn healthy_recordings_lead_to_no_write() {
    for build in BUILDS {
        for readable in [Readable::Metrics, Readable::MetricsAndGoroutines] {
            let mut replay = Replay::of(build, situation(build, "healthy"), readable, Span::secs(9));
            let pass = replay.passes(40).await;
            assert_eq!(diagnoses(&pass), [(Diagnosis::Listening, Confidence::Strong); 4], "{build} {readable:?}");
            assert!(pass.status.sets.iter().all(|set| set.decision == Decision::Leave), "{build} {readable:?}");
            assert_eq!(replay.writes(), Vec::<String>::new(), "{build} {readable:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stuck_sets_of_the_old_build_are_toggled_one_by_one() {
    for readable in [Readable::Metrics, Readable::MetricsAndGoroutines] {
        let mut replay = Replay::of(PRE_FIX, situation(PRE_FIX, "stuck"), readable, Span::secs(5));
        let pass = replay.passes(7).await;
        assert_eq!(diagnoses(&pass), [(Diagnosis::ConflictAbandoned, Confidence::Strong); 4], "{readable:?}");
        assert_eq!(replay.writes(), Vec::<String>::new(), "the manager is younger than the settle time");
        replay.passes(3).await;
        assert_eq!(replay.writes(), ["PUT /api/v1/scalesets/1"], "one canary, once");
    }
}

#[tokio::test(start_paused = true)]
async fn stuck_sets_of_the_new_build_are_left_to_retry() {
    for readable in [Readable::Metrics, Readable::MetricsAndGoroutines] {
        let mut replay = Replay::of(POST_FIX, situation(POST_FIX, "stuck"), readable, Span::secs(5));
        let pass = replay.passes(40).await;
        let confidence = match readable {
            // The recording does not change: only living workers prove that they retry.
            Readable::Metrics => Confidence::Weak,
            Readable::MetricsAndGoroutines => Confidence::Strong,
        };
        assert_eq!(diagnoses(&pass), [(Diagnosis::ConflictRetrying, confidence); 4], "{readable:?}");
        assert_eq!(replay.writes(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn toggled_set_is_back_on_the_old_build_after_expiry() {
    let mut replay = Replay::of(PRE_FIX, situation(PRE_FIX, "stuck"), Readable::Metrics, Span::secs(5));
    replay.passes(5).await;
    // Set 1 was toggled by hand ten seconds after the start.
    let mut after = situation(PRE_FIX, "after-stale-sessions-expired");
    after.sets[0]["updated_at"] = body_of(PRE_FIX, "scaleset-update-enable-stuck.json")["updated_at"].clone();
    replay.serve(after);
    let pass = replay.passes(2).await;
    let found: Vec<_> = diagnoses(&pass).into_iter().map(|(diagnosis, _)| diagnosis).collect();
    let abandoned = Diagnosis::ConflictAbandoned;
    assert_eq!(found, [Diagnosis::Listening, abandoned, abandoned, abandoned]);
}

#[tokio::test(start_paused = true)]
async fn restarted_medic_does_not_guess_which_set_is_back() {
    let after = situation(PRE_FIX, "after-stale-sessions-expired");
    let mut replay = Replay::of(PRE_FIX, after, Readable::MetricsAndGoroutines, Span::mins(2));
    let pass = replay.passes(30).await;
    assert_eq!(diagnoses(&pass), [(Diagnosis::Unknown, Confidence::Weak); 4]);
    assert_eq!(replay.writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn new_build_is_healthy_after_expiry() {
    let after = situation(POST_FIX, "after-stale-sessions-expired");
    let mut replay = Replay::of(POST_FIX, after, Readable::Metrics, Span::mins(1));
    let pass = replay.passes(3).await;
    assert_eq!(diagnoses(&pass), [(Diagnosis::Listening, Confidence::Strong); 4]);
}

#[tokio::test(start_paused = true)]
async fn set_without_enabled_is_disabled() {
    for build in BUILDS {
        let mut sets = situation(build, "healthy");
        sets.sets[1] = body_of(build, "scaleset-update-disable.json");
        let mut replay = Replay::of(build, sets, Readable::Metrics, Span::secs(9));
        let pass = replay.passes(20).await;
        assert_eq!(diagnoses(&pass)[1], (Diagnosis::Disabled, Confidence::Proof), "{build}");
        assert_eq!(replay.writes(), Vec::<String>::new(), "{build}");
    }
}
