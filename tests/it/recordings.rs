//! Recorded answers of two real GARM builds, through the real client, parsers and engine: every set's diagnosis, and what
//! is written.

use crate::bench::{self, ConfigText};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode};
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::{Confidence, Diagnosis, Span, Wall};
use medic_http::{Bounds, Response, Transport, TransportError};
use medic_store::Store;
use scaleset_medic::engine::reconcile::Engine;
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
    /// As in `metrics-NAME.txt` and `goroutines-NAME.txt`.
    name: &'static str,
    writes: Mutex<Vec<String>>,
}

impl Recorded {
    fn answer(&self, request: &http::Request<Bytes>) -> (u16, String) {
        if request.method() != Method::GET && request.uri().path() != "/api/v1/auth/login" {
            self.writes.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
            return (500, String::new());
        }
        let body =
            |file: &str| serde_json::from_str::<Value>(&read(self.build, file)).unwrap()["response"]["body"].take();
        let sets =
            || body(if self.name == "healthy" { "scalesets-list-healthy.json" } else { "scalesets-list-stuck.json" });
        let text = match request.uri().path() {
            "/api/v1/auth/login" | "/api/v1/metrics-token" => r#"{"token":"e30.e30.e30"}"#.to_owned(),
            "/api/v1/controller-info" => body("controller-info.json").to_string(),
            "/api/v1/scalesets" => sets().to_string(),
            "/api/v1/scalesets/1" => sets()[0].to_string(),
            "/api/v1/instances" => body("instances-list.json").to_string(),
            "/metrics" => read(self.build, &format!("metrics-{}.txt", self.name)),
            "/debug/pprof/goroutine" => read(self.build, &format!("goroutines-{}.txt", self.name)),
            other => panic!("nothing was recorded for {other}"),
        };
        (200, text)
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

/// A medic that starts `age` after the recorded process. `goroutines`: it reads them besides the metrics.
fn medic(recorded: &Arc<Recorded>, goroutines: bool, age: Span) -> (Engine, Arc<dyn Clock>) {
    let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(started(recorded).plus(age), 1.0));
    let dir = tempfile::tempdir().unwrap();
    let manager = format!("debug_server = {goroutines}");
    let managers = [("garm", "http://garm.test")];
    let text = ConfigText { mode: "heal", managers: &managers, manager: &manager, ..ConfigText::default() };
    let config = text.check(dir.path());
    let transport: Arc<dyn Transport> = Arc::clone(recorded) as _;
    let (store, metrics) = (Store::in_memory().unwrap(), bench::metrics(&config));
    let mut service = bench::Service::new(&config, &store, &clock, "replay", &transport, &metrics);
    // The password is read at the first login only.
    std::mem::forget(dir);
    (service.engines.remove(0), clock)
}

fn started(recorded: &Recorded) -> Wall {
    let metrics = read(recorded.build, &format!("metrics-{}.txt", recorded.name));
    medic_garm::metrics_text::parse(metrics.as_bytes()).unwrap().incarnation.unwrap().0
}

#[tokio::test(start_paused = true)]
async fn recorded_situations_lead_to_their_diagnoses_and_writes() {
    let (stuck, expired) = ("stuck", "after-stale-sessions-expired");
    let well = (Diagnosis::Listening, Confidence::Strong);
    let abandoned = (Diagnosis::ConflictAbandoned, Confidence::Strong);
    let unclear = (Diagnosis::Unknown, Confidence::Weak);
    let retrying = |confidence| (Diagnosis::ConflictRetrying, confidence);
    let toggle = &["PUT /api/v1/scalesets/1"][..];
    for (build, name, goroutines, age, sweeps, expected, writes) in [
        (PRE_FIX, "healthy", false, 9, 40, well, &[][..]),
        (PRE_FIX, "healthy", true, 9, 40, well, &[]),
        (POST_FIX, "healthy", false, 9, 40, well, &[]),
        (POST_FIX, "healthy", true, 9, 40, well, &[]),
        // The manager is younger than the settle time; then one canary is toggled, once.
        (PRE_FIX, stuck, false, 5, 7, abandoned, &[]),
        (PRE_FIX, stuck, true, 5, 7, abandoned, &[]),
        (PRE_FIX, stuck, false, 5, 10, abandoned, toggle),
        (PRE_FIX, stuck, true, 5, 10, abandoned, toggle),
        // The recording does not change: only living workers prove that they retry.
        (POST_FIX, stuck, false, 5, 40, retrying(Confidence::Weak), &[]),
        (POST_FIX, stuck, true, 5, 40, retrying(Confidence::Strong), &[]),
        // Which of the four sets listens cannot be told.
        (PRE_FIX, expired, true, 120, 30, unclear, &[]),
        (POST_FIX, expired, false, 60, 3, well, &[]),
    ] {
        let recorded = Arc::new(Recorded { build, name, writes: Mutex::default() });
        let (mut engine, clock) = medic(&recorded, goroutines, Span::secs(age));
        let mut last = engine.reconcile().await;
        for _ in 1..sweeps {
            clock.sleep(Span::secs(2)).await;
            last = engine.reconcile().await;
        }
        let what = format!("{build} {name}, goroutines: {goroutines}, {sweeps} sweeps");
        let found = last.status.sets.iter().map(|set| (set.finding.diagnosis, set.finding.confidence));
        assert_eq!(found.collect::<Vec<_>>(), [expected; 4], "{what}");
        assert_eq!(*recorded.writes.lock().unwrap(), writes, "{what}");
    }
}
